"""The stored parsing of a data set as uint8 tensors, in the label set that is asked for.

The metadata of data/D/parsing says which set the stored ids are in (`label_set`, one of `labels.STORED`) and which one
the parser or the files spoke (`made_in`, any of `labels.NAMES`). Whoever reads label maps goes through `decoder`.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline.anatomy import labels
from pipeline.core import layout, store
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.loading.shard_loader import ShardPictures

LabelMap = Callable[..., np.ndarray]


def _said(folder: Path, key: str) -> str:
    """A label set in the metadata of `data/D/parsing`; LIP-20 where it says nothing."""
    return (pq.read_schema(store.parts(folder)[0]).metadata or {}).get(key.encode(), b"lip-20").decode()


def can_tell(dataset: str, wanted: str) -> bool:
    """Whether the parser or the files of a data set tell every label of the set `wanted` apart. Where they do not, the
    parsing that is read in it was filled up by `labels.STANDS_FOR` or made from a coarser set.
    """
    return labels.tells(_said(layout.parsing(dataset), "made_in"), wanted)


def decoder(folder: Path, wanted: str) -> LabelMap:
    """For the label maps in `folder`, a data/D/parsing: (PNG, what it is, perhaps its size (H, W)) -> (H, W) uint8 of
    `wanted` ids, one of `labels.STORED`. It raises UserError as `pictures.decode_labels` does.
    """
    stored = _said(folder, "label_set")
    table = labels.exchange(stored, wanted)

    def label_map(data: bytes, what: str, size: tuple[int, int] | None = None) -> np.ndarray:
        found = pictures.decode_labels(data, what, size, label_set=stored)
        return found if stored == wanted else labels.relabel(found, table)

    return label_map


def decoded(dataset: str, ids: list[str], size: tuple[int, int], label_set: str) -> torch.Tensor:
    """Stored parsing of the images `ids` as ids of `label_set`, uint8 (N, H, W) in main memory; `size`: (H, W).

    Memory is that of the result and one row group. Raises UserError if an image has no parsing, or one of another size.
    """
    folder = layout.parsing(dataset)
    label_map = decoder(folder, label_set)
    row = {name: number for number, name in enumerate(ids)}
    maps = torch.empty((len(ids), *size), dtype=torch.uint8)
    found = np.zeros(len(ids), bool)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for names, encoded in pictures.encoded(folder, pa.array(ids, pa.string()), "parsing"):
            some = threads.map(label_map, encoded, (f"parsing of {name}" for name in names), [size] * len(names))
            for name, one in zip(names, some, strict=True):
                maps[row[name]] = torch.from_numpy(one)
                found[row[name]] = True
    _require_parsing(dataset, [name for name, there in zip(ids, found, strict=True) if not there], len(ids))
    return maps


def _require_parsing(dataset: str, missing: list[str], images: int) -> None:
    if missing:
        raise UserError(
            f"{layout.parsing(dataset)}: no parsing of {len(missing)} of {images} images, {missing[0]} the first; set"
            f" parsing.{dataset}.source in {layout.PARAMS} to something other than none and run parsing"
        )


def in_shards(dataset: str, ids: list[str], size: tuple[int, int], label_set: str) -> ShardPictures:
    """As `decoded`, but nothing is decoded before it is asked for."""
    folder = layout.parsing(dataset)
    there = set(store.read_table(folder, columns=["image_id"])["image_id"].to_pylist())
    _require_parsing(dataset, [name for name in ids if name not in there], len(ids))
    label_map = decoder(folder, label_set)
    return ShardPictures(
        folder, "parsing", ids, (len(ids), *size), lambda data, name: label_map(data, f"parsing of {name}", size)
    )
