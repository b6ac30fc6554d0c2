"""Limb distance maps of SPGNet (Lv et al., CVPR 2021): M = exp(kappa d), d the distance in pixels to a limb's segment.

These fill the store; `models.layers.pose_maps.limb_maps` draws the same maps on the device, in batch.
"""

import numpy as np

from pipeline.anatomy.pose import LIMBS

# A table over the distance in steps of 1 / (_STEPS |kappa|) pixels: M moves by at most 0.025 of one of its 255 levels
# in a step, so the level is the rounded one to within 0.013, and the same on every machine; float exp differs in the
# last bit from one processor to the next. The last of its 65,536 steps is zero, and so is everything farther.
_STEPS = 10_500
_LEVEL = np.floor(255 * np.exp(-(np.arange(65536) + 0.5) / _STEPS) + 0.5).astype(np.uint8)
_TOGETHER = 32768  # pixels computed at a time: they stay in the processor's cache
_FROM, _TO = (np.array(ends) for ends in zip(*LIMBS, strict=True))


def limb_distance_maps(joints: np.ndarray, valid: np.ndarray, height: int, width: int, kappa: float) -> np.ndarray:
    """255 exp(kappa d), to within 0.513 (half a level, and the table's step), for the twelve limbs of `pose.LIMBS`.

    joints: (N, 18, 2) (x, y) in pixels, pixel centres at integers, may lie outside the image; valid: (N, 18) bool;
    kappa: < 0, per pixel (the released code has -0.1). Returns uint8 (N, 12, height, width), 255 on the limb; all zero
    for a limb with a missing end. A limb of no length is a point.
    """
    if not kappa < 0:
        raise ValueError(f"kappa is {kappa}, must be negative")
    scale = _STEPS * -kappa
    seen = valid[:, _FROM] & valid[:, _TO]
    start = joints[:, _FROM][seen].astype(np.float64)
    end = joints[:, _TO][seen].astype(np.float64)
    along = end - start
    middle = start + along / 2
    length = np.sqrt((along**2).sum(axis=1, keepdims=True))
    cos, sin = np.split(np.divide(along, length, out=np.zeros_like(along), where=length > 0), 2, axis=1)
    cos[length == 0] = 1.0
    # In the limb's own frame, centred on it: distance along and across are each a sum of a term per row and per column.
    x = (np.arange(width) - middle[:, :1]) * scale
    y = (np.arange(height) - middle[:, 1:]) * scale
    along_x, along_y, across_x, across_y, half = (
        term.astype(np.float32) for term in (x * cos, y * sin, x * sin, y * cos, length / 2 * scale)
    )
    # M rounds to zero past `reach`: only the box that holds anything else is computed, of one limb in a large image,
    # of several at a time in a small one.
    reach = np.log(510) * _STEPS / scale + 1
    first = np.floor(np.minimum(start, end) - reach).clip(0, (width, height)).astype(int)
    stop = np.ceil(np.maximum(start, end) + reach + 1).clip(0, (width, height)).astype(int)
    together = max(1, _TOGETHER // (height * width))
    maps = np.zeros((seen.size, height, width), np.uint8)
    filled = np.flatnonzero(seen)
    for number in range(0, len(filled), together):
        part = slice(number, number + together)
        (x0, y0), (x1, y1) = first[part].min(axis=0).tolist(), stop[part].max(axis=0).tolist()
        rows, columns = slice(y0, y1), slice(x0, x1)
        beyond = along_y[part, rows, None] + along_x[part, None, columns]
        beyond -= beyond.clip(-half[part, :, None], half[part, :, None])  # past either end
        beyond *= beyond
        distance = across_y[part, rows, None] - across_x[part, None, columns]
        distance *= distance
        distance += beyond
        np.sqrt(distance, out=distance)
        maps[filled[part], rows, columns] = _LEVEL.take(distance.astype(np.intp), mode="clip")
    return maps.reshape(len(joints), len(LIMBS), height, width)
