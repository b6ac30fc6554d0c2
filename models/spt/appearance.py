"""H_A, the appearance generator of SPT (Song et al., CVPR 2019), as in the authors' released code.

Two encoders, one for the source (image, parsing, pose) and one for the target (parsing, pose), and a decoder with
deformable skips from both (models/layers/deformable.py). At 256 pixels this network works at half the size, and a local
enhancer adds detail at full size. Parsing is (B, 10, H, W), one-hot.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import channels
from models.layers.deformable import (
    DECODER,
    ENCODER,
    HALVINGS,
    WARPED,
    Decoder,
    Encoder,
    PartWarp,
    Pose,
    ToImage,
    down,
    join,
    up,
)
from models.layers.losses import widen
from models.layers.pose_maps import JOINTS, heatmaps

LABELS = 10  # SPT's, background first


def large(height: int, width: int) -> bool:
    """Whether the global network works at half the size. Raises ValueError for sizes that do not halve evenly."""
    half = min(height, width) >= 256
    unit = 2 ** (HALVINGS + half)
    if height % unit or width % unit:
        raise ValueError(f"SPT needs image sides that are multiples of {unit}, not {height} x {width}")
    return half


def initialise(module: nn.Module) -> None:
    """Normal weights of deviation 0.02, zero biases, as in the released code."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class LocalEnhancer(nn.Module):
    """Adds detail at full size for images of 256 pixels: half as wide, one scale deep."""

    def __init__(self, appearance: int, pose: int, scale: float):
        super().__init__()
        fine, coarse, width = channels(32, scale), channels(64, scale), channels(DECODER[-1], scale)
        self.appearance = nn.ModuleList([nn.Conv2d(appearance, fine, 3, padding=1), down(fine, coarse)])
        self.pose = nn.ModuleList([nn.Conv2d(pose, fine, 3, padding=1), down(fine, coarse)])
        self.up = up(width + 2 * channels(ENCODER[0], scale), coarse)
        self.image = ToImage(coarse + 2 * fine)


class Stream(NamedTuple):
    """What one of the two encoders makes of a person; each tensor's first dimension is the people."""

    features: list[Tensor]  # six, finest first
    fine: Tensor | None  # the local enhancer's at full size, (B, 32, H, W)

    def split(self, ways: int) -> list["Stream"]:
        """Those of the first, the second, ... of so many stacked groups of people."""
        features = list(zip(*(x.chunk(ways) for x in self.features), strict=True))
        fine = [None] * ways if self.fine is None else self.fine.chunk(ways)
        return [Stream(list(some), one) for some, one in zip(features, fine, strict=True)]


class AppearanceGenerator(nn.Module):
    """`paint` what `source` and `target` make of the two sides. With `parsing=False` all parsings are None.

    height, width: multiples of 32, of 64 from 256 pixels on; scale: width multiplier. From 256 pixels on: `fade`, saved
    with the weights, is the local enhancer's share of the image, 0 to 1; `alone` says that this share is 0, so that
    the enhancer is not computed at all. It then gets no gradient, rather than one of 0 that Adam would learn from.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0, parsing: bool = True):
        super().__init__()
        labels = LABELS - 1 if parsing else 0  # the background is what no other label is
        appearance, pose = 3 + labels + JOINTS, labels + JOINTS
        self.appearance, self.pose = Encoder(appearance, scale), Encoder(pose, scale)
        self.decoder = Decoder(scale, nn.Dropout2d)
        self.image = ToImage(channels(DECODER[-1], scale) + 2 * channels(ENCODER[0], scale))
        self.local = None
        self.alone = False
        if large(height, width):
            self.local = LocalEnhancer(appearance, pose, scale)
            self.register_buffer("fade", torch.ones(()))
        self.apply(initialise)

    @property
    def strides(self) -> tuple[int, ...]:
        """The sizes at which it looks at image, parsing and pose."""
        return (1,) if self.local is None else (2,) if self.alone else (1, 2)

    def heatmaps(self, pose: Pose, height: int, width: int) -> dict[int, Tensor]:
        """By stride, (B, 18, H / stride, W / stride); the Gaussians have the same width in cells at every stride."""
        joints, valid = pose
        return {
            stride: heatmaps((joints + 0.5) / stride - 0.5, valid, height // stride, width // stride)
            for stride in self.strides
        }

    def warp(self, source: Pose, target: Pose, height: int, width: int) -> PartWarp:
        levels = tuple(self.strides[-1] * 2**level for level in range(WARPED))
        return PartWarp.of(source, target, height, width, (*self.strides[:-1], *levels))

    def source(self, image: Tensor, parsing: Tensor | None, maps: dict[int, Tensor]) -> Stream:
        return self._stream(self.appearance, "appearance", [image], parsing, maps)

    def target(self, parsing: Tensor | None, maps: dict[int, Tensor]) -> Stream:
        return self._stream(self.pose, "pose", [], parsing, maps)

    def _stream(
        self, encoder: Encoder, name: str, images: list[Tensor], parsing: Tensor | None, maps: dict[int, Tensor]
    ) -> Stream:
        def inputs(stride: int) -> Tensor:
            """Images are averaged, of a parsing every second pixel is taken, as in the released code."""
            shrunk = [F.avg_pool2d(widen(x), stride) if stride > 1 else x for x in images]
            labels = [] if parsing is None else [parsing[:, 1:, ::stride, ::stride]]
            return torch.cat([*shrunk, *labels, maps[stride]], dim=1)

        coarse = self.strides[-1]
        if self.local is None or self.alone:
            return Stream(encoder(inputs(coarse)), None)
        enter, halve = getattr(self.local, name)
        fine = enter(inputs(1))
        return Stream(encoder(inputs(coarse), halve(fine), self.fade), fine)

    def paint(self, source: Stream, target: Stream, warp: PartWarp) -> Tensor:
        """Image (B, 3, H, W) in [-1, 1]."""
        skips = join(source.features, target.features, warp)
        coarse = torch.cat([self.decoder(skips), skips[0]], dim=1)  # (B, 128 + 64 + 64, H, W), or of half the size
        if self.local is None:
            return self.image(coarse)
        image = self.image(F.interpolate(coarse, scale_factor=2))
        if self.alone:
            return image
        x = torch.cat([self.local.up(coarse), warp(source.fine), target.fine], dim=1)
        return self.fade * self.local.image(x) + (1 - self.fade) * image
