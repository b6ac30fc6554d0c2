"""Score every checkpoint of a variant, or a folder of images from elsewhere, on the test pairs.

repose score --dataset D --variant V
Reads   runs/D/V/checkpoints, data/D/reference (which pairs, metrics and networks, the real images' statistics),
        runs/D/detector/checkpoints, data/D/images, data/D/keypoints.parquet, data/D/pairs.parquet; for a variant that
        needs human parsing, data/D/parsing: the generator is given the source's, and the target's only if it is one of
        the paper's rows that are given it
Writes  reports/scores/D/V/
          scores.parquet    a row for each step, split and metric: value, bootstrap 95 % interval, protocol, marks
          pairs.parquet     a row for each step and pair: the SHA-256 of the image's pixels, a column for each metric
                            that has a value per pair, and a column METRIC:influence for each that is no plain mean: how
                            much the pair moves the value
          samples.parquet   pictures of the last checkpoint's first `samples` test pairs, and of the few that each
                            checkpoint fails on most (`pipeline.scoring.failures`); none if `samples` is 0
          figures.parquet   the last checkpoint's figures for the report (docs/figures.md); none if `samples` is 0
          network.json      the generator's cost (`pipeline.scoring.cost`), and how it was trained

repose score --dataset D --images FOLDER --name "My method"    (more: add --help)
Scores images that another program made; writes scores, pairs and samples to reports/outside/.

One pass over the pairs feeds all metrics; memory does not grow with their number, and no value depends on `batch`, nor
on `gpus`, the processes that share the pairs, if each has as many threads.
Every image is judged as the 8-bit picture that would be saved, and pairs are matched by pair_index, never by order.
FID, KID, IS and parsing-miou are computed on the test pairs only. A run that was stopped goes on after the last
checkpoint that it finished.

Marks say how a number differs from the paper's set-up: most come from training (docs/papers.md lists them); `data` and
`joints` from the reference, as does `pairs`, other test pairs than the whole published list; `lpips` from LPIPS by
another network than AlexNet; `jpeg` and `source` mean that images from elsewhere are JPEGs, or mostly the pairs'
sources; `metric-weights`, that the metric's own network has random weights because the published ones were missing.
"""

import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import torch

from models.variants import VARIANTS
from pipeline.core import console, layout, params, resume, schema, seals, store
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.digests import code_of
from pipeline.core.errors import UserError
from pipeline.core.settings import BATCH, RESAMPLES, SEED, device_setting, gpus_setting, setting
from pipeline.figures import for_report
from pipeline.loading import checkpoints, parallel
from pipeline.loading.devices import device
from pipeline.scoring import checkpoint, cost, protocol
from pipeline.scoring.pairs import open_split
from pipeline.tables import row


@dataclass(frozen=True)
class Params:
    batch: int = setting("pairs that are generated and scored at a time; no value depends on it", 16, **BATCH)
    seed: int = setting("of the bootstrap", 0, **SEED)
    bootstrap: int = setting("resamples of a mean's 95 % interval", 2000, **RESAMPLES)
    samples: int = setting("pairs whose images the report shows", 8, minimum=0, maximum=1000)
    device: str = device_setting()
    gpus: int = gpus_setting("that generate and judge a share of the pairs each; no value depends on their number")


def _is_whole(rows: Path) -> bool:
    """Whether a checkpoint was scored before, and its scores are as they were written. Damaged ones go."""
    if not rows.is_dir():
        return False
    try:
        seals.check_all(rows)
    except UserError as error:
        console.say(f"{str(error).partition(';')[0]}; scored again")
        return False
    return True


def run(dataset: str, variant: str) -> None:
    block = params.block(Params, "score", dataset)
    folder, work = layout.checkpoints(dataset, variant), layout.work("score", dataset, variant)
    meta, steps = checkpoints.meta(folder), checkpoints.steps(folder)
    if not steps:
        raise UserError(f"{folder}: no checkpoint; run: repose train --dataset {dataset} --variant {variant}")
    where = device(block.device)
    label_set = VARIANTS[params.variant_of(variant)].labels
    code = code_of("score", dataset, variant)
    made_from = [
        {**asdict(block), "batch": None, "gpus": None, "device": str(where), "torch": torch.__version__},
        meta,
        protocol.read(dataset).sha256,
        *(store.parts(layout.parsing(dataset)) if label_set else []),
    ]
    # Pictures are kept of the last checkpoint's first pairs, and of those that any checkpoint fails on.
    first = {step: block.samples * (step == steps[-1]) if block.samples else None for step in steps}
    finished = {
        step: work / f"{step:07d}-{resume.stamp(code, *made_from, first[step], checkpoints.path(folder, step))[:32]}"
        for step in steps
    }
    with parallel.joined(where) if block.gpus > 1 else nullcontext(parallel.alone(where)) as group:
        missing = [step for step, rows in finished.items() if not group.rank and not _is_whole(rows)]
        missing = group.gather(missing)[0]
        if len(missing) < len(steps):
            console.say(f"{variant}: {len(steps) - len(missing)} of {len(steps)} checkpoints scored before")
        if missing:
            opened = protocol.open_protocol(dataset, where)
            splits = [open_split(dataset, name, where, opened.reference, label_set) for name in protocol.SPLITS]
        for step in missing:
            console.say(f"{variant} step {step}")
            scored = checkpoint.score(
                dataset, variant, step, splits, opened, block.batch, block.bootstrap, block.seed, first[step], group
            )
            if group.rank == 0:
                with atomic_directory(finished[step]) as partial:
                    scored.write(partial)
    if group.rank:
        return

    outputs = (("scores", layout.scores), ("pairs", layout.pair_scores), ("samples", layout.samples))
    for name, path in outputs:
        table = pa.concat_tables([store.read_table(state / f"{name}.parquet") for state in finished.values()])
        store.write_table(path(dataset, variant), table.combine_chunks(), table.schema.remove_metadata())
    # Always drawn anew: it is quick.
    figures = for_report.rows(dataset, variant, steps[-1], where) if block.samples else []
    store.write_table(layout.figures(dataset, variant), figures, schema.FIGURES)
    network = cost.described(folder, steps[-1], variant, where)
    with atomic_file(layout.network(dataset, variant)) as partial:
        partial.write_text(seals.json_text(network), encoding="utf-8")
    for old in set(work.iterdir()) - set(finished.values()):
        shutil.rmtree(old, ignore_errors=True)  # a lock that a kill left is no folder
    for line in row.lines(layout.scores(dataset, variant)):
        console.say(line)
