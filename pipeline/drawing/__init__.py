"""Prepared data as pictures: joints on images, parsing in colour, maps, and sheets of them.

Every picture is (H, W, 3) uint8 RGB. Joints are (x, y) in pixels of the image, pixel centres at integers.

Layer 2; may import: core, anatomy.
"""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from rich.text import Text

from pipeline.anatomy import labels, pose

# One colour per limb of `pose.SKELETON`; the report's drawings use the same.
LIMB_COLOURS = [
    tuple(round(255 * part) for part in colorsys.hls_to_rgb(index / len(pose.SKELETON), 0.5, 0.9))
    for index in range(len(pose.SKELETON))
]
PAPER, INK = 255, (40, 40, 40)
_FONT, _FONT_SIZE, _LINE = cv2.FONT_HERSHEY_SIMPLEX, 0.38, 15  # the line's height in pixels
_GAP = 8


def enlarged(picture: np.ndarray, scale: int) -> np.ndarray:
    """Every pixel as a square of `scale` x `scale`: (H, W, ...) -> (H scale, W scale, ...)."""
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def skeleton(picture: np.ndarray, joints: np.ndarray, valid: np.ndarray, scale: int = 1) -> np.ndarray:
    """The picture, enlarged, with the limbs whose two ends are known as coloured lines and known joints as dots.

    joints: (18, 2), may lie outside the picture.  valid: (18,) bool.
    """
    drawn = np.ascontiguousarray(enlarged(picture, scale))
    centres = (np.asarray(joints, np.float64) + 0.5) * scale - 0.5  # the middle of the joint's square
    points = [tuple(point) for point in np.rint(centres).astype(int).tolist()]
    thickness = max(1, round(max(drawn.shape[:2]) / 160))
    for (a, b), colour in zip(pose.SKELETON, LIMB_COLOURS, strict=True):
        if valid[a] and valid[b]:
            cv2.line(drawn, points[a], points[b], colour, thickness)
    for point, seen in zip(points, valid, strict=True):
        if seen:
            cv2.circle(drawn, point, thickness, (255, 255, 255), -1)
    return drawn


def parsing(picture: np.ndarray, label_map: np.ndarray, opacity: float = 0.7) -> np.ndarray:
    """Label ids (H, W) in their colours over the picture; background shows the picture dimmed."""
    return np.rint(opacity * labels.colour(label_map) + (1 - opacity) * picture).astype(np.uint8)


def level(values: np.ndarray) -> np.ndarray:
    """A map (H, W) uint8, from black (0) over red and yellow to white (255)."""
    return np.stack([np.clip(3 * values.astype(int) - shift, 0, 255) for shift in (0, 255, 510)], axis=2).astype(
        np.uint8
    )


def limb_maps(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The maps (H, W) uint8 of `pose.LIMBS`, about 192 pixels high under the names of their limbs: two rows of six."""
    scale = max(1, round(192 / maps[0].shape[0]))
    names = [f"{pose.JOINT_NAMES[a]} - {pose.JOINT_NAMES[b]}".replace("_", " ") for a, b in pose.LIMBS]
    panels = [
        titled(enlarged(level(one), scale), name + ("" if one.any() else ": none"))
        for one, name in zip(maps, names, strict=True)
    ]
    return [beside(panels[:6]), beside(panels[6:])]


def text_width(text: str) -> int:
    return cv2.getTextSize(text, _FONT, _FONT_SIZE, 1)[0][0]


def _write(picture: np.ndarray, text: str, x: int, y: int) -> None:
    cv2.putText(picture, text, (x, y), _FONT, _FONT_SIZE, INK, 1, cv2.LINE_AA)


def titled(picture: np.ndarray, *lines: str) -> np.ndarray:
    """The picture under lines of text (ASCII), on paper as wide as the widest of them."""
    height, width = picture.shape[:2]
    top = _LINE * len(lines) + 4
    sheet = np.full((top + height, max(width, *map(text_width, lines)), 3), PAPER, np.uint8)
    for number, line in enumerate(lines, 1):
        _write(sheet, line, 0, _LINE * number - 3)
    sheet[top:, :width] = picture
    return sheet


def legend(present: Sequence[int]) -> np.ndarray:
    """Colour and name of lip-cihp-21 labels."""
    names = labels.NAMES[labels.EVERY]
    width = 20 + max((text_width(names[label]) for label in present), default=0)
    sheet = np.full((_LINE * max(1, len(present)), width, 3), PAPER, np.uint8)
    for number, label in enumerate(present):
        top = _LINE * number
        sheet[top + 1 : top + _LINE - 1, :14] = labels.COLOURS[label]
        _write(sheet, names[label], 19, top + _LINE - 4)
    return sheet


def beside(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Panels from left to right, tops in line."""
    height = max(panel.shape[0] for panel in panels)
    padded = [
        np.pad(panel, ((0, height - panel.shape[0]), (0, _GAP), (0, 0)), constant_values=PAPER) for panel in panels
    ]
    return np.concatenate(padded, axis=1)


def below(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows from top to bottom, starting at the left."""
    return np.ascontiguousarray(beside([row.swapaxes(0, 1) for row in rows]).swapaxes(0, 1))


def half_blocks(picture: np.ndarray, columns: int) -> Text:
    """The picture for a terminal with colours, `columns` characters wide: one character shows two pixels."""
    height, width = picture.shape[:2]
    rows = max(1, round(columns * height / width / 2))
    small = cv2.resize(picture, (columns, 2 * rows), interpolation=cv2.INTER_AREA)
    text = Text(no_wrap=True)
    for upper, lower in zip(small[::2].tolist(), small[1::2].tolist(), strict=True):
        for (r, g, b), (s, h, c) in zip(upper, lower, strict=True):
            text.append("▀", f"rgb({r},{g},{b}) on rgb({s},{h},{c})")
        text.append("\n")
    return text
