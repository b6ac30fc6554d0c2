"""How published code resizes a high-resolution photograph, by name: its filter decides much of a FID.

A picture is (H, W, 3) uint8 RGB, before and after.
"""

from collections.abc import Callable

import cv2
import numpy as np

from pipeline.formats.pictures import bicubic

Filter = Callable[[np.ndarray, int, int], np.ndarray]  # picture, height, width


def cv2_bilinear(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's: the nearest 2 x 2 pixels alone, however far the picture shrinks."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)


def cv2_cubic(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's, a = -3/4: the nearest 4 x 4 pixels alone."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)


def squashed(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """`bicubic` to a square as high, and from there OpenCV's bilinear filter in floats, rounded at the end."""
    square = bicubic(picture, height, height).astype(np.float32)
    return np.rint(cv2_bilinear(square, height, width)).astype(np.uint8)


FILTERS: dict[str, Filter] = {
    "bicubic": bicubic,
    "cv2-bilinear": cv2_bilinear,
    "cv2-cubic": cv2_cubic,
    "squashed": squashed,
}
