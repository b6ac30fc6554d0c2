"""Structural similarity (Wang et al. 2004), Gaussian window: what Def-GAN, PATN and successors print."""

import cv2
import numpy as np

from pipeline.errors import UserError

SIGMA = 1.5
RADIUS = 5  # scikit-image truncates the window at 3.5 sigma: int(3.5 * 1.5 + 0.5)
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2


def ssim(generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB twice -> (N,) float64, 1 for identical images.

    Equal to `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255, channel_axis=2)`. The data range is the type's, not the
    generated image's own, so two methods' values compare. Raises UserError for images smaller than the
    11-pixel window.
    """
    if min(generated.shape[1:3]) <= 2 * RADIUS:
        size = f"{generated.shape[2]}x{generated.shape[1]}"
        raise UserError(f"SSIM: images of {size} pixels are smaller than its 11-pixel window: score larger images")
    return np.array([_ssim_one(x, y) for x, y in zip(generated, target, strict=True)], dtype=np.float64)


def _ssim_one(x: np.ndarray, y: np.ndarray) -> float:
    # Channel by channel: the working arrays of one 256x176 plane stay in cache, which halves the time.
    return float(np.mean([_ssim_plane(*planes) for planes in zip(_planes(x), _planes(y), strict=True)]))


def _planes(image: np.ndarray) -> np.ndarray:
    return image.transpose(2, 0, 1).astype(np.float64, order="C")


def _ssim_plane(x: np.ndarray, y: np.ndarray) -> float:
    mean_x, mean_y, squares, product = (_window_mean(m) for m in (x, y, x * x + y * y, x * y))
    mean_product = mean_x * mean_y
    mean_squares = mean_x * mean_x + mean_y * mean_y
    luminance = (2 * mean_product + C1) / (mean_squares + C1)
    # Only the sum of the two variances enters, so four blurs do the work of five.
    structure = (2 * (product - mean_product) + C2) / (squares - mean_squares + C2)
    return (luminance * structure).mean()


def _window_mean(plane: np.ndarray) -> np.ndarray:
    """Gaussian mean at every pixel whose window lies inside the image, as scikit-image."""
    size = 2 * RADIUS + 1
    return cv2.GaussianBlur(plane, (size, size), SIGMA)[RADIUS:-RADIUS, RADIUS:-RADIUS]
