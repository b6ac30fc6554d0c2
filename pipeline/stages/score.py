"""Score every checkpoint of a variant, or a folder of images from elsewhere, on the test pairs.

python -m pipeline score --dataset D --variant V
Reads   runs/D/V/checkpoints, data/D/reference (which pairs, metrics and networks, the real images' statistics),
        runs/D/detector/checkpoints, data/D/images, data/D/keypoints.parquet, data/D/pairs.parquet; for a variant that
        needs human parsing, data/D/parsing: the generator is given the source's, never the target's.
Writes  reports/scores/D/V/
          scores.parquet    a row for each step, split and metric: value, bootstrap 95 % interval, protocol, marks
          pairs.parquet     a row for each step and pair, a column for each metric that has a value per pair, and a
                            column METRIC:influence for each that is no plain mean: how much the pair moves the value
          samples.parquet   as images, the last checkpoint's first `samples` test pairs and the few that each checkpoint
                            fails on most (`pipeline.scoring.failures`); none if `samples` is 0
          figures.parquet   the last checkpoint's figures for the report (docs/figures.md); none if `samples` is 0
          network.json      the generator's cost (`pipeline.scoring.cost`), and how it was trained

python -m pipeline score --dataset D --images FOLDER --name "My method"    (more: add --help)
Scores images that another program made; writes the same files to reports/outside/.

One pass over the pairs feeds all metrics; memory does not grow with their number, and no value depends on `batch`.
Every image is judged as the 8-bit picture that would be saved, and pairs are matched by pair_index, never by order.
FID, KID, IS and parsing-miou are computed on the test pairs only. A run that was stopped goes on after the last
checkpoint it finished.

Marks say how a number differs from the paper's set-up: `weights`, `steps`, `settings`, `width` and `data` come from
training; `pairs` means fewer test pairs than the list has (`reference.D.test_pairs`); `jpeg`, that images from
elsewhere are JPEGs; `metric-weights` means that the metric's own network has random weights because the published ones
were missing.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from models.variants import VARIANTS, Batch
from pipeline.anatomy import pose
from pipeline.core import console, layout, params, schema, store
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.digests import code_of, sha256
from pipeline.core.errors import UserError
from pipeline.figures import for_report
from pipeline.formats import pictures
from pipeline.loading import checkpoints
from pipeline.loading.arrays import PairData
from pipeline.loading.devices import device
from pipeline.loading.pixels import as_bytes
from pipeline.metrics import METRICS
from pipeline.metrics.networks import in_batches
from pipeline.metrics.pckh import Joints, pckh
from pipeline.metrics.pose_mask import pose_masks
from pipeline.metrics.stream import PairScores, Score
from pipeline.scoring import cost, failures
from pipeline.stages import reference
from pipeline.stages.reference import Detector, Reference, images_of, joints_of


@dataclass(frozen=True)
class Params:
    batch: int
    seed: int
    bootstrap: int
    samples: int
    device: str


@dataclass(frozen=True)
class Protocol:
    """What all scores of a data set share."""

    reference: Reference
    networks: Mapping[str, Any]
    detector: Detector


@dataclass(frozen=True)
class Split:
    """The pairs of one split that are scored, and what is known of their targets."""

    name: str
    data: PairData
    masks: dict[int, np.ndarray]  # pose masks by row of `data.images`: (H, W) uint8 {0, 1}
    labels: dict[int, np.ndarray]  # parsing by row: (H, W) uint8 LIP-20 ids; empty where no metric asks for it

    @property
    def pair_ids(self) -> list[int]:
        return self.data.pair_index.tolist()


def open_protocol(dataset: str, where: torch.device) -> Protocol:
    """The networks and the detector that the reference was made with. Raises UserError if they are no longer there."""
    made = reference.read(dataset)
    detector = reference.open_detector(dataset, where)
    if {"name": detector.name, **detector.provenance} != made.described["detector"]:
        raise UserError(f"{layout.reference(dataset)}: made with another joint detector; run reference again")
    return Protocol(made, reference.open_networks(made.described["networks"], where), detector)


def open_split(dataset: str, name: str, where: torch.device, made: Reference, parsing: bool = False) -> Split:
    data = reference.load_scored_pairs(dataset, name, where, made, parsing)
    targets = data.pairs[:, 1].unique()
    masks = pose_masks(*joints_of(data, targets), data.height, data.width)  # once, not again for every checkpoint
    labels = reference.read_labels(dataset, data) if name == "test" else {}
    return Split(name, data, dict(zip(targets.tolist(), masks, strict=True)), labels)


def generate(
    generator: nn.Module, data: PairData, batch: int, what: str, parsing: bool = False
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield pair ids and generated images (n, H, W, 3) uint8, `batch` pairs at a time.

    parsing: the generator is given the true target's (`Variant.given_target_parsing`).

    The generator runs on a fixed number of pairs whatever `batch` is, so that no image depends on it. Raises UserError
    if it returns a value that is not finite, naming `what`.
    """

    def forward(*inputs: Tensor) -> Tensor:
        return generator(Batch(target=None, **dict(zip(given, inputs, strict=True)))).image.float()

    for rows in torch.arange(len(data)).split(batch):
        conditions = vars(data.batch(rows).without_target(parsing))
        given = {name: value for name, value in conditions.items() if value is not None}
        images = in_batches(forward, data.device, *given.values())
        if not images.isfinite().all():
            raise UserError(f"{what}: generates values that are not finite; the training diverged, train again")
        yield data.pair_index[rows].tolist(), as_bytes(images).cpu().numpy()


