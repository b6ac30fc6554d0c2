"""VU-Net: A Variational U-Net for Conditional Appearance and Shape Generation (Esser, Sutter and Ommer, CVPR 2018).

A U-Net draws the picture of a stick figure, and at its two coarsest scales takes what an encoder makes of the person's
appearance: crops of eight body parts, each brought to a square, which hide the pose. It learns to draw single images
again. To move a person, the appearance is the source's and the stick figure the target's.

The released network knows square images only, of a power of two. Others are stretched to the smallest such square that
is no smaller, and what is drawn is shrunk again. docs/papers.md lists what their code fixes and what is chosen here.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import losses
from models.layers.blocks import Batch, Output, channels, full_precision
from models.layers.features import CAFFE, Features
from models.layers.losses import widen
from models.layers.pose_maps import segment_distances
from models.layers.schedule import Adam, Phase, Variant

LATENTS = 2  # scales at which the appearance enters
DROPOUT = 0.1
NOSE, R_SHOULDER, R_ELBOW, R_WRIST, L_SHOULDER, L_ELBOW, L_WRIST = 0, 2, 3, 4, 5, 6, 7
R_HIP, R_KNEE, R_ANKLE, L_HIP, L_KNEE, L_ANKLE, R_EYE, L_EYE = 8, 9, 10, 11, 12, 13, 14, 15
RIGHT = ((R_ANKLE, R_KNEE), (R_KNEE, R_HIP), (R_HIP, R_SHOULDER), (R_SHOULDER, R_ELBOW), (R_ELBOW, R_WRIST))
LEFT = ((L_ANKLE, L_KNEE), (L_KNEE, L_HIP), (L_HIP, L_SHOULDER), (L_SHOULDER, L_ELBOW), (L_ELBOW, L_WRIST))
ARMS = ((L_SHOULDER, L_ELBOW), (L_ELBOW, L_WRIST), (R_SHOULDER, R_ELBOW), (R_ELBOW, R_WRIST))
LEGS = ((L_HIP, L_KNEE), (R_HIP, R_KNEE))
PARTS = 2 + len(ARMS) + len(LEGS)  # and torso and head


# What the networks are given: all on a square, of images and joints stretched to it


def square_side(height: int, width: int) -> int:
    return 1 << (max(height, width) - 1).bit_length()


def to_square(images: Tensor, side: int) -> Tensor:
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


def joints_in_square(joints: Tensor, valid: Tensor, height: int, width: int, side: int) -> Tensor:
    """Joints (B, 18, 2) in pixels of the image -> of the square; 0 where they are not valid."""
    joints = torch.where(valid.unsqueeze(-1), widen(joints), 0.0)
    x, y = joints.unbind(-1)
    return torch.stack([(x + 0.5) * (side / width) - 0.5, (y + 0.5) * (side / height) - 0.5], dim=-1)


def inside_polygon(corners: Tensor, side: int) -> Tensor:
    """Whether a pixel's centre lies inside, by the even-odd rule: corners (B, N, 2) -> (B, side, side) bool."""
    x = torch.arange(side, device=corners.device, dtype=corners.dtype)
    y = x.unsqueeze(-1)
    (x1, y1), (x2, y2) = ((of[..., 0, None, None], of[..., 1, None, None]) for of in (corners, corners.roll(-1, 1)))
    spans = (y1 > y) != (y2 > y)
    crossing = x1 + (y - y1) * (x2 - x1) / torch.where(y1 == y2, 1.0, y2 - y1)
    return (spans & (x < crossing)).sum(1) % 2 == 1


