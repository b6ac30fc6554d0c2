"""The cost of scoring beside the field's own way: `python benchmarks/scoring.py > benchmarks/scoring.md`.

The peers' way: scikit-image's SSIM one image at a time, masks drawn again for every checkpoint, LPIPS one image at a
time, the real images' features computed again, pytorch-fid's matrix square root. Times are processor time of one
thread: the median of five runs of both ways in turn, of three where networks are in it; what has nothing to compare
with is measured once. Networks have random weights, which cost the same. Takes about 4 minutes on a quiet core;
`--memory N` alone scores N streamed pairs and prints the peak memory.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import lpips as lpips_package
import numpy as np
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.metrics.bootstrap import bootstrap_interval
from pipeline.metrics.fid import frechet_distance, frechet_influence, statistics_of
from pipeline.metrics.inception import inception_features, inception_network
from pipeline.metrics.kid import kid
from pipeline.metrics.lpips import lpips, lpips_network
from pipeline.metrics.pose_mask import pose_masks
from pipeline.metrics.psnr import psnr, psnr_inside
from pipeline.metrics.ssim import ssim, ssim_inside, ssim_maps, ssim_padded, ssim_uniform
from pipeline.metrics.stream import Comparison, PairScores

SIZES = ((128, 64), (256, 176), (256, 256))
GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def costs(*functions: Callable[[], object], turns: int = 5) -> list[float]:
    """Median processor seconds of a call of each, after one to warm up, in turn: what else the machine does then weighs
    on all of them alike.
    """
    times = [[] for _ in functions]
    for turn in range(turns + 1):
        for function, own in zip(functions, times, strict=True):
            seconds, _ = once(function)
            own += [seconds] if turn else []
    return [statistics.median(own) for own in times]


def once(function: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def images(n: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Even areas with noise, (n, height, width, 3) uint8 twice: generated, target."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (n, 16, 8, 3)).astype(np.float32)
    target = np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC) for one in coarse])
    noisy = target + random.normal(0, 20, target.shape)
    return noisy.clip(0, 255).astype(np.uint8), target.clip(0, 255).astype(np.uint8)


def people(n: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Joints in the middle of the image, within its whole height and half as much in width."""
    random = np.random.default_rng(1)
    corners = (width / 2 - height / 4, 0), (width / 2 + height / 4, height)
    return random.uniform(*corners, (n, 18, 2)), random.random((n, 18)) < 0.88


def their_ssim(x: np.ndarray, y: np.ndarray, **options) -> float:
    return structural_similarity(x, y, data_range=255, channel_axis=2, **options)


