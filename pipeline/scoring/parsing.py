"""Score a component that predicts the target's parsing, as SPGNet's stage one does, by the stored parsing."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from models.variants import COMPONENTS, Batch
from pipeline.core import console, layout, schema
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints
from pipeline.metrics import OF_PARSING
from pipeline.metrics.bootstrap import bootstrap_interval
from pipeline.metrics.parsing_iou import LABELS, label_counts
from pipeline.metrics.stream import Score
from pipeline.scoring import checkpoint, judge, protocol
from pipeline.scoring.pairs import Split, open_split


class Scored(NamedTuple):
    scores: list[dict]  # of schema.SCORES
    pairs: pa.Table  # of judge.pair_rows


def counts(network: nn.Module, split: Split, batch: int, what: str) -> np.ndarray:
    """`label_counts` of each pair (P, 60): what the network predicts for the target, and what is stored of it.

    network: Batch without its target -> logits (B, 20, H, W). Raises UserError, naming `what`, if one is not finite.
    """
    rows = np.zeros((len(split.data), 3 * LABELS), np.float32)

    def predict(given: Batch) -> Tensor:
        logits = network(given)
        return torch.where(logits.isfinite().all(1), logits.argmax(1), LABELS).to(torch.uint8)

    with console.progress(f"score {split.name}", len(split.data)) as advance:
        for some, predicted in checkpoint.run(predict, batch, False, split.data):
            if (predicted == LABELS).any():
                raise UserError(f"{what}: predicts values that are not finite; the training diverged, train again")
            truth = split.data.batch(some).target_labels
            rows[some] = label_counts(predicted.cpu().numpy(), truth.cpu().numpy())
            advance(len(some))
    return rows


def score(
    dataset: str, component: str, step: int, where: torch.device, batch: int, bootstrap: int, seed: int
) -> Scored:
    """A checkpoint of a component on the test pairs that the reference lists, by every metric of OF_PARSING."""
    folder = layout.checkpoints(dataset, component)
    network, meta = checkpoints.load(folder, step)
    what, reference = str(checkpoints.path(folder, step)), protocol.read(dataset)
    checkpoint.require_size(meta, reference.described, what)
    split = open_split(dataset, "test", where, reference, COMPONENTS[component].labels)
    rows = counts(network.to(where), split, batch, what)
    influences, totals = {}, {}
    for name, metric in OF_PARSING.items():
        value, influence = metric.of_set(rows, {}, None)
        influences[name + schema.INFLUENCE] = influence
        _, low, high, n, excluded = bootstrap_interval(value + influence, None, bootstrap, seed=seed)
        totals[name] = Score(value, low, high, n, excluded, ())
    return Scored(
        judge.score_rows(totals, reference, split.name, step, component, meta["marks"], bootstrap),
        judge.pair_rows(split, influences, step),
    )
