"""Parsing label sets: names, flips, colours, and the lookup tables between them.

LIP-20 and CIHP-20 are whole sets: parsing is stored in one of them, or in lip-cihp-21, which tells apart what either
does; each network works in the one that its paper's parser speaks. The others are coarser, or know no side. Left and
right are the person's. docs/labels.md says where each set and each table comes from, and what is our choice.
"""

from enum import IntEnum

import cv2
import numpy as np

from pipeline.core.errors import UserError

LIP20 = (
    "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants",
    "jumpsuits", "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
)  # fmt: skip
Lip = IntEnum("Lip", [name.upper().replace("-", "_") for name in LIP20], start=0)  # Lip.COAT is 7

NAMES = {
    "lip-20": LIP20,
    "cihp-20": (*LIP20[:10], "torso-skin", *LIP20[11:]),
    "lip-cihp-21": (*LIP20, "torso-skin"),
    "atr-18": (
        "background", "hat", "hair", "sunglasses", "upper-clothes", "skirt", "pants", "dress", "belt", "left-shoe",
        "right-shoe", "face", "left-leg", "right-leg", "left-arm", "right-arm", "bag", "scarf",
    ),
    "pascal-7": ("background", "head", "torso", "upper-arms", "lower-arms", "upper-legs", "lower-legs"),
    "adgan-8": ("background", "pants", "hair", "skirt", "face", "upper-clothes", "arm", "leg"),
    "spt-10": (
        "background", "face", "hair", "upper-clothes", "trousers", "skirt",
        "left-arm", "right-arm", "left-leg", "right-leg",
    ),
}  # fmt: skip


def _table(*ids: int) -> np.ndarray:
    return np.array(ids, dtype=np.uint8)


def _mirrored(names: tuple[str, ...]) -> np.ndarray:
    swap = {"left": "right", "right": "left"}
    other = ["-".join([swap.get(name.split("-")[0], name.split("-")[0]), *name.split("-")[1:]]) for name in names]
    return _table(*(names.index(name) for name in other))


# FLIPS[label_set] (n,) uint8: the label that each label becomes in the mirrored image.
FLIPS = {label_set: _mirrored(names) for label_set, names in NAMES.items()}
LIP20_FLIP = FLIPS["lip-20"]

EVERY = "lip-cihp-21"
TORSO_SKIN = NAMES[EVERY].index("torso-skin")  # of neck and chest
STORED = ("lip-20", "cihp-20", EVERY)  # what parsing is stored in
# Where a whole set lacks a label, this one stands for it.
STANDS_FOR = {"torso-skin": "face", "jumpsuits": "dress"}


def exchange(stored: str, wanted: str) -> np.ndarray:
    """(n,) uint8: the label in `wanted` for each label of `stored`; both of STORED."""
    names = NAMES[wanted]
    return _table(*(names.index(name if name in names else STANDS_FOR[name]) for name in NAMES[stored]))


def tells(made_in: str, wanted: str) -> bool:
    """Whether maps that were made in a set (of NAMES) can hold every label of `wanted`."""
    return set(NAMES[wanted]) <= set(NAMES[made_in])


# FROM_LIP20[label_set] (20,) uint8: the label in a coarser set of each LIP-20 label.
FROM_LIP20 = {
    "adgan-8": _table(0, 2, 2, 6, 4, 5, 5, 5, 7, 1, 4, 5, 3, 4, 6, 6, 7, 7, 7, 7),
    "pascal-7": _table(0, 1, 1, 4, 1, 2, 2, 2, 6, 5, 2, 2, 5, 1, 4, 4, 6, 6, 6, 6),
    # Glove and socks have no side in LIP-20: background here, and `to_spt10` gives them the nearest arm or leg.
    "spt-10": _table(0, 2, 2, 0, 1, 3, 3, 3, 0, 4, 3, 3, 5, 1, 6, 7, 8, 9, 8, 9),
}