def stick_figure(joints: Tensor, valid: Tensor, side: int) -> Tensor:
    """Joints (B, 18, 2) in the square -> (B, 3, side, side) in [-1, 1]: right limbs, left limbs, torso.

    Neck to nose is half as bright in the first two, the eyes' lines are one in each. Lines are as wide as the code's,
    4.5 pixels of 128.
    """

    def at(joint: int) -> tuple[Tensor, Tensor]:
        return joints[:, joint], valid[:, joint]

    (rs, has_rs), (ls, has_ls), (nose, has_nose) = at(R_SHOULDER), at(L_SHOULDER), at(NOSE)
    (re, has_re), (le, has_le) = at(R_EYE), at(L_EYE)
    lines = [(at(a)[0], at(b)[0], at(a)[1] & at(b)[1]) for a, b in (*RIGHT, *LEFT)]
    lines.append(((rs + ls) / 2, nose, has_rs & has_ls & has_nose))
    lines += [(nose, eye, has_nose & has_re & has_le) for eye in (re, le)]
    start, end, known = (torch.stack(of, dim=1) for of in zip(*lines, strict=True))
    width = max(1, int(3 * side / 128))
    # What OpenCV, which draws the code's lines, calls a width of more than 1 is 1 more, if odd 1.5.
    half = (width if width == 1 else width + 1 + width % 2 / 2) / 2
    drawn = (segment_distances(start, end, side, side) <= half) & known[..., None, None]
    right, left = (limbs.any(1).to(joints.dtype) for limbs in drawn[:, :10].chunk(2, dim=1))
    neck, right_eye, left_eye = drawn[:, 10:].unbind(1)
    corners = (L_HIP, L_SHOULDER, R_SHOULDER, R_HIP)
    torso = inside_polygon(torch.stack([joints[:, k] for k in corners], dim=1), side)
    torso &= torch.stack([valid[:, k] for k in corners], dim=1).all(1)[:, None, None]
    right, left = (
        torch.where(eye, 1.0, torch.where(neck, 127 / 255, limbs))
        for eye, limbs in ((right_eye, right), (left_eye, left))
    )
    return 2 * torch.stack([right, left, torso.to(right.dtype)], dim=1) - 1


def across(along: Tensor) -> Tensor:
    """Vectors (..., 2) turned by a quarter."""
    return torch.stack([-along[..., 1], along[..., 0]], dim=-1)


def part_corners(joints: Tensor, valid: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The eight parts' corners (B, 8, 4, 2), in the order top left, bottom left, bottom right, top right of their
    crops, and whether they are known, (B, 8): torso, head, arms, thighs.

    Without a nose the head is the square above the shoulders, without a knee a thigh goes down to the border.
    """
    ls, rs, nose = joints[:, L_SHOULDER], joints[:, R_SHOULDER], joints[:, NOSE]
    neck = (ls + rs) / 2
    top = neck + 2 * (nose - neck)
    half = across(neck - top) / 2
    up = across(rs - ls)
    up = torch.where(up[:, 1:] > 0, -up, up)
    by_nose = torch.stack([top - half, neck - half, neck + half, top + half], dim=1)
    head = torch.where(valid[:, NOSE, None, None], by_nose, torch.stack([ls + up, ls, rs, rs + up], dim=1))
    shoulders = valid[:, L_SHOULDER] & valid[:, R_SHOULDER]
    torso = torch.stack([ls, joints[:, L_HIP], joints[:, R_HIP], rs], dim=1)
    corners, known = [torso, head], [shoulders & valid[:, L_HIP] & valid[:, R_HIP], shoulders]
    for start, end in (*ARMS, *LEGS):
        first, last, there = joints[:, start], joints[:, end], valid[:, start]
        if (start, end) in LEGS:
            down = torch.stack([first[:, 0], torch.full_like(first[:, 0], side - 1)], dim=-1)
            last = torch.where(valid[:, end, None], last, down)
        else:
            there = there & valid[:, end]
        quarter = across(last - first) / 4
        corners.append(torch.stack([first + quarter, first - quarter, last - quarter, last + quarter], dim=1))
        known.append(there)
    return torch.stack(corners, dim=1), torch.stack(known, dim=1)


def part_crops(images: Tensor, joints: Tensor, valid: Tensor, size: int) -> Tensor:
    """Each part of images (B, 3, side, side) brought to a square of `size` by the projective map of its corners, the
    border repeated outside; mid-grey where it is not known: (B, 24, size, size).
    """
    with full_precision(images), torch.no_grad():
        corners, known = part_corners(joints, valid, images.shape[-1])
        p00, p01, p11, p10 = corners.unbind(2)  # (B, 8, 2), by the crop's x and y
        one, two, bend = p10 - p11, p01 - p11, p00 - p10 + p11 - p01

        def cross(a: Tensor, b: Tensor) -> Tensor:
            return (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])[..., None]

        area = cross(one, two)
        known = known & (area.squeeze(-1).abs() > 1e-6)
        area = torch.where(known.unsqueeze(-1), area, 1.0)
        g, h = cross(bend, two) / area, cross(one, bend) / area  # (B, 8, 1)
        to_x, to_y = p10 - p00 + g * p10, p01 - p00 + h * p01
        u = (torch.arange(size, device=images.device, dtype=joints.dtype) / size).view(1, 1, 1, size, 1)
        v = u.transpose(2, 3)

        def wide(x: Tensor) -> Tensor:
            return x[:, :, None, None]

        depth = wide(g) * u + wide(h) * v + 1
        place = (wide(to_x) * u + wide(to_y) * v + wide(p00)) / torch.where(depth.abs() < 1e-6, 1e-6, depth)
        grid = (2 / (images.shape[-1] - 1)) * place - 1  # (B, 8, size, size, 2)
        crops = F.grid_sample(widen(images), grid.flatten(1, 2), padding_mode="border", align_corners=True)
        return (crops.unflatten(2, (PARTS, size)) * known[:, None, :, None, None]).flatten(1, 2)


# The networks


class WeightNorm(torch.autograd.Function):
    """Weights (O, I, k, k), those of each output brought to the length `gain` (O,). In a few kernels: autograd's own
    way takes three times as many.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gain: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)
        scale = gain.view(-1, 1, 1, 1) / length
        ctx.save_for_backward(weight, length, scale)
        return weight * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """With the direction d = weight / length: (g - d sum(g d)) scale, and sum(g d)."""
        weight, length, scale = ctx.saved_tensors
        along = (gradient * weight).sum((1, 2, 3), keepdim=True) / length
        return torch.addcmul(gradient, weight, along / length, value=-1).mul_(scale), along.flatten()


