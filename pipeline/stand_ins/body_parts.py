"""The ten body parts of a pose: rectangles, masks and the affine maps between two poses.

After Siarohin et al. (Deformable GANs, CVPR 2018), as Song et al. (SPT, CVPR 2019) use them. Lengths are in torso
lengths `st`: the root mean square of the right and the left shoulder-hip distance. Every part's mask is a rectangle:

  torso             hips and shoulders' bounding box, 0.1 st wider on every side
  head              square of half-side 0.4 st around the mean of the seen nose, eyes and ears
  thighs, arms      along the limb, from 0.1 of its length before its start; half-width 0.2 st; the end moved out by 0.1
  shins, forearms   of the length so far (thighs, upper arms) or 0.5 of it (shins, forearms: they cover foot and hand)

The map between two limbs takes one rectangle onto the other, start to start and right side to right side. The released
code fits it to rectangles that end elsewhere (0.3); the map is the same one. Torso and head are least-squares fits: to
hips and shoulders, and to the shoulders and the head joints that both poses show.

All maps are inverse, (2, 3) matrices from pixels of the pose to make to pixels of the pose to take from, pixel centres
at integers. Everything is batched over N poses and free of the order of summation, so equal bytes come from any batch
size.
"""

import numpy as np

from pipeline.anatomy.pose import SHOULDERS_AND_HIPS

PARTS = (
    "torso", "head",
    "right-thigh", "left-thigh", "right-shin", "left-shin",
    "right-upper-arm", "left-upper-arm", "right-forearm", "left-forearm",
)  # fmt: skip
MIRROR = np.array([0, 1, 3, 2, 5, 4, 7, 6, 9, 8])  # the same part of the other side

HEAD_JOINTS = (0, 14, 15, 16, 17)  # nose, eyes, ears
_SHOULDERS = (2, 5)
_START = np.array([8, 11, 9, 12, 2, 5, 3, 6])
_END = np.array([9, 12, 10, 13, 3, 6, 4, 7])
_END_SHARE = np.array([0.1, 0.1, 0.5, 0.5, 0.1, 0.1, 0.5, 0.5])
_START_SHARE = 0.1
_LIMB_HALF_WIDTH = 0.2
_HEAD_HALF_SIDE = 0.4
_TORSO_MARGIN = 0.1
_FLAT = 1e-6  # control points on one line: smaller variance over larger, at most


def torso_length(joints: np.ndarray) -> np.ndarray:
    """st float64 (N,) in pixels of joints (N, 18, 2); means nothing where a shoulder or a hip is missing."""
    points = np.asarray(joints, np.float64)
    right, left = points[:, 2] - points[:, 8], points[:, 5] - points[:, 11]
    squares = right[:, 0] ** 2 + right[:, 1] ** 2 + left[:, 0] ** 2 + left[:, 1] ** 2
    return np.sqrt(squares / 2)


