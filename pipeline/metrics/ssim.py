"""Structural similarity (Wang et al. 2004) in the definitions that the field's code bases print.

All take RGB of data range 255, K1 = 0.01 and K2 = 0.03, treat R, G and B separately, and average over the channels and
over the pixels whose window lies inside the image. They differ in the window, or in the range:

- `ssim`: Gaussian, sigma 1.5, 11 pixels wide, population covariance (Def-GAN, PATN and successors);
- `ssim_gaussian`: the same by another sigma (1.2, 9 pixels wide: PIDM, PCDMs), or by the generated image's own range,
  its greatest less its least value, instead of 255 (all of these codes);
- `ssim_uniform`: equal weights over a square, sample covariance, which is scikit-image's default. 7 pixels: PG2,
  Intrinsic Flow, SPGNet. 51 pixels: GFLA and successors;
- `ssim_padded`: the Gaussian one after 40 white columns were added on both sides of both images (PATN on DeepFashion);
- `ssim_inside`: the Gaussian one's map, averaged over the pixels of a mask instead of over all.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from pipeline.core.errors import UserError

SIGMA = 1.5
RADIUS = 5  # of SIGMA's window, as `_radius` has it
RANGE = 255.0
K1, K2 = 0.01, 0.03
WHITE_COLUMNS = 40

Mean = Callable[[np.ndarray, np.ndarray], None]  # writes a plane's mean over the window around every pixel, float64


def ssim(generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB twice -> (N,) float64, 1 for identical images.

    Equal to `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255, channel_axis=2)`. The data range is the type's, not the
    generated image's own, so two methods' values compare. Raises UserError for images smaller than the
    11-pixel window.
    """
    return ssim_maps(generated, target).mean(axis=(1, 2))


