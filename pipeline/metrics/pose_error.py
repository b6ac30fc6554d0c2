"""How far the joints found in the generated image lie from the target's, in pixels."""

from typing import NamedTuple

import numpy as np

from pipeline.metrics.pckh import Joints


class PoseError(NamedTuple):
    """Per-pair sums, each (N,). The value of any set of pairs is `distance.sum() / joints.sum()`."""

    distance: np.ndarray  # float64, pixels: summed over the joints
    joints: np.ndarray  # int64: joints that the target has and the detector found

    @property
    def mean(self) -> np.ndarray:
        """(N,) float64 pixels: distance / joints, NaN where no joint was found."""
        return np.divide(self.distance, self.joints, out=np.full(len(self.joints), np.nan), where=self.joints > 0)


def pose_error(detected: Joints, target: Joints) -> PoseError:
    """Joints detected in the generated images against the target images' joints: Euclidean distances.

    A joint that the detector misses has no distance: read the value beside PCKh, which counts it as wrong.
    """
    both = np.asarray(target.valid, dtype=bool) & np.asarray(detected.valid, dtype=bool)
    apart = np.asarray(detected.xy, dtype=np.float64) - np.asarray(target.xy, dtype=np.float64)
    return PoseError(np.where(both, np.hypot(apart[..., 0], apart[..., 1]), 0).sum(axis=1), both.sum(axis=1))