def usable(joints: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """bool (N,): both shoulders and both hips are there, and not all at one place. Other poses have no parts."""
    return valid[:, SHOULDERS_AND_HIPS].all(axis=1) & (torso_length(joints) > 0)


def corners(joints: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ten rectangles: float64 (N, 10, 4, 2) corners (x, y) in pixels, bool (N, 10) whether the part is there.

    joints: (N, 18, 2) (x, y); valid: (N, 18) bool. Corners of limbs: start right, start left, end left, end right, seen
    along the limb in image axes (x right, y down); of torso and head: top left, top right, bottom right, bottom left. A
    limb of no length has no direction and counts as missing. Zeros where the part is missing.
    """
    points = np.asarray(joints, np.float64)
    st = torso_length(points)
    boxes = np.zeros((len(points), len(PARTS), 4, 2))
    present = np.zeros((len(points), len(PARTS)), bool)

    torso = points[:, SHOULDERS_AND_HIPS]
    margin = (_TORSO_MARGIN * st)[:, None]
    boxes[:, 0] = _upright(torso.min(axis=1) - margin, torso.max(axis=1) + margin)
    present[:, 0] = True

    centre, present[:, 1] = head_centre(points, valid)
    half = (_HEAD_HALF_SIDE * st)[:, None]
    boxes[:, 1] = _upright(centre - half, centre + half)

    start, end = points[:, _START], points[:, _END]
    along = end - start
    length = np.hypot(along[..., 0], along[..., 1])[..., None]
    present[:, 2:] = valid[:, _START] & valid[:, _END] & (length[..., 0] > 0)
    start = start - _START_SHARE * along
    end = end + _END_SHARE[:, None] * (end - start)
    unit = np.divide(along, length, out=np.zeros_like(along), where=length > 0)
    side = np.stack([-unit[..., 1], unit[..., 0]], axis=-1) * (_LIMB_HALF_WIDTH * st)[:, None, None]
    boxes[:, 2:] = np.stack([start + side, start - side, end - side, end + side], axis=2)

    present &= usable(joints, valid)[:, None]
    boxes[~present] = 0
    return boxes, present


def head_centre(joints: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (x, y) of the seen nose, eyes and ears, float64 (N, 2), and whether any is seen, bool (N,)."""
    points, seen = np.asarray(joints, np.float64), np.zeros((len(joints), 1))
    centre = np.zeros((len(joints), 2))
    for joint in HEAD_JOINTS:
        centre += points[:, joint] * valid[:, joint, None]
        seen += valid[:, joint, None]
    return centre / np.maximum(seen, 1), seen[:, 0] > 0


def _upright(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Corners (N, 4, 2) of axis-aligned boxes."""
    x0, y0, x1, y1 = low[:, 0], low[:, 1], high[:, 0], high[:, 1]
    return np.stack([np.stack(pair, axis=-1) for pair in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], axis=1)


def frames(boxes: np.ndarray) -> np.ndarray:
    """Maps from pixels to the rectangles' unit squares: corners (..., 4, 2) -> float64 (..., 2, 3), finite everywhere.

    The first corner goes to (0, 0), the second to (1, 0), the last to (0, 1). A point is in the rectangle where both
    coordinates are in [0, 1]. A rectangle without area (a missing part) holds no point: all go to (-1, -1).
    """
    origin = boxes[..., 0, :]
    rows = []
    for corner in (1, 3):
        edge = boxes[..., corner, :] - origin
        square = edge[..., 0] ** 2 + edge[..., 1] ** 2
        row = np.divide(edge, square[..., None], out=np.zeros_like(edge), where=square[..., None] > 0)
        shift = -(row[..., 0] * origin[..., 0] + row[..., 1] * origin[..., 1])
        rows.append(np.stack([row[..., 0], row[..., 1], np.where(square > 0, shift, -1.0)], axis=-1))
    return np.stack(rows, axis=-2)


def inside(frame: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points (x, y) are in the rectangles of `frame` (..., 2, 3); all broadcast together. bool."""
    u = frame[..., 0, 0] * x + (frame[..., 0, 1] * y + frame[..., 0, 2])
    v = frame[..., 1, 0] * x + (frame[..., 1, 1] * y + frame[..., 1, 2])
    return (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)


def masks(joints: np.ndarray, valid: np.ndarray, height: int, width: int, whole_torso: bool = False) -> np.ndarray:
    """Binary part masks B: bool (N, 10, height, width); none for a missing part.

    whole_torso: the torso's mask is the whole image of a usable pose, as SPT's released appearance network has it.
    """
    boxes, present = corners(joints, valid)
    y, x = np.arange(height, dtype=np.float64)[:, None], np.arange(width, dtype=np.float64)
    result = inside(frames(boxes)[:, :, None, None], x, y)
    if whole_torso:
        result[:, 0] = present[:, 0, None, None]
    return result


def affine_maps(
    joints_to: np.ndarray, valid_to: np.ndarray, joints_from: np.ndarray, valid_from: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each pixel of a part in pose `to` comes from in pose `from`, row by row of two equally long batches.

    Returns maps float64 (N, 10, 2, 3), pixel of `to` -> pixel of `from`; given bool (N, 10), whether there is a map at
    all; mirrored bool (N, 10), whether the limb is missing in `from` and the other side's stands in. There is no map
    for a part missing in `to`, for a limb missing on both sides of `from`, for heads without a joint seen in both, and
    where the control points of either pose lie on one line; such maps are zero and nothing may be sampled through them.
    """
    boxes_to, present_to = corners(joints_to, valid_to)
    boxes_from, present_from = corners(joints_from, valid_from)
    maps = np.zeros((len(joints_to), len(PARTS), 2, 3))
    given = np.zeros((len(joints_to), len(PARTS)), bool)
    control = np.zeros(np.shape(valid_to), bool)
    control[:, SHOULDERS_AND_HIPS] = True
    maps[:, 0], given[:, 0] = fit(joints_to, joints_from, control)
    control[:] = False
    control[:, HEAD_JOINTS] = valid_to[:, HEAD_JOINTS] & valid_from[:, HEAD_JOINTS]
    control[:, _SHOULDERS] = True  # these two alone are too few: no map
    maps[:, 1], given[:, 1] = fit(joints_to, joints_from, control)

    mirrored = ~present_from & present_from[:, MIRROR]
    source = np.where(mirrored[..., None, None], boxes_from[:, MIRROR], boxes_from)
    given[:, 2:] = (present_from | mirrored)[:, 2:]
    maps[:, 2:] = through_unit_square(frames(boxes_to)[:, 2:], source[:, 2:])
    given &= present_to & usable(joints_from, valid_from)[:, None]
    maps[~given] = 0
    return maps, given, mirrored & given


def through_unit_square(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Maps (..., 2, 3): by `frame` (..., 2, 3) into a unit square and from it onto rectangles `boxes` (..., 4, 2)."""
    origin = boxes[..., 0, :]
    across, down = boxes[..., 1, :] - origin, boxes[..., 3, :] - origin
    result = across[..., :, None] * frame[..., 0, None, :] + down[..., :, None] * frame[..., 1, None, :]
    result[..., 2] += origin
    return result


def fit(to: np.ndarray, source: np.ndarray, control: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Affine maps by least squares: the A that minimises the sum of |A(to) - source|^2 over the control points.

    to, source: (N, P, 2); control: bool (N, P), which points count. Returns float64 (N, 2, 3) and bool (N,), false (and
    a zero map) where the points of either side lie on one line, or are fewer than three.
    """
    weight = np.asarray(control, np.float64)
    count = np.maximum(_sum(weight), 1)
    x, x_mean = _centred(to, weight, count)
    y, y_mean = _centred(source, weight, count)
    a, b, c = (_sum(x[..., i] * x[..., k]) for i, k in ((0, 0), (0, 1), (1, 1)))
    determinant = a * c - b * b
    good = (determinant > _FLAT * (a + c) ** 2) & (count >= 3)
    inverse = np.divide(1, determinant, out=np.zeros_like(determinant), where=good)
    maps = np.zeros((len(weight), 2, 3))
    for k in range(2):
        p, q = _sum(y[..., k] * x[..., 0]), _sum(y[..., k] * x[..., 1])
        maps[:, k, 0] = (p * c - q * b) * inverse
        maps[:, k, 1] = (q * a - p * b) * inverse
        maps[:, k, 2] = y_mean[:, k] - (maps[:, k, 0] * x_mean[:, 0] + maps[:, k, 1] * x_mean[:, 1])
    d, e, f = (_sum(y[..., i] * y[..., k]) for i, k in ((0, 0), (0, 1), (1, 1)))
    good &= d * f - e * e > _FLAT * (d + f) ** 2
    maps[~good] = 0
    return maps, good


def _centred(points: np.ndarray, weight: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, P, 2) less their mean over the control points, zero elsewhere; the mean (N, 2)."""
    points = np.asarray(points, np.float64)
    mean = np.stack([_sum(points[..., k] * weight) / count for k in range(2)], axis=-1)
    return (points - mean[:, None]) * weight[..., None], mean


def _sum(values: np.ndarray) -> np.ndarray:
    """Sum over the last axis, one after the other: the same bits whatever the batch."""
    total = np.zeros(values.shape[:-1])
    for k in range(values.shape[-1]):
        total += values[..., k]
    return total