def ssim_maps(generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The map that `ssim` averages: (N, H - 10, W - 10) float64, a value for each window, mean over R, G, B."""
    return _gaussian_maps(generated, target, SIGMA)


def ssim_gaussian(
    generated: np.ndarray, target: np.ndarray, sigma: float = SIGMA, own_range: bool = False, sample: bool = False
) -> np.ndarray:
    """`ssim` by another sigma; (N, H, W, 3) uint8 or float32 in [0, 255] twice -> (N,) float64.

    own_range: the data range is the generated image's own, greatest less least value of all its channels; NaN for an
    image of one value. sample: sample covariance over the window's pixels. Raises UserError for images smaller than the
    window.
    """
    ranges = np.ptp(generated.astype(np.float64), axis=(1, 2, 3)) if own_range else np.full(len(generated), RANGE)
    pixels = (2 * _radius(sigma) + 1) ** 2
    correction = pixels / (pixels - 1) if sample else 1.0
    maps = _gaussian_maps(generated, target, sigma, correction, np.where(ranges > 0, ranges, RANGE))
    return np.where(ranges > 0, maps.mean(axis=(1, 2)), np.nan)


def _radius(sigma: float) -> int:
    """scikit-image truncates the window at 3.5 sigma."""
    return int(3.5 * sigma + 0.5)


def _gaussian_maps(
    generated: np.ndarray,
    target: np.ndarray,
    sigma: float,
    correction: float = 1.0,
    ranges: np.ndarray | None = None,
) -> np.ndarray:
    size = 2 * _radius(sigma) + 1
    _check(generated, size)
    mean = partial(_gaussian_mean, kernel=cv2.getGaussianKernel(size, sigma, cv2.CV_64F))
    return _maps(generated, target, mean, size // 2, correction, ranges)


def ssim_uniform(generated: np.ndarray, target: np.ndarray, size: int) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB twice -> (N,) float64 with a uniform window of `size` (odd) x `size` pixels.

    Equal to `structural_similarity(win_size=size, data_range=255, channel_axis=2)`, and to GFLA's call on floats in
    [0, 1] with data range 1. Raises UserError for images smaller than the window.
    """
    _check(generated, size)
    # scikit-image divides covariances by n - 1, n = size^2
    mean = partial(_uniform_mean, size=size)
    return _maps(generated, target, mean, size // 2, size**2 / (size**2 - 1)).mean(axis=(1, 2))


def ssim_padded(generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`ssim` after 40 white columns were added on the left and on the right of both images: (N,) float64."""
    beside = ((0, 0), (0, 0), (WHITE_COLUMNS, WHITE_COLUMNS), (0, 0))
    return ssim(*(np.pad(images, beside, constant_values=255) for images in (generated, target)))


def ssim_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The mean of `ssim_maps` over the pixels of masks (N, H, W) uint8 {0, 1} whose window lies inside the image.

    Windows still see what is around the mask. (N,) float64, NaN where the mask has no such pixel.
    """
    inner = masks[:, RADIUS:-RADIUS, RADIUS:-RADIUS].astype(bool)
    return np.array([one[mask].mean() if mask.any() else np.nan for one, mask in zip(maps, inner, strict=True)])


def _check(images: np.ndarray, window: int) -> None:
    height, width = images.shape[1:3]
    if min(height, width) < window:
        raise UserError(
            f"SSIM: images of {width}x{height} pixels are smaller than its {window}-pixel window: score larger images"
        )


def _maps(
    generated: np.ndarray,
    target: np.ndarray,
    mean: Mean,
    margin: int,
    correction: float,
    ranges: np.ndarray | None = None,
) -> np.ndarray:
    """(N, H - 2 margin, W - 2 margin) float64: SSIM of every window that lies inside the image, mean over channels.

    ranges: (N,), each pair's data range; None: 255.
    """
    count, height, width = generated.shape[:3]
    ranges = np.full(count, RANGE) if ranges is None else ranges
    maps = np.ones((count, height - 2 * margin, width - 2 * margin))
    space, inside = np.empty(5 * height * width), slice(margin, -margin)
    for one, x, y, span in zip(maps, generated, target, ranges, strict=True):
        rows, columns = _part_that_differs(x, y, 2 * margin)
        x, y = x[rows, columns], y[rows, columns]
        if not x.size:
            continue
        # Channel by channel in the same few arrays, which stay in cache and are not allocated again: half the time.
        work = space[: 5 * x[..., 0].size].reshape(5, *x.shape[:2])
        part = one[rows.start : rows.stop - 2 * margin, columns.start : columns.stop - 2 * margin]
        part[:] = 0
        for a, b in zip(cv2.split(x), cv2.split(y), strict=True):
            part += _map(a, b, mean, correction, span, work)[inside, inside]
        part /= 3
    return maps


def _part_that_differs(x: np.ndarray, y: np.ndarray, around: int) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle with every pixel where two images differ, and `around` pixels more.

    Two equal windows have SSIM 1: under a mask most of them are.
    """
    height, width = x.shape[:2]
    apart = (cv2.absdiff(x, y) != 0).astype(np.uint8) if x.dtype != np.uint8 else cv2.absdiff(x, y)
    left, top, across, down = cv2.boundingRect(apart.reshape(height, 3 * width))
    if not across:
        return slice(0, 0), slice(0, 0)
    rows = slice(max(top - around, 0), min(top + down + around, height))
    return rows, slice(max(left // 3 - around, 0), min((left + across - 1) // 3 + 1 + around, width))


def _map(x: np.ndarray, y: np.ndarray, mean: Mean, correction: float, span: float, work: np.ndarray) -> np.ndarray:
    """(H, W) uint8 or float twice -> (H, W) float64, a view of `work` (5, H, W); wrong where the window is cut off.

    With d = x - y, the sum of the two variances is that of d plus twice the covariance, so that of 8-bit images only
    integers of 8 and 16 bits are blurred: faster than blurring x^2 + y^2 in float64, and as exact.
    """
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    mean_x, mean_y, covariance, variance, apart = work
    difference = cv2.absdiff(x, y)
    exact = np.uint16 if x.dtype == np.uint8 else np.float64
    products = np.multiply(x, y, dtype=exact), np.multiply(difference, difference, dtype=exact)
    for plane, blurred in zip((x, y, *products), (mean_x, mean_y, covariance, variance), strict=True):
        mean(plane, blurred)
    np.subtract(mean_x, mean_y, out=apart)
    apart *= apart
    mean_x *= mean_y
    covariance -= mean_x
    variance -= apart
    mean_x *= 2
    mean_x += c1
    covariance *= 2
    covariance += c2 / correction  # of sample covariance; it cancels elsewhere
    numerator, denominator = mean_x, apart
    denominator += mean_x
    numerator *= covariance
    variance += covariance
    denominator *= variance
    numerator /= denominator
    return numerator


def _gaussian_mean(plane: np.ndarray, out: np.ndarray, kernel: np.ndarray) -> None:
    cv2.sepFilter2D(plane, cv2.CV_64F, kernel, kernel, dst=out)


def _uniform_mean(plane: np.ndarray, out: np.ndarray, size: int) -> None:
    cv2.boxFilter(plane, cv2.CV_64F, (size, size), dst=out)