def score_images(
    split: Split,
    generated: Iterable[tuple[Sequence[int], np.ndarray]],
    protocol: Protocol,
    bootstrap: int,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, Score]]:
    """Score any method's images: (pair ids, images (n, H, W, 3) uint8 RGB) in any order and grouping, each pair once.

    Returns the values of each pair, in the order of the split, and the scores. Raises UserError for an unknown, missing
    or repeated pair and for images of another size than the targets.
    """
    names, real = reference.scored(protocol.reference.described["metrics"], split.name), protocol.reference.real
    scores = PairScores(split.pair_ids, names, protocol.networks, real)
    embeddings = real.get(f"embeddings-{split.name}")
    position = {pair_id: row for row, pair_id in enumerate(split.pair_ids)}
    with console.progress(f"score {split.name}", len(split.data)) as advance:
        for pair_ids, images in generated:
            unknown = [pair_id for pair_id in pair_ids if pair_id not in position]
            if unknown:
                raise UserError(
                    f"scores: pair {unknown[0]} is not a {split.name} pair; remove its image or fix its name"
                )
            images = np.array(images, order="C")  # a copy: torch refuses the negative strides of an image read as BGR
            sources, targets = split.data.pairs[[position[pair_id] for pair_id in pair_ids]].unbind(1)
            scores.update(
                pair_ids,
                images,
                images_of(split.data, targets),
                np.stack([split.masks[row] for row in targets.tolist()]),
                protocol.detector.find(images),
                joints_of(split.data, targets),
                np.stack([split.labels[row] for row in targets.tolist()]) if split.labels else None,
                None if embeddings is None else (embeddings[sources.cpu().numpy()], embeddings[targets.cpu().numpy()]),
            )
            advance(len(pair_ids))
    values, totals = scores.compute(bootstrap, seed)
    special = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in scores.counts.items() if count)
    console.say(f"  {split.name}: {len(split.data)} pairs" + (f"; {special}" if special else ""))
    return values, totals


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def score_rows(
    scores: Mapping[str, Score], protocol: Protocol, split: str, step: int, variant: str, marks: Sequence[str]
) -> list[dict]:
    """Rows of `schema.SCORES`. `marks` are the training's; the metric network's own is added here."""
    described, rows = protocol.reference.described, []
    if split == "test" and described["pairs"][split]["limit"] is not None:
        marks = [*marks, "pairs"]
    for name, score in scores.items():
        metric = METRICS[name]
        redetected = "joints" in metric.needs
        rows.append(
            {
                "dataset": described["dataset"],
                "variant": variant,
                "step": step,
                "split": split,
                "metric": name,
                "protocol": metric.protocol + (f" by {protocol.detector.name}" if redetected else ""),
                "value": _number(score.value),
                "low": _number(score.low),
                "high": _number(score.high),
                "n": score.n,
                "excluded": score.excluded,
                "ceiling": described["ceilings"][split].get(name),
                "higher_is_better": metric.higher_is_better,
                "marks": [*marks, *(f"metric-{mark}" for mark in score.marks)],
            }
        )
    return rows


