"""SPGNet tested in eval mode, and as its released code does: `python -m benchmarks.batch_statistics --project DIR`.

The released code's eval() does nothing: batch norms use each test batch's own statistics, and noise stays on. Prints,
for the last checkpoint of spgnet in the project folder DIR and all test pairs, what that does to the scores, and how
far an image moves (mean absolute difference, of 255) when the pairs come in another order, which changes its
neighbours in the batch and its noise, and when only the seed of the noise changes.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.core import layout
from pipeline.loading import arrays, checkpoints, devices
from pipeline.loading.arrays import PairData
from pipeline.loading.pixels import as_bytes
from pipeline.metrics.psnr import psnr
from pipeline.metrics.ssim import ssim


def released_eval(generator: nn.Module) -> None:
    """The released code's eval mode: batch norms use the statistics of each test batch, and noise stays on. The running
    statistics stay what they were.
    """
    generator.eval()
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.track_running_stats = False


@torch.no_grad()
def images(generator: nn.Module, data: PairData, batch: int, order: torch.Tensor, seed: int) -> np.ndarray:
    """Generated images (P, H, W, 3) uint8 in the order of the pairs, made in batches of pairs taken in `order`."""
    torch.manual_seed(seed)
    made = np.empty((len(data), data.height, data.width, 3), np.uint8)
    for rows in order.split(batch):
        made[rows.numpy()] = as_bytes(generator(data.batch(rows).without_target()).image.float()).cpu().numpy()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path.cwd())
    parser.add_argument("--dataset", default="synthetic")
    options = parser.parse_args()
    os.chdir(options.project)
    data = arrays.load_pairs(options.dataset, "test", devices.device("auto"), label_set="cihp-20")
    folder = layout.checkpoints(options.dataset, "spgnet")
    step = checkpoints.steps(folder)[-1]
    generator, _ = checkpoints.load(folder, step)
    generator.to(data.device)
    target = as_bytes(data.pictures(data.pairs[:, 1])).cpu().numpy()
    straight = torch.arange(len(data))
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(len(data)))
    print(f"spgnet, step {step}, {len(data)} test pairs of {options.dataset}\n")
    print("| how | batch | SSIM | PSNR | moved by another order | by another seed |\n|---|---|---|---|---|---|")
    for name, mode, batch in (
        ("eval mode", nn.Module.eval, 32),
        ("test batch", released_eval, 32),
        ("test batch", released_eval, 4),
    ):
        mode(generator)
        first, *others = (
            images(generator, data, batch, order, seed).astype(np.float32)
            for order, seed in ((straight, 0), (shuffled, 0), (straight, 1))
        )
        moved = [np.abs(other - first).mean() for other in others]
        made = first.astype(np.uint8)
        scores = [float(np.mean(metric(made, target))) for metric in (ssim, psnr)]
        print(f"| {name} | {batch} | {scores[0]:.4f} | {scores[1]:.2f} | {moved[0]:.2f} | {moved[1]:.2f} |")


if __name__ == "__main__":
    main()
