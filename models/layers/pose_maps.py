"""Maps made from joint coordinates, on whatever device the coordinates are: heatmaps, disks, limb distances,
part boxes, box masks.

Coordinates are (x, y) in pixels with pixel centres at integers. Joints follow OpenPose-18 (nose, neck, R
shoulder, elbow, wrist, L ..., R hip, knee, ankle, L ..., R eye, L eye, R ear, L ear). Values at invalid
joints are ignored, NaN included.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.blocks import Batch

JOINTS = 18
NECK, R_SHOULDER, L_SHOULDER, R_HIP, L_HIP = 1, 2, 5, 8, 11

# SPIG splits the pose into head, torso and legs but does not print the groups. Arms go with the torso,
# because the paper names no fourth part; neck and hips belong to both neighbours, so that no part floats
# free of the next.
PARTS = {
    "head": (0, 1, 14, 15, 16, 17),
    "torso": (1, 2, 3, 4, 5, 6, 7, 8, 11),
    "leg": (8, 9, 10, 11, 12, 13),
}
PART_PADDING = {"head": 0.4, "torso": 0.25, "leg": 0.25}  # in torso lengths
# The twelve limbs of SPGNet's distance maps: neck to shoulders, arms, neck to hips, legs.
LIMBS = ((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13))
# Products of two factors below this would be denormal floats, on which a CPU computes many times slower.
NEGLIGIBLE = 1.1e-19
TORSO_FALLBACK = 0.25  # torso length in image heights, where shoulders and neck, or both hips, are missing


def heatmaps(
    joints: Tensor, valid: Tensor, height: int, width: int, sigma: float = 6.0, out: Tensor | None = None
) -> Tensor:
    """Gaussian joint maps exp(-d^2 / (2 sigma^2)), d in pixels; a missing joint's channel is zero.

    joints (B, J, 2) float, valid (B, J) bool -> (B, J, height, width) float32 in [0, 1] (float64 for float64
    joints). A Gaussian is separable, so each map is the outer product of a column and a row; a factor below 1.1e-19
    counts as zero. `out`: memory of that shape and type to write to; on a CPU, fresh memory takes longer than the maps.
    """
    joints = joints.double() if joints.dtype == torch.float64 else joints.float()
    joints = joints.masked_fill(~valid.unsqueeze(-1), 0.0)

    def profile(centre: Tensor, length: int) -> Tensor:  # (B, J) -> (B, J, length)
        position = torch.arange(length, device=joints.device, dtype=joints.dtype)
        values = torch.exp((position - centre.unsqueeze(-1)).square() / (-2 * sigma**2))
        return F.threshold(values, NEGLIGIBLE, 0.0)

    rows = profile(joints[..., 1], height) * valid.unsqueeze(-1)
    columns = profile(joints[..., 0], width)
    return torch.mul(rows.unsqueeze(-1), columns.unsqueeze(-2), out=out)


def batch_heatmaps(batch: Batch) -> tuple[Tensor, Tensor]:
    """The source's and the target's joints as heatmaps (B, 18, H, W)."""
    joints = torch.cat([batch.source_joints, batch.target_joints])
    valid = torch.cat([batch.source_valid, batch.target_valid])
    return heatmaps(joints, valid, *batch.source.shape[-2:]).chunk(2)


def one_hot(labels: Tensor, classes: int, out: Tensor | None = None) -> Tensor:
    """Label ids (B, H, W) uint8 -> (B, classes, H, W) float32, 1 in the channel of a pixel's label, else 0.

    An id of `classes` or more is in no channel. `out`: memory of that shape and type to write to, as in `heatmaps`.
    """
    if out is None:
        batch, height, width = labels.shape
        out = torch.empty(batch, classes, height, width, device=labels.device)
    channel = torch.arange(classes, device=labels.device, dtype=torch.uint8).view(-1, 1, 1)
    return torch.eq(labels.unsqueeze(1), channel, out=out)  # without a bool tensor between


def disks(joints: Tensor, valid: Tensor, height: int, width: int, radius: float) -> Tensor:
    """Binary joint maps: 1 within `radius` pixels of the joint, else 0; a missing joint's channel is zero.

    joints (B, J, 2) float, valid (B, J) bool -> (B, J, height, width) float32.
    """
    joints = torch.where(valid.unsqueeze(-1), joints.float(), torch.inf)
    x = torch.arange(width, device=joints.device) - joints[..., :1]  # (B, J, width)
    y = torch.arange(height, device=joints.device) - joints[..., 1:]
    return (x.square().unsqueeze(-2) + y.square().unsqueeze(-1) <= radius**2).float()


def segment_distances(start: Tensor, end: Tensor, height: int, width: int) -> Tensor:
    """How far each pixel lies from the segments from `start` to `end`, (B, S, 2) in pixels: (B, S, height, width)."""
    along = end - start
    x = torch.arange(width, device=start.device) - start[..., :1]  # (B, S, width)
    y = torch.arange(height, device=start.device) - start[..., 1:]
    # The nearest point of the segment lies at this share of the way.
    share = (x * along[..., :1]).unsqueeze(-2) + (y * along[..., 1:]).unsqueeze(-1)
    share = (share / along.square().sum(-1).clamp(min=1e-12)[..., None, None]).clamp(0, 1)
    off_x = x.unsqueeze(-2) - share * along[..., 0, None, None]
    off_y = y.unsqueeze(-1) - share * along[..., 1, None, None]
    return (off_x.square() + off_y.square()).sqrt()


def limb_maps(joints: Tensor, valid: Tensor, height: int, width: int, kappa: float) -> Tensor:
    """Distance maps exp(kappa d), d in pixels to the limb's segment: SPGNet's supplement, equations 1 and 2.

    joints (B, 18, 2) float, valid (B, 18) bool -> (B, 12, height, width) float32 in [0, 1], in the order of
    LIMBS, 1 on the limb. Zero for a limb with a missing end; a limb of no length is a point.
    """
    points = torch.where(valid.unsqueeze(-1), joints.float(), 0.0)
    # Column by column: a device would wait for a list of indices to be copied to it.
    start, end = (torch.stack([points[:, limb[side]] for limb in LIMBS], dim=1) for side in (0, 1))  # (B, 12, 2)
    both = torch.stack([valid[:, limb[0]] for limb in LIMBS], 1) & torch.stack([valid[:, limb[1]] for limb in LIMBS], 1)
    return torch.exp(kappa * segment_distances(start, end, height, width)) * both[..., None, None]


def torso_length(joints: Tensor, valid: Tensor, height: int) -> Tensor:
    """Distance from the shoulders' midpoint to the hips' midpoint in pixels: joints (B, 18, 2), valid (B, 18)
    -> (B,).

    One shoulder (or hip) stands for both when the other is missing, the neck for both missing shoulders.
    Without any of them, or without hips, the length is TORSO_FALLBACK times the image height.
    """

    def midpoint(first: int, last: int) -> tuple[Tensor, Tensor]:  # (B, 2), (B,) bool
        both = slice(first, last + 1, max(last - first, 1))  # a list of indices would be copied to the device
        chosen = valid[:, both].unsqueeze(-1)
        total = torch.where(chosen, joints[:, both], 0.0).sum(1)
        return total / chosen.sum(1).clamp(min=1), chosen.any(1).squeeze(-1)

    shoulders, has_shoulders = midpoint(R_SHOULDER, L_SHOULDER)
    neck, has_neck = midpoint(NECK, NECK)
    hips, has_hips = midpoint(R_HIP, L_HIP)
    top = torch.where(has_shoulders.unsqueeze(-1), shoulders, neck)
    known = (has_shoulders | has_neck) & has_hips
    return torch.where(known, (top - hips).norm(dim=-1), TORSO_FALLBACK * height)


def part_boxes(joints: Tensor, valid: Tensor, members: Tensor, padding: Tensor, height: int) -> Tensor:
    """One box per joint group: the tightest one around its valid joints, padded by `padding` torso lengths on every
    side.

    joints (B, 18, 2), valid (B, 18), members (P, 18) bool, padding (P,) -> (B, P, 4) float (x0, y0, x1, y1) in pixels,
    both ends inclusive, not clipped to the image. A group with no valid joint gives an empty box: x0 = y0 = +inf, x1 =
    y1 = -inf.
    """
    chosen = (members & valid.unsqueeze(1)).unsqueeze(-1)  # (B, P, 18, 1)
    points = joints.unsqueeze(1)  # (B, 1, 18, 2)
    low = torch.where(chosen, points, torch.inf).amin(2)
    high = torch.where(chosen, points, -torch.inf).amax(2)
    pad = (torso_length(joints, valid, height).unsqueeze(1) * padding).unsqueeze(-1)  # (B, P, 1)
    return torch.cat([low - pad, high + pad], dim=-1)


def box_masks(boxes: Tensor, height: int, width: int, stride: int = 1) -> Tensor:
    """1 where a cell's centre lies inside the box, else 0: boxes (B, P, 4) in image pixels -> (B, P, height,
    width) float.

    `height` and `width` count cells of `stride` pixels: cell j is centred on pixel (j + 0.5) * stride - 0.5.
    """

    def inside(length: int, low: Tensor, high: Tensor) -> Tensor:  # (B, P) -> (B, P, length)
        centre = (torch.arange(length, device=boxes.device, dtype=boxes.dtype) + 0.5) * stride - 0.5
        return (centre >= low.unsqueeze(-1)) & (centre <= high.unsqueeze(-1))

    x0, y0, x1, y1 = boxes.unbind(-1)
    return (inside(height, y0, y1).unsqueeze(-1) & inside(width, x0, x1).unsqueeze(-2)).to(boxes.dtype)
