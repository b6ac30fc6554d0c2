"""The metrics: one line each. `docs/protocols.md` defines every protocol in full.

To add a metric, write its module beside the others (pure functions on a batch) and add its line here:
`stream.PairScores` then feeds it in the same pass as the rest.

Layer 5; may import: core, anatomy, extraction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from pipeline.metrics import fid, identity, kid, lpips, parsing_iou, pckh, pose_error, psnr, ssim
from pipeline.metrics import inception_score as inception

if TYPE_CHECKING:
    from pipeline.metrics.stream import Batch

# What a metric may need beside networks: target-pose masks, joints (the target's and those found in the generated
# image), the target's parsing, the real images' embeddings.
GIVEN = ("masks", "joints", "labels", "embeddings")

Networks = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Feature:
    """What is kept of every pair until all are there: `of` gives (n, d) float32 for a batch."""

    needs: tuple[str, ...]
    of: "Callable[[Batch], np.ndarray]"


@dataclass(frozen=True)
class Metric:
    """What a metric is called, how it is defined, and how pairs enter it.

    needs: names of GIVEN, and the networks "lpips-alex", "lpips-vgg", "lpips-squeeze", "inception", "inception-tv",
    "reid", "parser".
    Exactly one of two functions is set. `per_pair` gives (N,) float64, one value a pair: the metric is their
    mean, weighted by `weight` if set. `of_set(rows, networks, real)` gives the value of the whole set and each pair's
    influence on it, from the rows of `feature` and from what the real images gave under the name `real`.
    """

    name: str
    protocol: str
    higher_is_better: bool
    needs: tuple[str, ...] = ()
    per_pair: "Callable[[Batch], np.ndarray] | None" = None
    weight: "Callable[[Batch], np.ndarray] | None" = None
    feature: str | None = None
    of_set: Callable[[Any, Networks, Any], tuple[float, np.ndarray]] | None = None
    real: str | None = None
    optional: bool = False  # only where `reference.D.metrics` names it
    smallest: int = 11  # shorter side, in pixels, of images for which it is defined
    width: int | None = None  # the only width for which it is defined


def _features(batch: "Batch", network: str, images: np.ndarray) -> np.ndarray:
    return fid.inception_features(batch.networks[network], images).float().cpu().numpy()


FEATURES = {
    "inception": Feature(("inception",), lambda b: _features(b, "inception", b.generated)),
    "mask-inception": Feature(("inception", "masks"), lambda b: _features(b, "inception", b.masked[0])),
    "inception-tv": Feature(("inception-tv",), lambda b: _features(b, "inception-tv", b.generated)),
    "parsing": Feature(("parser", "labels", "joints"), lambda b: parsing_iou.label_counts(b.parsed, b.labels)),
}


def _of_set(name: str, protocol: str, higher: bool, feature: str, function: Callable, **more) -> Metric:
    return Metric(name, protocol, higher, FEATURES[feature].needs, feature=feature, of_set=function, **more)


def _lpips(net: str) -> Metric:
    key = f"lpips-{net}"
    protocol = f"lpips 0.1 {net}, uint8 scaled to [-1,1]"
    return Metric(
        f"{key}-v0.1", protocol, False, (key,), lambda b: lpips.lpips(b.networks[key], *b.pair), optional=True
    )


def _masked_lpips(net: str) -> Metric:
    key = f"lpips-{net}"
    protocol = f"lpips 0.1 {net}, [-1,1] x pose mask"

    def value(batch: "Batch") -> np.ndarray:
        return lpips.masked_lpips(batch.networks[key], *batch.pair, batch.masks)

    return Metric(f"mask-{key}-v0.1", protocol, False, (key, "masks"), value, optional=True)


_IS = "TF Inception 2015, no bias, 10 splits"
_PARSER = "parser in the box, 20 labels, summed over pairs"

_ALL = (
    Metric("ssim", "gaussian 1.5, uint8, range 255", True, (), lambda b: b.ssim_maps.mean(axis=(1, 2))),
    Metric("ssim-uniform7", "uniform 7x7, uint8, range 255", True, (), lambda b: ssim.ssim_uniform(*b.pair, 7)),
    Metric(
        "ssim-win51", "uniform 51x51, uint8, range 255", True, (),
        lambda b: ssim.ssim_uniform(*b.pair, 51), smallest=51,
    ),
    Metric(
        "ssim-padded", "gaussian 1.5 after 40 white columns a side, range 255", True, (),
        lambda b: ssim.ssim_padded(*b.pair), width=176,
    ),
    Metric("psnr", "uint8, range 255, per image", True, (), lambda b: psnr.psnr(*b.pair)),
    Metric("mask-ssim", "ssim of uint8 x pose mask, whole image", True, ("masks",), lambda b: ssim.ssim(*b.masked)),
    Metric(
        "mask-ssim-uniform7", "ssim-uniform7 of uint8 x pose mask, whole image", True, ("masks",),
        lambda b: ssim.ssim_uniform(*b.masked, 7),
    ),
    Metric(
        "mask-ssim-win51", "ssim-win51 of uint8 x pose mask, whole image", True, ("masks",),
        lambda b: ssim.ssim_uniform(*b.masked, 51), smallest=51,
    ),
    Metric("mask-psnr", "psnr of uint8 x pose mask, whole image", True, ("masks",), lambda b: psnr.psnr(*b.masked)),
    Metric(
        "inside-ssim", "ssim map averaged over the pose mask", True, ("masks",),
        lambda b: ssim.ssim_inside(b.ssim_maps, b.masks),
    ),
    Metric(
        "inside-psnr", "MSE over the pose mask alone, range 255", True, ("masks",),
        lambda b: psnr.psnr_inside(*b.pair, b.masks),
    ),
    _lpips("alex"),
    _lpips("vgg"),
    _lpips("squeeze"),
    _masked_lpips("alex"),
    _masked_lpips("vgg"),
    _masked_lpips("squeeze"),
    _of_set(
        "fid", "pytorch-fid Inception 2048-d, test targets", False, "inception",
        lambda rows, networks, real: fid.frechet_influence(rows, real), real="inception",
    ),
    _of_set(
        "fid-train-tv", "torchvision Inception 2048-d, training images", False, "inception-tv",
        lambda rows, networks, real: fid.frechet_influence(rows, real), real="inception-tv", optional=True,
    ),
    _of_set(
        "kid", "pytorch-fid Inception 2048-d, cubic kernel, test targets", False, "inception",
        lambda rows, networks, real: kid.kid(rows, real), real="inception-sample",
    ),
    _of_set(
        "is", _IS, True, "inception",
        lambda rows, networks, _: inception.inception_score(rows, networks["inception"].classifier.cpu().numpy()),
    ),
    _of_set(
        "mask-is", f"{_IS}, uint8 x pose mask", True, "mask-inception",
        lambda rows, networks, _: inception.inception_score(rows, networks["inception"].classifier.cpu().numpy()),
        optional=True,
    ),
    Metric(
        "pckh@0.5", "PATN head box, joints re-detected", True, ("joints",),
        lambda b: pckh.pckh(b.detected, b.target_joints).share,
        weight=lambda b: pckh.pckh(b.detected, b.target_joints).joints,
    ),
    Metric(
        "pose-error-px", "mean distance of joints found again, pixels", False, ("joints",),
        lambda b: pose_error.pose_error(b.detected, b.target_joints).mean,
        weight=lambda b: pose_error.pose_error(b.detected, b.target_joints).joints,
    ),
    _of_set(
        "parsing-miou", _PARSER, True, "parsing",
        lambda rows, networks, _: parsing_iou.mean_iou(rows, background=True), optional=True,
    ),
    _of_set(
        "parsing-miou-fg", f"{_PARSER}, no background", True, "parsing",
        lambda rows, networks, _: parsing_iou.mean_iou(rows, background=False), optional=True,
    ),
    Metric(
        "identity-target", "cosine of person-reidentification-retail-0287", True, ("reid", "embeddings"),
        lambda b: identity.similarity(b.embedded, b.target_embeddings), optional=True,
    ),
    Metric(
        "identity-source", "cosine of person-reidentification-retail-0287", True, ("reid", "embeddings"),
        lambda b: identity.similarity(b.embedded, b.source_embeddings), optional=True,
    ),
)  # fmt: skip

METRICS = {metric.name: metric for metric in _ALL}


def standard(lpips_net: str, more: tuple[str, ...], height: int, width: int) -> list[str]:
    """The metrics that images of one size are scored by: every standard one that is defined for the size, LPIPS by
    `lpips_net`, and those named in `more`, in the order of METRICS.
    """
    named = {f"lpips-{lpips_net}-v0.1", f"mask-lpips-{lpips_net}-v0.1", *more}
    return [
        name
        for name, metric in METRICS.items()
        if (name in named or not metric.optional)
        and min(height, width) >= metric.smallest
        and metric.width in (None, width)
    ]
