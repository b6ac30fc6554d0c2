"""The set-ups that the papers state, and how a run differs from them: its marks (docs/papers.md lists every setting).

Marks come from what was trained and from what the prepared files say of themselves, never from params.yaml, which may
have changed since; a network that starts from a component carries the component's marks too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.layers.schedule import DEPARTURES, Component, Phase, Variant
from pipeline.anatomy import labels
from pipeline.core import layout, params
from pipeline.loading import prepared
from pipeline.training.features import FeatureSource

MARKS = (
    *("weights", "steps", "settings", "borrowed", "width", "precision", "norms"),
    *("start", "data", "joints", "form", "parser", "labels", *DEPARTURES),
)
LARGE = 256  # rows of an image from which on DeepFashion's values stand in for those of a data set that no paper used


@dataclass(frozen=True)
class Setup:
    """What a paper's data were: DeepFashion's form (pipeline/datasets/deepfashion), and how fast its distance maps fall
    off, per pixel.
    """

    form: str
    kappa: float | None = None


PAPERS = {
    "SPIG": Setup("squash256"),
    "GFLA": Setup("squash256"),
    "PATN": Setup("crop176"),
    "Def-GAN": Setup("canvas256"),
    "VU-Net": Setup("canvas256"),
    "SPGNet": Setup("canvas256", -0.1),
    "SPT": Setup("canvas256"),
    "SGW-GAN": Setup("canvas256"),  # its text says 256 x 256 alone
}


def published(phase: Phase, dataset: str, height: int) -> dict[str, Any]:
    """The full schedule that the phase states for a data set of images `height` pixels high; where no paper used the
    data set, that for the nearest size of images which one did.
    """
    own = params.parent(dataset)  # a form of DeepFashion is trained as DeepFashion is
    of = own if own in phase.steps else "deepfashion" if height >= LARGE else "market1501"
    rate = phase.optimisers[phase.generators[0]].lr
    return {"dataset": of, "batch": phase.batch[of], "learning_rate": rate, "steps": phase.steps[of], "width": 1.0}


def resolve(block: Any, phase: Phase, dataset: str, height: int) -> tuple[Any, Phase]:
    """`block` (a training's `Params`) with the published value for every null, and the phase at its learning rate."""
    paper = published(phase, dataset, height)
    batch = paper["batch"] if block.batch is None else block.batch
    rate = paper["learning_rate"] if block.learning_rate is None else block.learning_rate
    factor = rate / paper["learning_rate"]
    rates = {name: replace(adam, lr=adam.lr * factor) for name, adam in phase.optimisers.items()}
    return replace(block, batch=batch, learning_rate=rate), replace(phase, optimisers=rates)


def of(entry: Component | Variant, block: Any, dataset: str, height: int, source: FeatureSource | None) -> set[str]:
    """How training an entry by a resolved block differs from its paper's, but for `of_parts` and its components."""
    return {*entry.departs, *_of_settings(block, entry.phase, dataset, height, source), *_of_inputs(entry, dataset)}


def _of_settings(block: Any, phase: Phase, dataset: str, height: int, source: FeatureSource | None) -> set[str]:
    paper = published(phase, dataset, height)
    unmoved = not block.augment and paper["dataset"] in phase.augment
    differs = {
        "weights": source is not None and source.stands_in,
        "steps": block.steps != paper["steps"],
        "settings": (block.batch, block.learning_rate) != (paper["batch"], paper["learning_rate"]) or unmoved,
        "borrowed": params.parent(dataset) != paper["dataset"],
        "width": block.width != 1,
        "precision": block.precision != "fp32",
        "start": block.start is not None,
    }
    return {mark for mark, applies in differs.items() if applies}


def _of_inputs(entry: Component | Variant, dataset: str) -> set[str]:
    found, paper = set(prepared.marks(dataset)), PAPERS.get(entry.paper)
    if paper is None:
        return found
    if prepared.said(layout.images(dataset)).get("form", paper.form) != paper.form:
        found.add("form")
    if entry.needs_parsing:
        parsing = prepared.said(layout.parsing(dataset))
        if parsing["parsing_source"] != "files":  # no paper's own parser is here: its label maps come as files
            found.add("parser")
        if not labels.tells(parsing.get("made_in", "lip-20"), entry.labels):
            found.add("labels")
    if entry.limb_maps and float(prepared.said(layout.distance_maps(dataset))["kappa"]) != paper.kappa:
        found.add("settings")
    return found


def of_parts(networks: Iterable[nn.Module], parts: int, published: int = 1) -> set[str]:
    """{"norms"} if batch norms in train mode see a batch in another number of parts than published; else nothing."""
    norms = (one for network in networks for one in network.modules() if isinstance(one, _BatchNorm))
    return {"norms"} if parts != published and any(norm.training for norm in norms) else set()
