"""Random moves of a training batch, on its device: images, joints and parsing together.

As SPGNet does on Market-1501, each image is scaled about its centre by F^u, u uniform in [-1, 1], and shifted by up to
S pixels along x and y. Pixels and labels from outside repeat the border; a joint that leaves the image becomes missing.
The random numbers depend on (seed, step) alone.
"""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.schedule import Jitter
from models.variants import Batch

STREAM = 5  # keeps them apart from the batch order's, which come from [seed, epoch]


def draws(jitter: Jitter, batch: int, seed: int, step: int) -> Tensor:
    """float32 (batch, 2, 3): scale factor, shift along x and along y in pixels, of source and target."""
    uniform = np.random.default_rng([seed, step, STREAM]).uniform(-1, 1, (batch, 2, 3))
    moves = np.concatenate([jitter.scale ** uniform[..., :1], jitter.shift * uniform[..., 1:]], axis=-1)
    return torch.from_numpy(moves.astype(np.float32))


def move_pixels(images: Tensor, moves: Tensor, mode: str = "bilinear") -> Tensor:
    """out(p) = images(centre + (p - centre - shift) / factor): images (B, C, H, W) float, moves (B, 3)."""
    height, width = images.shape[-2:]
    factor, shift_x, shift_y = (part.view(-1, 1) for part in moves.unbind(-1))

    def positions(length: int, shift: Tensor) -> Tensor:  # (B, length), in [-1, 1] from first to last pixel
        away = torch.arange(length, device=images.device, dtype=torch.float32) - (length - 1) / 2
        return (away - shift) / factor * (2 / max(length - 1, 1))

    x, y = positions(width, shift_x), positions(height, shift_y)
    grid = torch.stack([x.unsqueeze(1).expand(-1, height, -1), y.unsqueeze(2).expand(-1, -1, width)], dim=-1)
    return F.grid_sample(images, grid, mode, padding_mode="border", align_corners=True)


def move_joints(joints: Tensor, valid: Tensor, moves: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Joints (B, 18, 2) and valid (B, 18) of the moved image; zeros where missing."""
    centre = joints.new_tensor([(width - 1) / 2, (height - 1) / 2])
    moved = (joints - centre) * moves[:, None, :1] + centre + moves[:, None, 1:]
    inside = ((moved >= -0.5) & (moved <= 2 * centre + 0.5)).all(-1)
    valid = valid & inside
    return torch.where(valid.unsqueeze(-1), moved, 0.0), valid


def move(batch: Batch, moves: Tensor) -> Batch:
    """The batch with every source moved by `moves[:, 0]` and every target by `moves[:, 1]` (`draws`)."""
    changed = {}
    size = batch.source.shape[-2:]
    for side, name in enumerate(("source", "target")):
        image, labels = getattr(batch, name), getattr(batch, f"{name}_labels")
        joints, valid = getattr(batch, f"{name}_joints"), getattr(batch, f"{name}_valid")
        own = moves[: len(joints), side].to(joints.device)
        changed[f"{name}_joints"], changed[f"{name}_valid"] = move_joints(joints, valid, own, *size)
        if image is not None:
            changed[name] = move_pixels(image, own)
        if labels is not None:
            changed[f"{name}_labels"] = (
                move_pixels(labels.unsqueeze(1).float(), own, "nearest").squeeze(1).to(labels.dtype)
            )
    return replace(batch, **changed)