def without_networks(n: int = 4) -> None:
    print("## Without networks\n\nMilliseconds a pair.\n")
    print("| metric | " + " | ".join(f"{h}x{w}: scikit-image | here | ratio" for h, w in SIZES) + " |")
    print("|---|" + "---:|" * 9)
    rows: dict[str, list[str]] = {}
    for height, width in SIZES:
        x, y = images(n, height, width)
        joints = people(n, height, width)
        masks = pose_masks(*joints, height, width)
        pad = [np.pad(m, ((0, 0), (0, 0), (40, 40), (0, 0)), constant_values=255) for m in (x, y)]
        cut = [m * masks[..., None] for m in (x, y)]

        def each(function: Callable, one: np.ndarray, other: np.ndarray) -> Callable:
            return lambda: [function(a, b) for a, b in zip(one, other, strict=True)]

        def checkpoint(x=x, y=y, joints=joints, height=height, width=width) -> None:
            for a, b, points, known in zip(x, y, *joints, strict=True):
                mask = pose_masks(points[None], known[None], height, width)[0, ..., None]
                for one, other in ((a, b), (a * mask, b * mask)):
                    their_ssim(one, other, **GAUSSIAN)
                    peak_signal_noise_ratio(other, one, data_range=255)

        def ours(x=x, y=y, masks=masks) -> None:
            one, other = Comparison(x, y, {}, masks).masked
            ssim(x, y), psnr(x, y), ssim(one, other), psnr(one, other)

        table = {
            "`ssim`": (each(lambda a, b: their_ssim(a, b, **GAUSSIAN), x, y), lambda x=x, y=y: ssim(x, y)),
            "`ssim-uniform7`": (each(their_ssim, x, y), lambda x=x, y=y: ssim_uniform(x, y, 7)),
            "`ssim-win51`": (
                each(lambda a, b: their_ssim(a, b, win_size=51), x, y),
                lambda x=x, y=y: ssim_uniform(x, y, 51),
            ),
            "`ssim-padded`": (
                each(lambda a, b: their_ssim(a, b, **GAUSSIAN), *pad),
                lambda x=x, y=y: ssim_padded(x, y),
            ),
            "`mask-ssim`": (each(lambda a, b: their_ssim(a, b, **GAUSSIAN), *cut), lambda cut=cut: ssim(*cut)),
            "`inside-ssim`": (None, lambda x=x, y=y, masks=masks: ssim_inside(ssim_maps(x, y), masks)),
            "`psnr`": (
                each(lambda a, b: peak_signal_noise_ratio(b, a, data_range=255), x, y),
                lambda x=x, y=y: psnr(x, y),
            ),
            "`inside-psnr`": (None, lambda x=x, y=y, masks=masks: psnr_inside(x, y, masks)),
            "a checkpoint: SSIM, PSNR and both masked, masks drawn again there, kept here": (checkpoint, ours),
        }
        for name, (theirs, mine) in table.items():
            *slow, fast = (1e3 * seconds / n for seconds in costs(*filter(None, (theirs, mine))))
            shown = [f"{slow[0]:.2f}", f"{fast:.2f}", f"{slow[0] / fast:.1f}"] if slow else ["–", f"{fast:.2f}", "–"]
            rows.setdefault(name, []).extend(shown)
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(flush=True)


