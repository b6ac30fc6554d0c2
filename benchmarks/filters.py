"""What another resizing filter is worth: photographs by each of DeepFashion's filters, beside Pillow's bicubic.

    python -m benchmarks.filters --photos clothing-co-parsing-384.zip > benchmarks/filters.md
    python -m benchmarks.filters --photos img_highres --inception inception_v3.pth --sizes 256x176 512x352

Photographs (a zip or a folder) are cropped to the shape of the size in the middle and resized by each of
pipeline/datasets/deepfashion/filters.py. SSIM, PSNR and LPIPS are means over pairs of one photograph by two filters.
The Frechet distance is one of SqueezeNet's features, 512 numbers an image, its last layer's mean over the image: no
FID. By `--inception` it is that of torchvision's Inception as `fid-train-tv` has it: true FID of one set to the other,
which on DeepFashion's own photographs says how far a reference by another filter lies from the right one. Beside it
stands its share of the features' total variance over the photographs.

An aliased filter does the more harm the more a picture shrinks, and DeepFashion's 1101 rows shrink 4.3 times to 256 and
2.2 times to 512. Photographs of 384 rows do so to 89 and 178 rows; to 256 they shrink 1.5 times. A bicubic picture
through a JPEG of quality 95 is the yardstick. SqueezeNet's weights come from $REPOSE_MIRROR. Prints Markdown.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from benchmarks.data import table
from benchmarks.recipes import squeeze
from models.layers.features import MEAN, STD, squeezenet1_1_layers
from pipeline.datasets.deepfashion.filters import FILTERS
from pipeline.fetching import download, networks
from pipeline.formats import archive, pictures
from pipeline.loading import published_weights
from pipeline.metrics.fid import frechet_distance, statistics_of
from pipeline.metrics.inception import inception_features, torchvision_inception
from pipeline.metrics.lpips import lpips
from pipeline.metrics.networks import in_batches
from pipeline.metrics.psnr import psnr
from pipeline.metrics.ssim import ssim

SIZES = ("256x176", "178x123", "89x61")  # height x width


def cropped(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The largest middle part of the shape height x width."""
    rows, columns = picture.shape[:2]
    tall, wide = min(rows, columns * height // width), min(columns, rows * width // height)
    top, left = (rows - tall) // 2, (columns - wide) // 2
    return np.ascontiguousarray(picture[top : top + tall, left : left + wide])


def jpeg95(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    small = FILTERS["bicubic"](picture, height, width)[:, :, ::-1]
    return pictures.decode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())


def by_filter(photos: Path, count: int | None, height: int, width: int) -> dict[str, np.ndarray]:
    """(N, height, width, 3) uint8 by each filter, and through JPEG; `count` photographs, evenly spaced by name."""
    ways = FILTERS | {"bicubic, then JPEG 95": jpeg95}
    found: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    with archive.reading(photos) as content:
        names = [name for name in content.names if name.lower().endswith((".jpg", ".jpeg"))]
        chosen = names if count is None else names[:: max(1, len(names) // count)][:count]
        for photo in chosen:
            picture = cropped(pictures.decode(content.read(photo)), height, width)
            for name, resize in ways.items():
                found[name].append(resize(picture, height, width))
    return {name: np.stack(some) for name, some in found.items()}


def squeezenet_features():
    """A function (N, H, W, 3) uint8 -> (N, 512): the network's last layer, its mean over the image."""
    state = published_weights.state_dict(networks.files_in(download.mirror() / "weights", "squeezenet1_1"))
    network = nn.Sequential(*squeezenet1_1_layers()).eval()
    network.load_state_dict({key.removeprefix("features."): v for key, v in state.items() if "classifier" not in key})
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, STD))

    def features(images: np.ndarray) -> torch.Tensor:
        def run(x: torch.Tensor) -> torch.Tensor:
            return network((x.permute(0, 3, 1, 2).float() / 255 - mean) / std).mean((2, 3))

        return in_batches(run, torch.device("cpu"), images)

    return features


def rows(sets: dict[str, np.ndarray], network, features) -> list[tuple]:
    """network: of LPIPS; features: (N, H, W, 3) uint8 -> (N, d)."""
    right = sets.pop("bicubic")
    reference, found = statistics_of(features(right).numpy()), []
    for name, images in sets.items():
        means = (value.mean() for value in (ssim(images, right), psnr(images, right), lpips(network, images, right)))
        distance = frechet_distance(statistics_of(features(images).numpy()), reference)
        share = distance / np.trace(reference.covariance)
        found.append((name, *(f"{mean:.4f}" for mean in means), f"{distance:.2f}", f"{share:.2%}"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="zip or folder of JPEGs")
    parser.add_argument("--count", type=int, help="photographs, evenly spaced by name; all unless given")
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="HxW", help=f"{', '.join(SIZES)} unless given")
    parser.add_argument("--inception", type=Path, help="torchvision's Inception v3: true FID, not SqueezeNet's")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.inception:
        inception = torchvision_inception(published_weights.state_dict([given.inception]))
        column, features = "FID (torchvision)", lambda images: inception_features(inception, images)
    else:
        column, features = "Frechet distance (SqueezeNet)", squeezenet_features()
    network = squeeze()
    print("# What another resizing filter is worth\n")
    for size in given.sizes:
        height, width = map(int, size.split("x"))
        sets = by_filter(given.photos, given.count, height, width)
        print(f"{len(sets['bicubic'])} photographs at {size} (height x width), each filter beside Pillow's bicubic:\n")
        table(("filter", "SSIM", "PSNR", "LPIPS-squeeze", column, "of the variance"), rows(sets, network, features))


if __name__ == "__main__":
    main()
