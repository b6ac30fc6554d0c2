"""Frechet Inception distance (Heusel et al. 2017): pytorch-fid's network, streamed statistics."""

from collections.abc import Mapping

import numpy as np
import torch
import torchvision
from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
from scipy.linalg.lapack import dpstrf
from torch import nn
from torch.nn.functional import interpolate

from pipeline.errors import UserError
from pipeline.metrics.networks import in_batches, load_weights, seed_weights

DIMENSIONS = 2048


class FidInception(torchvision.models.Inception3):
    """TensorFlow's 2015 Inception as pytorch-fid ports it: (N, 3, H, W) float in [0, 1] -> (N, 2048).

    pytorch-fid's own constructor always downloads its weights. Its network is torchvision's with nine blocks
    exchanged and no classifier, so it is put together here from pytorch-fid's block classes; a test holds the
    two equal.
    """

    def __init__(self):
        super().__init__(num_classes=1, aux_logits=False, init_weights=False)
        self.Mixed_5b = FIDInceptionA(192, pool_features=32)
        self.Mixed_5c = FIDInceptionA(256, pool_features=64)
        self.Mixed_5d = FIDInceptionA(288, pool_features=64)
        self.Mixed_6b = FIDInceptionC(768, channels_7x7=128)
        self.Mixed_6c = FIDInceptionC(768, channels_7x7=160)
        self.Mixed_6d = FIDInceptionC(768, channels_7x7=160)
        self.Mixed_6e = FIDInceptionC(768, channels_7x7=192)
        self.Mixed_7b = FIDInceptionE_1(1280)
        self.Mixed_7c = FIDInceptionE_2(2048)
        self.fc = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        resized = interpolate(images, size=(299, 299), mode="bilinear", align_corners=False)
        return super().forward(2 * resized - 1)


def inception_network(state_dict: Mapping[str, torch.Tensor] | None, seed: int = 0) -> FidInception:
    """The network in eval mode on the CPU; `provenance` is "published" or "seeded".

    state_dict: the tensors of pytorch-fid's `pt_inception-2015-12-05` file (its classifier is ignored), or
    None for seeded weights. Raises UserError if the tensors do not fit.
    """
    with torch.random.fork_rng(devices=[]):  # torchvision draws throw-away weights: not from the caller's random state
        network = FidInception()
    if state_dict is None:
        seed_weights(network, seed)
    else:
        load_weights(network, {k: v for k, v in state_dict.items() if not k.startswith("fc.")}, "FID Inception")
    network.provenance = "seeded" if state_dict is None else "published"
    # channels_last is a third faster on a CPU, and uint8 images arrive in that order anyway.
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def inception_features(network: FidInception, images: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 RGB -> (N, 2048) float32 on the network's device."""
    device = next(network.parameters()).device
    return in_batches(lambda x: network(x.permute(0, 3, 1, 2).float() / 255), device, images)


class FrechetStatistics:
    """Mean and covariance of a stream of feature vectors in float64: d^2 memory for any number."""

    def __init__(self, dimensions: int = DIMENSIONS):
        self.count = 0
        self._mean = torch.zeros(dimensions, dtype=torch.float64)
        self._scatter = torch.zeros(dimensions, dimensions, dtype=torch.float64)  # sum of (x - mean)(x - mean)^T
        self._root = None

    def update(self, features: torch.Tensor | np.ndarray) -> None:
        """Add (n, d) float features. How they are split into calls changes only float64 rounding."""
        features = torch.as_tensor(features).to(self._mean.device, torch.float64)
        if len(features):
            mean = features.mean(dim=0)
            self._combine(len(features), mean, features - mean)

    def merge(self, other: "FrechetStatistics") -> None:
        """Add the images of `other` (another process's share), which stays as it is."""
        if other.count:
            self._scatter += other._scatter
            self._combine(other.count, other._mean, other._mean.new_zeros(0, len(other._mean)))

    def _combine(self, count: int, mean: torch.Tensor, centred: torch.Tensor) -> None:
        # Chan et al. 1983: two scatters add up, plus a rank-one term for the distance between the two means.
        # Unlike sums of raw outer products it does not cancel when the mean is large against the spread.
        total = self.count + count
        shift = mean - self._mean
        rows = torch.cat([centred, shift[None] * (self.count * count / total) ** 0.5])
        self._scatter.addmm_(rows.T, rows)
        self._mean = self._mean + shift * (count / total)
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
        """R (d, rank) float64 with R R^T = covariance; kept until the next update: references serve often.

        A pivoted Cholesky factor: ten times faster than eigenvectors at full rank, near free at the low rank
        of a few images, and exact for singular covariances.
        """
        if self._root is None:
            factor, pivot, rank, _ = dpstrf(self.covariance, lower=1)
            self._root = np.zeros((len(factor), rank))
            self._root[pivot - 1] = np.tril(factor)[:, :rank]
        return self._root


def frechet_distance(statistics: FrechetStatistics, reference: FrechetStatistics) -> float:
    """|m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)), >= 0 up to rounding.

    With C2 = R R^T the eigenvalues of C1 C2 are those of the symmetric R^T C1 R, so the last trace is the sum
    of their square roots: no matrix square root of a non-symmetric product, no imaginary parts, no jitter for
    singular covariances. The reference's root is kept between calls.
    """
    covariance, root = statistics.covariance, reference.root()
    # torch.linalg: its LAPACK takes half the time of NumPy's here
    eigenvalues = torch.linalg.eigvalsh(torch.from_numpy(root.T @ covariance @ root)).numpy()
    difference = statistics.mean - reference.mean
    traces = np.trace(covariance) + np.square(root).sum()
    return float(difference @ difference + traces - 2 * np.sqrt(eigenvalues.clip(min=0)).sum())
