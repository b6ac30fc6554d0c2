"""What two steps of others' recipes change: 8 bits by truncation, and the last pairs dropped.

    python -m benchmarks.recipes truncated --project DIR --variant spgnet
    python -m benchmarks.recipes dropped --images Market-1501-v15.09.15.zip --pairs market-pairs-test.csv

`truncated` makes 8-bit pictures of the floats that a variant's generator gives for a finished project's test pairs,
by rounding, as here, and by cutting, as CFLD's and PIDM's code does, and scores both. `dropped` takes each pair's
source for what was generated, and leaves out the last pairs by file name, as GFLA's code writes it, that fill no batch
of 64 or 128. LPIPS is SqueezeNet's, from $REPOSE_MIRROR: differences matter here, not values. Both print Markdown.
"""

import argparse
import os
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks.data import table
from pipeline.fetching import download, networks
from pipeline.formats import annotations, pictures
from pipeline.loading import published_weights
from pipeline.metrics.lpips import lpips, lpips_network
from pipeline.metrics.psnr import psnr
from pipeline.metrics.ssim import ssim, ssim_uniform

NAMES = ("psnr", "ssim", "lpips-squeeze-v0.1", "ssim-win51")  # the last where images are large enough
BATCHES = (64, 128)


def scores(network, generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(N, 3 or 4): by NAMES, of (N, H, W, 3) uint8 twice."""
    values = [psnr(generated, target), ssim(generated, target), lpips(network, generated, target)]
    if min(target.shape[1:3]) >= 51:
        values.append(ssim_uniform(generated, target, 51))
    return np.stack(values, axis=1)


def squeeze():
    files = networks.files_in(download.mirror() / "weights", "squeezenet1_1")
    return lpips_network(published_weights.state_dict(files), net="squeeze")


def truncated(dataset: str, variant: str) -> None:
    import torch

    from models.variants import VARIANTS
    from pipeline.core import layout, params
    from pipeline.loading import checkpoints
    from pipeline.loading.pixels import as_bytes
    from pipeline.scoring import checkpoint, pairs

    kind, folder = VARIANTS[params.variant_of(variant)], layout.checkpoints(dataset, variant)
    data = pairs.load(dataset, pairs.listed(dataset, "test", None), torch.device("cpu"), kind.labels)
    generator, network = checkpoints.load(folder, checkpoints.steps(folder)[-1])[0], squeeze()
    found = {"rounded": [], "truncated": []}
    images = checkpoint.run(lambda given: generator(given).image.float(), 16, kind.given_target_parsing, data)
    for rows, floats in images:
        target = pairs.images_of(data, data.pairs[rows, 1])
        cut = ((floats + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        for way, generated in zip(found, (as_bytes(floats).numpy(), cut), strict=True):
            found[way].append(scores(network, generated, target))
    rounded, cut = (np.concatenate(parts) for parts in found.values())
    rows = [
        (f"`{name}`", *(f"{x:.5f}" for x in (before.mean(), after.mean(), (after - before).mean())),
         f"{np.abs(after - before).max():.5f}")
        for name, before, after in zip(NAMES, rounded.T, cut.T, strict=False)
    ]  # fmt: skip
    table(("metric", "rounded", "truncated", "mean difference", "largest of a pair"), rows)


def dropped(images: Path, listed: Path, count: int) -> None:
    archive = zipfile.ZipFile(images)
    inside = {PurePosixPath(name).name: name for name in archive.namelist()}
    pairs = annotations.read_pairs(listed)[:count]
    pairs.sort(key=lambda pair: f"{Path(pair[0]).stem}_2_{Path(pair[1]).stem}_vis.png")
    network, found = squeeze(), []
    for start in range(0, len(pairs), 256):
        read = [[pictures.decode(archive.read(inside[name])) for name in pair] for pair in pairs[start : start + 256]]
        found.append(scores(network, *(np.stack(side) for side in zip(*read, strict=True))))
    values, rows = np.concatenate(found), []
    for name, one in zip(NAMES, values.T, strict=False):
        cells = [f"`{name}`", f"{one.mean():.5f}"]
        for batch in BATCHES:
            left = len(one) % batch
            usual = one.std() * (left / (len(one) * (len(one) - left))) ** 0.5  # of a mean without as many at random
            cells += [f"{one[: len(one) - left].mean() - one.mean():+.5f}", f"{usual:.5f}"]
        rows.append(cells)
    heads = [f"{len(values) % batch} dropped (batch {batch})" for batch in BATCHES]
    table(("metric", f"all {len(values)}", heads[0], "at random", heads[1], "at random"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="way", required=True)
    one = ways.add_parser("truncated")
    one.add_argument("--project", type=Path, default=Path(), help="the project's folder")
    one.add_argument("--dataset", default="synthetic")
    one.add_argument("--variant", required=True)
    other = ways.add_parser("dropped")
    other.add_argument("--images", type=Path, required=True, help="the archive of images")
    other.add_argument("--pairs", type=Path, required=True, help="the list of pairs, from,to")
    other.add_argument("--count", type=int, default=8570, help="pairs from the top of the list: DeepFashion's number")
    given = parser.parse_args()
    if given.way == "truncated":
        os.chdir(given.project)
        truncated(given.dataset, given.variant)
    else:
        dropped(given.images, given.pairs, given.count)


if __name__ == "__main__":
    main()
