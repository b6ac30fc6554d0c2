"""What SPGNet's stage one has to beat: the source's parsing, taken for the target's as it is.

    python -m benchmarks.target_parsing --project DIR --dataset D > table.md

Reads the test pairs and the parsing of the project folder DIR. IoU is over all pixels of all pairs together, the truth
being the stored parsing of the target; mIoU is the mean over the labels that the truth has. What trained networks reach
by the same definition is scored by the stage score_components.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.parser import confusion, iou
from models.variants import Batch
from pipeline.loading import arrays, devices
from pipeline.loading.arrays import PairData

BATCH = 16


@torch.no_grad()
def count(foresee: Callable[[Batch], Tensor], data: PairData) -> np.ndarray:
    """Confusion (20, 20) over all pairs, rows the target's stored labels. foresee: pairs without their target ->
    labels (B, H, W) of any integer type.
    """
    total = np.zeros((20, 20), dtype=np.int64)
    for rows in torch.arange(len(data)).split(BATCH):
        batch = data.batch(rows)
        found = foresee(batch.without_target()).cpu().numpy()
        total += confusion(batch.target_labels.cpu().numpy(), found)
    return total


def line(name: str, counts: np.ndarray) -> str:
    scores = iou(counts)
    whole, people = np.nanmean(scores), np.nanmean(scores[1:])
    return f"| {name} | {whole:.3f} | {people:.3f} | {np.trace(counts) / counts.sum():.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    options = parser.parse_args()
    os.chdir(options.project)
    where = devices.device("auto")
    data = arrays.load_pairs(options.dataset, "test", where, label_set="cihp-20")
    print(f"{len(data)} test pairs of {options.dataset}, {data.height} x {data.width}\n")
    print("| target's parsing | mIoU | without background | pixels right |\n|---|---|---|---|")
    print(line("the source's, as it is", count(lambda batch: batch.source_labels, data)))


if __name__ == "__main__":
    main()
