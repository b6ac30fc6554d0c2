"""Put every image's 18 joints into one table: data/D/keypoints.parquet, sorted by image_id.

`keypoints.D.source` says where they come from:
  annotations   the keypoint lists in data/D/raw/ (the field's CSV format; -1 there is null here)
  oracle        the renderer's own joints (synthetic only)
Every row of the lists is kept, in `row` its position there, even if its image was rejected: so that
`python -m pipeline export --what keypoints` gives the published lists back byte for byte.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import console, datasets, layout, params, pose, schema, store
from pipeline.datasets import annotations
from pipeline.errors import UserError


@dataclass(frozen=True)
class Params:
    source: str


def from_annotations(raw: Path, split: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, joints float32 (N, 18, 2), valid bool (N, 18) of one split's list, in file order."""
    return annotations.read_keypoints(raw / f"annotation-{split}.csv")


def from_truth(raw: Path, split: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The same from the renderer's truth."""
    if not (raw / "truth.parquet").exists():
        raise UserError(f"{raw}: no truth.parquet: only a rendered data set has an oracle; set keypoints.source")
    table = store.read_table(raw / "truth.parquet", columns=["image_id", "split", "keypoints"])
    table = table.filter(pc.equal(table.column("split"), split))
    return table.column("image_id").to_pylist(), *pose.batch_arrays(table.column("keypoints"))


SOURCES = {"annotations": from_annotations, "oracle": from_truth}


def table(raw: Path, dataset: str, source: str) -> pa.Table:
    """All joints as schema.KEYPOINTS, sorted by image_id. Raises UserError for a broken list or a doubled name."""
    person_id = datasets.get(dataset).person_id
    splits = []
    for split in datasets.SPLITS:
        names, joints, valid = SOURCES[source](raw, split)
        columns = {
            "image_id": pa.array(names, pa.string()),
            "split": pa.array([split] * len(names), pa.string()),
            "person_id": pa.array([person_id(name) for name in names], pa.string()),
            "row": pa.array(np.arange(len(names), dtype=np.int32)),
            "keypoints": pose.to_column(joints, valid),
            "keypoint_scores": pa.FixedSizeListArray.from_arrays(valid.astype(np.float32).reshape(-1), schema.JOINTS),
            "keypoint_source": pa.array([source] * len(names), pa.string()),
        }
        splits.append(pa.table(columns))
    both = pa.concat_tables(splits).sort_by("image_id").combine_chunks()
    for name, following in pairwise(both.column("image_id").to_pylist()):
        if name == following:
            raise UserError(f"{raw}: {name} is in the train list and in the test list; names must differ")
    return both


def run(dataset: str) -> None:
    """Write `data/D/keypoints.parquet`. Raises UserError for lists that are missing or broken."""
    block = params.block(Params, "keypoints", dataset)
    joints = table(layout.raw(dataset), dataset, block.source)
    store.write_table(layout.keypoints(dataset), joints, schema.KEYPOINTS, dataset=dataset)
    present = pc.sum(pc.list_flatten(joints.column("keypoint_scores"))).as_py() or 0
    share = present / max(1, len(joints) * schema.JOINTS)
    console.say(f"keypoints {dataset}: {len(joints)} rows, {share:.1%} of the joints present")
