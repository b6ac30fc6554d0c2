"""Score some pairs of a record again from its author's images, and name the first that differs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.errors import UserError
from pipeline.metrics import metric
from pipeline.records import form, made

if TYPE_CHECKING:
    from pipeline.scoring.image_folder import Found
    from pipeline.scoring.pairs import Split
    from pipeline.scoring.protocol import Protocol

TOLERANCE = 1e-4  # of a value, of those above 1 as a share: what processors and libraries change, see docs/records.md
BATCH = 16


@dataclass(frozen=True)
class Sample:
    """The pairs of a record that are looked at: their rows there and their positions in the split of the data set here.
    `differs`: why they cannot be, in words.
    """

    rows: list[list]
    positions: list[int]
    differs: str | None = None


def draw(record: form.File, split: "Split", count: int, seed: int) -> Sample:
    """`count` of the record's pairs, or all, by the seed; or in what the data set here is another than the record's."""
    ends = [tuple(split.ids[end] for end in both) for both in split.rows.tolist()]
    here = {pair: (place, *both) for place, (pair, both) in enumerate(zip(split.pair_ids, ends, strict=True))}
    for index, source, target, *_ in record["pairs"]:
        if index not in here:
            return Sample([], [], f"pair {index} ({source} -> {target}) is no scored test pair here")
        if (source, target) != here[index][1:]:
            ours = " -> ".join(here[index][1:])
            return Sample([], [], f"pair {index} is {source} -> {target} in the record, {ours} in the list here")
    ours = made.stored_images(record["dataset"], set(record["images"]))
    for name, digest in record["images"].items():
        if ours.get(name) != digest:
            return Sample([], [], f"image {name} of the data set has other bytes here than in the record")
    rows = record["pairs"]
    chosen = sorted(np.random.default_rng(seed).choice(len(rows), min(count, len(rows)), replace=False).tolist())
    rows = [rows[place] for place in chosen]
    return Sample(rows, [here[row[0]][0] for row in rows])


def comparable(record: form.File, described: Mapping[str, Any], all_pairs: bool) -> tuple[list[str], dict[str, str]]:
    """The metrics of a record that can be scored again, and why each of the others cannot.

    described: the reference here. all_pairs: whether the sample is all of the record's.
    """
    here, names, unchecked = made.instruments(described), [], {}
    for name, row in record.tested.items():
        try:
            one, used = metric(name), made.used_by(name, here)
            theirs = made.used_by(name, record["reference"]["instruments"])
        except UserError:
            unchecked[name] = "unknown here"
            continue
        if name not in described["metrics"]:
            unchecked[name] = "not scored on this data set here"
        elif one.version != row["version"]:
            unchecked[name] = f"of version {row['version']} in the record, {one.version} here"
        elif used != theirs:
            apart = sorted(need for need in {*used, *theirs} if used.get(need) != theirs.get(need))
            unchecked[name] = f"through another network here: {', '.join(apart)}"
        elif one.per_pair is None and not all_pairs:
            unchecked[name] = "of the whole set: only a check of all pairs covers it"
        else:
            names.append(name)
    return names, unchecked


def differing(
    record: form.File,
    sample: Sample,
    names: list[str],
    split: "Split",
    found: "Mapping[int, Found]",
    protocol: "Protocol",
) -> str | None:
    """Which pair of the sample, or which score of all pairs, first differs from the record, and how; None if none does.

    names: the metrics to score. split: the whole one; found: the sample's files by position in it.
    """
    from pipeline.scoring import image_folder, judge, real

    digests: dict[int, str] = {}
    of_sample = split.subset(sample.positions)
    everything = len(sample.rows) == len(record["pairs"])
    described = {**protocol.reference.described, "metrics": names}
    protocol = replace(protocol, reference=replace(protocol.reference, described=described))
    if everything and len(sample.rows) < len(split):
        protocol = real.restricted(protocol, of_sample, BATCH)
    images = judge.noting(image_folder.read_all(split, found, BATCH), digests)
    values, totals = judge.score_images(of_sample, images, protocol, 1, 0)
    for place, row in enumerate(sample.rows):
        index, source, target, digest = row[: len(form.KEYS)]
        theirs = dict(zip(record.metrics, row[len(form.KEYS) :], strict=True))
        apart = ["its image is another one"] if digests[index] != digest else []
        for name in (name for name in names if name in values and name in theirs):
            ours = float(values[name][place]) if np.isfinite(values[name][place]) else None
            if not form.close(ours, theirs[name], TOLERANCE):
                apart.append(f"{name} is {_short(theirs[name])} in the record, {_short(ours)} here")
        if apart:
            return f"pair {index} ({source} -> {target}): {'; '.join(apart)}"
    for name, score in totals.items() if everything else ():
        theirs = record.tested[name]["value"]
        ours = float(score.value) if np.isfinite(score.value) else None
        if not form.close(ours, theirs, TOLERANCE):
            return f"{name} of all pairs is {_short(theirs)} in the record, {_short(ours)} here"
    return None


def _short(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"


def check(
    record: form.File, sample: Sample, names: list[str], unchecked: Mapping[str, str], seed: int, by: str | None,
    differs: str | None,
) -> dict[str, Any]:  # fmt: skip
    """The content of the file that says what was found."""
    return {
        "format": form.CHECK,
        "format_version": form.VERSION,
        "record": record.sha256,
        "by": by,
        "pairs": len(sample.rows),
        "of": len(record["pairs"]),
        "seed": seed,
        "metrics": names,
        "unchecked": dict(unchecked),
        "differs": differs,
        "code": made.code(),
        "machine": made.machine(),
    }
