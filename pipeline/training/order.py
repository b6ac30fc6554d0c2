"""The order in which a training sees its data."""

import numpy as np
import torch


class BatchOrder:
    """Which pairs each training step sees: a function of (seed, step) alone, so that a resumed run sees the same.

    Every epoch is a seeded permutation of all pairs. Epochs follow each other without a gap: pairs left over at the end
    of one begin the next batch, and none is dropped or seen twice.
    """

    def __init__(self, pairs: int, batch: int, seed: int):
        self.pairs, self.batch, self.seed = pairs, batch, seed
        self._epochs: dict[int, np.ndarray] = {}

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            self._epochs = {k: v for k, v in self._epochs.items() if k == epoch - 1}
            self._epochs[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.pairs)
        return self._epochs[epoch]

    def rows(self, step: int) -> torch.Tensor:
        """Positions of step `step` = 1, 2, ... as int64 (batch,)."""
        positions = np.arange((step - 1) * self.batch, step * self.batch)
        epochs, offsets = np.divmod(positions, self.pairs)
        rows = np.empty(self.batch, dtype=np.int64)
        for epoch in np.unique(epochs):
            rows[epochs == epoch] = self._permutation(int(epoch))[offsets[epochs == epoch]]
        return torch.from_numpy(rows)
