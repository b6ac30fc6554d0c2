"""Every metric, one entry each; `docs/protocols.md` defines the protocols in full.

To add a metric, write its module beside the others (pure functions on a batch) and its entry here: `stream.PairScores`
then computes it in the same pass as the rest. Names, protocols and directions are readable without torch: functions
that need a network are imported when they are called.

Layer 5; may import: core, anatomy, loading, extraction.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.errors import UserError
from pipeline.metrics import identity, inception_score, kid, own_network, parsing_iou, pckh, pose_error, psnr, ssim

if TYPE_CHECKING:
    from pipeline.metrics.stream import Comparison

# What a metric may need besides networks: target-pose masks, joints (the target's and those found in the generated
# image), the target's joints alone, the target's parsing, the embeddings of the real images.
GIVEN = ("masks", "joints", "pose", "labels", "embeddings")

Networks = Mapping[str, Any]  # by the name in Metric.needs
PerPair = Callable[["Comparison"], np.ndarray]  # (n,) float64, one value for each pair


@dataclass(frozen=True)
class Feature:
    """What is kept of every pair until all have been seen: `of` gives (n, width) float32 for n pairs."""

    needs: tuple[str, ...]
    width: int
    of: "Callable[[Comparison], np.ndarray]"

    def storage(self, pairs: int) -> np.ndarray:
        """(pairs, width) float32, mapped from a temporary file that is gone with the array, whose pages the system may
        drop from memory.
        """
        return np.memmap(TemporaryFile(), np.float32, "w+", shape=(pairs, self.width))


@dataclass(frozen=True)
class Metric:
    """What a metric is called, how it is defined, and how it is computed.

    needs: names from GIVEN, and of networks: "lpips-alex", "lpips-vgg", "lpips-squeeze", "inception", "inception-tv",
    "reid", "parser", or "own:NAME", a network of the user's.
    Exactly one of two functions is set. `per_pair` gives one value for each pair: the metric is their mean, weighted
    by `weight` if that is set. `of_set(rows, networks, real)` gives the value of the whole set and each pair's
    influence on it, from the rows of `feature` and from what the real images gave under the name `real`.
    """

    name: str
    protocol: str
    higher_is_better: bool
    needs: tuple[str, ...] = ()
    per_pair: PerPair | None = None
    weight: PerPair | None = None
    feature: str | None = None
    of_set: Callable[[Any, Networks, Any], tuple[float, np.ndarray]] | None = None
    real: str | None = None
    optional: bool = False  # scored only where `reference.D.metrics` names it
    marks: tuple[str, ...] = ()  # of every score by it: how it differs from what the papers measure by
    smallest: int = 11  # shorter side, in pixels, of the smallest images for which it is defined
    width: int | None = None  # the only image width for which it is defined


def _inception(c: "Comparison", network: str, images: np.ndarray) -> np.ndarray:
    from pipeline.metrics.inception import inception_features

    return inception_features(c.networks[network], images).float().cpu().numpy()


FEATURES = {
    "inception": Feature(("inception",), 2048, lambda c: _inception(c, "inception", c.generated)),
    "mask-inception": Feature(("inception", "masks"), 2048, lambda c: _inception(c, "inception", c.masked[0])),
    "inception-tv": Feature(("inception-tv",), 2048, lambda c: _inception(c, "inception-tv", c.generated)),
    "parsing": Feature(
        ("parser", "labels", "joints"), 3 * parsing_iou.LABELS, lambda c: parsing_iou.label_counts(c.parsed, c.labels)
    ),
}


def _of_set(name: str, protocol: str, higher: bool, feature: str, function: Callable, **more) -> Metric:
    return Metric(name, protocol, higher, FEATURES[feature].needs, feature=feature, of_set=function, **more)


def _frechet(rows: np.ndarray, networks: Networks, real: Any) -> tuple[float, np.ndarray]:
    from pipeline.metrics.fid import frechet_influence

    return frechet_influence(rows, real)


def _classifier(networks: Networks) -> np.ndarray:
    return networks["inception"].classifier.cpu().numpy()


_OF_LPIPS = {"alex": (), "vgg": ("lpips",), "squeeze": ("lpips",)}  # network -> marks


def _lpips(net: str) -> Metric:
    key = f"lpips-{net}"

    def value(c: "Comparison") -> np.ndarray:
        from pipeline.metrics.lpips import lpips

        return lpips(c.networks[key], *c.pair)

    protocol, marks = f"lpips 0.1 {net}, uint8 scaled to [-1,1]", _OF_LPIPS[net]
    return Metric(f"{key}-v0.1", protocol, False, (key,), value, optional=True, marks=marks)


def _masked_lpips(net: str) -> Metric:
    key = f"lpips-{net}"

    def value(c: "Comparison") -> np.ndarray:
        from pipeline.metrics.lpips import masked_lpips

        return masked_lpips(c.networks[key], *c.pair, c.masks)

    protocol = f"lpips 0.1 {net}, [-1,1] x pose mask"
    return Metric(f"mask-{key}-v0.1", protocol, False, (key, "masks"), value, optional=True, marks=_OF_LPIPS[net])


_IS = "TF Inception 2015, no bias, 10 splits"
_PARSER = "parser in the box, 20 labels, summed over pairs"

_ALL = (
    Metric("ssim", "gaussian 1.5, uint8, range 255", True, (), lambda c: c.ssim_maps.mean(axis=(1, 2))),
    Metric("ssim-uniform7", "uniform 7x7, uint8, range 255", True, (), lambda c: ssim.ssim_uniform(*c.pair, 7)),
    Metric(
        "ssim-win51", "uniform 51x51, uint8, range 255", True, (),
        lambda c: ssim.ssim_uniform(*c.pair, 51), smallest=51,
    ),
    Metric(
        "ssim-padded", "gaussian 1.5 after 40 white columns a side, range 255", True, (),
        lambda c: ssim.ssim_padded(*c.pair), width=176,
    ),
    Metric(
        "ssim-gauss12", "gaussian 1.2, uint8, range 255", True, (),
        lambda c: ssim.ssim_gaussian(*c.pair, 1.2), optional=True,
    ),
    Metric(
        "ssim-own-range", "gaussian 1.5, uint8, range of the generated image", True, (),
        lambda c: ssim.ssim_gaussian(*c.pair, own_range=True), optional=True,
    ),
    Metric(
        "ssim-gauss12-own-range", "gaussian 1.2, uint8, range of the generated image", True, (),
        lambda c: ssim.ssim_gaussian(*c.pair, 1.2, own_range=True), optional=True,
    ),
    Metric("psnr", "uint8, range 255, per image", True, (), lambda c: psnr.psnr(*c.pair)),
    Metric("mask-ssim", "ssim of uint8 x pose mask, whole image", True, ("masks",), lambda c: ssim.ssim(*c.masked)),
    Metric(
        "mask-ssim-uniform7", "ssim-uniform7 of uint8 x pose mask, whole image", True, ("masks",),
        lambda c: ssim.ssim_uniform(*c.masked, 7),
    ),
    Metric(
        "mask-ssim-win51", "ssim-win51 of uint8 x pose mask, whole image", True, ("masks",),
        lambda c: ssim.ssim_uniform(*c.masked, 51), smallest=51,
    ),
    Metric("mask-psnr", "psnr of uint8 x pose mask, whole image", True, ("masks",), lambda c: psnr.psnr(*c.masked)),
    Metric(
        "inside-ssim", "ssim map averaged over the pose mask", True, ("masks",),
        lambda c: ssim.ssim_inside(c.ssim_maps, c.masks),
    ),
    Metric(
        "inside-psnr", "MSE over the pose mask alone, range 255", True, ("masks",),
        lambda c: psnr.psnr_inside(*c.pair, c.masks),
    ),
    _lpips("alex"),
    _lpips("vgg"),
    _lpips("squeeze"),
    _masked_lpips("alex"),
    _masked_lpips("vgg"),
    _masked_lpips("squeeze"),
    _of_set(
        "fid", "pytorch-fid Inception 2048-d, test targets", False, "inception", _frechet, real="inception",
    ),
    _of_set(
        "fid-train-tv", "torchvision Inception 2048-d, training images", False, "inception-tv", _frechet,
        real="inception-tv", optional=True,
    ),
    _of_set(
        "kid", "pytorch-fid Inception 2048-d, cubic kernel, test targets", False, "inception",
        lambda rows, networks, real: kid.kid(rows, real), real="inception-sample",
    ),
    _of_set(
        "is", _IS, True, "inception",
        lambda rows, networks, _: inception_score.inception_score(rows, _classifier(networks)),
    ),
    _of_set(
        "mask-is", f"{_IS}, uint8 x pose mask", True, "mask-inception",
        lambda rows, networks, _: inception_score.inception_score(rows, _classifier(networks)), optional=True,
    ),
    Metric(
        "pckh@0.5", "PATN head box, joints re-detected", True, ("joints",),
        lambda c: pckh.pckh(c.detected, c.target_joints).share,
        weight=lambda c: pckh.pckh(c.detected, c.target_joints).joints,
    ),
    Metric(
        "pose-error-px", "mean distance of joints found again, pixels", False, ("joints",),
        lambda c: pose_error.pose_error(c.detected, c.target_joints).mean,
        weight=lambda c: pose_error.pose_error(c.detected, c.target_joints).joints,
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
        lambda c: identity.similarity(c.embedded, c.embeddings["reid"][1]), optional=True,
    ),
    Metric(
        "identity-source", "cosine of person-reidentification-retail-0287", True, ("reid", "embeddings"),
        lambda c: identity.similarity(c.embedded, c.embeddings["reid"][0]), optional=True,
    ),
)  # fmt: skip

METRICS = {metric.name: metric for metric in _ALL}


def _of_own(name: str) -> tuple[Metric, ...]:
    """What a network of the user's measures; `name`: as in params.yaml."""
    key = own_network.PREFIX + name

    def kernel_distance(rows: np.ndarray, networks: Networks, real: np.ndarray) -> tuple[float, np.ndarray]:
        return networks[key].kernel_distance(rows, real)

    def cosine(c: "Comparison", other: int) -> np.ndarray:
        return own_network.cosine(c.vectors(key), c.embeddings[key][other])

    of_set, per_pair = (key, "pose"), (key, "pose", "embeddings")
    return (
        Metric(
            f"frechet-{name}", "Frechet distance, test targets", False, of_set, feature=key, of_set=_frechet, real=key
        ),
        Metric(
            f"kid-{name}", "kernel distance, test targets", False, of_set,
            feature=key, of_set=kernel_distance, real=f"{key}-sample",
        ),
        Metric(f"cosine-target-{name}", "cosine to the target", True, per_pair, lambda c: cosine(c, 1)),
        Metric(f"cosine-source-{name}", "cosine to the source", True, per_pair, lambda c: cosine(c, 0)),
    )  # fmt: skip


