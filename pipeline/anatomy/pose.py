"""The OpenPose-18 skeleton: joint names, limbs, and conversions from and to the field's -1 convention.

Joint order: nose, neck, right shoulder/elbow/wrist, left shoulder/elbow/wrist, right hip/knee/ankle,
left hip/knee/ankle, right eye, left eye, right ear, left ear. Right and left are the person's.
"""

import numpy as np
import pyarrow as pa

from pipeline.core.schema import JOINTS

JOINT_NAMES = (
    "nose", "neck",
    "right_shoulder", "right_elbow", "right_wrist",
    "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle",
    "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip

# Index of each joint's mirror image: an image flip swaps left and right.
FLIP = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)

SHOULDERS_AND_HIPS = (2, 5, 8, 11)  # the pair rule asks for all four

# The twelve limbs of SPGNet's distance maps (the first twelve entries of its limb sequence).
LIMBS = ((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13))

# Drawn skeleton: the limbs above and the head.
SKELETON = (*LIMBS, (1, 0), (0, 14), (14, 16), (0, 15), (15, 17))


def to_array(keypoints: list) -> tuple[np.ndarray, np.ndarray]:
    """Stored joints (18 x [x, y] or None) -> joints (18, 2) float32 with zeros where missing, valid (18,) bool."""
    valid = np.array([point is not None for point in keypoints])
    joints = np.array([point if point is not None else (0.0, 0.0) for point in keypoints], dtype=np.float32)
    return joints, valid


def batch_arrays(column) -> tuple[np.ndarray, np.ndarray]:
    """A keypoints column (pyarrow ChunkedArray of `schema.POINTS`) -> joints (N, 18, 2) float32, valid (N, 18) bool.

    Missing joints are zero. Vectorised: no Python loop over rows.
    """
    array = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    points = array.flatten()  # N * 18 lists of two, null where the joint is missing
    valid = np.asarray(points.is_valid()).reshape(-1, JOINTS)
    joints = np.zeros((len(points), 2), dtype=np.float32)
    joints[valid.reshape(-1)] = np.asarray(points.drop_null().flatten(), dtype=np.float32).reshape(-1, 2)
    return joints.reshape(-1, JOINTS, 2), valid


def to_column(joints: np.ndarray, valid: np.ndarray) -> pa.FixedSizeListArray:
    """Inverse of `batch_arrays`: joints (N, 18, 2), valid (N, 18) bool -> `schema.POINTS`, null where missing."""
    values = pa.array(np.ascontiguousarray(joints, dtype=np.float32).reshape(-1))
    points = pa.FixedSizeListArray.from_arrays(values, 2, mask=pa.array(~valid.reshape(-1)))
    return pa.FixedSizeListArray.from_arrays(points, JOINTS)


def from_array(joints: np.ndarray, valid: np.ndarray) -> list:
    """Inverse of `to_array`: (18, 2) and (18,) bool -> 18 x [x, y] or None."""
    return [[float(x), float(y)] if seen else None for (x, y), seen in zip(joints, valid, strict=True)]
