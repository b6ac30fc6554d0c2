"""What is prepared of a data set, counted: `inspect` prints it, the report's page on the data draws it.

Each function of STAGES reads one stage's output under data/D/ and raises UserError if that is not there or damaged.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.anatomy import labels, pose
from pipeline.core import layout, schema, store
from pipeline.formats import pictures

LABEL_SAMPLE = 256  # parsing maps that label shares are taken from, evenly spread over the data set
LISTED = 6  # image sizes, and reasons for rejects, that are listed
_CHUNK = 65_536  # pairs whose joints are compared at a time


class Line(NamedTuple):
    """One thing that was counted. `share`: if it is a part of a whole, how much of it; `colour`: of a label, as CSS."""

    what: str
    text: str
    share: float | None = None
    colour: str = ""


def _counted(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, most frequent first, then by name."""
    found = ((row["values"], row["counts"]) for row in pc.value_counts(values).to_pylist())
    return dict(sorted(found, key=lambda entry: (-entry[1], str(entry[0]))))


def _spread(values: np.ndarray, form: str = ".4g") -> str:
    """The median of some numbers, and where 90 % of them lie."""
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"{middle:{form}} (5 to 95 %: {low:{form}} to {high:{form}})"


def _listed(counts: dict[str, int], others: str) -> list[tuple[str, int]]:
    """The most frequent, the rest under one name."""
    rows, rest = list(counts.items()), sum(list(counts.values())[LISTED:])
    return [*rows[:LISTED], (others, rest)] if rest else rows


def _index(dataset: str) -> Iterator[Line]:
    table = store.read_table(layout.images(dataset), columns=["split", "person_id", "height", "width"])
    for split, count in _counted(table["split"]).items():
        people = pc.count_distinct(table.filter(pc.equal(table["split"], split))["person_id"]).as_py()
        yield Line(f"{split} images", f"{count:,} of {people:,} people")
    sizes = starmap("{}x{}".format, zip(table["height"].to_pylist(), table["width"].to_pylist(), strict=True))
    counts = _counted(pa.chunked_array([pa.array(sizes, pa.string())]))
    several = ", ".join(f"{size} ({count:,})" for size, count in _listed(counts, "other sizes"))
    yield Line("size, height x width", several if len(counts) > 1 else "".join(counts))
    if layout.rejects(dataset).exists():
        reasons = _counted(store.read_table(layout.rejects(dataset), columns=["reason"])["reason"])
        yield Line("images left out", f"{sum(reasons.values()):,}")
        for reason, count in _listed(reasons, "other reasons"):
            yield Line("left out because", f"{reason}: {count}")


def _keypoints(dataset: str) -> Iterator[Line]:
    table = store.read_table(layout.keypoints(dataset), columns=["keypoints", "keypoint_source"])
    valid = pose.batch_arrays(table["keypoints"])[1]
    yield Line("images", f"{len(table):,} by {', '.join(_counted(table['keypoint_source'])) or 'nobody'}")
    yield from _doubtful(layout.keypoints(dataset))
    if len(table):
        yield Line("joints known, mean", f"{valid.sum() / len(table):.1f} of {schema.JOINTS}")
        for name, share in zip(pose.JOINT_NAMES, valid.mean(axis=0).tolist(), strict=True):
            yield Line(name.replace("_", " "), f"{100 * share:.1f} %", share)


def label_shares(dataset: str) -> tuple[np.ndarray, int]:
    """Share of the pixels that each lip-cihp-21 label has, float64 (21,), and the number of maps it is taken from."""
    folder = layout.parsing(dataset)
    ids = store.read_table(folder, columns=["image_id"])["image_id"].to_pylist()
    chosen = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(len(ids), LABEL_SAMPLE)).astype(int))]
    reader = store.RandomReader(folder, ["parsing"])
    label_map = pictures.label_decoder(folder, labels.EVERY)
    counts = np.zeros(len(labels.NAMES[labels.EVERY]), np.int64)
    for name in chosen:
        found = label_map(reader[name]["parsing"]["bytes"], f"{folder}: {name}")
        counts += np.bincount(found.reshape(-1), minlength=len(counts))
    return counts / counts.sum(), len(chosen)


