"""What can be counted of a prepared data set: for the command `inspect` and for the report's page on the data.

Each function reads one stage's output under data/D/ and raises UserError where that is not there or damaged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.anatomy import labels, pose
from pipeline.core import layout, store
from pipeline.formats import pictures

LABEL_SAMPLE = 256  # parsing maps that label shares are taken from, evenly spread over the data set
QUANTILES = (0.05, 0.5, 0.95)
_CHUNK = 65_536  # pairs whose joints are compared at a time

# What each stage of the data writes, in the order of the stage table.
OUTPUTS = {
    "index": layout.images,
    "keypoints": layout.keypoints,
    "parsing": layout.parsing,
    "pairs": layout.pairs,
    "pseudo_labels": layout.pseudo_labels,
    "distance_maps": layout.distance_maps,
}


def missing(dataset: str) -> list[str]:
    """The data stages that have not run, in order. `fetch` only where `index` has not run either."""
    stages = [stage for stage, path in OUTPUTS.items() if not path(dataset).exists()]
    return (["fetch"] if "index" in stages and not layout.raw(dataset).exists() else []) + stages


def counted(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, most frequent first, then by name."""
    found = ((row["values"], row["counts"]) for row in pc.value_counts(values).to_pylist())
    return dict(sorted(found, key=lambda entry: (-entry[1], str(entry[0]))))


@dataclass(frozen=True)
class Images:
    splits: dict[str, int]  # images by split
    people: dict[str, int]  # identities by split
    sizes: dict[str, int]  # images by "height x width"
    rejects: dict[str, int] | None  # images left out by reason; None if the file is not there

    @property
    def total(self) -> int:
        return sum(self.splits.values())


def images(dataset: str) -> Images:
    table = store.read_table(layout.images(dataset), columns=["split", "person_id", "height", "width"])
    splits = counted(table["split"])
    people = {
        split: pc.count_distinct(table.filter(pc.equal(table["split"], split))["person_id"]).as_py() for split in splits
    }
    columns = [table[name].to_pylist() for name in ("height", "width")]
    sizes = [f"{height}x{width}" for height, width in zip(*columns, strict=True)]
    rejects = None
    if layout.rejects(dataset).exists():
        rejects = counted(store.read_table(layout.rejects(dataset), columns=["reason"])["reason"])
    return Images(splits, people, counted(pa.chunked_array([pa.array(sizes, pa.string())])), rejects)


@dataclass(frozen=True)
class Keypoints:
    rows: int
    sources: dict[str, int]
    present: np.ndarray  # (18,) int64: rows that have the joint


def keypoints(dataset: str) -> Keypoints:
    table = store.read_table(layout.keypoints(dataset), columns=["keypoints", "keypoint_source"])
    valid = pose.batch_arrays(table["keypoints"])[1]
    return Keypoints(len(table), counted(table["keypoint_source"]), valid.sum(axis=0))


@dataclass(frozen=True)
class Parsing:
    sources: dict[str, int]  # maps by what made them; none without parsing
    configured: str  # parsing.D.source when they were made
    shares: np.ndarray  # float64 (20,): share of the pixels that each LIP-20 label has
    looked_at: int  # maps that the shares are of

    @property
    def total(self) -> int:
        return sum(self.sources.values())


def label_shares(dataset: str) -> tuple[np.ndarray, int]:
    """Share of the pixels that each LIP-20 label has, float64 (20,), and the number of maps it was taken from."""
    folder = layout.parsing(dataset)
    ids = store.read_table(folder, columns=["image_id"])["image_id"].to_pylist()
    chosen = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(len(ids), LABEL_SAMPLE)).astype(int))]
    reader = store.RandomReader(folder, ["parsing"])
    counts = np.zeros(len(labels.LIP20), np.int64)
    for name in chosen:
        found = pictures.decode_labels(reader[name]["parsing"]["bytes"], f"{folder}: {name}")
        counts += np.bincount(found.reshape(-1), minlength=len(counts))
    return counts / counts.sum(), len(chosen)


