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

from models.layers.blocks import Batch
from models.layers.features import Features


class Objective(Protocol):
    """How a phase's networks are judged on a batch. Every loss term is a scalar, weighted, and named.

    `weights`: by term. A term whose weight is 0 may be left out. An objective that has an attribute `progress:
    float` finds in it, before every step, the share of the run's steps that are done, in [0, 1).
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
class Jitter:
    """Augmentation: every image by itself scaled about its centre by scale^u and shifted by shift * (u, u) pixels, u
    uniform in [-1, 1].
    """

    scale: float
    shift: float


@dataclass(frozen=True)
class Phase:
    """One optimisation phase. `weights` are handed to the objective; `batch` and `steps` are keyed by data
    set.

    `frozen` names submodules of the first generator that stand still, in eval mode. `thaw`, by a name in `frozen`
    and data set: the share of the run's steps after which it trains too. `delays`, by loss term and data set: the
    share of the run's steps for which the term is left out. `augment`, by data set: none but those that are named.
    `decay_from`: the share of the steps after which every learning rate falls linearly, to 0 at the end.
    """

    generators: tuple[str, ...]
    discriminators: tuple[str, ...]
    optimisers: Mapping[str, Adam]  # by network; learning rates constant up to `decay_from`
    weights: Mapping[str, float]  # by loss term
    batch: Mapping[str, int]
    steps: Mapping[str, int]
    frozen: tuple[str, ...] = ()
    thaw: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    delays: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    augment: Mapping[str, Jitter] = field(default_factory=dict)
    decay_from: float = 1.0


# What an entry is trained on: `data` of Component and Variant. Only what the validation pairs leave over.
#   pairs         training pairs
#   unpaired      training pairs whose target image is never read: `target` is None, the target's pose and labels stay
#   images        training images one by one: the first half of a batch as sources, the rest as targets
#   pseudo_pairs  training images with their stand-in: its pose and labels as the target's; `target` is None
DATA = ("pairs", "unpaired", "images", "pseudo_pairs")


@dataclass(frozen=True)
class Component:
    """A network trained once and shared. `build(height, width, scale)`; `objective(network, height, width,
    scale, weights)`.

    `into` names the generator's submodule that takes the trained weights, None for a network used by itself.
    `components`: those that it starts from itself. `limb_maps`: as for `Variant`.
    """

    name: str
    paper: str
    build: Callable[[int, int, float], nn.Module]
    objective: Callable[[nn.Module, int, int, float, Mapping[str, float]], Objective]
    phase: Phase
    needs_features: bool
    into: str | None
    needs_parsing: bool = False
    components: tuple[str, ...] = ()
    data: str = "pairs"
    limb_maps: bool = False


@dataclass(frozen=True)
class Variant:
    """One row of the tables. `build(height, width, scale)` gives the generator, whose forward is Batch -> Output.
    It looks at neither `target` nor `target_labels`: scoring calls it with `batch.without_target()`. With
    `given_target_parsing` it is given the true target's parsing as well, in training and in scoring:
    `batch.without_target(parsing=True)`.

    `objective(generator, height, width, scale, weights)` adds what else training needs, a discriminator for
    one. Both are None, with `phase`, for a floor: it is not trained, but fitted if its generator has
    `fit(image batches)`. `judges`, by name in `objective.networks()`: the component whose weights it holds; it is
    built at the component's own width and stands still. `limb_maps`: its networks draw SPGNet's distance maps, and
    `build` takes their `kappa` too, that of the stored maps.
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
    judges: Mapping[str, str] = field(default_factory=dict)
    data: str = "pairs"
    given_target_parsing: bool = False
    limb_maps: bool = False
