"""Score every checkpoint of a variant, or a folder of images from elsewhere, on the test pairs.

python -m pipeline score --dataset D --variant V
Reads   runs/D/V/checkpoints, data/D/reference (which pairs, metrics and networks, the real images' statistics),
        runs/D/detector/checkpoints, data/D/images, data/D/keypoints.parquet, data/D/pairs.parquet; for a variant that
        needs human parsing, data/D/parsing: the generator is given the source's, and the target's only if it is one of
        the paper's rows that are given it
Writes  reports/scores/D/V/
          scores.parquet    a row for each step, split and metric: value, bootstrap 95 % interval, protocol, marks
          pairs.parquet     a row for each step and pair, a column for each metric that has a value per pair, and a
                            column METRIC:influence for each that is no plain mean: how much the pair moves the value
          samples.parquet   pictures of the last checkpoint's first `samples` test pairs, and of the few that each
                            checkpoint fails on most (`pipeline.scoring.failures`); none if `samples` is 0
          figures.parquet   the last checkpoint's figures for the report (docs/figures.md); none if `samples` is 0
          network.json      the generator's cost (`pipeline.scoring.cost`), and how it was trained

python -m pipeline score --dataset D --images FOLDER --name "My method"    (more: add --help)
Scores images that another program made; writes scores, pairs and samples to reports/outside/.

One pass over the pairs feeds all metrics; memory does not grow with their number, and no value depends on `batch`.
Every image is judged as the 8-bit picture that would be saved, and pairs are matched by pair_index, never by order.
FID, KID, IS and parsing-miou are computed on the test pairs only. A run that was stopped goes on after the last
checkpoint that it finished.

Marks say how a number differs from the paper's set-up: `weights`, `steps`, `settings`, `width` and `data` come from
training; `pairs` means fewer test pairs than the list has (`reference.D.test_pairs`); `jpeg`, that images from
elsewhere are JPEGs; `metric-weights` means that the metric's own network has random weights because the published ones
were missing.
"""

import json
import shutil
from dataclasses import asdict, dataclass

import pyarrow as pa
import torch

from models.variants import VARIANTS
from pipeline.core import console, layout, params, resume, schema, store
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.digests import code_of
from pipeline.core.errors import UserError
from pipeline.figures import for_report
from pipeline.loading import checkpoints
from pipeline.loading.devices import device
from pipeline.scoring import checkpoint, cost
from pipeline.scoring.pairs import open_split
from pipeline.scoring.protocol import SPLITS, open_protocol


@dataclass(frozen=True)
class Params:
    batch: int
    seed: int
    bootstrap: int
    samples: int
    device: str


def run(dataset: str, variant: str) -> None:
    block = params.block(Params, "score", dataset)
    folder, work = layout.checkpoints(dataset, variant), layout.work("score", dataset, variant)
    steps = checkpoints.steps(folder)
    if not steps:
        raise UserError(
            f"{folder}: no checkpoint; run: python -m pipeline train --dataset {dataset} --variant {variant}"
        )
    where = device(block.device)
    protocol = open_protocol(dataset, where)
    parsing = VARIANTS[params.variant_of(variant)].needs_parsing
    made_from = [
        {**asdict(block), "batch": None, "device": str(where), "torch": torch.__version__},
        checkpoints.meta(folder),
        protocol.reference.digest,
        *(store.parts(layout.parsing(dataset)) if parsing else []),
    ]
    code = code_of("score", dataset, variant)
    splits = []  # loaded when the first checkpoint needs them
    finished = []
    for step in steps:
        first = None if not block.samples else block.samples if step == steps[-1] else 0
        state = work / f"{step:07d}-{resume.stamp(code, *made_from, first, checkpoints.path(folder, step))[:32]}"
        finished.append(state)
        if state.is_dir():
            console.say(f"{variant} step {step}: scored before")
            continue
        console.say(f"{variant} step {step}")
        splits = splits or [open_split(dataset, name, where, protocol.reference, parsing) for name in SPLITS]
        scored = checkpoint.score(
            dataset, variant, step, splits, protocol, block.batch, block.bootstrap, block.seed, first
        )
        with atomic_directory(state) as partial:
            scored.write(partial)

    outputs = (("scores", layout.scores), ("pairs", layout.pair_scores), ("samples", layout.samples))
    for name, path in outputs:
        table = pa.concat_tables([store.read_table(state / f"{name}.parquet") for state in finished])
        store.write_table(path(dataset, variant), table.combine_chunks(), table.schema.remove_metadata())
    # Always drawn anew: it is quick.
    figures = for_report.rows(dataset, variant, steps[-1], where) if block.samples else []
    store.write_table(layout.figures(dataset, variant), figures, schema.FIGURES)
    network = json.dumps(cost.described(folder, variant, where), indent=1, sort_keys=True, ensure_ascii=False)
    with atomic_file(layout.network(dataset, variant)) as partial:
        partial.write_text(network + "\n", encoding="utf-8")
    for old in set(work.iterdir()) - set(finished):
        shutil.rmtree(old)
