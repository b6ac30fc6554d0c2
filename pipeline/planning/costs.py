"""What the jobs of params.yaml take, from what was measured or counted before: never a figure out of the air.

Core-hours, memory and disk of the data stages and of scoring were measured on one core (stages.csv says where), and are
taken at the nearest size that was measured, times the number of images or pairs and what their work goes with
(work_by): the pixels; the aspect, width over height, where images are resized to one height first; or the number of
training images, each of which is compared with all. Inception takes any image alike, where it can be had.

A training's come from trainings.csv (benchmarks/training.md). core_full and core_quarter: pairs a second on one core at
128x64, the published width with VGG19 or VGG16 features and a quarter of it with SqueezeNet's. Where an entry was not
measured its counted operations (tera, 10^12 a step) are taken at the rate that the measured ones reach. Time goes with
the pixels (6.5 to 11.5 times from 128x64 to 256x256, which are 8 times as many) and with width^1.4 (1.2 to 1.7 in four
families). H100 hours and memory are counted, not measured: the longer of device_ms and host_ms a step, and gib, of the
nearer size; both grow with the pixels of a batch, but for the host's part.
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import log
from pathlib import Path
from typing import Any

from pipeline.core import environment, layout, needs, params, seals, store
from pipeline.core.errors import UserError
from pipeline.fetching import download
from pipeline.planning import faults

SMALL, LARGE = 128 * 64, 256 * 256  # pixels of the two sizes that were measured
RATE = 0.14e12  # operations a second of one core at the published width: 0.11 to 0.18 in four families
BY_WIDTH = 1.4  # exponent
RANKED = 12_936  # training images of which the ranking of pseudo_labels was measured
CONTROLS, CONTROLLED = 8, 200  # pictures that `reference` scores of a pair, and of how many pairs by default
IMAGES = {
    "market1501": (32_668, 12_936, 12_000),
    "deepfashion": (52_712, 48_674, 8_570),
}  # all, to train on, test pairs
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Cost:
    """Of a job. None: not known. basis: measured, scaled (from what was measured), counted, or why it is not known."""

    job: str
    core_hours: float | None
    gpu_hours: float | None  # on one H100
    gib: float | None  # peak memory
    disk_mib: float | None
    basis: str


@dataclass(frozen=True)
class Size:
    """Of a data set: None where it is known only after it was fetched."""

    images: int | None
    training: int | None
    pairs: int | None
    height: int
    width: int

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def of(self, unit: str) -> int | None:
        return {"image": self.images, "training image": self.training}.get(unit, self.pairs)


@cache
def _table(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / f"{name}.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def size(values: dict[str, Any], dataset: str) -> Size:
    """By what was fetched; before that by what is published, rendered, or lies in the user's folder."""
    height, width = faults.size_of(values, dataset)
    of, block = params.parent(dataset), values["fetch"][dataset]
    images, training, pairs = IMAGES.get(of, (None, None, None))
    if of == "synthetic":
        training = block["train_identities"] * block["views"]
        images = training + block["test_identities"] * block["views"]
    elif of == "folder" and block["path"] and environment.path(block["path"]).is_dir():
        walked = os.walk(environment.path(block["path"]))
        images = sum(name.lower().endswith(PICTURES) for _, _, names in walked for name in names)
        training = round(images * (1 - block["test_share"]))
    source = layout.raw(dataset) / "source.json"
    if source.exists():
        counts = seals.read_json(source).get("images", {})
        images, training = sum(one["count"] for one in counts.values()), counts.get("train", {}).get("count")
    if pairs is None and layout.pairs(dataset).exists():
        pairs = store.read_table(layout.pairs(dataset), columns=["split"]).column("split").to_pylist().count("test")
    limits = values["pairs"][dataset].get("test_pairs"), values["reference"][dataset].get("test_pairs")
    given = [one for one in (pairs, *limits) if one is not None]
    return Size(images, training, min(given) if given else None, height, width)


def _row(stage: str, case: str, of: Size) -> dict[str, str] | None:
    """Of a stage, measured at the size whose number of pixels is nearest; None where it was not measured."""
    found = [row for row in _table("stages") if (row["stage"], row["case"]) == (stage, case)]
    return min(found, key=lambda row: abs(log(_share(row, of))), default=None)


def _share(row: dict[str, str], of: Size) -> float:
    """The pixels of a data set's images in those of a row's."""
    height, width = map(int, row["size"].split("x"))
    return of.pixels / (height * width)


def _measured(job: str, row: dict[str, str], of: Size, times: float = 1) -> Cost:
    """Of a data stage or of scoring."""
    count = of.of(row["unit"])
    if count is None:
        return Cost(job, None, None, None, None, f"not known before the {row['unit']}s are counted")
    share = _share(row, of)
    height, width = map(int, row["size"].split("x"))
    work = {"pixels": share, "aspect": of.width * height / (of.height * width), "training": count / RANKED}
    hours = float(row["core_ms"]) * count * times * work.get(row["work_by"], 1) / 3.6e6
    kib = float(row["kib"] or 0) * count * (share if row["kib_by_pixels"] == "1" else 1)
    gib = float(row["mib"]) / 1024 if row["mib"] else None
    return Cost(job, hours, None, gib, kib / 1024 if row["kib"] else None, "measured" if share == 1 else "scaled")


