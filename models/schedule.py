"""What a training engine must know of a network: what it is trained with, on what, and for how long.

An engine's step, for one phase:

    losses, output = objective.generator_losses(batch, features)   # phase.discriminators frozen meanwhile
    sum(losses.values()).backward(); step the optimiser of every network in phase.generators
    losses = objective.discriminator_losses(batch, output)         # {} where there is no adversary: skip
    sum(losses.values()).backward(); step the optimiser of every network in phase.discriminators
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from models.blocks import Batch
from models.features import Features


class Objective(Protocol):
    """How a phase's networks are judged on a batch. Every loss term is a scalar, weighted, and named.

    `weights`: by term. A term whose weight is 0 may be left out.
    """

    weights: Mapping[str, float]

    def networks(self) -> dict[str, nn.Module]:
        """Everything that a checkpoint must hold, by the names that Phase uses."""

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], Any]:
        """Terms to minimise over Phase.generators, and what `discriminator_losses` needs. No network is
        changed, except that spectral and batch norms update their buffers in train mode.
        """

    def discriminator_losses(self, batch: Batch, output: Any) -> dict[str, Tensor]:
        """Terms to minimise over Phase.discriminators; no gradient reaches the generators. {} without an
        adversary, or while its weight is 0.
        """


@dataclass(frozen=True)
class Adam:
    lr: float
    betas: tuple[float, float]
    weight_decay: float = 0.0  # added to the gradient


@dataclass(frozen=True)
class Phase:
    """One optimisation phase. `weights` are handed to the objective; `batch` and `steps` are keyed by data
    set.

    `frozen` names submodules of the first generator that stand still, in eval mode. `delays`, by loss term and
    data set: the share of the run's steps for which the term is left out. `decay_from`: the share of the steps
    after which every learning rate falls linearly, to 0 at the end.
    """

    generators: tuple[str, ...]
    discriminators: tuple[str, ...]
    optimisers: Mapping[str, Adam]  # by network; learning rates constant up to `decay_from`
    weights: Mapping[str, float]  # by loss term
    batch: Mapping[str, int]
    steps: Mapping[str, int]
    frozen: tuple[str, ...] = ()
    delays: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    decay_from: float = 1.0


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
    needs_parsing: bool = False


@dataclass(frozen=True)
class Variant:
    """One row of the tables. `build(height, width, scale)` gives the generator, whose forward is Batch -> Output.
    It looks at neither `target` nor `target_labels`: scoring calls it with `batch.without_target()`.

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
