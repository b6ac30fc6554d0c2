"""Stored images, decoded: for the stages that look at pixels without torch."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core import store
from pipeline.core.errors import UserError


def decode(encoded: bytes, image_id: str) -> np.ndarray:
    """(H, W, 3) uint8 BGR. EXIF turns are ignored: joints belong to the stored pixels. Raises UserError."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if picture is None:
        raise UserError(f"image {image_id} does not decode though `index` took it; delete its shards and run again")
    return picture


def encoded(folder: Path, wanted: pa.Array, column: str = "image") -> Iterator[tuple[list[str], list[bytes]]]:
    """Ids and bytes of the rows of a shard folder in `wanted` (ids), in stored order, at most a row group at a time.

    column: the picture, `image` or `parsing`. Shards are sorted by id, so the footers tell which row groups can hold a
    wanted one; no other is read.
    """
    if not len(wanted):
        return
    ends = pc.min_max(wanted).as_py()
    for path in store.parts(folder):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                held = file.metadata.row_group(group).column(0).statistics  # of image_id
                if held.max < ends["min"] or held.min > ends["max"]:
                    continue
                table = file.read_row_group(group, columns=["image_id"])
                here = pc.is_in(table["image_id"], wanted)
                if pc.any(here).as_py():
                    data = file.read_row_group(group, columns=[column]).filter(here)[column]
                    yield table["image_id"].filter(here).to_pylist(), pc.struct_field(data, "bytes").to_pylist()


def read(images: Path, wanted: list[str]) -> list[np.ndarray]:
    """The images `wanted` (ids, sorted) as `decode` gives them, in that order. Raises UserError if one is missing."""
    found = {}
    for names, data in encoded(images, pa.array(wanted, pa.string())):
        found |= {name: decode(one, name) for name, one in zip(names, data, strict=True)}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(f"{images}: no image {missing[0]}; run index again")
    return [found[name] for name in wanted]
