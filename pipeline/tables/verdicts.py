"""Whether a number of ours reproduces the published one: reproduced, better, worse, or not comparable, and why.

Two numbers compare only if they were measured alike. Whether they were is not read off code alone: a recipe, which does
what a paper's scripts do (`pipeline.scoring.recipes`), is *calibrated* where images that the authors published give
their published number within its rounding (`repose calibrate`, reports/calibrated.csv).
"""

import csv
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from pipeline.core import layout
from pipeline.core.errors import UserError
from pipeline.tables.over_seeds import OverSeeds, difference

# Of the recipes of `pipeline.scoring.recipes`: raised with every change of what one computes (tests/golden holds it).
VERSIONS = dict.fromkeys(
    ("gfla", "pise", "casd", "pidm", "pocold", "cfld", "mcld", "pcdms", "spgnet", "def_gan"), 1
)  # fmt: skip
WORDS = REPRODUCED, BETTER, WORSE, NOT_COMPARABLE = "reproduced", "better", "worse", "not comparable"


class Calibration(NamedTuple):
    """A row of reports/calibrated.csv. number: what the recipe's script calls it; metric: the paper's column; value: by
    the recipe, of the authors' images; within: yes or no; equals: our metric that gives the same number of these, ""
    where the recipe resizes them or drops pairs; metric_version: of that or, without, of the metric beside it.
    """

    recipe: str
    recipe_version: str
    number: str
    paper: str
    table: str
    dataset: str
    method: str
    variant: str
    metric: str
    published: str
    value: str
    within: str
    equals: str
    metric_version: str
    pairs: str
    images_sha256: str
    targets_sha256: str

    @property
    def key(self) -> tuple[str, ...]:
        """What it calibrates: a later row of the same key takes its place."""
        return (self.recipe, *self[2:9])

    def renewal(self) -> str:
        """The command that makes it again."""
        words = filter(None, (self.method, self.variant, self.dataset, self.paper, self.table))
        return f"repose calibrate GENERATED TARGETS --as {self.recipe} --row {shlex.join(words)}"


def read_calibrated() -> list[Calibration]:
    """reports/calibrated.csv, nothing if it is not there. Raises UserError for a malformed one."""
    if not layout.CALIBRATED.exists():
        return []
    with layout.CALIBRATED.open(newline="", encoding="utf-8") as handle:
        lines = list(csv.reader(handle))
    if not lines or tuple(lines[0]) != Calibration._fields:
        raise UserError(f"{layout.CALIBRATED}: its columns must be {', '.join(Calibration._fields)}")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(Calibration._fields) or line[11] not in ("yes", "no") or line[0] not in VERSIONS:
            raise UserError(f"{layout.CALIBRATED}: line {number} is malformed; `repose calibrate` writes it")
    return [Calibration(*line) for line in lines[1:]]


def outdated(found: Sequence[Calibration]) -> dict[Calibration, str]:
    """Those of another version of their recipe than the present one, and by which they are; they count no more. Those
    of another version of their metric `incomparable` finds, which knows by which ours was scored.
    """
    return {
        one: f"version {one.recipe_version} of the recipe {one.recipe}, which is at {VERSIONS[one.recipe]}"
        for one in found
        if one.recipe_version != str(VERSIONS[one.recipe])
    }


def half_unit(printed: str) -> Decimal:
    """Half of the last place that a number was printed to: 0.0005 of 0.714."""
    return Decimal(5).scaleb(Decimal(printed).as_tuple().exponent - 1)


def within(value: float, printed: str) -> bool:
    """Whether a value rounds to a printed number; the half itself may go either way."""
    return abs(Decimal(repr(value)) - Decimal(printed)) <= half_unit(printed)


@dataclass(frozen=True)
class Ours:
    """A number of ours: its 95 % interval over pairs (None where there is none), its metric and that one's version when
    it was scored, and the value over several seeds of training, if there are.
    """

    low: float | None
    high: float | None
    higher_is_better: bool
    metric: str
    version: int
    seeds: OverSeeds | None = None


def incomparable(ours: Ours, recipe: str, dataset: str, column: str, every: Sequence[Calibration]) -> str:
    """Why a number of ours cannot be held against those that papers print in a column on a data set (as published.csv
    calls it), measured by a recipe; "" if it can. every: the calibrations.
    """
    old, metric, version = outdated(every), ours.metric, str(ours.version)
    of = [one for one in every if (one.recipe, one.dataset, one.metric) == (recipe, dataset, column)]
    if not of:
        return f"the recipe {recipe} is not calibrated for {column} on {dataset}: no images that its authors published"
    if not (now := [one for one in of if one not in old]):
        return f"calibrated by {old[of[0]]}; run: {of[0].renewal()}"
    if not (good := [one for one in now if one.within == "yes"]):
        one = now[0]
        return (
            f"the recipe {recipe} gives {float(one.value):.6g} of its authors' images where {one.published} is printed"
        )
    if not (alike := [one for one in good if one.equals == metric]):
        if not good[0].equals:
            return f"the recipe {recipe} resizes pictures or drops pairs, which ours does not"
        return f"measured by {metric}; the published numbers are {good[0].equals}"
    if not any(one.metric_version == version for one in alike):
        have = f"version {alike[0].metric_version} of {metric}, and ours is of version {version}"
        return f"calibrated by {have}; run: {alike[0].renewal()}"
    return ""


def verdict(ours: Ours, published: str) -> tuple[str, str]:
    """Of two numbers that compare: the word and the reason.

    It is reproduced unless intervals tell ours from the published number, which is taken as far as it was printed: that
    over the test pairs and, where there are several seeds, that over seeds as well, where the published training is
    taken to vary as ours does.
    """
    if ours.low is None or ours.high is None:
        return NOT_COMPARABLE, "ours has no interval over pairs"
    theirs, half = float(published), float(half_unit(published))
    sides = [_side(theirs, ours.low - half, ours.high + half)]
    said = [f"{published} lies {_WHERE[sides[0]]} {ours.low:.6g} to {ours.high:.6g}, over pairs"]
    if ours.seeds is not None:
        _, low, high = difference(ours.seeds, theirs)
        low, high = theirs + low - half, theirs + high + half
        sides.append(_side(theirs, low, high))
        said.append(f"{_WHERE[sides[1]]} {low:.6g} to {high:.6g}, over {ours.seeds.seeds} seeds")
    else:
        said.append("one seed")
    if 0 in sides or len({*sides}) > 1:
        return REPRODUCED, "; ".join(said)
    return BETTER if (sides[0] < 0) == ours.higher_is_better else WORSE, "; ".join(said)


_WHERE = {-1: "below", 0: "within", 1: "above"}


def _side(number: float, low: float, high: float) -> int:
    """-1 below the interval, 0 in it, 1 above."""
    return (number > high) - (number < low)
