"""Frechet Inception distance (Heusel et al. 2017): two networks, streamed statistics, the influence of one image."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
import torchvision
from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
from scipy.linalg.lapack import dpstrf, dsygst
from torch import nn
from torch.nn.functional import interpolate

from pipeline.core.errors import UserError
from pipeline.metrics.networks import in_batches, load_weights, seed_weights

DIMENSIONS = 2048
CLASSES = 1008
BLOCK = 1024  # rows of features at a time: bounds the memory for any number of images

Network = TypeVar("Network", bound=nn.Module)


class FidInception(torchvision.models.Inception3):
    """TensorFlow's 2015 Inception as pytorch-fid ports it: (N, 3, H, W) float in [0, 1] -> (N, 2048).

    pytorch-fid's own constructor always downloads its weights. Its network is torchvision's with nine blocks
    exchanged and no classifier, so it is put together here from pytorch-fid's block classes; a test holds the
    two equal. `classifier`: (1008, 2048), the last layer's weights, which the Inception score uses without their bias.
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
        self.register_buffer("classifier", torch.zeros(CLASSES, DIMENSIONS))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        resized = interpolate(images, size=(299, 299), mode="bilinear", align_corners=False)
        return super().forward(2 * resized - 1)


class TorchvisionInception(torchvision.models.Inception3):
    """torchvision's ImageNet Inception as GFLA's script feeds it: (N, 3, H, W) float in [0, 1] -> (N, 2048).

    Resized to 299x299 (bilinear). Then torchvision's change from ImageNet's normalisation to [-1, 1], although the
    images were never normalised so: that is what the published numbers contain.
    """

    def __init__(self):
        super().__init__(num_classes=1, aux_logits=False, transform_input=True, init_weights=False)
        self.fc = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(interpolate(images, size=(299, 299), mode="bilinear", align_corners=False))


def inception_network(state_dict: Mapping[str, torch.Tensor] | None, seed: int = 0) -> FidInception:
    """The network in eval mode on the CPU; `provenance` is "published" or "seeded".

    state_dict: the tensors of pytorch-fid's `pt_inception-2015-12-05` file, or None for seeded weights. Raises
    UserError if the tensors do not fit.
    """
    given = None
    if state_dict is not None:
        given = {"classifier" if k == "fc.weight" else k: v for k, v in state_dict.items() if k != "fc.bias"}
    network = _ready(FidInception, given, seed, "FID Inception")
    if state_dict is None:
        generator = torch.Generator().manual_seed(seed)
        network.classifier.copy_(torch.randn(CLASSES, DIMENSIONS, generator=generator) / DIMENSIONS**0.5)
    return network


def torchvision_inception(state_dict: Mapping[str, torch.Tensor] | None, seed: int = 0) -> TorchvisionInception:
    """As `inception_network`. state_dict: of torchvision's `inception_v3`, whose two classifiers are not looked at."""
    given = None
    if state_dict is not None:
        given = {k: v for k, v in state_dict.items() if not k.startswith(("fc.", "AuxLogits."))}
    return _ready(TorchvisionInception, given, seed, "torchvision Inception")


def _ready(kind: type[Network], state: Mapping[str, torch.Tensor] | None, seed: int, what: str) -> Network:
    with torch.random.fork_rng(devices=[]):  # torchvision draws throw-away weights: not from the caller's random state
        network = kind()
    if state is None:
        seed_weights(network, seed)
    else:
        load_weights(network, state, what)
    network.provenance = "seeded" if state is None else "published"
    # channels_last is a third faster on a CPU, and uint8 images arrive in that order anyway.
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def inception_features(network: FidInception | TorchvisionInception, images: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 RGB -> (N, 2048) float32 on the network's device."""
    device = next(network.parameters()).device
    return in_batches(lambda x: network(x.permute(0, 3, 1, 2).float() / 255), device, images)


class FrechetStatistics:
    """Mean and covariance of a stream of feature vectors in float64: d^2 memory for any number."""

    def __init__(self, dimensions: int = DIMENSIONS):
        self.count = 0
        self._mean = torch.zeros(dimensions, dtype=torch.float64)
        self._scatter = torch.zeros(dimensions, dimensions, dtype=torch.float64)  # sum of (x - mean)(x - mean)^T
        self._root = self._order = None

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
            self._order = pivot - 1  # the rows in which it is a lower triangle
        return self._root


def statistics_of(features: np.ndarray) -> FrechetStatistics:
    """Of (N, d) features, in their order; anything that slices into float arrays."""
    statistics = FrechetStatistics(features[:1].shape[1])
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
    root, covariance = reference.root(), statistics.covariance
    if root.shape[0] > root.shape[1]:
        return torch.from_numpy(root.T @ covariance @ root)
    # At full rank R is a triangle in another order of rows: LAPACK then needs a quarter of the multiplications.
    order = reference._order
    product, _ = dsygst(covariance[np.ix_(order, order)], root[order], itype=2, lower=1)
    return torch.from_numpy(product)


def _distance(statistics: FrechetStatistics, reference: FrechetStatistics, eigenvalues: np.ndarray) -> float:
    difference = statistics.mean - reference.mean
    traces = np.trace(statistics.covariance) + np.square(reference.root()).sum()
    return float(difference @ difference + traces - 2 * np.sqrt(eigenvalues.clip(min=0)).sum())


def frechet_influence(features: np.ndarray, reference: FrechetStatistics) -> tuple[float, np.ndarray]:
    """`frechet_distance` of the generated images' features (N, d) to the reference, and the influence of each image.

    features: anything that slices into float arrays. The influence (N,), of mean 0, is the derivative of the distance
    by the image's weight (Efron's infinitesimal jackknife): for other weights w of mean 1 the distance is, to first
    order, distance + mean(w * influence). With M = R^T C1 R = U L U^T, the derivative of -2 tr M^(1/2) by M is
    -U L^(-1/2) U^T; outside the span of the images nothing varies with their weights, so eigenvalues of 0 are left out.
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
