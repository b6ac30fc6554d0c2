"""Score the parsing of the target that a component predicts, on the test pairs: SPGNet's stage one.

Reads   runs/D/C/checkpoints, data/D/reference (which pairs), data/D/images, data/D/keypoints.parquet,
        data/D/pairs.parquet, data/D/parsing: the network is given the source's, and judged by the target's
Writes  reports/scores/D/C/
          scores.parquet    a row for each metric of the last checkpoint, from which variants start: value, bootstrap
                            95 % interval, protocol, marks, as of a variant
          pairs.parquet     a row for each test pair, a column METRIC:influence for each metric

target-parsing-miou, and -fg without the background: for each label that some target shows, the pixels where both the
prediction and the stored parsing have it by those where either has it, summed over all pairs; the mean over labels. The
labels are those of the set in which the network works (docs/labels.md). It predicts the likeliest label of each pixel,
and no value depends on `batch`. Components: spatn, spatn_no_distance; of one that is not trained
the files have no rows.
"""

from dataclasses import dataclass

import pyarrow as pa

from pipeline.core import console, layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.core.settings import BATCH, RESAMPLES, SEED, device_setting, setting
from pipeline.loading import checkpoints

SCORED = ("spatn", "spatn_no_distance")  # forward: Batch -> logits (B, 20, H, W) of the target's labels


@dataclass(frozen=True)
class Params:
    batch: int = setting("pairs that are scored at a time; no value depends on it", 16, **BATCH)
    seed: int = setting("of the bootstrap", 0, **SEED)
    bootstrap: int = setting("resamples of the 95 % interval", 2000, **RESAMPLES)
    device: str = device_setting()


def run(dataset: str, component: str) -> None:
    if component not in SCORED:
        raise UserError(f"{component}: predicts no parsing that a score is known for; scored: {', '.join(SCORED)}")
    block = params.block(Params, "score_components", dataset)
    steps = checkpoints.steps(layout.checkpoints(dataset, component))
    if steps:
        from pipeline.loading.devices import device
        from pipeline.scoring import parsing

        where = device(block.device)
        scores, pairs = parsing.score(dataset, component, steps[-1], where, block.batch, block.bootstrap, block.seed)
    else:
        console.say(f"{component}: not trained, so there is nothing to score")
        scores, pairs = [], pa.schema(schema.PAIR_SCORE_KEYS).empty_table()
    store.write_table(layout.scores(dataset, component), scores, schema.SCORES)
    store.write_table(layout.pair_scores(dataset, component), pairs, pairs.schema)
    for row in scores:
        console.say(f"  {row['metric']} {row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f}), {row['n']} pairs")
