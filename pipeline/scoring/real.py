"""What the real images measure: the statistics that generated images are compared with, and the ceilings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import torch
from torch import nn

from pipeline.core import console, layout, store
from pipeline.loading import stored_images
from pipeline.loading.arrays import PairData
from pipeline.metrics import FEATURES, METRICS, scored
from pipeline.metrics.fid import FrechetStatistics, statistics_of
from pipeline.metrics.identity import similarity
from pipeline.metrics.pckh import Joints, pckh
from pipeline.metrics.pose_error import pose_error
from pipeline.metrics.pose_mask import pose_masks
from pipeline.metrics.stream import Comparison
from pipeline.scoring.pairs import images_of, joints_of

KID_TARGETS = 2048  # real features that are kept for KID, 8 KiB each


class Real(NamedTuple):
    """What the real images of one split measure."""

    statistics: dict[str, Any]  # as Reference.real, without those of the training images
    ceilings: dict[str, float]  # metric -> its value for the real targets, where that is not trivial
    targets: torch.Tensor  # rows of the distinct targets
    detected: Joints  # found on them


def measure(
    data: PairData,
    split: str,
    metrics: Sequence[str],
    networks: Mapping[str, Any],
    find: Callable[[np.ndarray], Joints],
    labels: Mapping[int, np.ndarray],
    batch: int,
) -> Real:
    """Judge the distinct targets of `data`, once each, as if they had been generated.

    A target enters statistics and means once for every pair that ends in it, as the generated images do: a generator
    that hits every target has FID 0. labels: the targets' parsing, by row; empty unless a metric needs it.
    """
    wanted = [METRICS[name] for name in scored(metrics, split)]
    features = {metric.feature: FEATURES[metric.feature].storage(len(data)) for metric in wanted if metric.feature}
    features.pop("inception-tv", None)  # compared with the training images, not with these
    targets, inverse = data.pairs[:, 1].cpu().unique(return_inverse=True)
    target_of, found = inverse.numpy(), []  # target_of: the position in `targets` of each pair's
    with console.progress(f"reference {split}", len(targets)) as advance:
        for first, compared in _with_themselves(data, targets, networks, find, labels, batch):
            count = len(compared.target)
            pairs = np.flatnonzero((target_of >= first) & (target_of < first + count))
            for name, kept in features.items():
                kept[pairs] = FEATURES[name].of(compared)[target_of[pairs] - first]
            found.append(compared.detected)
            advance(count)
    detected = Joints(*map(np.concatenate, zip(*found, strict=True)))

    statistics: dict[str, Any] = {}
    if "inception" in features:
        chosen = np.linspace(0, len(data) - 1, min(KID_TARGETS, len(data))).round().astype(int)
        statistics["inception"] = statistics_of(features["inception"])
        statistics["inception-sample"] = np.array(features["inception"][chosen])
    ceilings = _pooled(Joints(*(each[target_of] for each in detected)), joints_of(data, data.pairs[:, 1]))
    for metric in wanted:
        if metric.feature in features and metric.real is None:
            ceilings[metric.name] = metric.of_set(features[metric.feature], networks, None)[0]
    if "reid" in networks:
        statistics[f"embeddings-{split}"] = embeddings = _embeddings(data, split, networks["reid"], batch)
        source, target = embeddings[data.pairs.cpu().numpy()].transpose(1, 0, 2)
        ceilings["identity-source"] = similarity(target, source).mean()
    finite = {name: float(value) for name, value in ceilings.items() if np.isfinite(value)}
    return Real(statistics, finite, targets, detected)


def _with_themselves(
    data: PairData,
    targets: torch.Tensor,
    networks: Mapping[str, Any],
    find: Callable[[np.ndarray], Joints],
    labels: Mapping[int, np.ndarray],
    batch: int,
) -> Iterator[tuple[int, Comparison]]:
    """The position of each batch's first target, and the batch compared with itself."""
    for first in range(0, len(targets), batch):
        rows = targets[first : first + batch]
        images, joints = images_of(data, rows), joints_of(data, rows)
        masks = pose_masks(*joints, data.height, data.width)
        parsing = np.stack([labels[row] for row in rows.tolist()]) if labels else None
        yield first, Comparison(images, images, networks, masks, find(images), joints, parsing)


def _pooled(detected: Joints, target: Joints) -> dict[str, float]:
    """The ceilings of the metrics that pool joints over all pairs; without one that no joint enters."""
    sums = {"pckh@0.5": pckh(detected, target)[:2], "pose-error-px": pose_error(detected, target)}
    return {name: above.sum() / below.sum() for name, (above, below) in sums.items() if below.any()}


def _embeddings(data: PairData, split: str, network: Callable[[np.ndarray], np.ndarray], batch: int) -> np.ndarray:
    """(n, 256) float32, a row for each image."""
    embedded = []
    with console.progress(f"reference {split}, identities", len(data.ids)) as advance:
        for rows in torch.arange(len(data.ids)).split(batch):
            embedded.append(network(images_of(data, rows)))
            advance(len(rows))
    return np.concatenate(embedded)


def training_statistics(dataset: str, network: nn.Module) -> FrechetStatistics:
    """Of every image of split train, once."""
    from pipeline.metrics.inception import DIMENSIONS, inception_features

    table = store.read_table(layout.images(dataset), columns=["image_id", "split"])
    wanted = table.filter(pc.equal(table["split"], "train"))["image_id"].combine_chunks()
    statistics = FrechetStatistics(DIMENSIONS)
    with console.progress("reference train", len(wanted)) as advance:
        for names, images in stored_images.stream(dataset, wanted):
            statistics.update(inception_features(network, images.permute(0, 2, 3, 1).contiguous().numpy()))
            advance(len(names))
    return statistics
