"""What is scored, wherever it comes from: of a data set (`pairs.Split`) or of two folders (`folders.FolderPairs`)."""

from typing import Protocol

import numpy as np

from pipeline.metrics.pckh import Joints


class Pairs(Protocol):
    """P pairs over N real images of one size, and what is known of these before anything is generated."""

    name: str  # of the split: metrics of the whole set are those of "test"

    @property
    def ids(self) -> list[str]:
        """The images' names, by row."""

    @property
    def size(self) -> tuple[int, int]:
        """Their height and width."""

    @property
    def rows(self) -> np.ndarray:
        """(P, 2) int64: each pair's source and target."""

    @property
    def pair_ids(self) -> list[int]:
        """P numbers, each once."""

    def __len__(self) -> int:
        """P."""

    def images(self, rows: np.ndarray) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB."""

    def joints(self, rows: np.ndarray) -> Joints | None:
        """Theirs, in pixels; None if nobody knows any."""

    def masks(self, rows: np.ndarray) -> np.ndarray | None:
        """(n, H, W) uint8 {0, 1}: pose masks of targets; None without joints."""

    def labels(self, rows: np.ndarray) -> np.ndarray | None:
        """(n, H, W) uint8 LIP-20 ids of targets; None where no metric needs them."""
