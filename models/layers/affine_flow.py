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
values at joints that are not valid are ignored, NaN included. Results have the joints' precision, whatever autocast
or TF32 do elsewhere: nothing here is a matrix product, which they would round. In bfloat16 the pixel 255 is as far as
the pixel 256.
"""

import torch
from torch import Tensor, nn

PARTS = (
    "torso", "head",
    "right-thigh", "left-thigh", "right-shin", "left-shin",
    "right-upper-arm", "left-upper-arm", "right-forearm", "left-forearm",
)  # fmt: skip
BEYOND = {"upper": 0.1, "lower": 0.5}  # how far a limb reaches past its end, in its length
FLAT = 1e-6  # control points on one line: smaller variance over larger, at most
VISIBLE, INVISIBLE, BACKGROUND = 0.0, 1.0, 2.0


# Slices rather than lists of indices: a device would wait for a list to be copied to it. Along dimension 1, with or
# without coordinates behind it.


def trunk(joints: Tensor) -> Tensor:
    """Right and left shoulder, right and left hip: (B, 18, ...) -> (B, 4, ...)."""
    return joints[:, 2:12:3]


def head(joints: Tensor) -> Tensor:
    """Nose, eyes and ears: (B, 18, ...) -> (B, 5, ...)."""
    return torch.cat([joints[:, :1], joints[:, 14:]], dim=1)


def limbs(joints: Tensor) -> tuple[Tensor, Tensor]:
    """Where the eight limbs begin and end, in the order of PARTS: (B, 18, ...) -> twice (B, 8, ...)."""
    chains = joints[:, 2:14].unflatten(1, (2, 2, 3)).flip(1).transpose(2, 3)  # leg and arm, joint, right and left
    return chains[:, :, :2].flatten(1, 3), chains[:, :, 1:].flatten(1, 3)


def other_side(parts: Tensor) -> Tensor:
    """The limbs (B, 8, ...) in the order of PARTS, right and left exchanged."""
    return parts.unflatten(1, (4, 2)).flip(2).flatten(1, 2)


def rectangles(joints: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The ten parts: (B, 10, 2, 3) and whether the part is there, (B, 10) bool.

    A rectangle is the affine map of the unit square onto it: columns are the edge from its first to its second
    corner, the edge from its first to its last, and its first corner. Zero where the part is missing.
    """
    joints = torch.where(valid.unsqueeze(-1), joints, 0.0)
    corners, heads = trunk(joints), head(joints)
    st = ((corners[:, :2] - corners[:, 2:]).square().sum((1, 2)) / 2).sqrt().view(-1, 1)

    seen = head(valid).sum(1, keepdim=True)
    centre = heads.sum(1) / seen.clamp(min=1)
    low = torch.stack([corners.amin(1) - 0.1 * st, centre - 0.4 * st], dim=1)  # (B, 2, 2): torso, head
    high = torch.stack([corners.amax(1) + 0.1 * st, centre + 0.4 * st], dim=1)
    upright = torch.cat([torch.diag_embed(high - low), low.unsqueeze(-1)], dim=-1)

    start, end = limbs(joints)
    along = end - start  # (B, 8, 2)
    length = along.norm(dim=-1, keepdim=True)
    side = torch.stack([-along[..., 1], along[..., 0]], dim=-1) / length.clamp(min=1e-12)
    side = 0.2 * st.unsqueeze(1) * side  # to the limb's right, for who looks along it
    start = start - 0.1 * along
    upper, lower = along.unflatten(1, (2, 2, 2)).unbind(2)
    whole = 1.1 * torch.stack([(1 + BEYOND["upper"]) * upper, (1 + BEYOND["lower"]) * lower], dim=2).flatten(1, 3)
    limb = torch.stack([-2 * side, whole, start + side], dim=-1)

    begun, ended = limbs(valid)
    present = torch.cat(
        [torch.ones_like(seen, dtype=torch.bool), seen > 0, begun & ended & (length.squeeze(-1) > 0)], dim=1
    )
    present &= trunk(valid).all(1, keepdim=True) & (st > 0)
    return torch.where(present[..., None, None], torch.cat([upright, limb], dim=1), 0.0), present


def product(a: Tensor, b: Tensor) -> Tensor:
    """Matrices (..., 2, 2) times (..., 2, K), in their own precision."""
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


def adjugate(a: Tensor) -> tuple[Tensor, Tensor]:
    """Of matrices (..., 2, 2), the inverse is the adjugate (..., 2, 2) over the determinant (..., 1, 1)."""
    (p, q), (r, s) = (row.unbind(-1) for row in a.unbind(-2))
    return torch.stack([s, -q, -r, p], dim=-1).unflatten(-1, (2, 2)), (p * s - q * r)[..., None, None]


def inverse(maps: Tensor) -> Tensor:
    """Inverse of affine maps (..., 2, 3); of one that is not invertible, the map of all points to (-1, -1)."""
    linear, determinant = adjugate(maps[..., :2])
    good = determinant != 0
    linear = torch.where(good, linear / determinant, 0.0)
    return torch.cat([linear, torch.where(good, -product(linear, maps[..., 2:]), -1.0)], dim=-1)


def compose(after: Tensor, before: Tensor) -> Tensor:
    """after(before(point)) of affine maps (..., 2, 3)."""
    linear, shift = product(after[..., :2], before).split((2, 1), dim=-1)
    return torch.cat([linear, shift + after[..., 2:]], dim=-1)


