"""The losses of SPT (Song et al., CVPR 2019): discriminators, face crops, styles of regions.

As in the authors' released code, adversaries have least-squares losses, and errors are squared and averaged over
elements.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.affine_flow import rectangles
from models.layers.blocks import channels, full_precision
from models.layers.losses import widen
from models.spt.appearance import initialise

HEAD = 1  # its index among the body parts


class PatchDiscriminator(nn.Module):
    """pix2pix's 70x70 PatchGAN, instance norm without weights: (B, inputs, H, W) -> patches' scores (B, 1, h, w)."""

    def __init__(self, inputs: int, scale: float = 1.0):
        super().__init__()
        c1, c2, c3, c4 = (channels(base, scale) for base in (64, 128, 256, 512))

        def block(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:  # no bias: the norm cancels it
            conv = nn.Conv2d(inputs, outputs, 4, stride, 1, bias=False)
            return conv, nn.InstanceNorm2d(outputs), nn.LeakyReLU(0.2)

        self.enter = nn.Sequential(nn.Conv2d(inputs, c1, 4, 2, 1), nn.LeakyReLU(0.2))
        self.judge = nn.Sequential(*block(c1, c2, 2), *block(c2, c3, 2), *block(c3, c4, 1), nn.Conv2d(c4, 1, 4, 1, 1))
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(self.enter(x))


class FaceDiscriminator(PatchDiscriminator):
    """D_F: a PatchGAN whose first layer is a blend, by `fade` in [0, 1], of one at half size and one at full size."""

    def __init__(self, scale: float = 1.0):
        super().__init__(3, scale)
        self.enter_full = nn.Sequential(nn.Conv2d(3, channels(64, scale), 4, 2, 1), nn.LeakyReLU(0.2))
        self.apply(initialise)

    def forward(self, x: Tensor, fade: Tensor) -> Tensor:
        half = self.enter(F.avg_pool2d(x, 2))
        full = F.avg_pool2d(self.enter_full(x), 2)
        return self.judge((1 - fade) * half + fade * full)


def squared_error(first: Tensor, second: Tensor) -> Tensor:
    return (widen(first) - widen(second)).square().mean()


def face_crops(images: Tensor, joints: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The square around the head, 0.4 torso lengths to each side of the mean of nose, eyes and ears, enlarged to the
    image's size: (B, 3, H, W) -> crops (B, 3, H, W), zero beyond the image, and whether there is a head, (B,) bool.

    Bilinear; gradients reach the images.
    """
    height, width = images.shape[-2:]
    with full_precision(images):
        images = widen(images)
        square, present = (part[:, HEAD] for part in rectangles(joints.to(images.dtype), valid))  # (B, 2, 3), (B,)
        size = images.new_tensor([width, height]).view(2, 1)
        # affine_grid runs from -1 to 1 over the crop, the square's own frame from 0 to 1; pixel centres at integers.
        edges, corner = square[..., :2], square[..., 2:]
        middle = corner + edges.sum(-1, keepdim=True) / 2
        theta = torch.cat([edges / size, (2 * middle + 1) / size - 1], dim=-1)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False), present


def region_grams(features: Tensor, masks: Tensor) -> Tensor:
    """Features (B, C, h, w) times each mask (B, R, h, w) -> Gram matrices over h w, (B, R, C, C)."""
    with full_precision(features):
        features, masks = widen(features).flatten(2).unsqueeze(1), widen(masks).flatten(2).unsqueeze(2)
        masked = features * masks  # (B, R, C, hw)
        return masked @ masked.transpose(2, 3) / masked.shape[-1]


def shrink(masks: Tensor, features: Tensor) -> Tensor:
    """Masks (B, R, H, W) averaged to the cells of features (B, C, h, w)."""
    return F.adaptive_avg_pool2d(widen(masks), features.shape[-2:])


def common(first: Tensor, second: Tensor) -> Tensor:
    """Whether a region is in both, (B, R, h, w) twice -> (B, R, 1, 1): the product of the two masks' peaks. It has no
    gradient: hiding a region must not lower the style loss.
    """
    return (first.amax((2, 3), keepdim=True) * second.amax((2, 3), keepdim=True)).detach()


def style(first: Tensor, second: Tensor, gate: Tensor) -> Tensor:
    """Mean squared difference of the regions' Gram matrices (B, R, C, C), weighed by `gate` (B, R, 1, 1)."""
    return (gate * (first - second)).square().mean()