def of_own(names: Iterable[str]) -> list[str]:
    """The metrics by networks of the user's that have these names."""
    return [metric.name for name in names for metric in _of_own(name)]


def metric(name: str) -> Metric:
    """By its name: one of METRICS, or of a network of the user's. Raises UserError for any other."""
    if name in METRICS:
        return METRICS[name]
    for kind in ("frechet-", "kid-", "cosine-target-", "cosine-source-"):
        if name.startswith(kind):
            return next(one for one in _of_own(name.removeprefix(kind)) if one.name == name)
    raise UserError(f"scores: no metric is called {name}: choose from {', '.join(METRICS)}")


def feature(name: str, networks: Networks) -> Feature:
    """By its name: one of FEATURES, or the vectors of a network of the user's."""
    if name in FEATURES:
        return FEATURES[name]
    return Feature((name, "pose"), networks[name].width, lambda c: c.vectors(name))


# What components are scored by, not images: the target's parsing as a network predicts it from the source's and the two
# poses. Rows are those of `parsing_iou.label_counts`.
_PREDICTED = "predicted against stored parsing, 20 labels, summed over pairs"
OF_PARSING = {
    metric.name: metric
    for metric in (
        Metric(
            "target-parsing-miou", _PREDICTED, True,
            of_set=lambda rows, networks, _: parsing_iou.mean_iou(rows, background=True),
        ),
        Metric(
            "target-parsing-miou-fg", f"{_PREDICTED}, no background", True,
            of_set=lambda rows, networks, _: parsing_iou.mean_iou(rows, background=False),
        ),
    )
}  # fmt: skip


def standard(lpips_net: str, more: Sequence[str], height: int, width: int) -> list[str]:
    """The metrics by which images of one size are scored, in the order of METRICS: every standard one that is defined
    for this size, LPIPS by `lpips_net`, and those named in `more`.
    """
    named = {f"lpips-{lpips_net}-v0.1", f"mask-lpips-{lpips_net}-v0.1", *more}
    return [
        name
        for name, metric in METRICS.items()
        if (name in named or not metric.optional)
        and min(height, width) >= metric.smallest
        and metric.width in (None, width)
    ]


def scored(metrics: Iterable[str], split: str) -> list[str]:
    """Those of `metrics` that are scored on a split: on val only those that have a value for each pair."""
    return [name for name in metrics if split == "test" or metric(name).per_pair]
