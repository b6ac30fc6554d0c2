"""Peak signal-to-noise ratio in dB of one image at a time, data range 255."""

import cv2
import numpy as np


def squared_error(generated: np.ndarray, target: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    """(N, H, W, 3) uint8 twice -> (N,) int64: the exact sum of squared differences; 0 means identical.

    masks: (N, H, W) uint8, where to look; None: everywhere.
    """
    # OpenCV sums in integers, but then takes the root and squares it again: hence `round`
    rows = zip(generated, target, [None] * len(target) if masks is None else masks, strict=True)
    return np.array([round(cv2.norm(x, y, cv2.NORM_L2SQR, mask)) for x, y, mask in rows], dtype=np.int64)


def psnr(generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB twice -> (N,) float64 dB: 10 log10(255^2 / MSE) over pixels and channels.

    An identical pair, whose ratio is infinite, scores as much as a pair with a single difference of one grey level
    (92.04 dB at 128x64): the best finite value, so that one such pair neither makes the mean infinite nor drops out.
    """
    size = generated[0].size if len(generated) else 1
    return _decibels(squared_error(generated, target), np.array(size))


def psnr_inside(generated: np.ndarray, target: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """`psnr` with the MSE over the pixels of masks (N, H, W) uint8 {0, 1} alone: (N,) dB, NaN for an empty mask."""
    sizes = 3 * masks.sum(axis=(1, 2), dtype=np.int64)
    error = squared_error(generated, target, masks)
    return np.where(sizes > 0, _decibels(error, np.maximum(sizes, 1)), np.nan)


def _decibels(error: np.ndarray, values: np.ndarray) -> np.ndarray:
    return 10 * np.log10(255.0**2 * values / np.maximum(error, 1))