def _and(cost: Cost, hours: float) -> Cost:
    """With more hours of a core, that are scaled."""
    return cost if cost.core_hours is None else replace(cost, core_hours=cost.core_hours + hours, basis="scaled")


def _passes(values: dict[str, Any], dataset: str) -> tuple[int, int]:
    """Networks of Inception's size that see each image that is scored, and each training image: none that is skipped
    because it cannot be had.
    """
    nets = {use.net for use in faults.uses(values, dataset) if use.job == f"reference {dataset}" and _sees(use, values)}
    return len(nets & {"inception", "inception_v3"}), len(nets & {"inception_v3"})


def _sees(use: faults.Use, values: dict[str, Any]) -> bool:
    try:
        return use.without != "skip" or bool(faults.sources(use.net, values))
    except (download.Unavailable, UserError):
        return False


def _training(one: faults.Training, pixels: int) -> Cost:
    row = next((row for row in _table("trainings") if row["entry"] == one.name), None)
    if row is None:
        return Cost(one.job, None, None, None, None, "not measured")
    width = one.settings.get("width", 1.0)
    large = pixels > 2 * SMALL
    batch = one.settings.get("batch") or int(row["batch_256" if large else "batch_128"])
    items, share = one.settings["steps"] * batch, pixels / SMALL
    full, quarter = (float(row[f"core_{which}"] or 0) for which in ("full", "quarter"))
    near_full = width >= 0.5 or not quarter
    if full and near_full:
        seconds, basis = width**BY_WIDTH / full, "scaled"
    elif quarter:
        seconds, basis = (4 * width) ** BY_WIDTH / quarter, "scaled"
    else:
        seconds, basis = width**BY_WIDTH * float(row["tera_128"]) * 1e12 / int(row["batch_128"]) / RATE, "counted"
    near = "256" if large else "128"
    more = batch * pixels / (int(row[f"batch_{near}"]) * (LARGE if large else SMALL))
    ms = max(float(row[f"device_ms_{near}"]) * more, float(row[f"host_ms_{near}"]))
    gib = float(row[f"gib_{near}"]) * more * max(width, 0.25)
    return Cost(one.job, items * seconds * share / 3600, one.settings["steps"] * ms / 3.6e6, gib, None, basis)


def _scoring(values: dict[str, Any], dataset: str, of: Size) -> Iterator[Cost]:
    """`reference`, with its controls, and `score` of every run and its checkpoints, floors first."""
    passes, training = _passes(values, dataset)
    hours = float(_row("inception", "", of)["core_ms"]) / 3.6e6  # an image
    rows = {case: _row("score", case, of) for case in ("", "floors")}
    pairs = of.pairs or 0
    first = _measured(f"reference {dataset}", _row("reference", "", of), of)
    shown = CONTROLS * min(values["reference"][dataset].get("controls", CONTROLLED), pairs)
    of_controls = _measured("", rows["floors"], of, shown / pairs).core_hours if shown else 0
    yield _and(first, of_controls + hours * (passes * (pairs + shown) + training * (of.training or 0)))
    trained = {one.job.partition(" ")[2]: one for one in faults.trainings(values, dataset)}
    for _, family, run in sorted(params.runs(values), key=lambda one: one[1] != "floors"):
        one = trained.get(f"{dataset} {run}")
        times = -(-one.settings["steps"] // one.settings["checkpoint_every"]) if one else 1
        row = rows["floors" if family == "floors" else ""]
        yield _and(_measured(f"score {dataset} {run}", row, of, times), hours * passes * pairs * times)
    for name in values.get("methods", ()):
        yield _and(_measured(f"score_images {dataset} {name}", rows["floors"], of), hours * passes * pairs)


def costs(values: dict[str, Any]) -> Iterator[Cost]:
    """Of the jobs that take long, in the order in which they run."""
    for dataset in values["datasets"]:
        of = size(values, dataset)
        wanted = needs.wanted(values, dataset)
        fetched = values["fetch"][dataset].get("protocol", params.parent(dataset))
        data = [("fetch", fetched), ("index", ""), ("keypoints", values["keypoints"][dataset]["source"])]
        data += [("parsing", values["parsing"][dataset]["source"])] * needs.is_parsed(values, dataset)
        data += [("pairs", ""), ("distance_maps", "")]
        for stage, case in data:
            if row := _row(stage, case, of):
                yield _measured(f"{stage} {dataset}", row, of)
        ranking = _measured("", _row("pseudo_labels", "ranking", of), of).core_hours or 0
        for rule, component in (("equation", "spt_parsing"), ("balanced", "spt_parsing_balanced")):
            if wanted[component]:
                yield _and(_measured(f"pseudo_labels {dataset} {rule}", _row("pseudo_labels", "", of), of), ranking)
        for one in faults.trainings(values, dataset):
            yield _training(one, of.pixels)
        for name in values.get("methods", ()):
            yield Cost(f"draw {dataset} {name}", None, None, None, None, "another program's")
        yield from _scoring(values, dataset, of)
