"""How a network is trained: its objective, its data, its schedule.

One step of a phase:

    losses, output = objective.generator_losses(batch, features)   # phase.discriminators frozen meanwhile
    sum(losses.values()).backward(); step the optimiser of every network in phase.generators
    losses = objective.discriminator_losses(batch, output)         # {} without an adversary: skip
    sum(losses.values()).backward(); step the optimiser of every network in phase.discriminators

Where `phase.discriminators_first`, discriminators judge what the generators make before their update, and the
generators see the discriminators after theirs:

    output = objective.generate(batch)
    losses = objective.discriminator_losses(batch, output), and so on
    losses, _ = objective.generator_losses(batch, features, output), and so on
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from models.layers.blocks import Batch
from models.layers.features import Features


class Objective(Protocol):
    """The losses of a phase's networks on a batch: scalars by name, each multiplied by its weight.

    `weights`: by term; a term of weight 0 may be left out. An attribute `progress: float`, where an objective has one,
    is set before every step to the share of the run's steps that are done, in [0, 1). A method `begin(batch)` is called
    once, with the first step's whole batch, before that step, by every process alike. With discriminators first there
    is also `generate(batch)`, which returns the generators' output with its graph, and `generator_losses` takes that as
    its third argument.
    """

    weights: Mapping[str, float]

    def networks(self) -> dict[str, nn.Module]:
        """All networks whose state a run must keep, by the names that Phase uses."""

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], Any]:
        """Terms to minimise over Phase.generators, and what `discriminator_losses` needs. Changes no network but for
        the buffers that spectral and batch norms update in train mode.
        """

    def discriminator_losses(self, batch: Batch, output: Any) -> dict[str, Tensor]:
        """Terms to minimise over Phase.discriminators; {} without an adversary, or while its weight is 0. No gradient
        reaches the generators.
        """


@dataclass(frozen=True)
class Adam:
    lr: float
    betas: tuple[float, float]
    weight_decay: float = 0.0  # added to the gradient


@dataclass(frozen=True)
class Move:
    """How the images of one side of a batch are moved at random, each with its joints and its parsing: scaled and
    rotated about `centre`, then shifted. The defaults leave an image where it is.

    scale: the smallest and the largest factor; its logarithm is uniform if `geometric`, else the factor itself.
    angle: at most so many degrees either way. shift: at most so many pixels along x and along y, of an image of
    Market-1501, 128 high, and of others in proportion; with `whole_pixels` one of -shift, ..., shift - 1. centre: in
    widths and heights. nearest: pixels are not interpolated. repeat_border: what comes from outside repeats the border,
    else it is mid-grey, and of label 0. drop_joints: a joint that leaves the image becomes missing, else it keeps its
    place outside.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    geometric: bool = True
    angle: float = 0.0
    shift: float = 0.0
    whole_pixels: bool = False
    centre: tuple[float, float] = (0.5, 0.5)
    nearest: bool = False
    repeat_border: bool = True
    drop_joints: bool = True


@dataclass(frozen=True)
class Jitter:
    """Augmentation: the moves of a batch's sources and of its targets, drawn apart; None leaves them in place."""

    source: Move | None = None
    target: Move | None = None


