"""Stored images, decoded: for the stages that look at pixels without torch."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import store
from pipeline.errors import UserError


def decode(encoded: bytes, image_id: str) -> np.ndarray:
    """(H, W, 3) uint8 BGR. EXIF turns are ignored: joints belong to the stored pixels. Raises UserError."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if picture is None:
        raise UserError(f"image {image_id} does not decode though `index` took it; delete its shards and run again")
    return picture


def encoded(images: Path, wanted: pa.Array) -> Iterator[tuple[list[str], list[bytes]]]:
    """Ids and bytes of the images of a shard folder in `wanted` (ids), in stored order, at most a row group at a time.

    Row groups without any are not read.
    """
    for path in store.parts(images):
        with pq.ParquetFile(path) as file:
            here = pc.is_in(file.read(columns=["image_id"]).column("image_id"), wanted)
            first = 0
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                mask = here.slice(first, rows)
                first += rows
                if pc.any(mask).as_py():
                    table = file.read_row_group(group, columns=["image_id", "image"]).filter(mask)
                    yield table["image_id"].to_pylist(), pc.struct_field(table["image"], "bytes").to_pylist()


def read(images: Path, wanted: list[str]) -> list[np.ndarray]:
    """The images `wanted` (ids, sorted) as `decode` gives them, in that order. Raises UserError if one is missing."""
    found = {}
    for names, data in encoded(images, pa.array(wanted, pa.string())):
        found |= {name: decode(one, name) for name, one in zip(names, data, strict=True)}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(f"{images}: no image {missing[0]}; run index again")
    return [found[name] for name in wanted]
