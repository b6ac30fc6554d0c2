"""One pass over the generated images that feeds every metric."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipeline.core import schema
from pipeline.core.errors import UserError
from pipeline.metrics import GIVEN, Metric, Networks, feature, metric
from pipeline.metrics.bootstrap import bootstrap_interval, influence_of_pooled
from pipeline.metrics.pckh import Joints, pckh
from pipeline.metrics.psnr import squared_error
from pipeline.metrics.ssim import ssim_maps


@dataclass(frozen=True)
class Comparison:
    """What a metric may look at: the generated images of n pairs beside their targets, and the networks by name."""

    generated: np.ndarray  # (n, H, W, 3) uint8 RGB
    target: np.ndarray  # the same shape
    networks: Networks
    masks: np.ndarray | None = None  # (n, H, W) uint8 {0, 1}: target-pose masks
    detected: Joints | None = None  # found in the generated images
    target_joints: Joints | None = None
    labels: np.ndarray | None = None  # (n, H, W) uint8: the targets' LIP-20 ids
    # The sources' and the targets', (n, width) float32 each, by the network: "reid" or one of the user's.
    embeddings: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    _vectors: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        return self.generated, self.target

    @cached_property
    def masked(self) -> tuple[np.ndarray, np.ndarray]:
        # Ten times as fast as multiplying by a mask of another shape
        return tuple(
            np.stack([cv2.copyTo(image, mask) for image, mask in zip(images, self.masks, strict=True)])
            for images in self.pair
        )

    @cached_property
    def ssim_maps(self) -> np.ndarray:
        return ssim_maps(self.generated, self.target)

    @cached_property
    def embedded(self) -> np.ndarray:
        """(n, 256): the generated images' embeddings."""
        return self.networks["reid"](self.generated)

    def vectors(self, network: str) -> np.ndarray:
        """(n, width): what a network of the user's gives for the generated images, cropped by the targets' joints."""
        if network not in self._vectors:
            self._vectors[network] = self.networks[network](self.generated, self.target_joints)
        return self._vectors[network]

    @cached_property
    def parsed(self) -> np.ndarray:
        """(n, H, W) uint8: LIP-20 ids of the generated images. The parser is given the joints that the detector found
        there, never the target's."""
        images = list(self.generated)
        return self.networks["parser"](images, self.detected.xy, self.detected.valid)


class Score(NamedTuple):
    """A metric over all pairs. `low`, `high`: bootstrap 95 % interval."""

    value: float
    low: float
    high: float
    n: int  # pairs that entered
    excluded: int  # pairs without a value: empty mask, no head box
    marks: tuple[str, ...]  # ("weights",) if a network has seeded weights instead of the published ones