def pair_rows(split: Split, values: Mapping[str, np.ndarray], step: int) -> pa.Table:
    """`schema.PAIR_SCORE_KEYS`, then the columns `values`; a pair without a value (no head box, say) is null."""
    table = reference.pair_table(split.data, split.name)
    table = table.add_column(0, "step", pa.array([step] * len(table), pa.int64()))
    for name, column in values.items():
        table = table.append_column(name, pa.array(column, pa.float64(), from_pandas=True))
    return table


def subset(data: PairData, positions: Sequence[int]) -> PairData:
    """The pairs at some positions, over the same images."""
    return replace(data, pairs=data.pairs[list(positions)], pair_index=data.pair_index[list(positions)])


def shown(data: PairData, values: Mapping[str, np.ndarray], first: int) -> dict[int, list[str]]:
    """The pairs to keep pictures of: position -> why, ascending. The `first` ones, and the worst by each criterion.

    values: as `score_images` returns them.
    """
    joints = Joints(*joints_of(data, data.pairs[:, 1]))
    why: dict[int, list[str]] = {position: [failures.SAMPLE] for position in range(min(first, len(data)))}
    for metric, positions in failures.worst(values, hopeless=pckh(joints, joints).degenerate).items():
        for position in positions:
            why.setdefault(position, []).append(metric)
    return dict(sorted(why.items()))


def sample_rows(
    dataset: str, data: PairData, why: Mapping[int, Sequence[str]], generated: Iterable[np.ndarray], step: int
) -> list[dict]:
    """Rows of `schema.SAMPLES`: source and target as stored, the generated image (H, W, 3) uint8 RGB as PNG.

    why: by position of the pair, as `shown` gives it; `generated`, in its order.
    """
    stored = store.RandomReader(layout.images(dataset), ["image"])
    rows = []
    for (position, reasons), image in zip(why.items(), generated, strict=True):
        source, target = data.pairs[position].tolist()
        joints, valid = joints_of(data, data.pairs[[position], 1])
        rows.append(
            {
                "step": step,
                "pair_index": int(data.pair_index[position]),
                "source_id": data.ids[source],
                "target_id": data.ids[target],
                "why": list(reasons),
                "source": stored[data.ids[source]]["image"],
                "target": stored[data.ids[target]]["image"],
                "generated": {"bytes": pictures.encode_png(image), "path": None},
                "target_keypoints": pose.from_array(joints[0], valid[0]),
            }
        )
    return rows


