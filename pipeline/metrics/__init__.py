"""Every metric, one entry each; `docs/protocols.md` defines the protocols in full.

To add a metric, write its module beside the others (pure functions on a batch) and its entry here: `stream.PairScores`
then computes it in the same pass as the rest. Names, protocols and directions are readable without torch: functions
that need a network are imported when they are called.

Layer 5; may import: core, anatomy, loading, extraction.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.anatomy.labels import NAMES
from pipeline.core.errors import UserError
from pipeline.metrics import identity, inception_score, kid, own_network, parsing_iou, pckh, pose_error, psnr, ssim

if TYPE_CHECKING:
    from pipeline.metrics.stream import Comparison

# What a metric may need besides networks: target-pose masks, joints (the target's and those found in the generated
# image), the target's joints alone, the target's parsing, the embeddings of the real images.
GIVEN = ("masks", "joints", "pose", "labels", "embeddings")

Range = tuple[float, float]
UP, SHARE, SIGNED, ANY, CLASSES = (0, inf), (0, 1), (-1, 1), (-inf, inf), (1, 1008)

# What a score stands on beside its metric -> its version, raised with every change, as a metric's is: which two images
# make a pair, the mask, what a label becomes in another set, how a photograph becomes an image of the data set.
FORMS = dict.fromkeys(
    (
        *(f"pairs-{name}" for name in ("synthetic", "market1501", "deepfashion", "folder")),
        "pose-mask",
        *(f"labels-{name}" for name in NAMES),
        *(f"form-{name}" for name in ("canvas256", "crop176", "squash256", "resize176", "resize352")),
        *(f"form-resize176-{name}" for name in ("cv2-bilinear", "cv2-cubic", "squashed")),
        *(f"form-resize352-{name}" for name in ("cv2-bilinear", "cv2-cubic")),
        *(f"fit-{name}" for name in ("pad", "squash")),
    ),
    1,
)

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
    range: Range  # in which every value lies
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
    version: int = 1  # raised with every change of its values; tests/golden holds both


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


def _of_set(name: str, protocol: str, higher: bool, range: Range, feature: str, function: Callable, **more) -> Metric:
    return Metric(name, protocol, higher, range, FEATURES[feature].needs, feature=feature, of_set=function, **more)


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
    return Metric(f"{key}-v0.1", protocol, False, UP, (key,), value, optional=True, marks=marks)


def _masked_lpips(net: str) -> Metric:
    key = f"lpips-{net}"

    def value(c: "Comparison") -> np.ndarray:
        from pipeline.metrics.lpips import masked_lpips

        return masked_lpips(c.networks[key], *c.pair, c.masks)

    protocol = f"lpips 0.1 {net}, [-1,1] x pose mask"
    return Metric(f"mask-{key}-v0.1", protocol, False, UP, (key, "masks"), value, optional=True, marks=_OF_LPIPS[net])


_IS = "TF Inception 2015, no bias, 10 splits"
_PARSER = "parser in the box, 20 labels, summed over pairs"

_ALL = (
    Metric("ssim", "gaussian 1.5, uint8, range 255", True, SIGNED, (), lambda c: c.ssim_maps.mean(axis=(1, 2))),
    Metric("ssim-uniform7", "uniform 7x7, uint8, range 255", True, SIGNED, (), lambda c: ssim.ssim_uniform(*c.pair, 7)),
    Metric(
        "ssim-win51", "uniform 51x51, uint8, range 255", True, SIGNED, (),
        lambda c: ssim.ssim_uniform(*c.pair, 51), smallest=51,
    ),
    Metric(
        "ssim-padded", "gaussian 1.5 after 40 white columns a side, range 255", True, SIGNED, (),
        lambda c: ssim.ssim_padded(*c.pair), width=176,
    ),
    Metric(
        "ssim-gauss12", "gaussian 1.2, uint8, range 255", True, SIGNED, (),
        lambda c: ssim.ssim_gaussian(*c.pair, 1.2), optional=True,
    ),
    Metric(
        "ssim-own-range", "gaussian 1.5, uint8, range of the generated image", True, SIGNED, (),
        lambda c: ssim.ssim_gaussian(*c.pair, own_range=True), optional=True,
    ),
    Metric(
        "ssim-gauss12-own-range", "gaussian 1.2, uint8, range of the generated image", True, SIGNED, (),
        lambda c: ssim.ssim_gaussian(*c.pair, 1.2, own_range=True), optional=True,
    ),
    Metric("psnr", "uint8, range 255, per image", True, UP, (), lambda c: psnr.psnr(*c.pair)),
    Metric(
        "mask-ssim", "ssim of uint8 x pose mask, whole image", True, SIGNED, ("masks",),
        lambda c: ssim.ssim(*c.masked),
    ),
    Metric(
        "mask-ssim-uniform7", "ssim-uniform7 of uint8 x pose mask, whole image", True, SIGNED, ("masks",),
        lambda c: ssim.ssim_uniform(*c.masked, 7),
    ),
    Metric(
        "mask-ssim-win51", "ssim-win51 of uint8 x pose mask, whole image", True, SIGNED, ("masks",),
        lambda c: ssim.ssim_uniform(*c.masked, 51), smallest=51,
    ),
    Metric("mask-psnr", "psnr of uint8 x pose mask, whole image", True, UP, ("masks",), lambda c: psnr.psnr(*c.masked)),
    Metric(
        "inside-ssim", "ssim map averaged over the pose mask", True, SIGNED, ("masks",),
        lambda c: ssim.ssim_inside(c.ssim_maps, c.masks),
    ),
    Metric(
        "inside-psnr", "MSE over the pose mask alone, range 255", True, UP, ("masks",),
        lambda c: psnr.psnr_inside(*c.pair, c.masks),
    ),
    _lpips("alex"),
    _lpips("vgg"),
    _lpips("squeeze"),
    _masked_lpips("alex"),
    _masked_lpips("vgg"),
    _masked_lpips("squeeze"),
    _of_set(
        "fid", "pytorch-fid Inception 2048-d, test targets", False, UP, "inception", _frechet, real="inception",
    ),
    _of_set(
        "fid-train-tv", "torchvision Inception 2048-d, training images", False, UP, "inception-tv", _frechet,
        real="inception-tv", optional=True,
    ),
    _of_set(
        "kid", "pytorch-fid Inception 2048-d, cubic kernel, test targets", False, ANY, "inception",
        lambda rows, networks, real: kid.kid(rows, real), real="inception-sample",
    ),
    _of_set(
        "is", _IS, True, CLASSES, "inception",
        lambda rows, networks, _: inception_score.inception_score(rows, _classifier(networks)),
    ),
    _of_set(
        "mask-is", f"{_IS}, uint8 x pose mask", True, CLASSES, "mask-inception",
        lambda rows, networks, _: inception_score.inception_score(rows, _classifier(networks)), optional=True,
    ),
    Metric(
        "pckh@0.5", "PATN head box, joints re-detected", True, SHARE, ("joints",),
        lambda c: pckh.pckh(c.detected, c.target_joints).share,
        weight=lambda c: pckh.pckh(c.detected, c.target_joints).joints,
    ),
    Metric(
        "pose-error-px", "mean distance of joints found again, pixels", False, UP, ("joints",),
        lambda c: pose_error.pose_error(c.detected, c.target_joints).mean,
        weight=lambda c: pose_error.pose_error(c.detected, c.target_joints).joints,
    ),
    _of_set(
        "parsing-miou", _PARSER, True, SHARE, "parsing",
        lambda rows, networks, _: parsing_iou.mean_iou(rows, background=True), optional=True,
    ),
    _of_set(
        "parsing-miou-fg", f"{_PARSER}, no background", True, SHARE, "parsing",
        lambda rows, networks, _: parsing_iou.mean_iou(rows, background=False), optional=True,
    ),
    Metric(
        "identity-target", "cosine of person-reidentification-retail-0287", True, SIGNED, ("reid", "embeddings"),
        lambda c: identity.similarity(c.embedded, c.embeddings["reid"][1]), optional=True,
    ),
    Metric(
        "identity-source", "cosine of person-reidentification-retail-0287", True, SIGNED, ("reid", "embeddings"),
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
            f"frechet-{name}", "Frechet distance, test targets", False, UP, of_set,
            feature=key, of_set=_frechet, real=key,
        ),
        Metric(
            f"kid-{name}", "kernel distance, test targets", False, ANY, of_set,
            feature=key, of_set=kernel_distance, real=f"{key}-sample",
        ),
        Metric(f"cosine-target-{name}", "cosine to the target", True, SIGNED, per_pair, lambda c: cosine(c, 1)),
        Metric(f"cosine-source-{name}", "cosine to the source", True, SIGNED, per_pair, lambda c: cosine(c, 0)),
    )  # fmt: skip


def of_own(names: Iterable[str]) -> list[str]:
    """The metrics by networks of the user's that have these names."""
    return [metric.name for name in names for metric in _of_own(name)]


def metric(name: str) -> Metric:
    """By its name: one of METRICS or OF_PARSING, or of a network of the user's. Raises UserError for any other."""
    if name in METRICS or name in OF_PARSING:
        return METRICS.get(name) or OF_PARSING[name]
    for kind in ("frechet-", "kid-", "cosine-target-", "cosine-source-"):
        if name.startswith(kind):
            return next(one for one in _of_own(name.removeprefix(kind)) if one.name == name)
    raise UserError(f"scores: no metric is called {name}: choose from {', '.join(METRICS)}")


def versions(names: Iterable[str]) -> dict[str, int | None]:
    """Of metrics, by name; None of one that is no more. What is not scored by a list of metrics is always there."""
    found = {}
    for name in (*names, *OF_PARSING):
        try:
            found[name] = metric(name).version
        except UserError:
            found[name] = None
    return found


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
            "target-parsing-miou", _PREDICTED, True, SHARE,
            of_set=lambda rows, networks, _: parsing_iou.mean_iou(rows, background=True),
        ),
        Metric(
            "target-parsing-miou-fg", f"{_PREDICTED}, no background", True, SHARE,
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