@dataclass(frozen=True)
class Phase:
    """One optimisation phase. `weights` go to the objective; `batch` and `steps` are by data set, and one that is not
    there takes the values of that whose images are nearest in size.

    `frozen`: submodules of the first generator that are not trained and stay in eval mode. `thaw`, by a name in
    `frozen` and data set: the share of the run's steps after which it is trained too. `delays`, by loss term and data
    set: the share of the run's steps during which the term is left out. `augment`, by data set; others are not
    augmented. `apart`: networks of which each process has its own, made of the images that it has seen; where an
    objective has them. `parts`, by data set: over how many GPUs the authors' code spreads a batch, each with its own
    batch norms; 1 where it is not there. `decay_from`: the share of the steps after which all learning rates fall
    linearly, to 0 at the end. `discriminators_first`: they are updated before the generators.
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
    apart: tuple[str, ...] = ()
    parts: Mapping[str, int] = field(default_factory=dict)
    decay_from: float = 1.0
    discriminators_first: bool = False


# What an entry is trained on: `data` of Component and Variant. Nobody in a validation pair is in any of them.
#   pairs         training pairs
#   unpaired      training pairs without the target's image: `target` is None, the target's pose and labels are there
#   images        single training images: the first half of a batch as sources, the rest as targets
#   pseudo_pairs  training images with their stand-ins, whose pose and labels are the target's; `target` is None
#   balanced_pseudo_pairs  the same, where the stand-ins were chosen by the rule `balanced` instead of the paper's
DATA = ("pairs", "unpaired", "images", "pseudo_pairs", "balanced_pseudo_pairs")

# How an entry can differ from its paper by itself: a mark in every table. docs/papers.md says what is meant by each.
#   stand-ins  those for the target's parsing are chosen by another rule than the paper's
#   flow       the flow comes from elsewhere than the paper's
#   judge      a loss looks through another network than the paper's
#   design     a network, loss or draw is known to be another than the paper's or its released code's
DEPARTURES = ("stand-ins", "flow", "judge", "reading", "design")


@dataclass(frozen=True)
class Component:
    """A network trained once and shared. `build(height, width, scale)`; `objective(network, height, width, scale,
    weights)`.

    `features`: the net of `features.NETS` through which the paper's losses look, or that its network begins with; None
    where there is none.
    `into`: the generator's submodule that takes the trained weights; None for a network used by itself. `components`:
    those that it starts from itself. `labels`, `limb_maps`, `departs`: as for `Variant`.
    """

    name: str
    paper: str
    build: Callable[[int, int, float], nn.Module]
    objective: Callable[[nn.Module, int, int, float, Mapping[str, float]], Objective]
    phase: Phase
    features: str | None
    into: str | None
    labels: str | None = None
    components: tuple[str, ...] = ()
    data: str = "pairs"
    limb_maps: bool = False
    departs: tuple[str, ...] = ()

    @property
    def needs_parsing(self) -> bool:
        return self.labels is not None


@dataclass(frozen=True)
class Variant:
    """One row of the tables. `build(height, width, scale)` makes the generator, whose forward is Batch -> Output. It
    reads neither `target` nor `target_labels`: scoring calls it with `batch.without_target()`. With
    `given_target_parsing` it is given the true target's parsing, in training and in scoring:
    `batch.without_target(parsing=True)`.

    `labels`: the set of the label ids that it is given, which is what its paper's parser speaks: "lip-20" or "cihp-20";
    None where it reads no parsing.

    `objective(generator, height, width, scale, weights)` adds what else training needs, such as a discriminator. A
    floor has neither objective nor phase: it is not trained, but fitted if its generator has `fit(image batches)`.
    `features`: as for `Component`. `judges`, by name in `objective.networks()`: the component whose weights the network
    takes; it is built at the component's own width and not trained. `limb_maps`: its networks draw SPGNet's distance
    maps, and `build` also takes their `kappa`, that of the stored maps. `departs`: how the entry differs from its paper
    whatever its settings are, each one of DEPARTURES.
    """

    name: str
    paper: str
    row: str
    build: Callable[[int, int, float], nn.Module]
    components: tuple[str, ...] = ()
    labels: str | None = None
    features: str | None = None
    objective: Callable[[nn.Module, int, int, float, Mapping[str, float]], Objective] | None = None
    phase: Phase | None = None
    judges: Mapping[str, str] = field(default_factory=dict)
    data: str = "pairs"
    given_target_parsing: bool = False
    limb_maps: bool = False
    departs: tuple[str, ...] = ()

    @property
    def needs_parsing(self) -> bool:
        return self.labels is not None
