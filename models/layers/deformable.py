"""The encoders, the decoder and the deformable skips of Deformable GANs (Siarohin et al., CVPR 2018), which SPT took
over: two encoders, one of the source and one of the target, and a decoder with skips from both, of which the source's
are moved to the target's pose at the four finest scales, part by part (affine_flow.py).

Poses are joints (B, 18, 2) in pixels and valid (B, 18) bool.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import affine_flow
from models.layers.blocks import channels, full_precision
from models.layers.losses import widen

# Channels of images up to 128 pixels; `deeper` adds as many halvings to 512 channels at the coarse end.
ENCODER = (64, 128, 256, 512, 512, 512)
DECODER = (512, 512, 512, 256, 128)
DEEPEST = ENCODER[-1]
WARPED = 4  # scales whose skips are deformed
HALVINGS = len(ENCODER) - 1
Dropout = Callable[[float], nn.Module]  # from the share that it drops


class Pose(NamedTuple):
    joints: Tensor  # (B, 18, 2)
    valid: Tensor  # (B, 18) bool


def stacked(*poses: Pose) -> Pose:
    """Poses of B people each, one after the other: what follows for all of them is computed at once."""
    return Pose(torch.cat([pose.joints for pose in poses]), torch.cat([pose.valid for pose in poses]))


class WholeImageNorm(torch.autograd.Function):
    """w (x - mean) / sqrt(variance + 1e-3) + b, mean and variance over all of an image's features.

    As sums over the image, in whatever layout it has; on a GPU many blocks share them, where PyTorch's layer norm gives
    each image to one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        centred = x - x.mean((1, 2, 3), keepdim=True)
        inverse = (centred.square().mean((1, 2, 3), keepdim=True) + 1e-3).rsqrt()
        scale = inverse * weight
        ctx.save_for_backward(centred, inverse, scale)
        return torch.addcmul(bias, centred, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """With the normalised y: (g - mean(g) - y mean(g y)) scale, sum(g y), sum(g)."""
        centred, inverse, scale = ctx.saved_tensors
        total = gradient.sum((1, 2, 3), keepdim=True)
        along = (gradient * centred).sum((1, 2, 3), keepdim=True) * inverse
        share = scale / -centred[0].numel()
        through = torch.addcmul(total * share, centred, along * inverse * share).addcmul_(gradient, scale)
        return through, along.sum(), total.sum()


class LayerNorm(nn.Module):
    """(B, C, H, W) to mean 0 and deviation 1 over all of an image's features at once, then one learned scale and shift.

    In SPT's released code it is a 3D instance norm with the features as the only channel. PyTorch's layer norm is the
    quicker way on a CPU, 1.3 to 2 times for forward and backward, if an image's features lie as it reads them.
    """

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x, shape = widen(x), x.shape[1:]
        if x.is_cuda or not x.is_contiguous():
            return WholeImageNorm.apply(x, self.weight, self.bias)
        return F.layer_norm(x, shape, self.weight.expand(shape), self.bias.expand(shape), eps=1e-3)


def down(inputs: int, outputs: int, norm: bool = True) -> nn.Sequential:
    """LeakyReLU, 4x4 of stride 2, norm: (B, inputs, H, W) -> (B, outputs, H/2, W/2)."""
    conv = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
    return nn.Sequential(nn.LeakyReLU(0.2), conv, LayerNorm() if norm else nn.Identity())


def up(inputs: int, outputs: int, dropout: Dropout | None = None) -> nn.Sequential:
    """ReLU, transposed 4x4 of stride 2, norm, dropout: (B, inputs, H, W) -> (B, outputs, 2H, 2W)."""
    conv = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
    return nn.Sequential(nn.ReLU(), conv, LayerNorm(), dropout(0.5) if dropout else nn.Identity())


class ToImage(nn.Module):
    """ReLU, 3x3, tanh: (B, inputs, H, W) -> (B, 3, H, W) in [-1, 1]. The tanh is float32's, whatever autocast says: in
    bfloat16 its gradient is 0 from 3.5 on.
    """

    def __init__(self, inputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.relu(x))
        with full_precision(x):
            return widen(x).tanh()


class Encoder(nn.Module):
    """(B, inputs, H, W) -> six features and `deeper` more, (B, ENCODER[k], H/2^k, W/2^k).

    `finer` (B, 64, H, W), from SPT's local enhancer, replaces the share `fade` of the first.
    """

    def __init__(self, inputs: int, scale: float, deeper: int = 0):
        super().__init__()
        widths = [channels(width, scale) for width in ENCODER + (DEEPEST,) * deeper]
        last = len(widths) - 1
        self.enter = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.down = nn.ModuleList(down(widths[k], widths[k + 1], norm=k + 1 < last) for k in range(last))

    def forward(self, x: Tensor, finer: Tensor | None = None, fade: Tensor | None = None) -> list[Tensor]:
        x = self.enter(x)
        if finer is not None:
            x = (1 - fade) * x + fade * finer
        features = [x]
        for block in self.down:
            features.append(block(features[-1]))
        return features


class Decoder(nn.Module):
    """Skips, finest first, each (B, 2 * ENCODER[k], H/2^k, W/2^k) -> (B, 128, H, W). dropout: of half, after each of
    the first three blocks.
    """

    def __init__(self, scale: float, dropout: Dropout | None = None, deeper: int = 0):
        super().__init__()
        skips = [2 * channels(width, scale) for width in (DEEPEST,) * deeper + ENCODER[::-1]]
        widths = [channels(width, scale) for width in (DEEPEST,) * deeper + DECODER]
        inputs = [skips[0], *(before + skip for before, skip in zip(widths[:-1], skips[1:-1], strict=True))]
        self.blocks = nn.ModuleList(
            up(before, after, dropout if k < 3 else None)
            for k, (before, after) in enumerate(zip(inputs, widths, strict=True))
        )

    def forward(self, skips: list[Tensor]) -> Tensor:
        x = self.blocks[0](skips[-1])
        for block, skip in zip(self.blocks[1:], skips[-2:0:-1], strict=True):
            x = block(torch.cat([x, skip], dim=1))
        return x


def centres(cells: int, pixels: int, like: Tensor) -> Tensor:
    """Where the centres of so many cells lie on an edge of so many pixels, from 0 to `pixels`: (cells,)."""
    return (torch.arange(cells, device=like.device, dtype=like.dtype) + 0.5) * (pixels / cells)


def sampling(maps: Tensor, height: int, width: int) -> Tensor:
    """Affine maps (..., 2, 3) between edges-at-0 coordinates in pixels as maps to those of grid_sample, -1 to 1."""
    across, along = maps.unbind(-2)
    linear, shift = torch.stack([across * (2 / width), along * (2 / height)], dim=-2).split((2, 1), dim=-1)
    return torch.cat([linear, shift - 1], dim=-1)


class PartWarp:
    """Moves a source's features to a target's pose: each of the ten parts by its affine map, multiplied by the part's
    mask in the target, then the maximum over parts. Wherever some part's mask is zero, the result is not negative.

    The torso's mask is the whole image, as in the released code. A part without a map gives zeros, and so do all parts
    of a pose that lacks a shoulder or a hip. Made for images of height x width; `levels`: by a feature's height, where
    to sample it (B, 10 h, w, 2), the parts one below the other, and the masks (B, 1, 10, h, w).
    """

    def __init__(self, levels: dict[int, tuple[Tensor, Tensor]]):
        self.levels = levels

    @classmethod
    def of(cls, source: Pose, target: Pose, height: int, width: int, strides: tuple[int, ...]) -> "PartWarp":
        with full_precision(source.joints), torch.no_grad():
            source, target = source._replace(joints=widen(source.joints)), target._replace(joints=widen(target.joints))
            maps, given, _ = affine_flow.affine_maps(*target, *source)
            masks = affine_flow.place(*target, height, width)[1].to(maps.dtype)
            masks[:, 0] = 1.0
            masks = masks * given[..., None, None]  # (B, 10, height, width)
            linear, shift = maps.split((2, 1), dim=-1)
            shift = shift + 0.5 * (1 - linear.sum(-1, keepdim=True))  # from pixel centres to edges at whole numbers
            maps = sampling(torch.cat([linear, shift], dim=-1), height, width)
            levels = {}
            for stride in strides:
                h, w = height // stride, width // stride
                places = centres(w, width, maps), centres(h, height, maps).unsqueeze(-1)
                there = affine_flow.apply(maps, places).permute(0, 1, 3, 4, 2).flatten(1, 2)
                smaller = (
                    F.interpolate(masks, size=(h, w), mode="bilinear", align_corners=False) if stride > 1 else masks
                )
                levels[h] = there, smaller.unsqueeze(1)
        return cls(levels)

    def split(self, ways: int) -> list["PartWarp"]:
        """Those of the first, the second, ... of so many stacked groups of people."""
        halves = {h: [x.chunk(ways) for x in level] for h, level in self.levels.items()}
        return [PartWarp({h: (there[k], masks[k]) for h, (there, masks) in halves.items()}) for k in range(ways)]

    def __call__(self, features: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h, w)
        height = features.shape[-2]
        there, masks = self.levels[height]
        with full_precision(features):
            features = widen(features)
            moved = F.grid_sample(features, there.to(features.dtype), align_corners=False)
            return (moved.unflatten(2, (-1, height)) * masks).amax(2)


def join(appearance: list[Tensor], pose: list[Tensor], warp: PartWarp) -> list[Tensor]:
    """The decoder's skips: both encoders' features side by side, the appearance's moved at the finest scales."""
    moved = [warp(x) if level < WARPED else x for level, x in enumerate(appearance)]
    return [torch.cat(pair, dim=1) for pair in zip(moved, pose, strict=True)]
