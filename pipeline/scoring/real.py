"""What the real images measure: the statistics that generated images are compared with, and the ceilings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from pipeline.core import console, layout, store
from pipeline.metrics import FEATURES, metric, scored
from pipeline.metrics.identity import similarity
from pipeline.metrics.own_network import PREFIX, cosine
from pipeline.metrics.pckh import Joints, pckh
from pipeline.metrics.pose_error import pose_error
from pipeline.metrics.pose_mask import pose_masks
from pipeline.metrics.stream import Comparison
from pipeline.scoring.judged import Pairs
from pipeline.scoring.protocol import Protocol, embeddings_of

if TYPE_CHECKING:
    from torch import nn

    from pipeline.metrics.fid import FrechetStatistics

KID_TARGETS = 2048  # real features that are kept for KID, 8 KiB each


class Real(NamedTuple):
    """What the real images of one split measure."""

    statistics: dict[str, Any]  # as Reference.real, without those of the training images
    ceilings: dict[str, float]  # metric -> its value for the real targets, where that is not trivial
    targets: np.ndarray  # rows of the distinct targets
    detected: Joints | None  # found on them


def measure(
    pairs: Pairs,
    metrics: Sequence[str],
    networks: Mapping[str, Any],
    find: Callable[[np.ndarray], Joints] | None,
    batch: int,
) -> Real:
    """Judge the distinct targets of `pairs`, once each, as if they had been generated.

    A target enters statistics and means once for every pair that ends in it, as the generated images do: a generator
    that hits every target has FID 0. find: the detector, None where no metric needs one.
    """
    wanted = [metric(name) for name in scored(metrics, pairs.name)]
    features = {one.feature: FEATURES[one.feature].storage(len(pairs)) for one in wanted if one.feature in FEATURES}
    features.pop("inception-tv", None)  # compared with the training images, not with these
    targets, target_of = np.unique(pairs.rows[:, 1], return_inverse=True)  # the position in `targets` of each pair's
    found = []
    with console.progress(f"reference {pairs.name}", len(targets)) as advance:
        for first, compared in _with_themselves(pairs, targets, networks, find, batch):
            count = len(compared.target)
            here = np.flatnonzero((target_of >= first) & (target_of < first + count))
            for name, kept in features.items():
                kept[here] = FEATURES[name].of(compared)[target_of[here] - first]
            found.append(compared.detected)
            advance(count)
    detected = Joints(*map(np.concatenate, zip(*found, strict=True))) if find else None

    statistics: dict[str, Any] = {}
    if "inception" in features:
        statistics |= _of_set("inception", features["inception"])
    ceilings = {}
    if detected is not None:
        ceilings = _pooled(Joints(*(each[target_of] for each in detected)), pairs.joints(pairs.rows[:, 1]))
    for one in wanted:
        if one.feature in features and one.real is None:
            ceilings[one.name] = one.of_set(features[one.feature], networks, None)[0]
    for name in (name for name in networks if name == "reid" or name.startswith(PREFIX)):
        statistics[embeddings_of(name, pairs.name)] = embeddings = _embeddings(pairs, name, networks[name], batch)
        source, target = embeddings[pairs.rows].transpose(1, 0, 2)
        if name == "reid":
            ceilings["identity-source"] = similarity(target, source).mean()
            continue
        ceilings[f"cosine-source-{name.removeprefix(PREFIX)}"] = _mean(cosine(target, source))
        there = target[np.isfinite(target[:, 0])]  # the others lack the part that is looked at
        if pairs.name == "test" and len(there) > 1:
            statistics |= _of_set(name, there)
    finite = {name: float(value) for name, value in ceilings.items() if np.isfinite(value)}
    return Real(statistics, finite, targets, detected)


def restricted(protocol: Protocol, pairs: Pairs, batch: int) -> Protocol:
    """A protocol for some of its test pairs: FID, KID and the ceilings are those of these pairs' targets."""
    made = protocol.reference
    measured = measure(pairs, made.described["metrics"], protocol.networks, protocol.detector.find, batch)
    described = made.described | {"ceilings": made.described["ceilings"] | {"test": measured.ceilings}}
    made = replace(made, real={**made.real, **measured.statistics}, described=described)
    return replace(protocol, reference=made)


def _with_themselves(
    pairs: Pairs,
    targets: np.ndarray,
    networks: Mapping[str, Any],
    find: Callable[[np.ndarray], Joints] | None,
    batch: int,
) -> Iterator[tuple[int, Comparison]]:
    """The position of each batch's first target, and the batch compared with itself."""
    for first in range(0, len(targets), batch):
        rows = targets[first : first + batch]
        images, joints = pairs.images(rows), pairs.joints(rows)
        masks = None if joints is None else pose_masks(*joints, *pairs.size)
        found = find(images) if find else None
        yield first, Comparison(images, images, networks, masks, found, joints, pairs.labels(rows))


def _pooled(detected: Joints, target: Joints) -> dict[str, float]:
    """The ceilings of the metrics that pool joints over all pairs; without one that no joint enters."""
    sums = {"pckh@0.5": pckh(detected, target)[:2], "pose-error-px": pose_error(detected, target)}
    return {name: above.sum() / below.sum() for name, (above, below) in sums.items() if below.any()}


def _mean(values: np.ndarray) -> float:
    """Of those that are there, NaN of none."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")


def _of_set(name: str, rows: np.ndarray) -> dict[str, Any]:
    """What Frechet and kernel distances compare with: the statistics of all rows (n, d), and some, evenly spaced."""
    from pipeline.metrics.fid import statistics_of

    chosen = np.linspace(0, len(rows) - 1, min(KID_TARGETS, len(rows))).round().astype(int)
    return {name: statistics_of(rows), f"{name}-sample": np.array(rows[chosen])}


def _embeddings(pairs: Pairs, name: str, network: Callable[..., np.ndarray], batch: int) -> np.ndarray:
    """(n, width) float32, a row for each image; one of the user's networks looks where the image's own joints say."""
    embedded = []
    with console.progress(f"reference {pairs.name}, {name}", len(pairs.ids)) as advance:
        for first in range(0, len(pairs.ids), batch):
            rows = np.arange(first, min(first + batch, len(pairs.ids)))
            joints = [] if name == "reid" else [pairs.joints(rows)]
            embedded.append(network(pairs.images(rows), *joints))
            advance(len(rows))
    return np.concatenate(embedded)


def training_statistics(dataset: str, network: "nn.Module") -> "FrechetStatistics":
    """Of every image of split train, once."""
    from pipeline.loading import stored_images
    from pipeline.metrics.fid import FrechetStatistics
    from pipeline.metrics.inception import DIMENSIONS, inception_features

    table = store.read_table(layout.images(dataset), columns=["image_id", "split"])
    wanted = table.filter(pc.equal(table["split"], "train"))["image_id"].combine_chunks()
    statistics = FrechetStatistics(DIMENSIONS)
    with console.progress("reference train", len(wanted)) as advance:
        for names, images in stored_images.stream(dataset, wanted):
            statistics.update(inception_features(network, images.permute(0, 2, 3, 1).contiguous().numpy()))
            advance(len(names))
    return statistics
