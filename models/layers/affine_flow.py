"""Flow and visibility between two poses from affine maps, one per body part: nothing to train.

The ten parts and their maps are those of Deformable GANs (Siarohin et al., CVPR 2018), as SPT uses them: a part is
a rectangle, and the map takes the target's rectangle onto the source's. Lengths are in torso lengths st, the root
mean square of the right and the left shoulder-hip distance:

  torso             hips' and shoulders' bounding box, 0.1 st wider on every side; its map is fitted to those four
  head              square of half-side 0.4 st around the mean of the valid nose, eyes and ears; its map is fitted
                    to the shoulders and the head joints valid in both poses
  thighs, arms      along the limb, from 0.1 of its length before its start to 0.1 (shins, forearms: 0.5, for foot
                    and hand) of the length so far past its end; half-width 0.2 st

A pose that lacks a hip or a shoulder has no parts. Joints are (B, 18, 2) in pixels, pixel centres at integers;
values at joints that are not valid are ignored, NaN included.
"""

import torch
from torch import Tensor, nn

from models.layers.blocks import full_precision

PARTS = (
    "torso", "head",
    "right-thigh", "left-thigh", "right-shin", "left-shin",
    "right-upper-arm", "left-upper-arm", "right-forearm", "left-forearm",
)  # fmt: skip
MIRROR = (0, 1, 3, 2, 5, 4, 7, 6, 9, 8)  # the same part of the other side
TRUNK = (2, 5, 8, 11)  # shoulders, hips
SHOULDERS = (2, 5)
HEAD = (0, 14, 15, 16, 17)
START = (8, 11, 9, 12, 2, 5, 3, 6)
END = (9, 12, 10, 13, 3, 6, 4, 7)
BEYOND = (0.1, 0.1, 0.5, 0.5, 0.1, 0.1, 0.5, 0.5)
FLAT = 1e-6  # control points on one line: smaller variance over larger, at most
VISIBLE, INVISIBLE, BACKGROUND = 0.0, 1.0, 2.0