class PairScores:
    """Scores of one set of generated images; call `update` for every pair once, in any order and grouping.

    pair_ids: every pair to be scored, in the order of the table that `compute` returns.
    metrics: names from METRICS. networks: by the names in `Metric.needs`. real: what the real images gave, by the name
    in `Metric.real`. The attribute `needs`: all that these metrics need. Raises UserError for an unknown metric or a
    missing part.
    """

    def __init__(
        self,
        pair_ids: Sequence[str | int],
        metrics: Iterable[str],
        networks: Networks | None = None,
        real: Mapping[str, Any] | None = None,
    ):
        self._ids = list(pair_ids)
        self._row = {pair_id: row for row, pair_id in enumerate(self._ids)}
        if len(self._row) != len(self._ids):
            raise UserError("scores: the pair list names a pair twice: remove the duplicate")
        self._networks = dict(networks or {})
        self._real = dict(real or {})
        self._metrics = []
        for name in metrics:
            one = metric(name)
            for need in set(one.needs) - set(GIVEN) - self._networks.keys():
                raise UserError(f"scores: {name} needs the network {need}: add it or leave the metric out")
            if one.real and one.real not in self._real:
                raise UserError(f"scores: {name} needs the real images' statistics: run the reference stage first")
            self._metrics.append(one)
        self.needs = {need for one in self._metrics for need in one.needs}
        pairs = len(self._ids)
        self._done = np.zeros(pairs, dtype=bool)
        self._values = {m.name: np.full(pairs, np.nan) for m in self._metrics if m.per_pair}
        self._weights = {m.name: np.zeros(pairs) for m in self._metrics if m.weight}
        self._kept = {m.feature: feature(m.feature, self._networks) for m in self._metrics if m.feature}
        self._features = {name: one.storage(pairs) for name, one in self._kept.items()}
        self._counts = {"identical_pairs": 0, "empty_masks": 0, "degenerate_head_boxes": 0}

    def update(
        self,
        pair_ids: Sequence[str | int],
        generated: np.ndarray,
        target: np.ndarray,
        masks: np.ndarray | None = None,
        detected: Joints | None = None,
        target_joints: Joints | None = None,
        labels: np.ndarray | None = None,
        embeddings: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> None:
        """Add n pairs. Images (n, H, W, 3) uint8 RGB (arrays or tensors), masks (n, H, W) uint8 {0, 1}.

        masks are needed by the masked metrics. `detected` are the joints found in the generated images, `target_joints`
        those of the target images; "pckh@0.5" needs both. `labels` (n, H, W) uint8: the targets' parsing. `embeddings`:
        (n, width) each of the sources and of the targets, by network. Networks run on 16 images at a time, so multiples
        of 16 waste nothing. Raises UserError for an unknown or repeated pair and for images that do not fit.
        """
        rows = self._claim(pair_ids)
        generated, target = _as_uint8(generated, "generated"), _as_uint8(target, "target")
        if not len(rows) == len(generated) == len(target) or generated.shape != target.shape:
            raise UserError(
                f"scores: {len(rows)} pairs, generated images {generated.shape}, targets {target.shape}: "
                "every pair needs both, of equal size"
            )
        if "masks" in self.needs and masks is None:
            raise UserError("scores: the masked metrics need the target-pose masks: pass them or leave the metrics out")
        if "joints" in self.needs and (detected is None or target_joints is None):
            raise UserError("scores: pckh@0.5 needs detected and target joints: pass them or leave the metric out")
        if "labels" in self.needs and labels is None:
            raise UserError("scores: parsing-miou needs the targets' parsing: pass it or leave the metric out")
        if "pose" in self.needs and target_joints is None:
            raise UserError("scores: your networks need the targets' joints: pass them or leave the metrics out")
        if "embeddings" in self.needs and not embeddings:
            raise UserError("scores: identity needs the real images' embeddings: pass them or leave the metric out")
        masks = None if masks is None else np.asarray(masks, dtype=np.uint8)
        compared = Comparison(
            generated, target, self._networks, masks, detected, target_joints, labels, embeddings or {}
        )

        empty = np.zeros(len(rows), dtype=bool) if masks is None else ~masks.any(axis=(1, 2))
        for name, kept in self._features.items():
            kept[rows] = self._kept[name].of(compared)
        for one in self._metrics:
            if one.per_pair is None:
                continue
            values = one.per_pair(compared)
            # Nothing is compared under an empty mask: two black images are not a perfect pair.
            self._values[one.name][rows] = np.where(empty, np.nan, values) if "masks" in one.needs else values
            if one.weight:
                self._weights[one.name][rows] = one.weight(compared)
        self._counts["identical_pairs"] += int((squared_error(generated, target) == 0).sum())
        self._counts["empty_masks"] += int(empty.sum())
        if "joints" in self.needs:
            self._counts["degenerate_head_boxes"] += int(pckh(detected, target_joints).degenerate.sum())

    def _columns(self) -> dict[tuple[str, str], np.ndarray]:
        """All that is kept of each pair: (pairs,) or (pairs, width) each, by kind and name."""
        kinds = {"value": self._values, "weight": self._weights, "feature": self._features}
        return {(kind, name): column for kind, columns in kinds.items() for name, column in columns.items()}

    def share(self) -> dict[str, Any]:
        """What these scores know of the pairs so far, for `add` of others of the same list."""
        rows = np.flatnonzero(self._done)
        columns = {key: np.array(column[rows]) for key, column in self._columns().items()}
        return {"rows": rows, "columns": columns, "counts": self.counts}

    def add(self, share: Mapping[str, Any]) -> None:
        """Take over what another process found of other pairs. Raises UserError for one that is known here."""
        rows = self._claim([self._ids[row] for row in share["rows"]])
        for key, column in self._columns().items():
            column[rows] = share["columns"][key]
        for name, count in share["counts"].items():
            self._counts[name] += count

    def compute(self, resamples: int = 1000, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, Score]]:
        """The table of pairs (arrays, rows in the order of the constructor's ids) and the scores.

        The table has a column NAME for every metric with a value for each pair, and a column NAME:influence for every
        metric that is not their plain mean: (N,) of mean 0, how much each pair moves the value, to first order. Value
        plus influence, or the plain value, can be averaged over any resample of pairs: that is how every interval is
        made. Raises UserError if a pair is missing: a mean over whatever was found would not be the protocol's.
        """
        if not self._done.all():
            first = self._ids[int(np.argmin(self._done))]
            raise UserError(
                f"scores: {int((~self._done).sum())} of {len(self._ids)} pairs have no generated image, "
                f"first {first}: generate them or score a shorter list"
            )
        table, scores = {}, {}
        for one in self._metrics:
            networks = (self._networks[need] for need in one.needs if need in self._networks)
            seeded = any(getattr(network, "provenance", "published") == "seeded" for network in networks)
            marks = ("weights",) if seeded else ()
            if one.of_set:
                value, influence = self._of_set(one)
                table[one.name + schema.INFLUENCE] = influence
                _, low, high, n, excluded = bootstrap_interval(value + influence, None, resamples, seed=seed)
                scores[one.name] = Score(value, low, high, n, excluded, marks)
                continue
            values, weights = self._values[one.name].copy(), self._weights.get(one.name)
            table[one.name] = values
            if weights is not None:
                table[one.name + schema.INFLUENCE] = influence_of_pooled(values, weights)
            scores[one.name] = Score(*bootstrap_interval(values, weights, resamples, seed=seed), marks)
        return table, scores

    def _of_set(self, one: Metric) -> tuple[float, np.ndarray]:
        """The value of the pairs that have a feature, and each pair's influence, NaN of those without."""
        rows, real = self._features[one.feature], self._real.get(one.real)
        there = np.isfinite(rows[:, 0])
        if there.all():
            return one.of_set(rows, self._networks, real)
        influence = np.full(len(rows), np.nan)
        if there.sum() < 2:
            return float("nan"), influence
        value, influence[there] = one.of_set(rows[there], self._networks, real)
        return value, influence

    @property
    def counts(self) -> dict[str, int]:
        """How many pairs so far have a rule of their own: identical_pairs, empty_masks, degenerate_head_boxes."""
        return dict(self._counts)

    def _claim(self, pair_ids: Sequence[str | int]) -> np.ndarray:
        rows = []
        for pair_id in pair_ids:
            row = self._row.get(pair_id)
            if row is None:
                raise UserError(f"scores: pair {pair_id} is not in the pair list: remove its image or fix its name")
            if self._done[row]:
                raise UserError(f"scores: pair {pair_id} was scored before: give one generated image a pair")
            self._done[row] = True
            rows.append(row)
        return np.array(rows, dtype=np.int64)


def _as_uint8(images, what: str) -> np.ndarray:
    images = images.cpu().numpy() if hasattr(images, "cpu") else np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"scores: {what} images are {images.dtype} {images.shape}: give uint8 (n, height, width, 3)")
    return images
