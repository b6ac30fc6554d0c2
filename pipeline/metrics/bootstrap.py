"""Percentile bootstrap of a mean over pairs (Efron 1979)."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean with its interval. All NaN when no pair has a value."""

    mean: float
    low: float
    high: float
    n: int  # pairs that entered
    excluded: int  # pairs whose value is NaN


def bootstrap_interval(
    values: np.ndarray,
    weights: np.ndarray | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """(N,) float values, one a pair -> mean and percentile interval over resampled pairs.

    NaN values are left out and counted. With `weights` (N,) >= 0 the mean is sum(w v) / sum(w), numerator and
    denominator resampled together (PCKh pools joints, and pairs differ in how many they have). Equal `seed`
    and number of pairs draw equal resamples, so two methods scored on the same pairs are resampled together.
    """
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64)
    kept = np.isfinite(values) & (weights > 0)
    excluded = int((~kept).sum())
    values, weights = values[kept], weights[kept]
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0, excluded)
    weighted = weights * values
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, 2_000_000 // n)  # resamples a draw: bounds the memory for any number of pairs
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        picks = random.integers(n, size=(rows, n))
        means[start : start + rows] = weighted[picks].sum(axis=1) / weights[picks].sum(axis=1)
    tail = 50 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(weighted.sum() / weights.sum()), float(low), float(high), n, excluded)
