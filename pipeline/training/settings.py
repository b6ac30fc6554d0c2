"""The settings of whatever is trained: blocks `train.D.FAMILY` and `pretrain.D.COMPONENT` of params.yaml."""

from dataclasses import dataclass
from typing import Literal

from models.variants import FAMILIES, Component, Variant
from pipeline.core.settings import BATCH, COUNT, SEED, device_setting, gpus_setting, setting


@dataclass(frozen=True)
class Params:
    """A trained variant or component."""

    seed: int = setting("of weights, batches and noise", **SEED)
    steps: int = setting("optimiser steps", **COUNT)
    checkpoint_every: int = setting("steps between two checkpoints, each of which is scored", **COUNT)
    batch: int | None = setting("images or pairs a step; null: the paper's, at this size of images", None, **BATCH)
    width: float = setting("of the networks; 1: the published number of channels", 1.0, exclusiveMinimum=0, maximum=4)
    learning_rate: float | None = setting(
        "the generator's; the other networks' keep their published ratio to it; null: the paper's",
        None,
        exclusiveMinimum=0,
        maximum=10,
    )
    augment: bool = setting("move training images at random, for the data sets where the paper does", True)
    device: str = device_setting()
    gpus: int = gpus_setting("that share each batch (another number trains anew)")
    precision: Literal["fp32", "bf16"] = setting("bf16: mixed precision (autocast)", "bf16")
    accumulate: int = setting("micro-batches a step: less memory, the same step but for batch norms", 1, **BATCH)
    compile: bool = setting("torch.compile, where there is a compiler", False)
    resident: bool | Literal["auto"] = setting(
        "true: all images are decoded once and kept; false: read batch by batch; auto: as memory allows", "auto"
    )
    start: str | None = setting(
        "a file of weights to start from, marked in every table: a run's checkpoint, or what `repose export --what "
        "model` wrote; null: random ones",
        None,
        minLength=1,
    )
    start_sha256: str | None = setting(
        "the SHA-256 of that file: a change of it is noticed here", None, pattern="^[0-9a-f]{64}$"
    )
    tracker: Literal["none", "tensorboard", "dvclive"] = setting(
        "who else gets the losses that the .jsonl has, in a folder beside it; decides no result", "none"
    )


@dataclass(frozen=True)
class FeatureParams(Params):
    """One whose losses look at features of a published network."""

    features: Literal["squeezenet1_1"] | None = setting(
        "the network; null: the paper's, vgg19 or vgg16; squeezenet1_1: a small stand-in, marked", None
    )
    missing_weights: Literal["stop", "seeded"] = setting(
        "where its weights cannot be had: stop, or random features, marked in every table", "stop"
    )


@dataclass(frozen=True)
class FloorParams:
    """A variant without training."""

    seed: int = setting("shown in the tables; nothing is drawn", **SEED)


def kind_of(*entries: Component | Variant) -> type[Params] | type[FloorParams]:
    """The dataclass of the block that these entries share: a component's own, or that of a family's variants."""
    if all(entry.phase is None for entry in entries):
        return FloorParams
    return FeatureParams if any(entry.features for entry in entries) else Params


def kind_of_family(family: str) -> type[Params] | type[FloorParams]:
    """The dataclass of the block `train.D.FAMILY`."""
    return kind_of(*next(module for module in FAMILIES if module.__name__ == f"models.{family}").VARIANTS)
