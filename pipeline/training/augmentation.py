"""Random moves of a training batch, on its device: images, joints and parsing together.

What moves, and how far, is a phase's `Jitter`. An image, its labels and its joints share one affine map: a point p goes
to centre + factor R (p - centre) + shift, R a rotation. The random numbers depend on (seed, step) alone.
"""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.schedule import Jitter, Move
from models.variants import Batch
from pipeline.loading.devices import send

STREAM = 5  # keeps them apart from the batch order's, which come from [seed, epoch]
SIDES = ("source", "target")
PUBLISHED = 128  # the height of Market-1501's images, which alone are moved in the papers


def resized(jitter: Jitter | None, height: int) -> Jitter | None:
    """Its shifts for images of another height: as many pixels of a smaller one would push a person out of it."""
    if jitter is None or height == PUBLISHED:
        return jitter
    moves = {side: getattr(jitter, side) for side in SIDES}
    factor = height / PUBLISHED
    return Jitter(**{side: move and replace(move, shift=move.shift * factor) for side, move in moves.items()})


def draws(jitter: Jitter, batch: int, seed: int, step: int) -> Tensor:
    """float32 (batch, 2, 4): of source and target, factor, angle in radians, shift along x and along y in pixels. The
    row of a side that stays is 1, 0, 0, 0.
    """
    uniform = np.random.default_rng([seed, step, STREAM]).uniform(-1, 1, (batch, 2, 4))
    moves = np.tile([1.0, 0.0, 0.0, 0.0], (batch, 2, 1))
    for side, name in enumerate(SIDES):
        move: Move | None = getattr(jitter, name)
        if move is not None:
            share, shift = (1 + uniform[:, side, 0]) / 2, move.shift * uniform[:, side, 2:]
            low, high = move.scale
            moves[:, side, 0] = low * (high / low) ** share if move.geometric else low + (high - low) * share
            moves[:, side, 1] = np.deg2rad(move.angle) * uniform[:, side, 1]
            moves[:, side, 2:] = np.floor(shift) if move.whole_pixels else shift
    return torch.from_numpy(moves.astype(np.float32))


def move_pixels(images: Tensor, moves: Tensor, how: Move, nearest: bool) -> Tensor:
    """images (B, C, H, W) float, moves (B, 4) -> the same shape."""
    height, width = images.shape[-2:]
    factor, angle, shift_x, shift_y = (part.view(-1, 1, 1) for part in moves.unbind(-1))
    centre_x, centre_y = how.centre[0] * width, how.centre[1] * height
    x = torch.arange(width, device=images.device) - centre_x - shift_x  # (B, 1, W), where a pixel was drawn from
    y = torch.arange(height, device=images.device).view(-1, 1) - centre_y - shift_y  # (B, H, 1)
    cos, sin = torch.cos(angle) / factor, torch.sin(angle) / factor
    old_x, old_y = cos * x + sin * y + centre_x, cos * y - sin * x + centre_y
    grid = torch.stack([2 * old_x / max(width - 1, 1) - 1, 2 * old_y / max(height - 1, 1) - 1], dim=-1)
    fill = "border" if how.repeat_border else "zeros"
    return F.grid_sample(images, grid, "nearest" if nearest else "bilinear", fill, align_corners=True)


def move_joints(
    joints: Tensor, valid: Tensor, moves: Tensor, how: Move, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Joints (B, 18, 2) and valid (B, 18) of the moved image; zeros where missing."""
    factor, angle, shift_x, shift_y = (part.unsqueeze(1) for part in moves.unbind(-1))  # (B, 1)
    centre_x, centre_y = how.centre[0] * width, how.centre[1] * height
    x, y = joints[..., 0] - centre_x, joints[..., 1] - centre_y
    cos, sin = factor * torch.cos(angle), factor * torch.sin(angle)
    x, y = cos * x - sin * y + centre_x + shift_x, sin * x + cos * y + centre_y + shift_y
    if how.drop_joints:
        valid = valid & (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return torch.where(valid.unsqueeze(-1), torch.stack([x, y], dim=-1), 0.0), valid


def move(batch: Batch, jitter: Jitter, moves: Tensor) -> Batch:
    """The batch, moved by its rows of `draws`. A side without a `Move` is left as it is, to the bit."""
    moves, size, changed = send(moves, batch.source.device), batch.source.shape[-2:], {}
    for side, name in enumerate(SIDES):
        how: Move | None = getattr(jitter, name)
        if how is None:
            continue
        image, labels = getattr(batch, name), getattr(batch, f"{name}_labels")
        joints, valid = getattr(batch, f"{name}_joints"), getattr(batch, f"{name}_valid")
        own = moves[: len(joints), side]
        changed[f"{name}_joints"], changed[f"{name}_valid"] = move_joints(joints, valid, own, how, *size)
        if image is not None:
            changed[name] = move_pixels(image, own, how, how.nearest)
        if labels is not None:
            moved = move_pixels(labels.unsqueeze(1).float(), own, how, nearest=True)
            changed[f"{name}_labels"] = moved.squeeze(1).to(labels.dtype)
    return replace(batch, **changed)