def _metadata(folder: Path, key: str) -> str:
    return (pq.read_schema(store.parts(folder)[0]).metadata or {}).get(key.encode(), b"?").decode()


def parsing(dataset: str) -> Parsing:
    folder = layout.parsing(dataset)
    sources = counted(store.read_table(folder, columns=["label_source"])["label_source"])
    shares, looked_at = label_shares(dataset) if sources else (np.zeros(len(labels.LIP20)), 0)
    return Parsing(sources, _metadata(folder, "parsing_source"), shares, looked_at)


def pairs(dataset: str) -> dict[str, int]:
    """Pairs by split."""
    return counted(store.read_table(layout.pairs(dataset), columns=["split"])["split"])


@dataclass(frozen=True)
class PairSplit:
    """`distance`: quantiles (QUANTILES) over the pairs of the mean distance, in pixels, between a joint in the source
    and the same joint in the target, of the joints that both have; None without a joint.
    """

    pairs: int
    people: int  # identities of the sources
    sources: int  # different source images
    targets: int
    distance: list[float] | None


def pair_statistics(dataset: str) -> dict[str, PairSplit]:
    """By split, in the order train, val, test. Needs the keypoints too."""
    table = store.read_table(layout.pairs(dataset), columns=["split", "source_id", "target_id"])
    known = store.read_table(layout.keypoints(dataset), columns=["image_id", "person_id", "keypoints"])
    joints, valid = pose.batch_arrays(known["keypoints"])
    place = {name: row for row, name in enumerate(known["image_id"].to_pylist())}
    people = known["person_id"].to_pylist()
    found = {}
    for split in (name for name in ("train", "val", "test") if name in pc.unique(table["split"]).to_pylist()):
        own = table.filter(pc.equal(table["split"], split))
        ids = [own[name].to_pylist() for name in ("source_id", "target_id")]
        rows = np.array([[place.get(name, -1) for name in side] for side in ids]).T
        rows = rows[(rows >= 0).all(axis=1)]
        apart = []
        for start in range(0, len(rows), _CHUNK):
            source, target = rows[start : start + _CHUNK].T
            both = valid[source] & valid[target]
            distance = np.linalg.norm(joints[source] - joints[target], axis=2)
            total = np.where(both, distance, 0).sum(axis=1)
            apart.append((total / both.sum(axis=1).clip(1))[both.any(axis=1)])
        distances = np.concatenate(apart) if apart else np.zeros(0)
        found[split] = PairSplit(
            pairs=len(own),
            people=len({people[row] for row in rows[:, 0].tolist()}),
            sources=len(set(ids[0])),
            targets=len(set(ids[1])),
            distance=np.quantile(distances, QUANTILES).tolist() if len(distances) else None,
        )
    return found


@dataclass(frozen=True)
class PseudoLabels:
    """Quantiles (QUANTILES) of the two columns, None where no image has a label."""

    rows: int
    without: int
    cost: list[float] | None
    pose_distance: list[float] | None


def pseudo_labels(dataset: str) -> PseudoLabels:
    table = store.read_table(layout.pseudo_labels(dataset), columns=["pseudo_id", "cost", "pose_distance"])
    middles = [pc.quantile(table[name], QUANTILES).to_pylist() for name in ("cost", "pose_distance")]
    known = [None if middle[0] is None else middle for middle in middles]
    return PseudoLabels(len(table), table["pseudo_id"].null_count, *known)


def distance_maps(dataset: str) -> tuple[int, str]:
    """Images that have them, and kappa as it stands in the file."""
    folder = layout.distance_maps(dataset)
    return sum(pq.read_metadata(part).num_rows for part in store.parts(folder)), _metadata(folder, "kappa")


def listed(counts: Mapping[str, int]) -> str:
    """ "768 train, 96 test"; "none" of nothing."""
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
