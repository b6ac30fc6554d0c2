"""The stored parsing of a data set as uint8 tensors of LIP-20 ids."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import torch

from pipeline.core import layout, store
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.loading.shard_loader import ShardPictures


def _label_map(data: bytes, image_id: str, size: tuple[int, int]) -> np.ndarray:
    return pictures.decode_labels(data, f"parsing of {image_id}", size)


def decoded(dataset: str, ids: list[str], size: tuple[int, int]) -> torch.Tensor:
    """Stored parsing of the images `ids` as LIP-20 ids, uint8 (N, H, W) in main memory; `size`: (H, W).

    Memory is that of the result and one row group. Raises UserError if an image has no parsing, or one of another size.
    """
    folder = layout.parsing(dataset)
    row = {name: number for number, name in enumerate(ids)}
    labels = torch.empty((len(ids), *size), dtype=torch.uint8)
    found = np.zeros(len(ids), bool)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for names, encoded in pictures.encoded(folder, pa.array(ids, pa.string()), "parsing"):
            maps = threads.map(_label_map, encoded, names, [size] * len(names))
            for name, one in zip(names, maps, strict=True):
                labels[row[name]] = torch.from_numpy(one)
                found[row[name]] = True
    _require_parsing(dataset, [name for name, there in zip(ids, found, strict=True) if not there], len(ids))
    return labels


def _require_parsing(dataset: str, missing: list[str], images: int) -> None:
    if missing:
        raise UserError(
            f"{layout.parsing(dataset)}: no parsing of {len(missing)} of {images} images, {missing[0]} the first; set"
            f" parsing.{dataset}.source in {layout.PARAMS} to something other than none and run parsing"
        )


def in_shards(dataset: str, ids: list[str], size: tuple[int, int]) -> ShardPictures:
    """As `decoded`, but nothing is decoded before it is asked for."""
    folder = layout.parsing(dataset)
    there = set(store.read_table(folder, columns=["image_id"])["image_id"].to_pylist())
    _require_parsing(dataset, [name for name in ids if name not in there], len(ids))
    return ShardPictures(folder, "parsing", ids, (len(ids), *size), lambda data, name: _label_map(data, name, size))