# TO_LIP20[label_set] (n,) uint8: the LIP-20 label that stands for each label. Arms and legs of sets that know no side
# (pascal-7, adgan-8) are the left ones here; `to_lip20` finds their side.
TO_LIP20 = {
    **{whole: exchange(whole, "lip-20") for whole in STORED},
    "atr-18": _table(0, 1, 2, 4, 5, 12, 9, 6, 5, 18, 19, 13, 16, 17, 14, 15, 0, 11),
    "pascal-7": _table(0, 13, 5, 14, 14, 9, 16),
    "adgan-8": _table(0, 9, 2, 12, 13, 5, 14, 16),
    "spt-10": _table(0, 13, 2, 5, 9, 12, 14, 15, 16, 17),
}
_NO_SIDE = ("pascal-7", "adgan-8")

# (21, 3) uint8 RGB: the colours of the LIP toolbox, which CIHP_PGN, JPPNet and Graphonomy share: id 10 is jumpsuits in
# LIP, torso skin in CIHP. The last one is ours, for torso skin beside jumpsuits.
COLOURS = np.array(
    [
        (0, 0, 0), (128, 0, 0), (255, 0, 0), (0, 85, 0), (170, 0, 51),
        (255, 85, 0), (0, 0, 85), (0, 119, 221), (85, 85, 0), (0, 85, 85),
        (85, 51, 0), (52, 86, 128), (0, 128, 0), (0, 0, 255), (51, 170, 221),
        (0, 255, 255), (85, 255, 170), (170, 255, 85), (255, 255, 0), (255, 170, 0),
        (255, 170, 170),
    ],
    dtype=np.uint8,
)  # fmt: skip


def _voc_colours(count: int) -> np.ndarray:
    """Pascal VOC's palette: bits 0, 3, 6, ... of the id, highest first, make red, the next ones green and blue."""
    bits = np.arange(count)[:, None, None] >> np.arange(9).reshape(3, 3) & 1  # (id, place, channel)
    return (bits << np.array([7, 6, 5])[:, None]).sum(axis=1).astype(np.uint8)


VOC_COLOURS = _voc_colours(20)  # (20, 3) uint8 RGB: SCHP's palette

# Colour-coded maps: the label set and the colour of each label.
COLOUR_CODED = {
    "lip-20-colours": ("lip-20", COLOURS[:20]),
    "cihp-20-colours": ("cihp-20", COLOURS[:20]),
    "lip-20-voc-colours": ("lip-20", VOC_COLOURS),
}

_LIMBS = {  # labels of a left and a right limb in LIP-20, and their joints in `pipeline.anatomy.pose`
    "arm": (14, 15, (5, 6, 7), (2, 3, 4)),
    "leg": (16, 17, (11, 12, 13), (8, 9, 10)),
}


