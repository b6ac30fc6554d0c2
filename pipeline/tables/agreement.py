"""How well a metric orders methods as people do: Kendall's tau over methods, with its interval."""

from typing import NamedTuple

import numpy as np

from pipeline.metrics.bootstrap import percentiles, resampled_sums


class Agreement(NamedTuple):
    """tau: from -1 (the opposite order) to 1 (the same). All NaN where one side ties all methods."""

    tau: float
    low: float
    high: float
    methods: int


def kendall(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(..., M) twice -> (...): Kendall's tau-b, which counts ties on neither side; NaN where a side is all ties."""
    first, second = np.triu_indices(one.shape[-1], 1)
    signs = [np.sign(side[..., first] - side[..., second]) for side in (one, other)]
    with np.errstate(invalid="ignore"):
        scale = np.sqrt(np.square(signs[0]).sum(-1) * np.square(signs[1]).sum(-1))
        return (signs[0] * signs[1]).sum(-1) / scale


def agreement(values: np.ndarray, hits: np.ndarray, asked: np.ndarray, resamples: int, seed: int) -> Agreement:
    """A metric against raters, over M methods.

    values: (P, M), each method's on the same pairs, higher being better; pairs that lack one do not count. hits, asked:
    (R, M), how often each rater was for a method, out of how often that was asked. The interval, 95 %, is that of pairs
    and raters, each resampled; the methods are those that were asked about, and no sample of others.
    """
    nothing = Agreement(np.nan, np.nan, np.nan, values.shape[1])
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return nothing
    means = resampled_sums(values, resamples, seed) / len(values)
    with np.errstate(invalid="ignore"):
        rates = resampled_sums(hits, resamples, seed + 1) / resampled_sums(asked, resamples, seed + 1)
        taus = kendall(means, rates)
        value = float(kendall(values.mean(axis=0), hits.sum(axis=0) / asked.sum(axis=0)))
    known = taus[np.isfinite(taus)]
    if not np.isfinite(value) or not len(known):
        return nothing
    low, high = percentiles(known[:, None])
    return Agreement(value, float(low[0]), float(high[0]), values.shape[1])
