"""Structural similarity (Wang et al. 2004) in the four definitions that the field's code bases print.

All of them: uint8 RGB, data range 255, K1 = 0.01, K2 = 0.03, each of R, G, B by itself, mean over the channels and over
the pixels whose window lies inside the image. They differ in the window:

- `ssim`: Gaussian, sigma 1.5, 11 pixels wide, population covariance (Def-GAN, PATN and successors);
- `ssim_uniform`: equal weights over a square, sample covariance, which is scikit-image's default. 7 pixels: PG2,
  Intrinsic Flow, SPGNet. 51 pixels: GFLA and successors;
- `ssim_padded`: the Gaussian one after 40 white columns were added on both sides of both images (PATN on DeepFashion);
- `ssim_inside`: the Gaussian one's map, averaged over the pixels of a mask instead of over all.
"""

from collections.abc import Callable, Iterator
from functools import partial

import cv2
import numpy as np

from pipeline.errors import UserError

SIGMA = 1.5
RADIUS = 5  # scikit-image truncates the window at 3.5 sigma: int(3.5 * 1.5 + 0.5)
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2
WHITE_COLUMNS = 40

Mean = Callable[[np.ndarray], np.ndarray]  # a plane -> its mean in each window that lies inside


def ssim(generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB twice -> (N,) float64, 1 for identical images.

    Equal to `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255, channel_axis=2)`. The data range is the type's, not the
    generated image's own, so two methods' values compare. Raises UserError for images smaller than the
    11-pixel window.
    """
    _check(generated, 2 * RADIUS + 1)
    return _values(generated, target, _gaussian_mean, 1.0)


def ssim_uniform(generated: np.ndarray, target: np.ndarray, size: int) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB twice -> (N,) float64 with a uniform window of `size` (odd) x `size` pixels.

    Equal to `structural_similarity(win_size=size, data_range=255, channel_axis=2)`, and to GFLA's call on floats in
    [0, 1] with data range 1. Raises UserError for images smaller than the window.
    """
    _check(generated, size)
    # scikit-image divides covariances by n - 1, n = size^2
    return _values(generated, target, partial(_uniform_mean, size=size), size**2 / (size**2 - 1))


def ssim_padded(generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`ssim` after 40 white columns were added on the left and on the right of both images: (N,) float64."""
    beside = ((0, 0), (0, 0), (WHITE_COLUMNS, WHITE_COLUMNS), (0, 0))
    return ssim(*(np.pad(images, beside, constant_values=255) for images in (generated, target)))


def ssim_inside(generated: np.ndarray, target: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The mean of `ssim`'s map over the pixels of masks (N, H, W) uint8 {0, 1} whose window lies inside the image.

    Windows still see what is around the mask. (N,) float64, NaN where the mask has no such pixel.
    """
    _check(generated, 2 * RADIUS + 1)
    inner = masks[:, RADIUS:-RADIUS, RADIUS:-RADIUS].astype(bool)
    values = np.full(len(generated), np.nan)
    for row, (x, y, mask) in enumerate(zip(generated, target, inner, strict=True)):
        if mask.any():
            values[row] = np.mean([plane[mask].mean() for plane in _maps(x, y, _gaussian_mean, 1.0)])
    return values


def _check(images: np.ndarray, window: int) -> None:
    height, width = images.shape[1:3]
    if min(height, width) < window:
        raise UserError(
            f"SSIM: images of {width}x{height} pixels are smaller than its {window}-pixel window: score larger images"
        )


def _values(generated: np.ndarray, target: np.ndarray, mean: Mean, correction: float) -> np.ndarray:
    pairs = zip(generated, target, strict=True)
    return np.array([np.mean([m.mean() for m in _maps(x, y, mean, correction)]) for x, y in pairs], dtype=np.float64)


def _maps(x: np.ndarray, y: np.ndarray, mean: Mean, correction: float) -> Iterator[np.ndarray]:
    # Channel by channel: the working arrays of one 256x176 plane stay in cache, which halves the time.
    return (_map(*planes, mean, correction) for planes in zip(_planes(x), _planes(y), strict=True))


def _planes(image: np.ndarray) -> np.ndarray:
    return image.transpose(2, 0, 1).astype(np.float64, order="C")


def _map(x: np.ndarray, y: np.ndarray, mean: Mean, correction: float) -> np.ndarray:
    mean_x, mean_y, squares, product = (mean(m) for m in (x, y, x * x + y * y, x * y))
    mean_product = mean_x * mean_y
    mean_squares = mean_x * mean_x + mean_y * mean_y
    luminance = (2 * mean_product + C1) / (mean_squares + C1)
    # Only the sum of the two variances enters, so four blurs do the work of five.
    return luminance * (2 * correction * (product - mean_product) + C2) / (correction * (squares - mean_squares) + C2)


def _gaussian_mean(plane: np.ndarray) -> np.ndarray:
    size = 2 * RADIUS + 1
    return cv2.GaussianBlur(plane, (size, size), SIGMA)[RADIUS:-RADIUS, RADIUS:-RADIUS]


def _uniform_mean(plane: np.ndarray, size: int) -> np.ndarray:
    margin = size // 2
    height, width = plane.shape
    return cv2.blur(plane, (size, size))[margin : height - margin, margin : width - margin]