def rectangles(joints: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The ten parts: (B, 10, 2, 3) and whether the part is there, (B, 10) bool.

    A rectangle is the affine map of the unit square onto it: columns are the edge from its first to its second
    corner, the edge from its first to its last, and its first corner. Zero where the part is missing.
    """
    joints = torch.where(valid.unsqueeze(-1), joints, 0.0)
    trunk, head = joints[:, TRUNK], joints[:, HEAD]
    st = (((trunk[:, 0] - trunk[:, 2]).square() + (trunk[:, 1] - trunk[:, 3]).square()).sum(-1) / 2).sqrt()
    st = st.view(-1, 1)

    low, high = trunk.amin(1) - 0.1 * st, trunk.amax(1) + 0.1 * st
    seen = valid[:, HEAD].sum(1, keepdim=True)
    centre = head.sum(1) / seen.clamp(min=1)
    low = torch.stack([low, centre - 0.4 * st], dim=1)  # (B, 2, 2): torso, head
    high = torch.stack([high, centre + 0.4 * st], dim=1)
    across, down = torch.zeros_like(low), torch.zeros_like(low)
    across[..., 0], down[..., 1] = (high - low).unbind(-1)
    upright = torch.stack([across, down, low], dim=-1)

    start, end = joints[:, START], joints[:, END]
    along = end - start  # (B, 8, 2)
    length = along.norm(dim=-1, keepdim=True)
    side = torch.stack([-along[..., 1], along[..., 0]], dim=-1) / length.clamp(min=1e-12)
    side = 0.2 * st.unsqueeze(1) * side  # to the limb's right, for who looks along it
    start = start - 0.1 * along
    along = (end - start) * (1 + along.new_tensor(BEYOND).view(-1, 1))
    limbs = torch.stack([-2 * side, along, start + side], dim=-1)

    present = torch.cat(
        [
            torch.ones_like(seen, dtype=torch.bool),
            seen > 0,
            valid[:, START] & valid[:, END] & (length.squeeze(-1) > 0),
        ],
        dim=1,
    )
    present &= valid[:, TRUNK].all(1, keepdim=True) & (st > 0)
    return torch.where(present[..., None, None], torch.cat([upright, limbs], dim=1), 0.0), present


def inverse(maps: Tensor) -> Tensor:
    """Inverse of affine maps (..., 2, 3); of one that is not invertible, the map of all points to (-1, -1)."""
    a, b, c, d = maps[..., 0, 0], maps[..., 0, 1], maps[..., 1, 0], maps[..., 1, 1]
    determinant = a * d - b * c
    good = (determinant != 0)[..., None, None]
    linear = torch.stack([torch.stack([d, -b], dim=-1), torch.stack([-c, a], dim=-1)], dim=-2)
    linear = linear / torch.where(good, determinant[..., None, None], 1.0)
    result = torch.cat([linear, -linear @ maps[..., 2:]], dim=-1)
    return torch.where(good, result, maps.new_tensor([[0.0, 0.0, -1.0], [0.0, 0.0, -1.0]]))


def compose(after: Tensor, before: Tensor) -> Tensor:
    """after(before(point)) of affine maps (..., 2, 3)."""
    return torch.cat([after[..., :2] @ before[..., :2], after[..., :2] @ before[..., 2:] + after[..., 2:]], dim=-1)


def fit(target: Tensor, source: Tensor, control: Tensor) -> tuple[Tensor, Tensor]:
    """Affine maps A by least squares: the least sum of |A(target) - source|^2 over the control points.

    target, source (B, P, 2), control (B, P) bool -> (B, 2, 3), and (B,) bool: false, with a zero map, where
    the points of either side lie on one line or are fewer than three.
    """
    weight = control.to(target.dtype).unsqueeze(-1)
    count = weight.sum(1).clamp(min=1)

    def centred(points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        points = torch.where(control.unsqueeze(-1), points, 0.0)
        mean = points.sum(1) / count
        points = (points - mean.unsqueeze(1)) * weight
        scatter = points.transpose(1, 2) @ points
        determinant = scatter[:, 0, 0] * scatter[:, 1, 1] - scatter[:, 0, 1] ** 2
        return points, mean, scatter, determinant > FLAT * (scatter[:, 0, 0] + scatter[:, 1, 1]) ** 2

    x, x_mean, scatter, spread = centred(target)
    y, y_mean, _, source_spread = centred(source)
    good = (spread & source_spread & (control.sum(1) >= 3)).view(-1, 1, 1)
    scatter = torch.where(good, scatter, torch.eye(2, dtype=x.dtype, device=x.device))
    linear = y.transpose(1, 2) @ x @ torch.linalg.inv(scatter)
    maps = torch.cat([linear, (y_mean.unsqueeze(-1) - linear @ x_mean.unsqueeze(-1))], dim=-1)
    return torch.where(good, maps, 0.0), good.view(-1)


def affine_maps(
    target_joints: Tensor, target_valid: Tensor, source_joints: Tensor, source_valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Where each pixel of a target part comes from in the source.

    -> maps (B, 10, 2, 3) from target to source pixels; given (B, 10) bool: there is one; mirrored (B, 10) bool:
    the limb is missing in the source and the other side's stands in. No map for a part missing in the target,
    for a limb missing on both sides of the source, for a head without a joint valid in both poses.
    """
    target, present = rectangles(target_joints, target_valid)
    source, available = rectangles(source_joints, source_valid)
    mirrored = ~available & available[:, MIRROR]
    mirrored[:, :2] = False
    source = torch.where(mirrored[..., None, None], source[:, MIRROR], source)
    maps, given = compose(source, inverse(target)), available | mirrored

    control = torch.zeros_like(target_valid)
    control[:, TRUNK] = True
    maps[:, 0], given[:, 0] = fit(target_joints, source_joints, control & target_valid & source_valid)
    control = torch.zeros_like(target_valid)
    control[:, HEAD] = (target_valid & source_valid)[:, HEAD]
    shared = control.any(1)
    control[:, SHOULDERS] = True
    maps[:, 1], fitted = fit(target_joints, source_joints, control & target_valid & source_valid)
    given[:, 1] = fitted & shared
    given &= present & available[:, :1]
    return torch.where(given[..., None, None], maps, 0.0), given, mirrored & given


def grid(height: int, width: int, like: Tensor) -> Tensor:
    """Pixel centres (2, height, width) as (x, y)."""
    x = torch.arange(width, device=like.device, dtype=like.dtype).expand(height, -1)
    y = torch.arange(height, device=like.device, dtype=like.dtype).unsqueeze(-1).expand(-1, width)
    return torch.stack([x, y])


def apply(maps: Tensor, points: Tensor) -> Tensor:
    """Affine maps (..., 2, 3) of the points (2, H, W) -> (..., 2, H, W)."""
    return torch.einsum("...ij,jhw->...ihw", maps[..., :2], points) + maps[..., 2, None, None]


def place(joints: Tensor, valid: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where the pixels lie in each part's unit square: (B, 10, 2, height, width), and whether inside it, (B, 10,
    height, width) bool; none are inside a missing part.
    """
    within = apply(inverse(rectangles(joints, valid)[0]), grid(height, width, joints))
    return within, ((within >= 0) & (within <= 1)).all(2)


class AffineFlow(nn.Module):
    """Flow (B, 2, height, width) in pixels, (dx, dy) from target to source, and visibility (B, 1, height, width).

    Visibility is 0 where the source shows the part, 1 where it does not (the limb is missing in the source, its
    place is outside the image, or the person has turned round), 2 in the background, where the flow is 0. Where
    parts overlap, the one whose middle line is nearest, in widths of the part, is taken to be seen.
    """

    def forward(
        self,
        source_joints: Tensor,
        source_valid: Tensor,
        target_joints: Tensor,
        target_valid: Tensor,
        height: int,
        width: int,
    ) -> tuple[Tensor, Tensor]:
        with full_precision(source_joints), torch.no_grad():
            source_joints, target_joints = source_joints.float(), target_joints.float()
            maps, given, mirrored = affine_maps(target_joints, target_valid, source_joints, source_valid)
            within, inside = place(target_joints, target_valid, height, width)
            part = (within[:, :, 0] - 0.5).abs().masked_fill(~inside, torch.inf).argmin(1)  # (B, H, W)
            person = inside.any(1).unsqueeze(1)

            turned = torch.linalg.det(maps[:, 0, :, :2]) < 0
            shown = given & ~mirrored & ~turned.unsqueeze(1)
            shown = shown.gather(1, part.flatten(1)).view_as(part).unsqueeze(1)
            given = given.gather(1, part.flatten(1)).view_as(part).unsqueeze(1)

            here = grid(height, width, target_joints)
            chosen = part[:, None, None].expand(-1, 1, 2, -1, -1)
            there = apply(maps, here).gather(1, chosen).squeeze(1)  # (B, 2, H, W)
            flow = torch.where(person & given, there - here, 0.0)
            limits = there.new_tensor([width - 0.5, height - 0.5]).view(2, 1, 1)
            framed = ((there >= -0.5) & (there < limits)).all(1, keepdim=True)
            visibility = torch.where(person, torch.where(shown & framed, VISIBLE, INVISIBLE), BACKGROUND)
        return flow, visibility
