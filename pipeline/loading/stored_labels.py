"""The stored parsing of a data set as uint8 tensors, in the label set that is asked for.

The metadata of data/D/parsing says which set the stored ids are in (`label_set`, one of `labels.STORED`) and which one
the parser or the files spoke (`made_in`, any of `labels.NAMES`). Whoever reads them goes through
`pictures.label_decoder`.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import torch

from pipeline.core import layout, store
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.loading.shard_loader import ShardPictures


def decoded(dataset: str, ids: list[str], size: tuple[int, int], label_set: str) -> torch.Tensor:
    """Stored parsing of the images `ids` as ids of `label_set`, uint8 (N, H, W) in main memory; `size`: (H, W).

    Memory is that of the result and one row group. Raises UserError if an image has no parsing, or one of another size.
    """
    folder = layout.parsing(dataset)
    label_map = pictures.label_decoder(folder, label_set)
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
    label_map = pictures.label_decoder(folder, label_set)
    return ShardPictures(
        folder, "parsing", ids, (len(ids), *size), lambda data, name: label_map(data, f"parsing of {name}", size)
    )
