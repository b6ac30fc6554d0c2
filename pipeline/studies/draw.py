"""What each rater is shown: lists of test pairs, drawn by a seed. Nothing here knows a picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from pipeline.core.errors import UserError

MOST = 9  # methods side by side: each has a key of its own


@dataclass(frozen=True)
class Form:
    """What a paper's study asks of one rater.

    images: real ones in each method's list, and as many generated. warm_up: of these, how many are not counted, from
    the first on. seconds: for how long a picture shows; None: until it is judged. groups: sets of all methods' images
    of one pair, of which the rater picks the best. target: whether the true target stands beside them.
    """

    name: str
    images: int
    warm_up: int
    seconds: float | None
    groups: int
    target: bool

    def resized(self, images: int | None, groups: int | None) -> "Form":
        """With other numbers; the warm-up keeps its share of a list."""
        images, groups = self.images if images is None else images, self.groups if groups is None else groups
        return replace(self, images=images, groups=groups, warm_up=round(self.warm_up * images / self.images))

    def described(self) -> dict[str, Any]:
        return asdict(self)


FORMS = {"spig": Form("spig", 55, 10, 1.0, 30, False), "pidm": Form("pidm", 30, 0, None, 30, True)}


class Judged(NamedTuple):
    """A picture to be called real or fake: the true target of a pair, or what a method drew of it."""

    method: str  # in whose list it stands
    pair: int
    real: bool
    counted: bool


class Group(NamedTuple):
    """Every method's picture of one pair, in the order in which they stand."""

    pair: int
    methods: tuple[str, ...]


class Sheet(NamedTuple):
    """One rater's form. Its items are numbered from 1: the blocks' one after the other, then the groups."""

    blocks: tuple[tuple[Judged, ...], ...]  # a list for each method, in the rater's own order of methods
    groups: tuple[Group, ...]

    @property
    def items(self) -> list[Judged | Group]:
        return [*(item for block in self.blocks for item in block), *self.groups]


def _hands(targets: Mapping[int, str], sizes: Sequence[int], random: np.random.Generator) -> Iterator[list[int]]:
    """Pairs in hands of `sizes`. No target comes twice in a hand, nor before every other one was dealt once."""
    deck: list[int] = []
    for size in sizes:
        hand: list[int] = []
        while len(hand) < size:
            if not deck:
                one_a_target = {targets[pair]: pair for pair in random.permutation(sorted(targets)).tolist()}
                held = {targets[pair] for pair in hand}
                deck = [pair for target, pair in one_a_target.items() if target not in held]
            hand.append(deck.pop())
        yield hand


def sheets(form: Form, methods: Sequence[str], targets: Mapping[int, str], raters: int, seed: int) -> list[Sheet]:
    """A sheet for each rater. targets: pair_index -> the target's id, of the pairs that all methods have an image of.

    Every rater has a draw of their own, which does not depend on how many raters there are. Raises UserError if there
    are too few targets, or methods to choose among.
    """
    found = len(set(targets.values()))
    if found < max(2 * form.images, form.groups):
        raise UserError(
            f"the form {form.name} shows {2 * form.images} different targets of a method and {form.groups} sets, and "
            f"all methods have images of {found}; ask for less with --images and --groups"
        )
    if form.groups and not 2 <= len(methods) <= MOST:
        raise UserError(f"--methods: the best of {len(methods)}? name 2 to {MOST}, or ask for no sets with --groups 0")
    return [_sheet(form, methods, targets, np.random.default_rng([seed, rater])) for rater in range(raters)]


def _sheet(form: Form, methods: Sequence[str], targets: Mapping[int, str], random: np.random.Generator) -> Sheet:
    hands = _hands(targets, [*[2 * form.images] * len(methods), form.groups], random)
    blocks = []
    for method in _shuffled(methods, random) if form.images else ():
        shown = _shuffled([(pair, place < form.images) for place, pair in enumerate(next(hands))], random)
        blocks.append(tuple(Judged(method, *one, place >= form.warm_up) for place, one in enumerate(shown)))
    *_, last = hands
    return Sheet(tuple(blocks), tuple(Group(pair, tuple(_shuffled(methods, random))) for pair in last))


def _shuffled(things: Sequence, random: np.random.Generator) -> list:
    return [things[place] for place in random.permutation(len(things))]