def frechet(count: int = 4000, dimensions: int = 2048) -> None:
    random = np.random.default_rng(0)
    mix = np.linalg.qr(random.normal(size=(dimensions, dimensions)))[0] * np.logspace(0, -2, dimensions)
    fake, real = (random.normal(size=(count, dimensions)) @ mix for _ in range(2))
    fake += 0.02
    mine, reference = statistics_of(fake), statistics_of(real)
    moments = (mine.mean, mine.covariance, reference.mean, reference.covariance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls a form of sqrtm that SciPy gives up
        theirs = calculate_frechet_distance(*moments)
        root, _ = once(reference.root)
        ours = frechet_distance(mine, reference)
        functions = (lambda: calculate_frechet_distance(*moments), lambda: frechet_distance(mine, reference))
        slow, fast = costs(*functions, turns=3)
    whole, (_, influence) = once(lambda: frechet_influence(fake, reference))
    interval, _ = once(lambda: bootstrap_interval(ours + influence, resamples=2000))
    distance, _ = once(lambda: kid(fake, real[:2048]))
    print(f"## Frechet step\n\n{count:,} images, {dimensions} dimensions, seconds.\n\n| step | s |\n|---|---:|")
    print(f"| pytorch-fid `calculate_frechet_distance` | {slow:.1f} |")
    print(f"| here, `frechet_distance` (a checkpoint) | {fast:.2f} |")
    print(f"| here, the reference's root (once a data set) | {root:.2f} |")
    print(f"| here, distance and every image's influence, from the features | {whole:.1f} |")
    print(f"| here, bootstrap of 2,000 resamples | {interval:.2f} |")
    print(f"| here, KID of all against 2,048 | {distance:.1f} |\n")
    print(
        f"Ratio of the first two: {slow / fast:.1f}. Relative difference: {abs(theirs - ours) / ours:.1e}.\n",
        flush=True,
    )


def networks() -> None:
    network = inception_network(None)
    plain = inception_network(None).to(memory_format=torch.contiguous_format)
    generated, target = images(16, 128, 64)
    tensor = torch.from_numpy(generated).permute(0, 3, 1, 2).float() / 255

    def theirs() -> torch.Tensor:
        with torch.no_grad():
            return plain(tensor.contiguous())

    def half() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return inception_features(network, generated)

    took = costs(theirs, lambda: inception_features(network, generated), half, turns=3)
    slow, fast, coarse = (1e3 * seconds / 16 for seconds in took)
    exact, rough = inception_features(network, generated), half().float()
    error = ((exact - rough).norm() / exact.norm()).item()
    print(
        "## Inception and LPIPS\n\nMilliseconds an image (Inception, any size) or a pair (LPIPS).\n\n| pass | ms |\n"
        "|---|---:|"
    )
    print(f"| Inception, as pytorch-fid lays it out, batch 16 | {slow:.0f} |")
    print(f"| Inception here (channels last, batch 16) | {fast:.0f} |")
    print(f"| the same in bfloat16 (not used: features off by {100 * error:.1f} %) | {coarse:.0f} |")
    print(f"| a checkpoint's FID, real images again: two passes there | {2 * slow:.0f} |")
    for net in ("alex", "squeeze"):
        model = lpips_network(None, net=net)
        for height, width in ((128, 64), (256, 256)):
            generated, target = images(16, height, width)

            def single(model=model, generated=generated, target=target) -> list[float]:
                with torch.no_grad():
                    pairs = zip(generated, target, strict=True)
                    return [model(lpips_package.im2tensor(a), lpips_package.im2tensor(b)).item() for a, b in pairs]

            took = costs(single, lambda model=model, g=generated, t=target: lpips(model, g, t), turns=3)
            one, many = (1e3 * seconds / 16 for seconds in took)
            apart = np.abs(np.array(single()) - lpips(model, generated, target)).max()
            print(f"| LPIPS {net}, {height}x{width}: one pair at a time | {one:.1f} |")
            print(
                f"| LPIPS {net}, {height}x{width}: here ({one / many:.1f}x; values within {apart:.0e}) | {many:.1f} |"
            )
    print(f"\nInception: {slow / fast:.2f}x a pass, {2 * slow / fast:.1f}x a checkpoint.\n", flush=True)


class Projection(nn.Module):
    """Stands for Inception where only memory is measured: 2,048 random sums of an 8x8 thumbnail."""

    provenance = "seeded"

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(192, 2048, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("classifier", torch.randn(1008, 2048, generator=torch.Generator().manual_seed(1)) / 45)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(nn.functional.adaptive_avg_pool2d(x, 8).flatten(1) @ self.weight)


def peak_mib() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


def memory(count: int) -> None:
    """Score `count` random pairs of 256x256, made batch by batch."""
    network, random = Projection(), np.random.default_rng(0)
    real = inception_features(network, images(64, 256, 256, seed=9)[1]).numpy()
    known = {"inception": statistics_of(real), "inception-sample": real}
    scores = PairScores(range(count), ["psnr", "fid", "kid", "is"], {"inception": network}, known)
    for start in range(0, count, 64):
        shape = (min(64, count - start), 256, 256, 3)
        generated, target = (np.frombuffer(random.bytes(np.prod(shape)), np.uint8).reshape(shape) for _ in range(2))
        scores.update(range(start, start + len(generated)), generated, target)
    scores.compute(resamples=2000)
    print(f"{peak_mib():.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if arguments.memory:
        memory(arguments.memory)
        return
    print("# Scoring: time and memory\n\n`OMP_NUM_THREADS=1 python benchmarks/scoring.py > benchmarks/scoring.md`")
    print(f"\nPython {platform.python_version()}, torch {torch.__version__}, one thread, processor time.\n")
    without_networks()
    frechet()
    networks()
    print(
        "## Memory\n\nPeak of a process that scores N streamed pairs of 256x256 by PSNR, FID, KID and IS (features by a"
    )
    print(
        "small stand-in for Inception: what grows with N, if anything, is the scoring's).\n\n| pairs | MiB |\n"
        "|---:|---:|"
    )
    for count in (1000, 8570):
        command = [sys.executable, __file__, "--memory", str(count)]
        print(
            f"| {count:,} | {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
