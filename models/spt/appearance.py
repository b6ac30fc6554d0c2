"""H_A, the appearance generator of SPT (Song et al., CVPR 2019), as in the authors' released code.

Two encoders, one for the source (image, parsing, pose) and one for the target (parsing, pose), and a decoder with
skips from both. At the four finest scales the source's features are moved to the target's pose, part by part: the
deformable skips of Siarohin et al. (CVPR 2018). At 256 pixels this network works at half the size, and a local
enhancer adds detail at full size. Parsing is (B, 10, H, W), one-hot or probabilities; pose is joints (B, 18, 2) in
pixels and valid (B, 18) bool.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import affine_flow
from models.layers.blocks import channels, full_precision
from models.layers.losses import widen
from models.layers.pose_maps import JOINTS, heatmaps

Pose = tuple[Tensor, Tensor]  # joints (B, 18, 2), valid (B, 18)

LABELS = 10  # SPT's, background first
ENCODER = (64, 128, 256, 512, 512, 512)
DECODER = (512, 512, 512, 256, 128)
WARPED = 4  # scales whose skips are deformed
HALVINGS = len(ENCODER) - 1


def large(height: int, width: int) -> bool:
    """Whether the global network works at half the size. Raises ValueError for sizes that do not halve evenly."""
    half = min(height, width) >= 256
    unit = 2 ** (HALVINGS + half)
    if height % unit or width % unit:
        raise ValueError(f"SPT needs image sides that are multiples of {unit}, not {height} x {width}")
    return half


class LayerNorm(nn.Module):
    """(B, C, H, W) to mean 0 and deviation 1 over all of an image's features at once, then one learned scale and shift.

    In the released code it is a 3D instance norm with the features as the only channel.
    """

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            return self.weight * F.layer_norm(widen(x), x.shape[1:], eps=1e-3) + self.bias


def down(inputs: int, outputs: int, norm: bool = True) -> nn.Sequential:
    """LeakyReLU, 4x4 of stride 2, norm: (B, inputs, H, W) -> (B, outputs, H/2, W/2)."""
    conv = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
    return nn.Sequential(nn.LeakyReLU(0.2), conv, LayerNorm() if norm else nn.Identity())


def up(inputs: int, outputs: int, dropout: bool = False) -> nn.Sequential:
    """ReLU, transposed 4x4 of stride 2, norm, dropout of channels: (B, inputs, H, W) -> (B, outputs, 2H, 2W)."""
    conv = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
    return nn.Sequential(nn.ReLU(), conv, LayerNorm(), nn.Dropout2d(0.5) if dropout else nn.Identity())


def initialise(module: nn.Module) -> None:
    """Normal weights of deviation 0.02, zero biases, as in the released code."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Encoder(nn.Module):
    """(B, inputs, H, W) -> six features, (B, ENCODER[k], H/2^k, W/2^k).

    `finer` (B, 64, H, W), from the local enhancer, replaces the share `fade` of the first.
    """

    def __init__(self, inputs: int, scale: float):
        super().__init__()
        widths = [channels(width, scale) for width in ENCODER]
        self.enter = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.down = nn.ModuleList(down(widths[k], widths[k + 1], norm=k + 1 < HALVINGS) for k in range(HALVINGS))

    def forward(self, x: Tensor, finer: Tensor | None = None, fade: Tensor | None = None) -> list[Tensor]:
        x = self.enter(x)
        if finer is not None:
            x = (1 - fade) * x + fade * finer
        features = [x]
        for block in self.down:
            features.append(block(features[-1]))
        return features


class Decoder(nn.Module):
    """Skips, finest first, each (B, 2 * ENCODER[k], H/2^k, W/2^k) -> (B, 128, H, W). dropout: each of the first three
    blocks drops half of its channels.
    """

    def __init__(self, scale: float, dropout: bool):
        super().__init__()
        skips = [2 * channels(width, scale) for width in reversed(ENCODER)]
        widths = [channels(width, scale) for width in DECODER]
        inputs = [skips[0], *(before + skip for before, skip in zip(widths[:-1], skips[1:-1], strict=True))]
        self.blocks = nn.ModuleList(
            up(before, after, dropout and k < 3) for k, (before, after) in enumerate(zip(inputs, widths, strict=True))
        )

    def forward(self, skips: list[Tensor]) -> Tensor:
        x = self.blocks[0](skips[-1])
        for block, skip in zip(self.blocks[1:], skips[-2:0:-1], strict=True):
            x = block(torch.cat([x, skip], dim=1))
        return x


