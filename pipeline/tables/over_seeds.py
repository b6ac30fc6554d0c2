"""One variant trained from several seeds: how far a score lies from seed to seed, and which differences that covers."""

from collections.abc import Sequence
from math import sqrt
from statistics import mean, stdev
from typing import NamedTuple

from scipy.stats import t as student


class OverSeeds(NamedTuple):
    """A score at several seeds of training."""

    seeds: int
    mean: float
    deviation: float  # sample standard deviation, divided by seeds - 1


def over_seeds(values: Sequence[float]) -> OverSeeds | None:
    """The scores of each seed, taken together; None for a single one, which says nothing of the others."""
    return OverSeeds(len(values), mean(values), stdev(values)) if len(values) > 1 else None


def difference(
    one: OverSeeds | float, other: OverSeeds | float, chance: tuple[bool, bool] = (True, True), level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of `one` minus mean of `other`, and the ends of its interval: Welch's, by Student's t.

    At least one of the two has several seeds. A plain number is the score of a single run: it is taken to lie about its
    own mean as the other's do or, where `chance` says that training has no part in it, not at all.
    """
    several = [side for side in (one, other) if isinstance(side, OverSeeds)]
    shared = several[0].deviation ** 2
    means, shares = [], []  # share: the variance of the mean
    for side, random in zip((one, other), chance, strict=True):
        if isinstance(side, OverSeeds):
            means.append(side.mean)
            shares.append(side.deviation**2 / side.seeds)
        else:
            means.append(side)
            shares.append(shared if random else 0.0)
    apart, variance = means[0] - means[1], sum(shares)
    if variance == 0:
        return apart, apart, apart
    # Welch and Satterthwaite's degrees of freedom; a borrowed variance brings none of its own
    parts = [side.deviation**4 / side.seeds**2 / (side.seeds - 1) for side in several]
    freedom = several[0].seeds - 1 if len(several) == 1 else variance**2 / sum(parts)
    half = float(student.ppf(0.5 + level / 2, freedom)) * sqrt(variance)
    return apart, apart - half, apart + half