def metadata(path: Path, key: str) -> str:
    """What a stage said of its table or shards, "?" if it said nothing of that kind."""
    file = path if path.is_file() else store.parts(path)[0]
    return (pq.read_schema(file).metadata or {}).get(key.encode(), b"?").decode()


def doubts(path: Path) -> list[str]:
    """What a stage doubts about what it took in, a sentence each."""
    found = metadata(path, "doubts") if path.exists() else "?"
    return [] if found == "?" else json.loads(found)


def _doubtful(path: Path) -> Iterator[Line]:
    yield from (Line("doubtful", text) for text in doubts(path))


def _parsing(dataset: str) -> Iterator[Line]:
    folder = layout.parsing(dataset)
    sources = _counted(store.read_table(folder, columns=["label_source"])["label_source"])
    total = sum(sources.values())
    if not total:
        source = metadata(folder, "parsing_source")
        yield Line("label maps", f"none: parsing.{dataset}.source in {layout.PARAMS} is {source}")
        return
    yield Line("label maps", f"{total:,} by {', '.join(sources)}")
    yield from _doubtful(folder)
    shares, seen = label_shares(dataset)
    yield Line("share of the pixels", f"of {seen:,} maps, evenly chosen" if seen < total else "of all maps")
    for label in np.argsort(-shares, kind="stable").tolist():
        if shares[label]:
            colour = "#" + labels.COLOURS[label].astype(np.uint8).tobytes().hex()
            yield Line(labels.NAMES[labels.EVERY][label], f"{100 * shares[label]:.2f} %", float(shares[label]), colour)


