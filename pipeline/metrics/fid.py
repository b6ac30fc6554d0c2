"""Frechet Inception distance (Heusel et al. 2017): statistics of a stream of features, and each image's influence."""

from collections.abc import Mapping

import numpy as np
import torch

from pipeline.core.errors import UserError

BLOCK = 1024  # rows of features at a time: bounds the memory for any number of images


class FrechetStatistics:
    """Mean and covariance of a stream of feature vectors in float64: d^2 memory for any number."""

    def __init__(self, dimensions: int):
        self.count = 0
        self._mean = torch.zeros(dimensions, dtype=torch.float64)
        self._scatter = torch.zeros(dimensions, dimensions, dtype=torch.float64)  # sum of (x - mean)(x - mean)^T
        self._root = self._order = None

    def update(self, features: torch.Tensor | np.ndarray) -> None:
        """Add (n, d) float features. How they are split into calls changes only float64 rounding."""
        features = torch.as_tensor(features).to(self._mean.device, torch.float64)
        if not len(features):
            return
        # Chan et al. 1983: two scatters add up, plus a rank-one term for the distance between the two means.
        # Unlike sums of raw outer products it does not cancel when the mean is large against the spread.
        mean = features.mean(dim=0)
        total = self.count + len(features)
        shift = mean - self._mean
        rows = torch.cat([features - mean, shift[None] * (self.count * len(features) / total) ** 0.5])
        self._scatter.addmm_(rows.T, rows)
        self._mean = self._mean + shift * (len(features) / total)
        self.count = total
        self._root = None

    @property
    def mean(self) -> np.ndarray:
        """(d,) float64."""
        return self._mean.numpy()

    @property
    def covariance(self) -> np.ndarray:
        """(d, d) float64, divided by n - 1 as `numpy.cov` does. Raises UserError below two images."""
        if self.count < 2:
            raise UserError(f"FID: a covariance needs at least two images, got {self.count}: score more pairs")
        return self._scatter.numpy() / (self.count - 1)

    def state(self) -> dict[str, np.ndarray]:
        """Plain arrays to save: count () int64, mean (d,) and scatter (d, d) float64."""
        return {"count": np.array(self.count), "mean": self._mean.numpy(), "scatter": self._scatter.numpy()}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> "FrechetStatistics":
        """Inverse of `state`; copies the arrays."""
        statistics = cls(len(state["mean"]))
        statistics.count = int(state["count"])
        statistics._mean = torch.tensor(np.asarray(state["mean"], dtype=np.float64))
        statistics._scatter = torch.tensor(np.asarray(state["scatter"], dtype=np.float64))
        return statistics

    def root(self) -> np.ndarray:
        """R (d, rank) float64 with R R^T = covariance; kept until the next update, since a reference is used often.

        A pivoted Cholesky factor: ten times as fast as eigenvectors at full rank, nearly free at the low rank of a few
        images, and exact for singular covariances.
        """
        from scipy.linalg.lapack import dpstrf

        if self._root is None:
            factor, pivot, rank, _ = dpstrf(self.covariance, lower=1)
            self._root = np.zeros((len(factor), rank))
            self._root[pivot - 1] = np.tril(factor)[:, :rank]
            self._order = pivot - 1  # the rows in which it is a lower triangle
        return self._root


def statistics_of(features: np.ndarray) -> FrechetStatistics:
    """Those of (N, d) float features, added in their order."""
    statistics = FrechetStatistics(features.shape[1])
    for start in range(0, len(features), BLOCK):
        statistics.update(features[start : start + BLOCK])
    return statistics


def frechet_distance(statistics: FrechetStatistics, reference: FrechetStatistics) -> float:
    """|m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)), >= 0 up to rounding.

    With C2 = R R^T the eigenvalues of C1 C2 are those of the symmetric R^T C1 R, so the last trace is the sum
    of their square roots: no matrix square root of a non-symmetric product, no imaginary parts, no jitter for
    singular covariances. The reference's root is kept between calls.
    """
    product = _symmetric_product(statistics, reference)
    return _distance(statistics, reference, torch.linalg.eigvalsh(product, UPLO="L").numpy())


def _symmetric_product(statistics: FrechetStatistics, reference: FrechetStatistics) -> torch.Tensor:
    """R^T C R (rank, rank), of which only the lower triangle counts."""
    from scipy.linalg.lapack import dsygst

    root, covariance = reference.root(), statistics.covariance
    if root.shape[0] > root.shape[1]:
        return torch.from_numpy(root.T @ covariance @ root)
    # At full rank R is triangular up to the order of its rows: LAPACK then needs a quarter of the multiplications.
    order = reference._order
    product, _ = dsygst(covariance[np.ix_(order, order)], root[order], itype=2, lower=1)
    return torch.from_numpy(product)


def _distance(statistics: FrechetStatistics, reference: FrechetStatistics, eigenvalues: np.ndarray) -> float:
    difference = statistics.mean - reference.mean
    traces = np.trace(statistics.covariance) + np.square(reference.root()).sum()
    return float(difference @ difference + traces - 2 * np.sqrt(eigenvalues.clip(min=0)).sum())


def frechet_influence(features: np.ndarray, reference: FrechetStatistics) -> tuple[float, np.ndarray]:
    """`frechet_distance` of the generated images' features (N, d) to the reference, and each image's influence.

    The influence (N,), of mean 0, is the derivative of the distance by the image's weight (Efron's infinitesimal
    jackknife): for other weights w of mean 1 the distance is, to first order, distance + mean(w * influence). With
    M = R^T C1 R = U L U^T, the derivative of -2 tr M^(1/2) by M is -U L^(-1/2) U^T; outside the span of the images
    nothing varies with their weights, so eigenvalues of 0 are left out.
    """
    statistics = statistics_of(features)
    eigenvalues, vectors = (m.numpy() for m in torch.linalg.eigh(_symmetric_product(statistics, reference), UPLO="L"))
    kept = eigenvalues > len(eigenvalues) * np.finfo(np.float64).eps * eigenvalues.max(initial=0)
    project = reference.root() @ (vectors[:, kept] * eigenvalues[kept] ** -0.25)  # (d, rank)
    shift = statistics.mean - reference.mean
    influence = np.empty(len(features))
    for start in range(0, len(features), BLOCK):
        centred = np.asarray(features[start : start + BLOCK], dtype=np.float64) - statistics.mean
        traces = np.square(centred).sum(axis=1) - np.square(centred @ project).sum(axis=1)
        influence[start : start + BLOCK] = 2 * centred @ shift + traces * statistics.count / (statistics.count - 1)
    return _distance(statistics, reference, eigenvalues), influence - influence.mean()
