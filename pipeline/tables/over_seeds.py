"""How far a score lies from one seed of training to the next, and which differences between methods that explains."""

from math import sqrt
from typing import NamedTuple


class OverSeeds(NamedTuple):
    """A score from several seeds of training."""

    seeds: int
    mean: float
    deviation: float  # sample standard deviation, divided by seeds - 1


def difference(
    one: OverSeeds | float, other: OverSeeds | float, chance: tuple[bool, bool] = (True, True), level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of `one` minus mean of `other`, and the ends of its interval: Welch's, by Student's t.

    At least one of the two has several seeds. A plain number is the score of a single run: it is taken to vary about
    its mean as much as the other does or, where `chance` says that its training involves none, not at all.
    """
    from scipy.special import stdtrit

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
    # Welch and Satterthwaite's degrees of freedom; a borrowed variance adds none of its own
    parts = [side.deviation**4 / side.seeds**2 / (side.seeds - 1) for side in several]
    freedom = several[0].seeds - 1 if len(several) == 1 else variance**2 / sum(parts)
    half = float(stdtrit(freedom, 0.5 + level / 2)) * sqrt(variance)
    return apart, apart - half, apart + half
