"""What a generator makes of a few validation pairs: `logs/train/D-V/step-N.png`, one for each checkpoint.

They lie in logs/, which is not tracked and no stage's output, because they may show photographs of people.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.variants import Variant
from pipeline import drawing
from pipeline.core.atomic import atomic_file
from pipeline.formats import pictures
from pipeline.loading.arrays import PairData, load_pairs
from pipeline.loading.pixels import as_bytes

PAIRS = 4


def panels(generator: nn.Module, data: PairData, parsing: bool = False) -> np.ndarray:
    """A row for each pair of `data`: source, target's pose, target, generated image; (H, W, 3) uint8 RGB.

    parsing: give the generator the true target's (`Variant.given_target_parsing`).
    """
    batch = data.batch(torch.arange(len(data)))
    devices = [data.device] if data.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        made = generator(batch.without_target(parsing)).image.float()
    source, target, made = (as_bytes(images).cpu().numpy() for images in (batch.source, batch.target, made))
    joints, valid = batch.target_joints.cpu().numpy(), batch.target_valid.cpu().numpy()
    ground = np.zeros_like(target[0])
    poses = [drawing.skeleton(ground, *pose) for pose in zip(joints, valid, strict=True)]
    return drawing.below([drawing.beside(row) for row in zip(source, poses, target, made, strict=True)])


def draw(generator: nn.Module, data: PairData, path: Path, parsing: bool = False) -> None:
    """Write `panels` as a PNG; `generator` is in eval mode."""
    with atomic_file(path) as partial:
        partial.write_bytes(pictures.encode_png(panels(generator, data, parsing)))


def drawer(variant: Variant, dataset: str, folder: Path, where: torch.device) -> Callable[[int, nn.Module], None]:
    """A function of a step and its generator that draws the same validation pairs each time, into `folder`."""
    pairs = load_pairs(dataset, "val", where, PAIRS, variant.labels)
    given = variant.given_target_parsing
    return lambda step, generator: draw(generator, pairs, folder / f"step-{step:07d}.png", given)
