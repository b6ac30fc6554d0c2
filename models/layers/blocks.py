"""Building blocks shared by the generators, and the two records every generator and objective exchanges.

Feature maps are (B, C, H, W). `channels(base, scale)` is the one place where the width multiplier acts.

Blocks with `parts` are that many networks of equal shape side by side: channels are those of one network, the maps hold
those of the first, then those of the second, (B, parts * C, H, W), and none reads another's. Grouped convolutions
compute all at once, in a fraction of the operations; norms and activations look at each channel by itself anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.spectral import NormedConv2d, SpectralNorm


@dataclass
class Batch:
    """Pairs on one device: images (B, 3, H, W) float in [-1, 1] RGB, joints (B, 18, 2) float pixels, valid bool.

    Labels are human parsing, uint8 (B, H, W): ids of the set that the entry names; None where not loaded.
    """

    source: Tensor
    target: Tensor | None
    source_joints: Tensor
    source_valid: Tensor
    target_joints: Tensor
    target_valid: Tensor
    source_labels: Tensor | None = None
    target_labels: Tensor | None = None

    def without_target(self, parsing: bool = False) -> "Batch":
        """What a generator is given to be scored: the target's pose, but not its image, nor, unless `parsing`, its
        parsing.
        """
        return replace(self, target=None, target_labels=self.target_labels if parsing else None)


@dataclass
class Output:
    """What a generator returns: the image (B, 3, H, W) in [-1, 1], and what it looked at, for losses and
    figures.

    `flows` and `visibilities` are keyed by stride (SPIG: 8 and 4; SPGNet: 1): (B, parts, 2, H/stride, W/stride)
    in cells of that grid, and (B, parts, 1, H/stride, W/stride) in [0, 1]. `relation_maps` are keyed by pooled
    size s: (B, s*s, s*s), row = target patch. `parsing`: logits of the predicted target parsing, (B, 20, H, W) of
    the entry's label set or (B, 10, H, W) of SPT's labels.
    """

    image: Tensor
    flows: dict[int, Tensor] = field(default_factory=dict)
    visibilities: dict[int, Tensor] = field(default_factory=dict)
    relation_maps: dict[int, Tensor] | None = None
    parsing: Tensor | None = None


def channels(base: int, scale: float) -> int:
    """`base` channels at scale 1; at any other scale a multiple of 8, at least 8."""
    return max(8, round(base * scale / 8) * 8)


def initialise(module: nn.Module) -> None:
    """Unit-gain normal weights, zero biases: `net.apply(initialise)`. Shortcut paths then keep the scale of
    their input.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def orthogonal(module: nn.Module) -> None:
    """GFLA's initial weights, orthogonal and of gain 0.02, and zero biases: `net.apply(orthogonal)`."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.orthogonal_(module.weight, gain=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def full_precision(tensor: Tensor) -> torch.autocast:
    """Context without autocast on the tensor's device: offsets in pixels and losses need more than bfloat16's
    8 bits. A module that is frozen somewhere and whose weights are used in here has an attribute `float32 = True`, so
    that the loop does not keep them in bfloat16.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def for_convolutions(x: Tensor) -> Tensor:
    """What autocast makes of x in each convolution that reads it, made once."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """Bilinear sampling: out[y, x] = features[y + flow_y, x + flow_x], SPIG equation 2.

    features (B, C, H, W), flow (B, 2, H, W) as (dx, dy) in cells of this grid, given at target positions -> (B, C, H,
    W). A flow (B, P, 2, H, W) gives P samples of the same features, (B, C, P, H, W). Positions outside the grid take
    the nearest border value: a person cut by the frame goes on rather than turning to zero. Where the flow is not
    finite, neither is the result.
    """
    height, width = features.shape[-2:]
    with full_precision(features):
        features = features.to(flow.dtype)
        steps = {"device": flow.device, "dtype": flow.dtype}
        dx, dy = flow.unbind(-3)
        x = torch.add(torch.linspace(-1, 1, width, **steps), dx, alpha=2 / max(width - 1, 1))
        y = torch.add(torch.linspace(-1, 1, height, **steps).unsqueeze(-1), dy, alpha=2 / max(height - 1, 1))
        grid = torch.stack([x, y], dim=-1).view(len(flow), -1, width, 2)  # samples one below the other
        # torch's CPU kernel crashes in the gradient of a NaN position: a diverged flow must show as NaN instead.
        astray = ~grid.detach().sum(-1, keepdim=True).isfinite()
        grid = grid.masked_fill(astray, 0.0)
        sampled = F.grid_sample(features, grid, "bilinear", padding_mode="border", align_corners=True)
        sampled = sampled.masked_fill(astray.view(len(flow), 1, -1, width), torch.nan)
        return sampled.view(features.shape[:2] + flow.shape[1:-3] + features.shape[2:])


class InstanceNorm(nn.Module):
    """Affine instance norm: (B, C, H, W) -> the same shape and type.

    As a group norm of one channel a group, which is one operation where `F.instance_norm` is seven, and takes two
    thirds of its time on a CPU. Called below autocast, which on CUDA would widen its input and result to float32; the
    statistics are float32 in any case.
    """

    def __init__(self, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        batch, features, height, width = x.shape
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return torch.native_group_norm(x.contiguous(), weight, bias, batch, features, height * width, features, 1e-5)[0]


def norm_act(features: int) -> nn.Sequential:
    return nn.Sequential(InstanceNorm(features), nn.LeakyReLU(0.2, inplace=True))


class UnevenConv2d(nn.Module):
    """Convolutions of several networks side by side that differ in the number of input channels; without biases."""

    def __init__(self, inputs: Sequence[int], outputs: int, kernel: int, **options: int):
        super().__init__()
        self.inputs = list(inputs)
        self.convolutions = nn.ModuleList(nn.Conv2d(count, outputs, kernel, bias=False, **options) for count in inputs)

    def forward(self, x: Tensor) -> Tensor:  # (B, sum(inputs), H, W) -> (B, len(inputs) * outputs, h, w)
        parts = x.split(self.inputs, dim=1)
        return torch.cat([conv(part) for conv, part in zip(self.convolutions, parts, strict=True)], dim=1)


def side_by_side(inputs: Sequence[int], outputs: int, kernel: int, **options: int) -> nn.Module:
    """A convolution without bias for each number of input channels: one grouped one, where they are equal."""
    if len(set(inputs)) > 1:
        return UnevenConv2d(inputs, outputs, kernel, **options)
    parts = len(inputs)
    return nn.Conv2d(sum(inputs), parts * outputs, kernel, groups=parts, bias=False, **options)


class DownBlock(nn.Module):
    """Halve the resolution: norm, act, 4x4 stride 2, norm, act, 3x3, plus a shortcut (average pooling, 1x1).

    The branch is GFLA's encoder block. The shortcut is ours: instance norm removes each channel's mean and
    contrast, which in a part image is its colour; the shortcut carries them past. `first` drops the leading
    norm and act: the input is raw, and its channels may be listed part by part. Convolutions that a norm follows have
    no bias, since the norm would cancel it.
    """

    def __init__(self, inputs: int | Sequence[int], outputs: int, first: bool = False, parts: int = 1):
        super().__init__()
        each = (inputs,) * parts if isinstance(inputs, int) else inputs
        self.enter = nn.Identity() if first else norm_act(sum(each))
        self.branch = nn.Sequential(
            side_by_side(each, outputs, 4, stride=2, padding=1),
            norm_act(len(each) * outputs),
            side_by_side((outputs,) * len(each), outputs, 3, padding=1),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), side_by_side(each, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, outputs, H/2, W/2), of every part
        return self.branch(self.enter(x)) + self.shortcut(x)


class UpBlock(nn.Module):
    """Double the resolution: norm, act, 3x3, norm, act, 3x3 transposed, plus a transposed shortcut (GFLA's
    decoder block).
    """

    def __init__(self, inputs: int, outputs: int, parts: int = 1):
        super().__init__()
        inputs, outputs = parts * inputs, parts * outputs
        up = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": parts, "bias": False}
        self.branch = nn.Sequential(
            norm_act(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, groups=parts, bias=False),
            norm_act(outputs),
            nn.ConvTranspose2d(outputs, outputs, **up),
        )
        self.shortcut = nn.ConvTranspose2d(inputs, outputs, **up)

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, H, W) -> (B, outputs, 2H, 2W), of every part
        return self.branch(x) + self.shortcut(x)


class ResBlock(nn.Module):
    """x + (norm, act, 3x3, norm, act, 3x3)."""

    def __init__(self, features: int):
        super().__init__()
        self.branch = nn.Sequential(
            norm_act(features),
            nn.Conv2d(features, features, 3, padding=1, bias=False),
            norm_act(features),
            nn.Conv2d(features, features, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def flow_levels(height: int, width: int) -> int:
    """Five halvings as GFLA's flow net, fewer where the smallest map would be a single cell, which has no
    instance norm.
    """
    return min(5, min(height, width).bit_length() - 2)


class Hourglass(nn.Module):
    """Pose maps down to 1/2^levels and back up to 1/4, with skip additions: GFLA's PoseFlowNet without its
    heads.

    forward: (B, inputs, H, W) -> {8: (B, widths[8], H/8, W/8), 4: (B, widths[4], H/4, W/4)}. `inputs` listed part by
    part makes as many networks side by side.
    """

    def __init__(self, inputs: int | Sequence[int], base: int, levels: int, largest: int):
        super().__init__()
        parts = 1 if isinstance(inputs, int) else len(inputs)
        width = [inputs] + [min(base * 2**level, largest) for level in range(levels)]  # width[k] at 1/2^k
        self.widths = {4: width[2], 8: width[3]}  # of one part
        self.down = nn.ModuleList(DownBlock(width[k], width[k + 1], first=k == 0, parts=parts) for k in range(levels))
        self.up = nn.ModuleList(UpBlock(width[k], width[k - 1], parts) for k in range(levels, 2, -1))
        self.skip = nn.ModuleList(
            nn.Sequential(nn.LeakyReLU(0.2), side_by_side((width[k - 1],) * parts, width[k - 1], 3, padding=1))
            for k in range(levels, 2, -1)
        )

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        encoded = []
        for down in self.down:
            x = down(x)
            encoded.append(x)
        decoded = {}
        for step, (up, skip) in enumerate(zip(self.up, self.skip, strict=True)):
            level = len(self.down) - 1 - step
            x = up(x) + skip(encoded[level - 1])
            decoded[2**level] = x
        return {stride: decoded[stride] for stride in (8, 4)}


class HybridDilatedConv(nn.Sequential):
    """HDCB, SPIG equations 4 and 5: sequential 3x3 convolutions with dilation 1 then 2, resolution and width
    kept.

    No norm between them: it would erase the part's colour, and two layers do not need it.
    """

    def __init__(self, features: int, parts: int = 1, rates: tuple[int, ...] = (1, 2)):
        layers = []
        for rate in rates:
            convolution = nn.Conv2d(parts * features, parts * features, 3, padding=rate, dilation=rate, groups=parts)
            layers += [convolution, nn.LeakyReLU(0.2)]
        super().__init__(*layers)


class NonLocal2d(nn.Module):
    """Standard non-local operation: R = softmax(theta(x)^T phi(x)), y = R g(x), then 1x1 back to C channels.

    forward: x (B, C, h, w) -> y (B, C, h, w) and R (B, hw, hw) float32, rows sum to 1. The last 1x1 starts at
    zero, so that a network begins as if the block were absent.
    """

    def __init__(self, features: int):
        super().__init__()
        inner = features // 2
        self.theta = nn.Conv2d(features, inner, 1)
        self.phi = nn.Conv2d(features, inner, 1, bias=False)  # a bias shifts a whole row of logits: softmax cancels it
        self.g = nn.Conv2d(features, inner, 1, bias=False)  # rows sum to 1: a bias here is one of `out`
        self.out = nn.Conv2d(inner, features, 1)
        self.reset_output()

    def reset_output(self) -> None:
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        theta, phi, g = (conv(x).flatten(2) for conv in (self.theta, self.phi, self.g))  # (B, C/2, hw)
        with full_precision(x):
            relation = torch.softmax(theta.float().transpose(1, 2) @ phi.float(), dim=-1)  # (B, hw, hw)
        y = (g @ relation.transpose(1, 2).to(g.dtype)).unflatten(2, x.shape[-2:])
        return self.out(y), relation


class PyramidNonLocal(nn.Module):
    """PNB, SPIG equation 7: max-pool to each size, non-local at that size, upsample, add to the input.

    forward: x (B, C, H, W) -> the same shape, and the relation maps {size: (B, size^2, size^2)}.
    """

    def __init__(self, features: int, sizes: tuple[int, ...] = (4, 6)):
        super().__init__()
        self.sizes = sizes
        self.blocks = nn.ModuleList(NonLocal2d(features) for _ in sizes)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        total, relations = x, {}
        for size, block in zip(self.sizes, self.blocks, strict=True):
            y, relations[size] = block(F.adaptive_max_pool2d(x, size))
            total = total + F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return total, relations


class DiscriminatorBlock(nn.Module):
    """Halve the resolution: act, 3x3, act, 4x4 stride 2, plus average pooling and 1x1. Spectral norm, no other
    norm.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.enter = NormedConv2d(inputs, hidden, 3, padding=1)
        self.halve = NormedConv2d(hidden, outputs, 4, stride=2, padding=1)
        self.shortcut = NormedConv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, enter: Tensor, halve: Tensor, shortcut: Tensor) -> Tensor:
        """x (B, inputs, H, W), the weights of the three -> (B, outputs, H/2, W/2)."""
        branch = self.enter(F.leaky_relu(x, 0.1), enter)
        return self.halve(F.leaky_relu(branch, 0.1), halve) + self.shortcut(F.avg_pool2d(x, 2), shortcut)


class PatchDiscriminator(nn.Module):
    """GFLA's residual discriminator: image (B, 3, H, W) -> one logit per patch (B, 1, H/2^levels, W/2^levels).

    32 to 128 channels, 4 levels for images of 256 pixels, 3 below. Unconditional, as in SPIG's equation 12.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0):
        super().__init__()
        levels = 4 if min(height, width) >= 256 else 3
        count = [channels(min(32 * 2**level, 128), scale) for level in range(levels)]
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(before, hidden, after)
            for before, hidden, after in [(3, count[0], count[0]), *((a, a, b) for a, b in pairwise(count))]
        )
        self.judge = NormedConv2d(count[-1], 1, 1)
        # Spectral norm divides the initial gain out, but not Adam's step relative to it.
        self.apply(orthogonal)
        self.norm = SpectralNorm([one for one in self.modules() if isinstance(one, NormedConv2d)])

    def forward(self, image: Tensor) -> Tensor:
        x, weights = image, self.norm()
        for k, block in enumerate(self.blocks):
            x = block(x, *weights[3 * k : 3 * k + 3])
        return self.judge(F.leaky_relu(x, 0.1), weights[-1])
