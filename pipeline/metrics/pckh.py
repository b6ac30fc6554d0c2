"""PCKh: the share of the target's joints that a pose detector finds again in the generated image.

The rule is that of PATN's script (reused by XingGAN, SPGNet and others), not MPII's: the head box spans the target's
own head joints, and its width and height bound x and y separately.
"""

from typing import NamedTuple

import numpy as np

HEAD_JOINTS = (0, 1, 14, 15, 16, 17)  # nose, neck, eyes, ears


class Joints(NamedTuple):
    """A batch of poses: `xy` (N, 18, 2) float, pixels; `valid` (N, 18) bool, False where missing."""

    xy: np.ndarray
    valid: np.ndarray


class Pckh(NamedTuple):
    """Per-pair counts, each (N,). The value of any set of pairs is `correct.sum() / joints.sum()`."""

    correct: np.ndarray  # int64
    joints: np.ndarray  # int64: target joints that count; 0 where the target has no head box (skipped)
    degenerate: np.ndarray  # bool: the head box has no width or no height, so every joint of the pair is wrong

    @property
    def share(self) -> np.ndarray:
        """(N,) float64: correct / joints, NaN for a skipped pair."""
        return np.divide(self.correct, self.joints, out=np.full(len(self.joints), np.nan), where=self.joints > 0)


def pckh(detected: Joints, target: Joints, threshold: float = 0.5) -> Pckh:
    """Joints detected in the generated images against the target images' joints.

    A target joint is found iff |dx| < threshold * head width and |dy| < threshold * head height, both
    strictly; a joint that the detector misses is wrong. The box spans the target's known head joints; with
    fewer than two of them the pair is skipped (`joints` 0).
    """
    xy, valid = np.asarray(target.xy, dtype=np.float64), np.asarray(target.valid, dtype=bool)
    head, known = xy[:, HEAD_JOINTS], valid[:, HEAD_JOINTS, None]
    has_box = known.sum(axis=(1, 2)) >= 2
    box = np.where(known, head, -np.inf).max(axis=1) - np.where(known, head, np.inf).min(axis=1)  # (N, 2)
    box[~has_box] = 0
    close = (np.abs(np.asarray(detected.xy, dtype=np.float64) - xy) < threshold * box[:, None]).all(axis=2)
    correct = (close & valid & np.asarray(detected.valid, dtype=bool)).sum(axis=1)
    joints = np.where(has_box, valid.sum(axis=1), 0)
    return Pckh(correct, joints, has_box & (box == 0).any(axis=1))