def fit(target: Tensor, source: Tensor, control: Tensor) -> tuple[Tensor, Tensor]:
    """Affine maps A by least squares: the least sum of |A(target) - source|^2 over the control points.

    target, source (..., P, 2), control (..., P) bool -> (..., 2, 3), and (...) bool: false, with a zero map, where
    the points of either side lie on one line or are fewer than three.
    """
    control = control.unsqueeze(-1)
    points = torch.where(control, torch.cat([target, source], dim=-1), 0.0)  # (..., P, 4)
    count = control.sum(-2)
    mean = points.sum(-2) / count.clamp(min=1)
    points = (points - mean.unsqueeze(-2)) * control
    scatter = (points.unsqueeze(-1) * points.unsqueeze(-2)).sum(-3)  # (..., 4, 4)
    inverted, determinant = adjugate(scatter[..., :2, :2])
    spread = scatter.diagonal(dim1=-2, dim2=-1).unflatten(-1, (2, 2)).sum(-1).square()  # of target and source
    area = torch.cat([determinant, adjugate(scatter[..., 2:, 2:])[1]], dim=-1).squeeze(-2)
    good = (area > FLAT * spread).all(-1) & (count.squeeze(-1) >= 3)
    linear = product(scatter[..., 2:, :2], inverted) / determinant
    target_mean, source_mean = mean.unsqueeze(-1).split(2, dim=-2)
    maps = torch.cat([linear, source_mean - product(linear, target_mean)], dim=-1)
    return torch.where(good[..., None, None], maps, 0.0), good


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
    whole = available[:, :1]
    target, source, available = target[:, 2:], source[:, 2:], available[:, 2:]
    mirrored = ~available & other_side(available)
    source = torch.where(mirrored[..., None, None], other_side(source), source)
    limb = compose(source, inverse(target))

    both = target_valid & source_valid
    both = torch.cat([trunk(both), head(both)], dim=1)  # (B, 9), shoulders first
    points = (torch.cat([trunk(joints), head(joints)], dim=1).unsqueeze(1) for joints in (target_joints, source_joints))
    index = torch.arange(9, device=both.device)
    members = torch.stack([index < 4, (index < 2) | (index >= 4)])  # (2, 9): the torso's, the head's
    upright, fitted = fit(*points, both.unsqueeze(1) & members)
    fitted = fitted & torch.stack([whole[:, 0], both[:, 4:].any(1)], dim=1)

    given = torch.cat([fitted, available | mirrored], dim=1) & present & whole
    mirrored = torch.cat([torch.zeros_like(fitted), mirrored], dim=1) & given
    return torch.where(given[..., None, None], torch.cat([upright, limb], dim=1), 0.0), given, mirrored


def grid(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel centres, to be broadcast against each other: x (width), y (height, 1)."""
    x = torch.arange(width, device=like.device, dtype=like.dtype)
    return x, torch.arange(height, device=like.device, dtype=like.dtype).unsqueeze(-1)


def apply(maps: Tensor, points: tuple[Tensor, Tensor]) -> Tensor:
    """Affine maps (..., 2, 3) of points x and y, both of a shape that broadcasts to (H, W) -> (..., 2, H, W)."""
    across, down, shift = maps[..., None, None].unbind(-3)
    return across * points[0] + (down * points[1] + shift)


def place(joints: Tensor, valid: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """How far the pixels lie from each part's middle line, in widths of the part: (B, 10, height, width), and whether
    inside the part, (B, 10, height, width) bool; none are inside a missing part.
    """
    linear, shift = inverse(rectangles(joints, valid)[0]).split((2, 1), dim=-1)
    across, along = apply(torch.cat([linear, shift - 0.5], dim=-1), grid(height, width, joints)).abs().unbind(2)
    return across, (across <= 0.5) & (along <= 0.5)


class AffineFlow(nn.Module):
    """Flow (B, 2, height, width) in pixels, (dx, dy) from target to source, and visibility (B, 1, height, width).

    Visibility is 0 where the source shows the part, 1 where it does not (the limb is missing in the source, its
    place is outside the image, or the person has turned round), 2 in the background, where the flow is 0. Where
    parts overlap, the one whose middle line is nearest, in widths of the part, is taken to be seen.
    """

    @torch.no_grad()
    def forward(
        self,
        source_joints: Tensor,
        source_valid: Tensor,
        target_joints: Tensor,
        target_valid: Tensor,
        height: int,
        width: int,
    ) -> tuple[Tensor, Tensor]:
        maps, given, mirrored = affine_maps(target_joints, target_valid, source_joints, source_valid)
        across, inside = place(target_joints, target_valid, height, width)
        part = across.masked_fill(~inside, torch.inf).min(1).indices  # (B, H, W); argmin takes five times as long
        person = inside.any(1, keepdim=True)
        turned = adjugate(maps[:, :1, :, :2])[1].view(-1, 1) < 0
        shown = given & ~mirrored & ~turned

        # What a pixel needs to know of its part: its map's six numbers, whether there is a map, whether it is shown.
        known = torch.cat([maps.flatten(2), given.unsqueeze(-1), shown.unsqueeze(-1)], dim=-1).transpose(1, 2)
        known = known.gather(2, part.flatten(1).unsqueeze(1).expand(-1, 8, -1)).unflatten(2, (height, width))
        a, b, c, d, e, f, given, shown = known.unbind(1)
        x, y = grid(height, width, target_joints)
        to_x, to_y = a * x + (b * y + c), d * x + (e * y + f)
        flow = torch.where(person & (given > 0).unsqueeze(1), torch.stack([to_x - x, to_y - y], dim=1), 0.0)
        framed = (to_x >= -0.5) & (to_x < width - 0.5) & (to_y >= -0.5) & (to_y < height - 0.5)
        seen = (framed & (shown > 0)).unsqueeze(1)
        return flow, torch.where(person, torch.where(seen, VISIBLE, INVISIBLE), BACKGROUND)
