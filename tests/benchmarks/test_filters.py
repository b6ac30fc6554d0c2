"""Each filter beside the right one, on a few pictures of noise."""

import zipfile

import cv2
import numpy as np
import torch

from benchmarks import filters
from pipeline.metrics.lpips import lpips_network


def colours(images: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(images.mean(axis=(1, 2)))


def test_each_filter_is_held_against_bicubic(tmp_path):
    random = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number in range(6):
            noise = random.integers(100, 156, (200, 150, 3), dtype=np.uint8)
            archive.writestr(f"photos/{number}.jpg", cv2.imencode(".jpg", noise)[1].tobytes())
        archive.writestr("labels/1.png", b"no photograph")
    sets = filters.by_filter(tmp_path / "photos.zip", 5, 64, 44)
    assert {images.shape for images in sets.values()} == {(5, 64, 44, 3)}
    rows = filters.rows(sets, lpips_network(None, net="squeeze"), colours)
    psnr = {row[0]: float(row[2]) for row in rows}
    assert psnr.keys() == {"cv2-bilinear", "cv2-cubic", "squashed", "bicubic, then JPEG 95"}
    assert psnr["cv2-cubic"] < psnr["cv2-bilinear"] < psnr["squashed"]  # few pixels of noise vary most
    assert psnr["cv2-bilinear"] < psnr["bicubic, then JPEG 95"]


def test_a_photograph_is_cropped_in_the_middle():
    picture = np.arange(100 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 80, 3)
    np.testing.assert_array_equal(filters.cropped(picture, 64, 44), picture[:, 6:74])
    np.testing.assert_array_equal(filters.cropped(picture, 10, 40), picture[40:60])
