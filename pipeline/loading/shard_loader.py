"""Pictures of a data set that does not fit into memory: decoded from the shards when a batch asks for them.

`ShardPictures` takes the place of a resident data set's uint8 tensor, so that batches are the same; `ahead` makes the
next batches in the background, also those of pictures in main memory that a GPU has no room for.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from pipeline.core import store

AHEAD = 4  # batches made in advance: memory holds no more than these
SHARE = 0.5  # of main memory, above which pictures stay in their shards

Item = TypeVar("Item")


class ShardPictures:
    """`pictures[rows]` of the images `ids`, decoded in threads. shape: of all of them, (N, 3, H, W) or (N, H, W).

    decode: bytes and image_id -> uint8 array of one row's shape.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        folder: Path,
        column: str,
        ids: list[str],
        shape: tuple[int, ...],
        decode: Callable[[bytes, str], np.ndarray],
    ):
        self.folder, self.column, self.ids, self.shape, self.decode = folder, column, ids, shape, decode
        self._own = threading.local()  # a parquet file is read by one thread at a time
        self._threads = ThreadPoolExecutor(os.cpu_count(), "decode")

    def __len__(self) -> int:
        return self.shape[0]

    def _one(self, row: int) -> np.ndarray:
        if not hasattr(self._own, "reader"):
            self._own.reader = store.RandomReader(self.folder, [self.column])
        name = self.ids[row]
        return self.decode(self._own.reader[name][self.column]["bytes"], name)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """uint8 (B, ...), for rows int64 (B,)."""
        out = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8)
        for place, one in enumerate(self._threads.map(self._one, rows.tolist())):
            out[place] = torch.from_numpy(one)
        return out


def main_memory() -> int:
    """Bytes that this machine, or the container around us, has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.exists() else "max"
    return total if allowed == "max" else min(total, int(allowed))


def _tensors(item: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested tuples, lists and records."""
    if isinstance(item, torch.Tensor):
        yield item
    elif isinstance(item, tuple | list) or is_dataclass(item):
        for part in item if isinstance(item, tuple | list) else vars(item).values():
            yield from _tensors(part)


def ahead(make: Callable[[int], Item], steps: Iterable[int], where: torch.device) -> Iterator[Item]:
    """make(step) for every step, in order; up to AHEAD of them made by one thread before they are asked for.

    On a GPU they are copied and computed on a stream of their own, beside the steps that are trained meanwhile.
    """
    side = torch.cuda.Stream(where) if where.type == "cuda" else None

    def made(step: int) -> tuple[Item, Any]:
        if side is None:
            return make(step), None
        with torch.cuda.stream(side):
            return make(step), side.record_event()

    def received(item: Item, ready: Any) -> Item:
        if ready is not None:
            here = torch.cuda.current_stream(where)
            here.wait_event(ready)
            for tensor in _tensors(item):
                tensor.record_stream(here)  # the side stream reuses its memory only after this stream is done with it
        return item

    with ThreadPoolExecutor(1, "batches") as thread:
        waiting = deque()
        try:
            for step in steps:
                waiting.append(thread.submit(made, step))
                if len(waiting) > AHEAD:
                    yield received(*waiting.popleft().result())
            while waiting:
                yield received(*waiting.popleft().result())
        finally:
            thread.shutdown(wait=True, cancel_futures=True)
