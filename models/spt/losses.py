"""The losses of SPT (Song et al., CVPR 2019): discriminators, face crops, styles of regions.

As in the authors' released code, errors are squared and averaged over elements.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.affine_flow import apply, rectangles
from models.layers.blocks import channels, full_precision
from models.layers.deformable import Pose, centres, sampling
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
            return conv, nn.GroupNorm(outputs, outputs, affine=False), nn.LeakyReLU(0.2)

        self.enter = nn.Sequential(nn.Conv2d(inputs, c1, 4, 2, 1), nn.LeakyReLU(0.2))
        self.judge = nn.Sequential(*block(c1, c2, 2), *block(c2, c3, 2), *block(c3, c4, 1), nn.Conv2d(c4, 1, 4, 1, 1))
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(self.enter(x))


class FaceDiscriminator(PatchDiscriminator):
    """D_F: a PatchGAN whose first layer is a blend, by `fade` in [0, 1], of one at half size and one at full size. With
    `fade=None` only that at half size is computed.
    """

    def __init__(self, scale: float = 1.0):
        super().__init__(3, scale)
        self.enter_full = nn.Sequential(nn.Conv2d(3, channels(64, scale), 4, 2, 1), nn.LeakyReLU(0.2))
        self.apply(initialise)

    def forward(self, x: Tensor, fade: Tensor | None) -> Tensor:
        half = self.enter(F.avg_pool2d(x, 2))
        if fade is None:
            return self.judge(half)
        full = F.avg_pool2d(self.enter_full(x), 2)
        return self.judge((1 - fade) * half + fade * full)


def logarithmic(scores: Tensor, wanted: float) -> Tensor:
    """The paper's log form: scores (B, C, h, w), as logits of being real -> (B,), each image's mean of -log D where
    `wanted` is 1, of -log(1 - D) where it is 0. A generator that wants 1 has the non-saturating form.
    """
    return F.softplus(-widen(scores) if wanted else widen(scores)).mean((1, 2, 3))


def squared_error(first: Tensor, second: Tensor) -> Tensor:
    return (widen(first) - widen(second)).square().mean()


def face_crops(images: Tensor, pose: Pose) -> tuple[Tensor, Tensor]:
    """The square around the head, 0.4 torso lengths to each side of the mean of nose, eyes and ears, enlarged to the
    image's size: (B, 3, H, W) -> crops (B, 3, H, W), zero beyond the image, and whether there is a head, (B,) bool.

    Bilinear; gradients reach the images.
    """
    height, width = images.shape[-2:]
    with full_precision(images):
        images = widen(images)
        joints = pose.joints.to(images.dtype)
        square, present = (part[:, HEAD] for part in rectangles(joints, pose.valid))  # (B, 2, 3), (B,)
        edges, corner = square.split((2, 1), dim=-1)
        maps = sampling(torch.cat([edges, corner + 0.5], dim=-1), height, width)
        places = centres(width, 1, images), centres(height, 1, images).unsqueeze(-1)  # of the square's own frame
        grid = apply(maps, places).permute(0, 2, 3, 1)
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


def style(features: Tensor, masks: Tensor) -> Tensor:
    """Between an image and the one drawn from it, and between that and the one drawn back: the mean squared difference
    of the regions' Gram matrices, both means added. Features (3 B, C, h, w) and masks (3 B, R, h, w), of three images
    stacked in this order.

    A region's difference is multiplied by the peaks of its mask in both images: it counts where both have it. These
    have no gradient: hiding a region must not lower the loss.
    """
    grams = region_grams(features, masks).unflatten(0, (3, -1))
    peaks = masks.detach().amax((2, 3)).unflatten(0, (3, -1))[..., None, None]
    return 2 * (peaks[1:] * peaks[:-1] * (grams[1:] - grams[:-1])).square().mean()
