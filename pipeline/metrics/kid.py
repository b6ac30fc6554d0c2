"""Kernel Inception distance (Binkowski et al. 2018): unbiased, so few images are enough."""

from collections.abc import Callable, Iterator

import numpy as np

from pipeline.core.errors import UserError

BLOCK = 1024  # rows at a time: bounds the memory for any number of images

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, d), (m, d) float64 -> (n, m): (x . y / d + 1)^3, the paper's."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, d), (m, d) float64 -> (n, m): 1000 exp(-|x - y|^2 / 200), CMMD's (Jayasumana et al. 2024), which is meant for
    vectors of length 1.
    """
    apart = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2 * x @ y.T
    return 1000 * np.exp(-apart / 200)


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BLOCK):
        yield np.asarray(rows[start : start + BLOCK], dtype=np.float64)


def _mean_kernel(kernel: Kernel, rows: np.ndarray, others: np.ndarray, same: bool) -> np.ndarray:
    """(n,): each row's mean kernel with the others, leaving out the row itself where both are the `same` set."""
    sums = []
    for number, block in enumerate(_blocks(rows)):
        total = np.zeros(len(block))
        for place, other in enumerate(_blocks(others)):
            values = kernel(block, other)
            total += values.sum(axis=1)
            if same and place == number:
                total -= values.diagonal()
        sums.append(total)
    return np.concatenate(sums) / (len(others) - same)


def kid(features: np.ndarray, real: np.ndarray, kernel: Kernel = polynomial_kernel) -> tuple[float, np.ndarray]:
    """Squared maximum mean discrepancy, the U-statistic (the paper's equation 4) over all images at once.

    features: (N, d) of the generated images; real: (M, d). Returns the value, which may be slightly negative, and (N,)
    the first-order influence of each generated image (mean 0). Raises UserError below two images on a side.
    """
    if min(len(features), len(real)) < 2:
        raise UserError(f"KID needs at least two images, got {min(len(features), len(real))}: score more pairs")
    among, across = _mean_kernel(kernel, features, features, True), _mean_kernel(kernel, features, real, False)
    value = among.mean() - 2 * across.mean() + _mean_kernel(kernel, real, real, True).mean()
    return float(value), 2 * (among - among.mean()) - 2 * (across - across.mean())