def _pose_distances(rows: np.ndarray, joints: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Pairs (N, 2) of rows of joints (K, 18, 2) -> mean distance in pixels of the joints that both have, where any."""
    apart = [np.zeros(0)]
    for start in range(0, len(rows), _CHUNK):
        source, target = rows[start : start + _CHUNK].T
        both = valid[source] & valid[target]
        total = np.where(both, np.linalg.norm(joints[source] - joints[target], axis=2), 0).sum(axis=1)
        apart.append((total / both.sum(axis=1).clip(1))[both.any(axis=1)])
    return np.concatenate(apart)


def _pairs(dataset: str) -> Iterator[Line]:
    """Counts of each split and, of the pairs whose joints are known, how far apart the two poses are."""
    table = store.read_table(layout.pairs(dataset), columns=["split", "source_id", "target_id"])
    yield from _doubtful(layout.pairs(dataset))
    place: dict[str, int] = {}
    if layout.keypoints(dataset).exists():
        known = store.read_table(layout.keypoints(dataset), columns=["image_id", "person_id", "keypoints"])
        place = {name: row for row, name in enumerate(known["image_id"].to_pylist())}
        people, (joints, valid) = known["person_id"].to_pylist(), pose.batch_arrays(known["keypoints"])
    for split in (name for name in ("train", "val", "test") if name in pc.unique(table["split"]).to_pylist()):
        own = table.filter(pc.equal(table["split"], split))
        ids = [own[name].to_pylist() for name in ("source_id", "target_id")]
        text = f"{len(own):,}: {len(set(ids[0])):,} sources, {len(set(ids[1])):,} targets"
        rows = np.array([[place.get(name, -1) for name in side] for side in ids]).T
        rows = rows[(rows >= 0).all(axis=1)]
        yield Line(f"{split} pairs", f"{text}, {len({people[row] for row in rows[:, 0]}):,} people" if place else text)
        distances = _pose_distances(rows, joints, valid) if place else []
        if len(distances):
            yield Line("pose distance, pixels", _spread(distances, ".1f"))


def _pseudo_labels(dataset: str) -> Iterator[Line]:
    for rule in searched(dataset):
        folder = layout.pseudo_labels(dataset, rule)
        table = store.read_table(folder, columns=["pseudo_id", "cost", "pose_distance"])
        yield Line("training images", f"{len(table):,}, by the rule {rule}")
        yield Line("without a stand-in", f"{table['pseudo_id'].null_count:,}")
        for name, what in (("cost", "cost, pixels"), ("pose_distance", "pose distance, torso lengths")):
            values = table[name].drop_null().to_numpy()
            if len(values):
                yield Line(what, _spread(values))


def _distance_maps(dataset: str) -> Iterator[Line]:
    folder = layout.distance_maps(dataset)
    count = sum(pq.read_metadata(part).num_rows for part in store.parts(folder))
    yield Line("images", f"{count:,}, {schema.LIMBS} maps each")
    yield Line("kappa", metadata(folder, "kappa"))


class Stage(NamedTuple):
    path: Callable[[str], Path]
    lines: Callable[[str], Iterator[Line]]
    title: str  # on the page


# The stages of the data, in the order of the stage table.
STAGES = {
    "index": Stage(layout.images, _index, "Images"),
    "keypoints": Stage(layout.keypoints, _keypoints, "Joints known"),
    "parsing": Stage(layout.parsing, _parsing, "Parsing: share of the pixels"),
    "pairs": Stage(layout.pairs, _pairs, "Pairs"),
    "pseudo_labels": Stage(partial(layout.pseudo_labels, rule=layout.RULES[0]), _pseudo_labels, "Pseudo target labels"),
    "distance_maps": Stage(layout.distance_maps, _distance_maps, "Distance maps"),
}


def lines(dataset: str) -> dict[str, list[Line]]:
    """What there is to say of each stage that has run."""
    return {name: list(stage.lines(dataset)) for name, stage in STAGES.items() if stage.path(dataset).exists()}


def missing(dataset: str) -> list[str]:
    """The data stages that have not run, in order. `fetch` only where `index` has not run either."""
    stages = [name for name, stage in STAGES.items() if not stage.path(dataset).exists()]
    return (["fetch"] if "index" in stages and not layout.raw(dataset).exists() else []) + stages


# ---- one image


def stored(folder: Path, image_id: str) -> dict | None:
    """The row of an image in a shard folder, None if there is no such row or folder."""
    if not folder.exists():
        return None
    try:
        return store.RandomReader(folder)[image_id]
    except (KeyError, TypeError):  # TypeError: shards without a row have no statistics
        return None


def searched(dataset: str) -> list[str]:
    """The rules by which pseudo labels were searched: one that nothing is trained on has a folder without rows."""
    folders = {rule: layout.pseudo_labels(dataset, rule) for rule in layout.RULES}
    return [
        rule
        for rule, folder in folders.items()
        if folder.exists() and any(pq.read_metadata(part).num_rows for part in store.parts(folder))
    ]


def stand_ins(dataset: str, image_id: str) -> dict[str, dict]:
    """By rule, an image's row of schema.PSEUDO_LABELS, if it has a stand-in."""
    found = {rule: stored(layout.pseudo_labels(dataset, rule), image_id) for rule in searched(dataset)}
    return {rule: row for rule, row in found.items() if row is not None and row["pseudo_id"] is not None}


def joints(dataset: str, image_id: str) -> list | None:
    """An image's stored keypoints, None without."""
    if not layout.keypoints(dataset).exists():
        return None
    filters = [("image_id", "=", image_id)]
    rows = store.read_table(layout.keypoints(dataset), columns=["keypoints"], filters=filters).to_pylist()
    return rows[0]["keypoints"] if rows else None


def limb_maps(row: dict) -> np.ndarray:
    """(12, H, W) uint8 of a row of schema.DISTANCE_MAPS."""
    return np.frombuffer(row["distance_maps"], np.uint8).reshape(schema.LIMBS, row["height"], row["width"])
