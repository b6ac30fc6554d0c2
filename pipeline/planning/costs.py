"""What the jobs of params.yaml take, from what was measured or counted before: never a figure out of the air.

Core-hours, memory and disk of the data stages and of scoring were measured on one core (stages.csv says where), most of
them at 128x64, and are scaled by the number of images or pairs and, where their work is the pixels', by these.

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
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.core import environment, layout, needs, params, seals, store
from pipeline.planning import faults

SMALL, LARGE = 128 * 64, 256 * 256  # pixels of the two sizes that were measured
RATE = 0.14e12  # operations a second of one core at the published width: 0.11 to 0.18 in four families
BY_WIDTH = 1.4  # exponent
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
    pixels: int

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
    return Size(images, training, min(given) if given else None, height * width)


def _measured(job: str, row: dict[str, str], of: Size, times: int = 1) -> Cost:
    """Of a data stage or of scoring."""
    count = of.of(row["unit"])
    if count is None:
        return Cost(job, None, None, None, None, f"not known before the {row['unit']}s are counted")
    share = of.pixels / SMALL
    hours = float(row["core_ms"]) * count * times * (share if row["by_pixels"] == "1" else 1) / 3.6e6
    kib = float(row["kib"] or 0) * count * (share if row["kib_by_pixels"] == "1" else 1)
    gib = float(row["mib"]) / 1024 if row["mib"] else None
    return Cost(job, hours, None, gib, kib / 1024 if row["kib"] else None, "measured" if share == 1 else "scaled")


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


def costs(values: dict[str, Any]) -> Iterator[Cost]:
    """Of the jobs that take long, in the order in which they run."""
    rows = {(row["stage"], row["case"]): row for row in _table("stages")}
    for dataset in values["datasets"]:
        of = size(values, dataset)
        wanted = needs.wanted(values, dataset)
        data = [("index", "")]
        if ("fetch", params.parent(dataset)) in rows:
            data.insert(0, ("fetch", params.parent(dataset)))
        source = values["keypoints"][dataset]["source"]
        data += [("keypoints", source)] if ("keypoints", source) in rows else []
        source = values["parsing"][dataset]["source"]
        data += [("parsing", source)] if ("parsing", source) in rows and needs.is_parsed(values, dataset) else []
        data += [("pairs", "")]
        data += [("pseudo_labels", "")] * (wanted["spt_parsing"] + wanted["spt_parsing_balanced"])
        data += [("distance_maps", "")]
        for stage, case in data:
            yield _measured(f"{stage} {dataset}", rows[stage, case], of)
        trained = faults.trainings(values, dataset)
        for one in trained:
            yield _training(one, of.pixels)
        yield _measured(f"reference {dataset}", rows["reference", ""], of)
        for one in (one for one in trained if one.job.startswith("train ")):
            checkpoints = -(-one.settings["steps"] // one.settings["checkpoint_every"])
            job = one.job.replace("train", "score", 1)
            parts = [_measured(job, rows["score", case], of, checkpoints) for case in ("", "inception")]
            if parts[0].core_hours is not None:
                hours = sum(part.core_hours for part in parts)
                yield Cost(job, hours, None, parts[0].gib, None, "scaled")
            else:
                yield parts[0]