class Conv(nn.Conv2d):
    """A convolution with weight norm (Salimans and Kingma, 2016)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1):
        super().__init__(inputs, outputs, kernel, stride, kernel // 2)
        self.gain = nn.Parameter(torch.ones(outputs))
        nn.init.normal_(self.weight, std=0.05)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, WeightNorm.apply(self.weight, self.gain), self.bias)

    @torch.no_grad()
    def begin(self, x: Tensor) -> None:
        """Give what comes of x mean 0 and deviation 1, by gains of at most 10."""
        self.gain.fill_(1.0)
        self.bias.zero_()
        variance, mean = torch.var_mean(self.forward(x), dim=(0, 2, 3), correction=0)
        self.gain.copy_((variance + 1e-10).rsqrt().clamp(max=10.0))
        self.bias.copy_(-mean * self.gain)


class LatentConv(Conv):
    """In float32, whatever autocast says: latent distributions are compared by small differences."""

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            return super().forward(widen(x))


class Residual(nn.Module):
    """x + 3x3(dropout(ELU(x))), where `joined` features, narrowed to as many as x has, may stand beside x."""

    def __init__(self, features: int, joined: int = 0):
        super().__init__()
        self.narrow = Conv(joined, features, 1) if joined else None
        self.conv = Conv(2 * features if joined else features, features)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, joined: Tensor | None = None) -> Tensor:
        both = x if joined is None else torch.cat([x, self.narrow(F.elu(joined)).to(x.dtype)], dim=1)
        return x + self.conv(self.dropout(F.elu(both)))


class Pyramid(nn.Module):
    """(B, inputs, S, S) -> for each of `widths`, finest first, two features (B, width, S / 2^k, S / 2^k)."""

    def __init__(self, inputs: int, widths: list[int]):
        super().__init__()
        self.enter = Conv(inputs, widths[0], 1)
        self.blocks = nn.ModuleList(Residual(width) for width in widths for _ in range(2))
        self.halve = nn.ModuleList(Conv(before, after, stride=2) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        x = self.enter(x)
        for k, block in enumerate(self.blocks):
            x = block(self.halve[k // 2 - 1](x) if k and k % 2 == 0 else x)
            found.append(x)
        return found


class Up(nn.Sequential):
    """(B, inputs, h, w) -> (B, outputs, 2h, 2w)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(Conv(inputs, 4 * outputs), nn.PixelShuffle(2))


