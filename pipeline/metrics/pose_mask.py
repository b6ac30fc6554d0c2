"""The field's pose mask for the masked metrics: `produce_ma_mask` of Def-GAN, PATN, GFLA and SPGNet."""

import cv2
import numpy as np

RADIUS = 4  # pixels, at every image size: half-width of a limb and radius of a joint
_CLOSING = np.ones((5, 5), np.uint8)

# Pairs of joints (0-based OpenPose-18), in the order in which all of those code bases list them.
MASK_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (1, 16), (1, 17), (8, 11), (11, 5), (8, 2), (16, 17),
)  # fmt: skip


def pose_masks(joints: np.ndarray, valid: np.ndarray, height: int, width: int) -> np.ndarray:
    """joints (N, 18, 2) as (x, y) in pixels, valid (N, 18) bool -> (N, height, width) uint8, 1 on the person.

    A limb whose two ends are known is a rectangle of half-width 4 from joint to joint, boundary included; a known joint
    is a disk of the pixels closer than 4; their union is dilated, then eroded, by a 5x5 square (what lies outside the
    image counts as neither). Shapes are filled by scikit-image's rules, as they were for the published numbers; two
    joints at one place make no limb. A person without a known joint gets an empty mask.
    """
    from skimage.draw import disk

    points = np.asarray(joints, dtype=np.float64)[..., ::-1]  # (row, column), as scikit-image draws
    masks = np.zeros((len(points), height, width), np.uint8)
    for mask, person, known in zip(masks, points, np.asarray(valid, dtype=bool), strict=True):
        for start, end in MASK_LIMBS:
            if known[start] and known[end]:
                _fill_limb(mask, person[start], person[end])
        for joint in person[known]:
            mask[disk(joint, RADIUS, shape=mask.shape)] = 1
        mask[:] = cv2.erode(cv2.dilate(mask, _CLOSING), _CLOSING)
    return masks


def _fill_limb(mask: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    from skimage.draw import polygon

    row, column = start - end
    length = np.hypot(row, column)
    if length == 0:
        return
    normal = RADIUS * np.array([-column, row]) / length
    corners = np.array([start + normal, start - normal, end - normal, end + normal])
    mask[polygon(corners[:, 0], corners[:, 1], shape=mask.shape)] = 1
