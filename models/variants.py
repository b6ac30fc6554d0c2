"""The one list of what can be trained and scored. A training engine needs nothing else from `models`.

An engine's step, for one phase:

    losses, output = objective.generator_losses(batch, features)   # phase.discriminators frozen meanwhile
    sum(losses.values()).backward(); step the optimiser of every network in phase.generators
    losses = objective.discriminator_losses(batch, output)         # {} where there is no adversary: skip
    sum(losses.values()).backward(); step the optimiser of every network in phase.discriminators
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from torch import Tensor, nn

from models import detector, reference, spig
from models.blocks import Batch, Output, PatchDiscriminator
from models.features import Features
from models.losses import LossWeights

__all__ = [
    "COMPONENTS",
    "VARIANTS",
    "Adam",
    "Batch",
    "Component",
    "Objective",
    "Output",
    "Phase",
    "Variant",
]


class Objective(Protocol):
    """How a phase's networks are judged on a batch. Every loss term is a scalar, weighted, and named."""

    def networks(self) -> dict[str, nn.Module]:
        """Everything that a checkpoint must hold, by the names that Phase uses."""

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], Any]:
        """Terms to minimise over Phase.generators, and what `discriminator_losses` needs. No network is
        changed, except that spectral and batch norms update their buffers in train mode.
        """

    def discriminator_losses(self, batch: Batch, output: Any) -> dict[str, Tensor]:
        """Terms to minimise over Phase.discriminators; no gradient reaches the generators. {} without an
        adversary.
        """


@dataclass(frozen=True)
class Adam:
    lr: float
    betas: tuple[float, float]


@dataclass(frozen=True)
class Phase:
    """One optimisation phase. `weights` are handed to the objective; `batch` and `steps` are keyed by data
    set.
    """

    generators: tuple[str, ...]
    discriminators: tuple[str, ...]
    optimisers: Mapping[str, Adam]  # by network; constant learning rates
    weights: Mapping[str, float]  # by loss term
    batch: Mapping[str, int]
    steps: Mapping[str, int]


@dataclass(frozen=True)
class Component:
    """A network trained once and shared. `build(height, width, scale)`; `objective(network, height, width,
    scale, weights)`.

    `into` names the generator's submodule that takes the trained weights, None for a network used by itself.
    """

    name: str
    paper: str
    build: Callable[[int, int, float], nn.Module]
    objective: Callable[[nn.Module, int, int, float, Mapping[str, float]], Objective]
    phase: Phase
    needs_features: bool
    into: str | None


@dataclass(frozen=True)
class Variant:
    """One row of the tables. `build(height, width, scale)` gives the generator, whose forward is

        (source, source_joints, source_valid, target_joints, target_valid) -> Output

    `objective(generator, height, width, scale, weights)` adds what else training needs, a discriminator for
    one. Both are None, with `phase`, for a reference row: it is not trained, but fitted if its generator has
    `fit(image batches)`.
    """

    name: str
    paper: str
    row: str
    build: Callable[[int, int, float], nn.Module]
    components: tuple[str, ...] = ()
    needs_parsing: bool = False
    needs_features: bool = False
    objective: Callable[[nn.Module, int, int, float, Mapping[str, float]], Objective] | None = None
    phase: Phase | None = None


# Published: Adam (0, 0.99), 0.001 constant, batch 8 (Market-1501) and 6 (DeepFashion), two stages. Ours:
# the number of steps, which the paper does not give, and the discriminator's tenth of the generator's rate,
# which is GFLA's.
SPIG_ADAM = Adam(lr=0.001, betas=(0.0, 0.99))
SPIG_BATCH = {"market1501": 8, "deepfashion": 6}

COMPONENTS: dict[str, Component] = {
    component.name: component
    for component in (
        Component(
            name="spig_flow",
            paper="SPIG",
            build=spig.PartFlow,
            objective=lambda flow, height, width, scale, weights: spig.FlowObjective(flow, weights),
            phase=Phase(
                generators=("flow",),
                discriminators=(),
                optimisers={"flow": SPIG_ADAM},
                weights={"sampling": 20.0},  # GFLA's for its flow stage
                batch=SPIG_BATCH,
                steps={"market1501": 50_000, "deepfashion": 50_000},
            ),
            needs_features=True,
            into="flow",
        ),
        Component(
            name="detector",
            paper="ours",
            build=lambda height, width, scale: detector.JointDetector(scale),
            objective=lambda net, height, width, scale, weights: detector.DetectorObjective(net, weights),
            phase=Phase(
                generators=("detector",),
                discriminators=(),
                optimisers={"detector": Adam(lr=0.002, betas=(0.9, 0.999))},
                weights={"heatmap": 100.0},
                batch={"market1501": 32, "deepfashion": 16},
                steps={"market1501": 20_000, "deepfashion": 20_000},
            ),
            needs_features=False,
            into=None,
        ),
    )
}


def spig_objective(
    generator: nn.Module, height: int, width: int, scale: float, weights: Mapping[str, float]
) -> Objective:
    return spig.SpigObjective(generator, PatchDiscriminator(height, width, scale), weights)


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("copy_source", "none", "reference", lambda height, width, scale: reference.CopySource()),
        Variant(
            "mean_image",
            "none",
            "reference",
            lambda height, width, scale: reference.MeanImage(height, width),
        ),
        Variant(
            name="spig",
            paper="SPIG",
            row="Table 3, Full",
            build=spig.SPIG,
            components=("spig_flow",),
            needs_features=True,
            objective=spig_objective,
            phase=Phase(
                generators=("generator",),
                discriminators=("discriminator",),
                optimisers={
                    "generator": SPIG_ADAM,
                    "discriminator": replace(SPIG_ADAM, lr=0.1 * SPIG_ADAM.lr),
                },
                weights=asdict(LossWeights()),
                batch=SPIG_BATCH,
                steps={"market1501": 200_000, "deepfashion": 200_000},
            ),
        ),
    )
}
