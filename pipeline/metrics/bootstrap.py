"""Percentile bootstrap of means over pairs (Efron 1979), one method at a time and paired."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean with its interval. All NaN when no pair has a value."""

    mean: float
    low: float
    high: float
    n: int  # pairs that entered
    excluded: int  # pairs whose value is NaN


@lru_cache(maxsize=4)
def draws(count: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, count) uint8: how often each of `count` pairs is drawn when `count` are drawn with replacement."""
    random = np.random.default_rng(seed)
    times = np.empty((resamples, count), dtype=np.uint8)  # of more than 255 pairs none is drawn 256 times
    for row in times:
        row[:] = np.bincount(random.integers(count, size=count), minlength=count)
    times.flags.writeable = False
    return times


def resampled_sums(columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(N, K) float64 -> (resamples, K): the sums over N pairs drawn with replacement.

    The draws depend on N and `seed` alone, so columns that are passed in separate calls are still resampled together.
    """
    times = draws(len(columns), resamples, seed)
    return np.concatenate([times[start : start + 64].astype(np.float64) @ columns for start in range(0, resamples, 64)])


def percentiles(samples: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """(resamples, K) -> the ends of the central `level` of each column, (K,) twice."""
    tail = 50 * (1 - level)
    low, high = np.percentile(samples, [tail, 100 - tail], axis=0)
    return low, high


def bootstrap_interval(
    values: np.ndarray,
    weights: np.ndarray | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """(N,) float values, one a pair -> mean and percentile interval over resampled pairs.

    NaN values are left out and counted. With `weights` (N,) >= 0 the mean is sum(w v) / sum(w), numerator and
    denominator resampled together (PCKh pools joints, of which pairs have different numbers). The same `seed` and
    number of pairs draw the same resamples, so two methods scored on the same pairs are resampled together: the
    interval of a difference is that of the pairs' differences.
    """
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64)
    kept = np.isfinite(values) & (weights > 0)
    excluded = int((~kept).sum())
    values, weights = values[kept], weights[kept]
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0, excluded)
    sums = resampled_sums(np.stack([weights * values, weights], axis=1), resamples, seed)
    low, high = percentiles(sums[:, :1] / sums[:, 1:], level)
    return Interval(float((weights * values).sum() / weights.sum()), float(low[0]), float(high[0]), n, excluded)


def influence_of_pooled(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """First-order influence (N,), of mean 0, of each pair on sum(w v) / sum(w); 0 where there is no weight or value."""
    kept = np.isfinite(values) & (weights > 0)
    w, v = np.where(kept, weights, 0.0), np.where(kept, values, 0.0)
    if not kept.any():
        return np.zeros(len(values))
    return w * (v - (w * v).sum() / w.sum()) / w.mean()
