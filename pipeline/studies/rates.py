"""What the votes say: R2G, G2R and the share of preferences of each method, with intervals over raters and items.

r2g     of the real pictures in a method's list, the share that was called fake
g2r     of the method's own pictures, the share that was called real
prefer  of all sets, the share in which its picture was picked as the best (SPIG's Prefer, PIDM's Jab)

All are pooled over raters, in per cent, without the warm-up. A vote is one of a rater's and one of a pair's, and both
vary: raters and pairs are each resampled with replacement, and the variances that result are added, less that of
resampled votes, which both hold (Cameron, Gelbach and Miller 2011). The interval is Wilson's, with as many votes as
would vary so if they were independent, and Student's t for the fewer of raters and pairs.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from math import sqrt
from typing import NamedTuple

import numpy as np

from pipeline.metrics.bootstrap import resampled_sums
from pipeline.studies.votes import Vote

MEASURES = ("r2g", "g2r", "prefer")


class Rate(NamedTuple):
    """Per cent; the interval is NaN of fewer than two raters or pairs."""

    measure: str
    method: str
    value: float
    low: float
    high: float
    hits: int
    votes: int
    raters: int
    pairs: int


class Apart(NamedTuple):
    """`one` minus `other`, in points of per cent. verdict: the better one, or "tie" where the interval holds zero."""

    measure: str
    one: str
    other: str
    difference: float
    low: float
    high: float
    verdict: str


def _relevant(votes: Sequence[Vote], measure: str) -> list[Vote]:
    if measure == "prefer":
        return [vote for vote in votes if vote.kind == "choose"]
    return [vote for vote in votes if vote.kind == "judge" and vote.counted and vote.real == (measure == "r2g")]


def _columns(votes: Sequence[Vote], measure: str, method: str) -> np.ndarray:
    """(V, 2): whether a vote is a hit of the method, and whether it could be one."""
    if measure == "prefer":
        return np.array([(vote.method == method, 1) for vote in votes], float)
    hit = "fake" if measure == "r2g" else "real"
    own = [vote.method == method for vote in votes]
    return np.array([(mine and vote.answer == hit, mine) for mine, vote in zip(own, votes, strict=True)], float)


def _codes(values: Sequence) -> np.ndarray:
    return np.unique(np.array(values), return_inverse=True)[1]


def _variance(
    votes: Sequence[Vote], columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], resamples: int, seed: int
) -> tuple[float, int]:
    """Of the statistic of the columns' sums (n, K) -> (n,), over raters and pairs; and how many there are of the fewer.

    NaN of fewer than two.
    """
    raters, pairs = _codes([vote.rater for vote in votes]), _codes([vote.pair for vote in votes])
    fewer = int(min(raters.max(), pairs.max())) + 1
    if fewer < 2:
        return float("nan"), fewer

    def over(groups: np.ndarray) -> float:
        count = groups.max() + 1
        sums = np.stack([np.bincount(groups, column, count) for column in columns.T], axis=1)
        found = statistic(resampled_sums(sums, resamples, seed))
        return float(np.nanvar(found)) * count / (count - 1)

    of_raters, of_pairs, of_votes = over(raters), over(pairs), over(np.arange(len(votes)))
    return max(of_raters, of_pairs, of_raters + of_pairs - of_votes), fewer


def _share(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, 0] / sums[:, 1]


def _apart(sums: np.ndarray) -> np.ndarray:
    return _share(sums[:, :2]) - _share(sums[:, 2:])


def _quantile(fewer: int) -> float:
    """Student's t that leaves 2.5 % above it."""
    from scipy.special import stdtrit

    return float(stdtrit(fewer - 1, 0.975))


def wilson(share: float, votes: float, quantile: float) -> tuple[float, float]:
    """The ends of Wilson's interval of a share of so many independent votes."""
    square = quantile**2 / votes
    middle = (share + square / 2) / (1 + square)
    half = quantile * sqrt(share * (1 - share) / votes + square / votes / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def rates(votes: Sequence[Vote], methods: Sequence[str], resamples: int = 2000, seed: int = 0) -> list[Rate]:
    """Every measure of every method that was asked about."""
    found = []
    for measure in MEASURES:
        relevant = _relevant(votes, measure)
        for method in methods if relevant else ():
            columns = _columns(relevant, measure, method)
            own = [vote for vote, possible in zip(relevant, columns[:, 1], strict=True) if possible]
            if not own:
                continue
            columns = columns[columns[:, 1] > 0]
            hits, count = (int(total) for total in columns.sum(axis=0))
            share = hits / count
            variance, fewer = _variance(own, columns, _share, resamples, seed)
            low = high = float("nan")
            if fewer > 1:
                alike = share * (1 - share) / variance if variance > 0 else count
                low, high = wilson(share, min(alike, count), _quantile(fewer))
            raters, pairs = (len({getattr(vote, name) for vote in own}) for name in ("rater", "pair"))
            found.append(Rate(measure, method, 100 * share, 100 * low, 100 * high, hits, count, raters, pairs))
    return found


def differences(votes: Sequence[Vote], methods: Sequence[str], resamples: int = 2000, seed: int = 0) -> list[Apart]:
    """Every two methods by every measure: which differ by more than raters and pairs explain, two at a time."""
    found = []
    for measure in MEASURES:
        relevant = _relevant(votes, measure)
        for one, other in combinations(methods, 2) if relevant else ():
            columns = np.hstack([_columns(relevant, measure, method) for method in (one, other)])
            if not columns[:, 1].any() or not columns[:, 3].any():
                continue
            asked = columns[:, [1, 3]].any(axis=1)
            columns, own = columns[asked], [vote for vote, kept in zip(relevant, asked, strict=True) if kept]
            apart = float(_apart(columns.sum(axis=0)[None])[0])
            variance, fewer = _variance(own, columns, _apart, resamples, seed)
            half = _quantile(fewer) * sqrt(variance) if fewer > 1 else float("nan")
            verdict = (one if apart > 0 else other) if abs(apart) > half else "tie"
            found.append(Apart(measure, one, other, 100 * apart, 100 * (apart - half), 100 * (apart + half), verdict))
    return found
