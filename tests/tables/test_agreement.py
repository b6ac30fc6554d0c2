"""Kendall's tau between a metric and raters, held to SciPy's, and what its interval is of."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from pipeline.tables.agreement import agreement, kendall

RANDOM = np.random.default_rng(6)


def test_tau_is_scipys_with_ties_and_row_by_row():
    one, other = RANDOM.integers(0, 4, (2, 30, 6)).astype(float)
    expected = [kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(kendall(one, other), expected)
    assert np.isnan(kendall(np.ones(4), np.arange(4.0)))


def study(order: list[int], spread: float, raters: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Votes of raters who are for method m with a share that follows `order`, each out of ten."""
    share = 0.2 + 0.15 * np.array(order) + RANDOM.normal(0, spread, (raters, len(order)))
    return 10 * share.clip(0, 1), np.full((raters, len(order)), 10.0)


def test_a_metric_that_orders_as_raters_do_agrees_and_its_mirror_does_not():
    values = np.array([0.1, 0.4, 0.2, 0.8]) + RANDOM.normal(0, 0.01, (50, 4))
    values[3] = np.nan  # of a pair without a value
    votes = study([0, 2, 1, 3], 0.01)
    assert agreement(values, *votes, 500, 0) == (1, 1, 1, 4)
    assert agreement(-values, *votes, 500, 0) == (-1, -1, -1, 4)


def test_the_interval_widens_with_the_raters_and_with_the_pairs():
    values, sure = np.array([0.1, 0.2, 0.4, 0.8]) + RANDOM.normal(0, 0.01, (50, 4)), study([0, 1, 2, 3], 0.01)
    unsure = study([0, 1, 2, 3], 0.8, raters=4)
    assert agreement(values, *unsure, 500, 0).low < agreement(values, *sure, 500, 0).low == 1
    noisy = values + RANDOM.normal(0, 2, values.shape)
    assert agreement(noisy, *sure, 500, 0).low < 1


@pytest.mark.parametrize("values", [np.zeros((9, 3)), np.full((9, 3), np.nan)])
def test_nothing_is_said_where_nothing_is_ordered(values):
    found = agreement(values, *study([0, 1, 2], 0.01), 200, 0)
    assert np.isnan(found.tau)
    assert np.isnan(found.low)
