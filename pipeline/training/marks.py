"""The schedules that the papers state, and how a run's settings differ from them."""

from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq

from models.layers.schedule import Phase
from pipeline.core import layout, store
from pipeline.training.features import FeatureSource

MARKS = ("weights", "steps", "settings", "width", "data")
PUBLISHED_SETS = ("market1501", "deepfashion")
FALLBACK = "market1501"  # its published values stand in for those of a data set that no paper used


def published(phase: Phase, dataset: str) -> dict[str, Any]:
    """The full schedule that the phase states for a data set (that of `FALLBACK` where no paper used the data set)."""
    of = dataset if dataset in phase.steps else FALLBACK
    rate = phase.optimisers[phase.generators[0]].lr
    return {"dataset": of, "batch": phase.batch[of], "learning_rate": rate, "steps": phase.steps[of], "width": 1.0}


def resolve(block: Any, phase: Phase, dataset: str) -> tuple[Any, Phase]:
    """`block` (a training's `Params`) with the published value for every null, and the phase at its learning rate."""
    paper = published(phase, dataset)
    batch = paper["batch"] if block.batch is None else block.batch
    rate = paper["learning_rate"] if block.learning_rate is None else block.learning_rate
    factor = rate / paper["learning_rate"]
    rates = {name: replace(adam, lr=adam.lr * factor) for name, adam in phase.optimisers.items()}
    return replace(block, batch=batch, learning_rate=rate), replace(phase, optimisers=rates)


def of_settings(block: Any, phase: Phase, dataset: str, source: FeatureSource | None) -> list[str]:
    """How the settings of a resolved block differ from the paper's: names from MARKS."""
    paper, found = published(phase, dataset), []
    if source is not None and source.stands_in:
        found.append("weights")
    if block.steps < paper["steps"]:
        found.append("steps")
    if block.batch != paper["batch"] or block.learning_rate != paper["learning_rate"]:
        found.append("settings")
    if block.width != 1:
        found.append("width")
    return found


def of_data(dataset: str) -> list[str]:
    """["data"], or [] for the complete images of a data set that the papers use, with its published joints."""
    images = pq.read_schema(store.parts(layout.images(dataset))[0]).metadata or {}
    joints = pq.ParquetFile(layout.keypoints(dataset)).read_row_group(0, columns=["keypoint_source"])
    annotated = joints["keypoint_source"][0].as_py() == "annotations"
    return [] if dataset in PUBLISHED_SETS and b"partial" not in images and annotated else ["data"]