class PartWarp:
    """Moves a source's features to a target's pose: each of the ten parts by its affine map, multiplied by the part's
    mask in the target, then the maximum over parts. Wherever some part's mask is zero, the result is not negative.

    The torso's mask is the whole image, as in the released code. A part without a map gives zeros, and so do all parts
    of a pose that lacks a shoulder or a hip. Made for images of height x width.
    """

    def __init__(
        self,
        source_joints: Tensor,
        source_valid: Tensor,
        target_joints: Tensor,
        target_valid: Tensor,
        height: int,
        width: int,
    ):
        self.height = height
        with full_precision(source_joints), torch.no_grad():
            source_joints, target_joints = widen(source_joints), widen(target_joints)
            self.maps, given, _ = affine_flow.affine_maps(target_joints, target_valid, source_joints, source_valid)
            masks = affine_flow.place(target_joints, target_valid, height, width)[1].to(self.maps.dtype)
            masks[:, 0] = 1.0
            self.masks = masks * given[..., None, None]  # (B, 10, height, width)

    def __call__(self, features: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h, w), height / h = width / w
        height, width = features.shape[-2:]
        stride = self.height // height
        with full_precision(features):
            features = widen(features)
            linear, shift = self.maps[..., :2], self.maps[..., 2:]
            middle = (stride - 1) / 2  # cell j is centred on pixel stride * j + middle
            shift = (shift + middle * (linear.sum(-1, keepdim=True) - 1)) / stride
            places = affine_flow.grid(height, width, self.maps)
            there = affine_flow.apply(torch.cat([linear, shift], dim=-1), places)  # (B, 10, 2, h, w) in cells
            size = there.new_tensor([width, height]).view(2, 1, 1)
            there = ((2 * there + 1) / size - 1).permute(0, 1, 3, 4, 2).flatten(1, 2)  # (B, 10 h, w, 2)
            moved = F.grid_sample(features, there.to(features.dtype), align_corners=False)
            masks = F.interpolate(self.masks, size=(height, width), mode="bilinear", align_corners=False)
            return (moved.unflatten(2, (-1, height)) * masks.unsqueeze(1)).amax(2)


def join(appearance: list[Tensor], pose: list[Tensor], warp: PartWarp) -> list[Tensor]:
    """The decoder's skips: both encoders' features side by side, the appearance's moved at the finest scales."""
    moved = [warp(x) if level < WARPED else x for level, x in enumerate(appearance)]
    return [torch.cat(pair, dim=1) for pair in zip(moved, pose, strict=True)]


class LocalEnhancer(nn.Module):
    """Adds detail at full size for images of 256 pixels: half as wide, one scale deep."""

    def __init__(self, appearance: int, pose: int, scale: float):
        super().__init__()
        fine, coarse, width = channels(32, scale), channels(64, scale), channels(DECODER[-1], scale)
        self.appearance = nn.ModuleList([nn.Conv2d(appearance, fine, 3, padding=1), down(fine, coarse)])
        self.pose = nn.ModuleList([nn.Conv2d(pose, fine, 3, padding=1), down(fine, coarse)])
        self.up = up(width + 2 * channels(ENCODER[0], scale), coarse)
        self.image = nn.Sequential(nn.ReLU(), nn.Conv2d(coarse + 2 * fine, 3, 3, padding=1), nn.Tanh())


class AppearanceGenerator(nn.Module):
    """forward -> image (B, 3, H, W) in [-1, 1]. With `parsing=False` both parsings are None.

    height, width: multiples of 32, of 64 from 256 pixels on; scale: width multiplier. `fade`, from 256 pixels on and
    saved with the weights: the local enhancer's share of the image, 0 to 1.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0, parsing: bool = True):
        super().__init__()
        labels = LABELS - 1 if parsing else 0  # the background is what no other label is
        appearance, pose = 3 + labels + JOINTS, labels + JOINTS
        self.appearance, self.pose = Encoder(appearance, scale), Encoder(pose, scale)
        self.decoder = Decoder(scale, dropout=True)
        inputs = channels(DECODER[-1], scale) + 2 * channels(ENCODER[0], scale)
        self.image = nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, 3, 3, padding=1), nn.Tanh())
        self.local = None
        if large(height, width):
            self.local = LocalEnhancer(appearance, pose, scale)
            self.register_buffer("fade", torch.ones(()))
        self.apply(initialise)

    def forward(
        self,
        source: Tensor,
        source_parsing: Tensor | None,
        source_pose: Pose,
        target_parsing: Tensor | None,
        target_pose: Pose,
    ) -> Tensor:
        height, width = source.shape[-2:]
        warp = PartWarp(*source_pose, *target_pose, height, width)

        def inputs(stride: int) -> tuple[Tensor, Tensor]:
            """The two encoders' inputs at a stride; the Gaussians have the same width in cells at every stride."""

            def pose(joints: Tensor, valid: Tensor) -> Tensor:
                return heatmaps((joints + 0.5) / stride - 0.5, valid, height // stride, width // stride)

            def shrunk(x: Tensor | None) -> list[Tensor]:
                return [] if x is None else [F.avg_pool2d(widen(x), stride) if stride > 1 else x]

            foreground = [None if x is None else x[:, 1:] for x in (source_parsing, target_parsing)]
            appearance = [*shrunk(source), *shrunk(foreground[0]), pose(*source_pose)]
            target = [pose(*target_pose), *shrunk(foreground[1])]
            return torch.cat(appearance, dim=1), torch.cat(target, dim=1)

        if self.local is None:
            appearance, pose = inputs(1)
            skips = join(self.appearance(appearance), self.pose(pose), warp)
            return self.image(torch.cat([self.decoder(skips), skips[0]], dim=1))

        fine = []  # [appearance, pose] of [(B, 32, H, W), (B, 64, H/2, W/2)]
        for x, (enter, halve) in zip(inputs(1), (self.local.appearance, self.local.pose), strict=True):
            x = enter(x)
            fine.append([x, halve(x)])
        appearance, pose = inputs(2)
        skips = join(self.appearance(appearance, fine[0][1], self.fade), self.pose(pose, fine[1][1], self.fade), warp)
        coarse = torch.cat([self.decoder(skips), skips[0]], dim=1)  # (B, 128 + 64 + 64, H/2, W/2)
        image = self.image(F.interpolate(coarse, scale_factor=2))
        x = torch.cat([self.local.up(coarse), warp(fine[0][0]), fine[1][0]], dim=1)
        return self.fade * self.local.image(x) + (1 - self.fade) * image