def score_checkpoint(
    dataset: str, variant: str, step: int, splits: Sequence[Split], protocol: Protocol, block: Params, samples: int
) -> tuple[list[dict], list[pa.Table], list[dict]]:
    """Rows of scores, pairs and samples of one checkpoint: its first `samples` test pairs, and where it fails."""
    folder = layout.checkpoints(dataset, variant)
    generator, meta = checkpoints.load(folder, step)
    what = str(checkpoints.path(folder, step))
    described = protocol.reference.described
    if (meta["height"], meta["width"]) != (described["height"], described["width"]):
        sizes = [f"{size['height']} x {size['width']}" for size in (meta, described)]
        raise UserError(f"{what}: trained for images of {sizes[0]}, the data set has {sizes[1]}; train again")
    told = VARIANTS[params.variant_of(variant)].given_target_parsing
    scores, pairs, kept = [], [], []
    for split in splits:
        generator.to(split.data.device)

        def images(data: PairData) -> Iterator[tuple[list[int], np.ndarray]]:
            return generate(generator, data, block.batch, what, told)

        values, totals = score_images(split, images(split.data), protocol, block.bootstrap, block.seed)
        scores += score_rows(totals, protocol, split.name, step, variant, meta["marks"])
        pairs.append(pair_rows(split, values, step))
        if split.name == "test" and block.samples:
            # Which pairs are worst is known only now; generating these few again keeps no picture of all the others.
            why = shown(split.data, values, samples)
            again = (image for _, some in images(subset(split.data, list(why))) for image in some)
            kept = sample_rows(dataset, split.data, why, again, step)
    return scores, pairs, kept


def _finished(state: Path, scores: list[dict], pairs: Sequence[pa.Table], samples: list[dict]) -> None:
    with atomic_directory(state) as partial:
        store.write_table(partial / "scores.parquet", scores, schema.SCORES)
        table = pa.concat_tables(pairs, promote_options="default")  # val lacks the columns of FID
        store.write_table(partial / "pairs.parquet", table, table.schema)
        store.write_table(partial / "samples.parquet", samples, schema.SAMPLES)


def run(dataset: str, variant: str) -> None:
    block = params.block(Params, "score", dataset)
    folder = layout.checkpoints(dataset, variant)
    meta = checkpoints.meta(folder)
    steps = checkpoints.steps(folder)
    if not steps:
        raise UserError(
            f"{folder}: no checkpoint; run: python -m pipeline train --dataset {dataset} --variant {variant}"
        )

    where = device(block.device)
    protocol = open_protocol(dataset, where)
    settings = {**asdict(block), "batch": None, "device": str(where), "meta": meta, "torch": torch.__version__}
    settings["code"] = code_of("score", dataset, variant)
    parsing = VARIANTS[params.variant_of(variant)].needs_parsing
    if parsing:
        settings["parsing"] = [sha256(part) for part in store.parts(layout.parsing(dataset))]
    splits: list[Split] = []  # loaded when the first checkpoint needs them
    states = []
    for step in steps:
        samples = block.samples if step == steps[-1] else 0
        parts = [settings, samples, protocol.reference.digest, sha256(checkpoints.path(folder, step))]
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        state = layout.work("score", dataset, variant) / f"{step:07d}-{key[:32]}"
        states.append(state)
        if state.is_dir():
            console.say(f"{variant} step {step}: scored before")
            continue
        console.say(f"{variant} step {step}")
        if not splits:
            splits = [open_split(dataset, name, where, protocol.reference, parsing) for name in reference.SPLITS]
        _finished(state, *score_checkpoint(dataset, variant, step, splits, protocol, block, samples))

    outputs = (("scores", layout.scores), ("pairs", layout.pair_scores), ("samples", layout.samples))
    for name, path in outputs:
        table = pa.concat_tables([store.read_table(state / f"{name}.parquet") for state in states])
        columns = table.schema.remove_metadata()
        store.write_table(path(dataset, variant), table.combine_chunks(), columns)
    # Always drawn anew: it is quick.
    figures = for_report.rows(dataset, variant, steps[-1], where) if block.samples else []
    store.write_table(layout.figures(dataset, variant), figures, schema.FIGURES)
    network = json.dumps(cost.described(folder, variant, where), indent=1, sort_keys=True, ensure_ascii=False)
    with atomic_file(layout.network(dataset, variant)) as partial:
        partial.write_text(network + "\n", encoding="utf-8")
    for old in set(layout.work("score", dataset, variant).iterdir()) - set(states):
        shutil.rmtree(old)