def relabel(parsing: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Look every label up: parsing (..., H, W) uint8 of ids below n, table (n,) uint8 -> the same shape, uint8.

    Raises UserError for an id that the table does not have.
    """
    if parsing.size and parsing.max() >= len(table):
        raise UserError(f"label {parsing.max()} in a label set that ends at {len(table) - 1}; is it another set?")
    whole = np.zeros(256, dtype=np.uint8)
    whole[: len(table)] = table
    parsing = np.ascontiguousarray(parsing)
    return cv2.LUT(parsing.reshape(1, -1), whole).reshape(parsing.shape) if parsing.size else parsing.copy()


def within(parsing: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The label map (H, W) with background around `box` (top, left, height, width)."""
    top, left, height, width = box
    inside = np.zeros_like(parsing)
    inside[top : top + height, left : left + width] = parsing[top : top + height, left : left + width]
    return inside


def flip(parsing: np.ndarray, label_set: str = "lip-20") -> np.ndarray:
    """The label map of the mirrored image, (..., H, W) uint8: columns reversed, left and right exchanged."""
    return relabel(parsing[..., ::-1], FLIPS[label_set])


def _by_half(person: np.ndarray) -> np.ndarray:
    """(H, W) bool: is a pixel in the half where the left limbs of a person who faces the camera are (the right one)?

    The halves meet in the middle of the person's bounding box.
    """
    columns = np.flatnonzero(person.any(axis=0))
    middle = (columns[0] + columns[-1]) / 2 if len(columns) else (person.shape[1] - 1) / 2
    return np.broadcast_to(np.arange(person.shape[1]) > middle, person.shape)


def _left_is_nearer(left: np.ndarray, right: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Distances to the left and the right limb -> bool; on a tie (both unknown: both infinite), by the half."""
    return np.where(left == right, half, left < right)


def to_spt10(parsing: np.ndarray) -> np.ndarray:
    """LIP-20 -> SPT-10, (..., H, W) uint8. Every glove pixel gets the nearest arm's label, socks the nearest leg's.

    Nearest by Euclidean distance; without any arm (leg) or at equal distances, by the half of the person's box.
    """
    out = relabel(parsing, FROM_LIP20["spt-10"])
    size = parsing.shape[-2:]
    for lip, spt in zip(parsing.reshape(-1, *size), out.reshape(-1, *size), strict=True):
        for label, sides in ((LIP20.index("glove"), (6, 7)), (LIP20.index("socks"), (8, 9))):
            where = lip == label
            if not where.any():
                continue
            away = [_square_distance_to(spt == side) for side in sides]
            left = _left_is_nearer(*(distance[where] for distance in away), _by_half(lip > 0)[where])
            spt[where] = np.where(left, *sides)
    return out


def _square_distance_to(region: np.ndarray) -> np.ndarray:
    """(H, W) float64: squared distance in pixels to the nearest pixel of `region` (bool); infinite if it is empty.

    Squared it is a whole number: OpenCV's own last bit depends on where the array lies in memory, and decides ties.
    """
    if not region.any():
        return np.full(region.shape, np.inf)
    distance = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.rint(np.square(distance, dtype=np.float64))


def to_lip20(
    parsing: np.ndarray, label_set: str, joints: np.ndarray | None = None, valid: np.ndarray | None = None
) -> np.ndarray:
    """A label map in any set -> LIP-20, (H, W) uint8. Raises UserError for an id that the set does not have.

    joints (18, 2) float32, x and y in pixels, and valid (18,) bool matter for pascal-7 and adgan-8 only, whose arms
    and legs have no side: each such pixel belongs to the side whose limb (shoulder, elbow, wrist; hip, knee, ankle) is
    nearer, and where neither is known to the half of the person's box, as if they faced the camera.
    """
    out = relabel(parsing, TO_LIP20[label_set])
    if label_set not in _NO_SIDE:
        return out
    for left_label, right_label, left_joints, right_joints in _LIMBS.values():
        where = out == left_label
        if not where.any():
            continue
        y, x = np.nonzero(where)
        points = np.stack([x, y], axis=1).astype(np.float64)
        away = [_distance_to_limb(points, joints, valid, limb) for limb in (left_joints, right_joints)]
        left = _left_is_nearer(*away, _by_half(out > 0)[where])
        out[where] = np.where(left, left_label, right_label)
    return out


def _distance_to_limb(
    points: np.ndarray, joints: np.ndarray | None, valid: np.ndarray | None, limb: tuple[int, ...]
) -> np.ndarray:
    """Points (N, 2) -> (N,) distance to the line through the limb's known joints; infinite if none is known."""
    known = [] if joints is None else [joints[joint].astype(np.float64) for joint in limb if valid[joint]]
    away = np.full(len(points), np.inf)
    for start, end in zip(known, known[1:] or known, strict=False):
        along = end - start
        place = np.clip((points - start) @ along / max(along @ along, 1e-12), 0, 1)
        away = np.minimum(away, np.linalg.norm(points - start - place[:, None] * along, axis=1))
    return away


def colour(parsing: np.ndarray, colours: np.ndarray = COLOURS) -> np.ndarray:
    """Labels (..., H, W) uint8 below len(colours) -> RGB (..., H, W, 3) uint8."""
    return colours[parsing]


def from_colours(image: np.ndarray, colours: np.ndarray = COLOURS) -> np.ndarray:
    """Exact inverse of `colour`: RGB (..., H, W, 3) uint8 -> labels. Raises UserError that names an unknown colour."""

    def packed(rgb: np.ndarray) -> np.ndarray:
        return rgb[..., 0].astype(np.int32) << 16 | rgb[..., 1].astype(np.int32) << 8 | rgb[..., 2]

    known, wanted = packed(colours), packed(image)
    order = np.argsort(known)
    place = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    wrong = known[place] != wanted
    if wrong.any():
        red, green, blue = image[wrong][0].tolist()
        raise UserError(
            f"colour ({red}, {green}, {blue}) is no label's, in {wrong.sum()} of {wrong.size} pixels; "
            "another palette, or saved lossily or scaled smoothly?"
        )
    return place.astype(np.uint8)