class Posterior(nn.Module):
    """What the appearance's features say of the latents: their means (B, width, s, s), coarsest first, and samples of
    deviation 1 in train mode, else the means again.
    """

    def __init__(self, width: int):
        super().__init__()
        self.enter = Conv(width, width, 1)
        self.first = nn.ModuleList(Residual(width, width) for _ in range(LATENTS))
        self.mean = nn.ModuleList(LatentConv(width, width) for _ in range(LATENTS))
        self.second = nn.ModuleList(Residual(width, 2 * width) for _ in range(LATENTS - 1))
        self.up = nn.ModuleList(Up(width, width) for _ in range(LATENTS - 1))

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        left = list(features)
        x, means, samples = self.enter(left[-1]), [], []
        for k in range(LATENTS):
            x = self.first[k](x, left.pop())
            mean = self.mean[k](x)
            sample = mean + torch.randn_like(mean) if self.training else mean
            means.append(mean)
            samples.append(sample)
            if k + 1 < LATENTS:
                x = self.up[k](self.second[k](x, torch.cat([left.pop(), sample.to(x.dtype)], dim=1)))
        return means, samples


class Prior(nn.Module):
    """What the stick figure's features x (B, width, s, s) say of a latent z: its mean, in four groups, a cell of each
    2x2, one after the other; each is told the groups of z before it.
    """

    def __init__(self, width: int):
        super().__init__()
        self.features = Residual(width)
        self.mean = nn.ModuleList(LatentConv(4 * width, width) for _ in range(4))
        self.feedback = nn.ModuleList(Residual(4 * width, width) for _ in range(3))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        x, means = F.pixel_unshuffle(self.features(x), 2), []
        for k in range(4):
            means.append(self.mean[k](x))
            if k < 3:
                x = self.feedback[k](x, z[..., k // 2 :: 2, k % 2 :: 2].to(x.dtype))
        return F.pixel_shuffle(torch.stack(means, dim=2).flatten(1, 2), 2)


class Decoder(nn.Module):
    """The stick figure's features (as of `Pyramid`) and latents, coarsest first -> image (B, 3, S, S), not limited, and
    with `priors` the latents' means as the pose alone would have them, else [].
    """

    def __init__(self, widths: list[int]):
        super().__init__()
        widths = widths[::-1]
        self.enter = Conv(widths[0], widths[0], 1)
        self.first = nn.ModuleList(Residual(width, width) for width in widths)
        self.prior = nn.ModuleList(Prior(width) for width in widths[:LATENTS])
        self.merge = nn.ModuleList(Conv(2 * width, width, 1) for width in widths[:LATENTS])
        self.second = nn.ModuleList(Residual(width, width) for width in widths)
        self.up = nn.ModuleList(Up(before, after) for before, after in pairwise(widths))
        self.image = Conv(widths[-1], 3)

    def forward(self, features: list[Tensor], latents: list[Tensor], priors: bool) -> tuple[Tensor, list[Tensor]]:
        left, found = list(features), []
        x = self.enter(left[-1])
        for k, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            x = first(self.up[k - 1](x) if k else x, left.pop())
            if k < LATENTS:
                z = latents[k]
                if priors:
                    found.append(self.prior[k](x, z))
                x = self.merge[k](torch.cat([x, z.to(x.dtype)], dim=1))
            x = second(x, left.pop())
        return widen(self.image(x)), found


class VUNet(nn.Module):
    """forward: Batch -> Output, the source's appearance in the target's pose.

    height, width: such that the square's side is at least 16; scale: width multiplier. `begun`, saved with the weights:
    whether their gains fit the data, which `begin` makes so.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0):
        super().__init__()
        self.side = square_side(height, width)
        # The code's two settings: images of 256 pixels end in 4x4, crops are a quarter; those of 128 in 2x2, a half.
        coarse = 2 if self.side >= 256 else 1
        self.crop = self.side >> coarse
        levels = self.side.bit_length() - coarse
        widths = [channels(min(32 << level, 128), scale) for level in range(levels)]
        self.appearance = Pyramid(3 * PARTS, widths[coarse:])
        self.posterior = Posterior(widths[-1])
        self.pose = Pyramid(3, widths)
        self.decoder = Decoder(widths)
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def reconstruct(self, images: Tensor, joints: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Images (B, 3, H, W) with their joints -> squares, not limited, and the latents' means by appearance and by
        pose.
        """
        joints = joints_in_square(joints, valid, *images.shape[-2:], self.side)
        crops = part_crops(to_square(images, self.side), joints, valid, self.crop)
        means, samples = self.posterior(self.appearance(crops))
        square, priors = self.decoder(self.pose(stick_figure(joints, valid, self.side)), samples, priors=True)
        return square, means, priors

    def forward(self, batch: Batch) -> Output:
        size = batch.source.shape[-2:]
        source = joints_in_square(batch.source_joints, batch.source_valid, *size, self.side)
        target = joints_in_square(batch.target_joints, batch.target_valid, *size, self.side)
        crops = part_crops(to_square(batch.source, self.side), source, batch.source_valid, self.crop)
        means, _ = self.posterior(self.appearance(crops))
        figure = stick_figure(target, batch.target_valid, self.side)
        square, _ = self.decoder(self.pose(figure), means, priors=False)
        image = square if size == square.shape[-2:] else F.interpolate(square, size=size, mode="area")
        return Output(image.clamp(-1, 1))

    @torch.no_grad()
    def begin(self, images: Tensor, joints: Tensor, valid: Tensor) -> None:
        """Let every convolution give mean 0 and deviation 1 on these images; once."""
        if self.begun:
            return
        training = self.training
        hooks = [
            conv.register_forward_pre_hook(lambda conv, given: conv.begin(*given))
            for conv in self.modules()
            if isinstance(conv, Conv)
        ]
        self.eval().reconstruct(images, joints, valid)
        for hook in hooks:
            hook.remove()
        self.train(training)
        self.begun.fill_(True)


def images_of(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The images of both sides with their joints."""
    return (
        torch.cat([batch.source, batch.target]),
        torch.cat([batch.source_joints, batch.target_joints]),
        torch.cat([batch.source_valid, batch.target_valid]),
    )


class VunetObjective:
    """networks: generator. Terms: perceptual, on pixels and features; kl, whose weight grows from a millionth to 1 in
    the third quarter of the run.
    """

    def __init__(self, generator: VUNet, weights: Mapping[str, float]):
        self.generator = generator
        self.weights = weights
        self.progress = 0.0

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator}

    def begin(self, batch: Batch) -> None:
        self.generator.begin(*images_of(batch))

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], None]:
        images, joints, valid = images_of(batch)
        square, means, priors = self.generator.reconstruct(images, joints, valid)
        wanted = to_square(images, self.generator.side)
        with torch.no_grad():
            target = features(wanted, features.second)
        seen = losses.perceptual(features(square, features.second), target, features.second)
        distance = sum(
            (widen(mean) - widen(prior)).square().sum((1, 2, 3)).mean() / 2
            for mean, prior in zip(means, priors, strict=True)
        )
        terms = {
            "perceptual": 127.5 * losses.l1(square, wanted) + CAFFE * seen,  # in steps of 8 bits, both
            "kl": min(1.0, max(1e-6, 4 * self.progress - 2)) * distance,
        }
        return {name: self.weights[name] * term for name, term in terms.items()}, None

    def discriminator_losses(self, batch: Batch, output: None) -> dict[str, Tensor]:
        return {}


# The rate falls from step 1,000 of 100,000 on.
VARIANTS = (
    Variant(
        name="vunet",
        paper="VU-Net",
        row="SPIG's Table 1, VU-Net",
        build=VUNet,
        features="vgg19",
        objective=lambda generator, height, width, scale, weights: VunetObjective(generator, weights),
        phase=Phase(
            generators=("generator",),
            discriminators=(),
            optimisers={"generator": Adam(lr=1e-3, betas=(0.5, 0.9))},
            weights={"perceptual": 5.0, "kl": 1.0},
            batch={"market1501": 16, "deepfashion": 8},
            steps={"market1501": 100_000, "deepfashion": 100_000},
            decay_from=0.01,
        ),
        data="images",
        departs=("judge", "design"),
    ),
)
