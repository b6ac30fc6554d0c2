"""Rows of float32 on disk: what a metric of the whole set keeps of every pair, out of main memory."""

import os
from collections.abc import Sequence
from tempfile import TemporaryFile

import numpy as np


class Spool:
    """(count, d) float32 in a temporary file that is gone with the object. Slices give arrays: `spool[0:100]`."""

    def __init__(self, count: int):
        self._file = TemporaryFile()  # noqa: SIM115  (it lives as long as the spool)
        self._count = count
        self._width: int | None = None

    def __len__(self) -> int:
        return self._count

    def write(self, rows: Sequence[int], values: np.ndarray) -> None:
        """Put values (n, d) at `rows`, in any order."""
        values = np.ascontiguousarray(values, dtype=np.float32)
        self._width = values.shape[1]
        for row, value in zip(rows, values, strict=True):
            os.pwrite(self._file.fileno(), value.tobytes(), int(row) * value.nbytes)

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(self._count)
        assert step == 1
        size = 4 * self._width
        content = os.pread(self._file.fileno(), (stop - start) * size, start * size)
        return np.frombuffer(bytearray(content), dtype=np.float32).reshape(-1, self._width)
