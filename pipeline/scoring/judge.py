"""Score generated images of one split, wherever they come from; the scores and the pairs' values as rows of tables."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.core import console, schema
from pipeline.core.errors import UserError
from pipeline.metrics import metric, scored
from pipeline.metrics.stream import PairScores, Score
from pipeline.scoring.judged import Pairs
from pipeline.scoring.protocol import Protocol, Reference

if TYPE_CHECKING:
    from pipeline.scoring.pairs import Split


def score_images(
    split: Pairs,
    generated: Iterable[tuple[Sequence[int], np.ndarray]],
    protocol: Protocol,
    bootstrap: int,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, Score]]:
    """Score images: (pair ids, images (n, H, W, 3) uint8 RGB) in any order and grouping, each pair once.

    Returns the values of each pair, in the order of the split, and the scores. Raises UserError for an unknown, missing
    or repeated pair and for images of another size than the targets.
    """
    scores = seen(split, generated, protocol)
    said(split, scores, protocol)
    return scores.compute(bootstrap, seed)


def said(split: Pairs, scores: PairScores, protocol: Protocol) -> None:
    """Say how many pairs there are, and which of them have a rule of their own."""
    special = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in scores.counts.items() if count)
    of_split = f"  {split.name}: " if protocol.reference.described["dataset"] else ""  # two folders have no splits
    console.say(f"{of_split}{len(split)} pairs" + (f"; {special}" if special else ""))


def seen(
    split: Pairs, generated: Iterable[tuple[Sequence[int], np.ndarray]], protocol: Protocol, share: int | None = None
) -> PairScores:
    """Look at images as `score_images` does: all of a split, or a `share` of them."""
    names, real = scored(protocol.reference.described["metrics"], split.name), protocol.reference.real
    scores = PairScores(split.pair_ids, names, protocol.networks, real)
    embeddings = protocol.reference.embeddings(split.name)
    position = {pair_id: row for row, pair_id in enumerate(split.pair_ids)}
    with console.progress(f"score {split.name}", len(split) if share is None else share) as advance:
        for pair_ids, images in generated:
            unknown = [pair_id for pair_id in pair_ids if pair_id not in position]
            if unknown:
                raise UserError(
                    f"scores: pair {unknown[0]} is not a {split.name} pair; remove its image or fix its name"
                )
            images = np.array(images, order="C")  # a copy: torch refuses the negative strides of an image read as BGR
            sources, targets = split.rows[[position[pair_id] for pair_id in pair_ids]].T
            scores.update(
                pair_ids,
                images,
                split.images(targets),
                split.masks(targets) if "masks" in scores.needs else None,
                protocol.detector.find(images) if "joints" in scores.needs else None,
                split.joints(targets) if {"joints", "pose"} & scores.needs else None,
                split.labels(targets) if "labels" in scores.needs else None,
                {network: (every[sources], every[targets]) for network, every in embeddings.items()},
            )
            advance(len(pair_ids))
    return scores


def score_rows(
    scores: Mapping[str, Score],
    reference: Reference,
    split: str,
    step: int,
    name: str,
    marks: Sequence[str],
    resamples: int,
) -> list[dict]:
    """Rows of `schema.SCORES`. `marks`: those of the images; the protocol's and the metric networks' are added here."""
    described = reference.described
    protocols = described.get("protocols", {})
    marks = list(dict.fromkeys([*marks, *described["marks"][split]]))
    return [
        {
            "dataset": described["dataset"],
            "variant": name,
            "step": step,
            "split": split,
            "metric": one.name,
            "protocol": protocols.get(one.name, one.protocol)
            + (f" by {described['detector']['name']}" if "joints" in one.needs else ""),
            "version": one.version,
            "value": _number(score.value),
            "low": _number(score.low),
            "high": _number(score.high),
            "n": score.n,
            "excluded": score.excluded,
            "ceiling": described["ceilings"][split].get(one.name),
            "higher_is_better": one.higher_is_better,
            "marks": [*marks, *one.marks, *(f"metric-{mark}" for mark in score.marks)],
            "reference": reference.sha256,
            "resamples": resamples,
        }
        for one, score in ((metric(name), score) for name, score in scores.items())
    ]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def digest(image: np.ndarray) -> str:
    """SHA-256 of an image's pixels (H, W, 3) uint8 RGB, in C order: the same for every file that decodes to it."""
    return hashlib.sha256(np.ascontiguousarray(image)).hexdigest()


def noting(
    generated: Iterable[tuple[Sequence[int], np.ndarray]], digests: dict[int, str]
) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    """The same images, each one's `digest` noted by its pair's id."""
    for pair_ids, images in generated:
        digests |= dict(zip(pair_ids, map(digest, images), strict=True))
        yield pair_ids, images


def pair_rows(
    split: "Split", values: Mapping[str, np.ndarray], step: int, digests: Mapping[int, str] | None = None
) -> pa.Table:
    """`schema.PAIR_SCORE_KEYS`, IMAGE_DIGEST where `digests` are given by pair id, then the columns `values`; a pair
    without a value (no head box, say) is null.
    """
    table = split.pairs.add_column(0, "step", pa.array([step] * len(split.pairs), pa.int64()))
    if digests is not None:
        table = table.append_column(schema.IMAGE_DIGEST, pa.array([digests[pair] for pair in split.pair_ids]))
    for name, column in values.items():
        table = table.append_column(name, pa.array(column, pa.float64(), from_pandas=True))
    return table
