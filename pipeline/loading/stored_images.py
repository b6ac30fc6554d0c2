"""The stored images of a data set as uint8 RGB tensors."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.core import console, layout, store
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.loading.shard_loader import ShardPictures


def stream(dataset: str, wanted: pa.Array) -> Iterator[tuple[list[str], torch.Tensor]]:
    """Ids and uint8 (n, 3, H, W) RGB of the stored images in `wanted`, in stored order, at most a row group at a time.

    Raises UserError if they differ in size: networks and joints are in pixels of one size.
    """
    size, first = None, ""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for names, encoded in pictures.encoded(layout.images(dataset), wanted):
            decoded = list(threads.map(pictures.decode_stored, encoded, names))
            for name, picture in zip(names, decoded, strict=True):
                size, first = size or picture.shape[:2], first or name
                if picture.shape[:2] != size:
                    here, there = (f"{height} x {width}" for height, width in (picture.shape[:2], size))
                    raise UserError(
                        f"{layout.images(dataset)}: {name} is {here} but {first} is {there} (height x width); "
                        "training needs images of one size"
                    )
            yield names, torch.from_numpy(np.stack(decoded).transpose(0, 3, 1, 2).copy())


def decoded(dataset: str, wanted: pa.Array) -> tuple[list[str], torch.Tensor]:
    """Ids and uint8 (N, 3, H, W) of the stored images in `wanted`, in stored order. Raises UserError without any."""
    ids: list[str] = []
    images: torch.Tensor | None = None
    with console.progress(f"reading images of {dataset}", len(wanted)) as advance:
        for names, batch in stream(dataset, wanted):
            if images is None:
                images = torch.empty((len(wanted), *batch.shape[1:]), dtype=torch.uint8)
            images[len(ids) : len(ids) + len(names)] = batch
            ids += names
            advance(len(names))
    if images is None:
        raise UserError(f"{layout.images(dataset)}: none of the {len(wanted)} images wanted is there; run index again")
    return ids, images[: len(ids)]


def _planes(encoded: bytes, image_id: str) -> np.ndarray:
    return pictures.decode_stored(encoded, image_id).transpose(2, 0, 1)


def in_shards(dataset: str, wanted: pa.Array) -> tuple[list[str], ShardPictures]:
    """As `decoded`, but nothing is decoded before it is asked for. Raises UserError if they differ in size."""
    folder = layout.images(dataset)
    table = store.read_table(folder, columns=["image_id", "height", "width"])
    table = table.filter(pc.is_in(table["image_id"], wanted))
    sizes = table.group_by(["height", "width"]).aggregate([("image_id", "min")]).to_pylist()
    if len(sizes) != 1:
        found = ", ".join(f"{one['height']} x {one['width']} ({one['image_id_min']})" for one in sizes) or "none at all"
        raise UserError(f"{folder}: training needs images of one size (height x width), these are: {found}")
    ids, shape = table["image_id"].to_pylist(), (len(table), 3, sizes[0]["height"], sizes[0]["width"])
    return ids, ShardPictures(folder, "image", ids, shape, _planes)
