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

Mean = Callable[[np.ndarray, np.ndarray], None]  # writes a plane's mean in the window around every pixel


def ssim(generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB twice -> (N,) float64, 1 for identical images.

    Equal to `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255, channel_axis=2)`. The data range is the type's, not the
    generated image's own, so two methods' values compare. Raises UserError for images smaller than the
    11-pixel window.
    """
    _check(generated, 2 * RADIUS + 1)
    return _values(generated, target, _gaussian_mean, RADIUS, 1.0)


def ssim_uniform(generated: np.ndarray, target: np.ndarray, size: int) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB twice -> (N,) float64 with a uniform window of `size` (odd) x `size` pixels.

    Equal to `structural_similarity(win_size=size, data_range=255, channel_axis=2)`, and to GFLA's call on floats in
    [0, 1] with data range 1. Raises UserError for images smaller than the window.
    """
    _check(generated, size)
    # scikit-image divides covariances by n - 1, n = size^2
    return _values(generated, target, partial(_uniform_mean, size=size), size // 2, size**2 / (size**2 - 1))


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
    pairs = _maps(generated, target, _gaussian_mean, RADIUS, 1.0)
    for row, (maps, mask) in enumerate(zip(pairs, inner, strict=True)):
        if mask.any():
            values[row] = np.mean([plane[mask].mean() for plane in maps])
    return values


def _check(images: np.ndarray, window: int) -> None:
    height, width = images.shape[1:3]
    if min(height, width) < window:
        raise UserError(
            f"SSIM: images of {width}x{height} pixels are smaller than its {window}-pixel window: score larger images"
        )


def _values(generated: np.ndarray, target: np.ndarray, mean: Mean, margin: int, correction: float) -> np.ndarray:
    return np.array([np.mean([m.mean() for m in maps]) for maps in _maps(generated, target, mean, margin, correction)])


def _maps(
    generated: np.ndarray, target: np.ndarray, mean: Mean, margin: int, correction: float
) -> Iterator[Iterator[np.ndarray]]:
    """For each pair the maps of R, G, B, one at a time: a map is overwritten by the next."""
    # Channel by channel, in the same few arrays: what stays in cache and is not allocated again costs half the time.
    work = np.empty((9, *generated.shape[1:3]))
    for x, y in zip(generated, target, strict=True):
        yield (_map(x[..., c], y[..., c], mean, margin, correction, work) for c in range(3))


def _map(x: np.ndarray, y: np.ndarray, mean: Mean, margin: int, correction: float, work: np.ndarray) -> np.ndarray:
    """(H, W) uint8 twice -> (H - 2 margin, W - 2 margin) float64, a view of `work` (9, H, W)."""
    a, b, squares, product, mean_x, mean_y, variance, covariance, scratch = work
    np.copyto(a, x)
    np.copyto(b, y)
    # Only the sum of the two variances enters, so four blurs do the work of five.
    np.multiply(a, a, out=squares)
    np.multiply(b, b, out=scratch)
    squares += scratch
    np.multiply(a, b, out=product)
    for plane, blurred in ((a, mean_x), (b, mean_y), (squares, variance), (product, covariance)):
        mean(plane, blurred)
    numerator = np.multiply(mean_x, mean_y, out=scratch)
    mean_x *= mean_x
    mean_y *= mean_y
    denominator = np.add(mean_x, mean_y, out=mean_x)
    variance -= denominator
    covariance -= numerator
    numerator *= 2
    numerator += C1
    denominator += C1
    covariance *= 2 * correction
    covariance += C2
    variance *= correction
    variance += C2
    numerator *= covariance
    denominator *= variance
    numerator /= denominator
    # Windows at the rim reach outside, where the blurs mirror the image: cut them off last, whole rows run faster.
    height, width = x.shape
    return numerator[margin : height - margin, margin : width - margin]


def _gaussian_mean(plane: np.ndarray, out: np.ndarray) -> None:
    size = 2 * RADIUS + 1
    cv2.GaussianBlur(plane, (size, size), SIGMA, dst=out)


def _uniform_mean(plane: np.ndarray, out: np.ndarray, size: int) -> None:
    cv2.blur(plane, (size, size), dst=out)
