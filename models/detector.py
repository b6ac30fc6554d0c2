"""A small heatmap joint detector, to re-detect joints on generated images where no published detector fits
the data.

Trained on a data set's own training images. Its PCKh on real test images is its ceiling and belongs beside
every number made with it. An image goes in at full size, 18 maps come out at 1/4; a map's peak is 1 at a
joint and 0 where it is missing.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import Batch, channels
from models.pose_maps import JOINTS, heatmaps

STRIDE = 4
SIGMA = 1.5  # in cells: 6 px in the image, the field's heatmap
THRESHOLD = 0.3  # a peak below this is no joint: halfway between "absent" (0) and a blurred but present one (0.6)


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class JointDetector(nn.Module):
    """U-Net from 1/2 down to 1/16 and back to 1/4. forward: image (B, 3, H, W) in [-1, 1] -> maps (B, 18,
    H/4, W/4).
    """

    def __init__(self, scale: float = 1.0):
        super().__init__()
        c2, c4, c8, c16 = (channels(base, scale) for base in (24, 48, 96, 128))
        self.stem = conv_block(3, c2, 2)
        self.down4 = nn.Sequential(conv_block(c2, c4, 2), conv_block(c4, c4))
        self.down8 = nn.Sequential(conv_block(c4, c8, 2), conv_block(c8, c8))
        self.down16 = nn.Sequential(conv_block(c8, c16, 2), conv_block(c16, c16))
        self.up8 = conv_block(c16 + c8, c8)
        self.up4 = conv_block(c8 + c4, c4)
        self.head = nn.Conv2d(c4, JOINTS, 1)

    def forward(self, image: Tensor) -> Tensor:
        x4 = self.down4(self.stem(image))
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        x8 = self.up8(torch.cat([F.interpolate(x16, size=x8.shape[-2:]), x8], dim=1))
        x4 = self.up4(torch.cat([F.interpolate(x8, size=x4.shape[-2:]), x4], dim=1))
        return self.head(x4)


def target_maps(joints: Tensor, valid: Tensor, height: int, width: int) -> Tensor:
    """What the maps should be: joints (B, 18, 2) in image pixels -> (B, 18, height/4, width/4)."""
    cells = (joints + 0.5) / STRIDE - 0.5
    return heatmaps(cells, valid, height // STRIDE, width // STRIDE, SIGMA)


def decode(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (B, 18, h, w) -> joints (B, 18, 2) in image pixels and peak scores (B, 18).

    A score below THRESHOLD means missing; the caller drops the joint. The position is the largest cell,
    refined in each direction by the parabola through the logarithms of it and its two neighbours, which is
    exact for a Gaussian. Cells at the border stay unrefined across it.
    """
    maps = maps.float()
    height, width = maps.shape[-2:]
    scores, index = maps.flatten(2).max(-1)
    y, x = index // width, index % width
    logs = F.pad(maps.clamp(min=1e-6).log(), (1, 1, 1, 1), mode="replicate").flatten(2)

    def at(dy: int, dx: int) -> Tensor:
        return logs.gather(2, ((y + 1 + dy) * (width + 2) + x + 1 + dx).unsqueeze(-1)).squeeze(-1)

    def refine(before: Tensor, after: Tensor, position: Tensor, length: int) -> Tensor:
        curvature = before - 2 * at(0, 0) + after
        offset = 0.5 * (before - after) / curvature.clamp(max=-1e-6)
        inner = (position > 0) & (position < length - 1)
        return position + torch.where(inner, offset.clamp(-0.5, 0.5), 0.0)

    column = refine(at(0, -1), at(0, 1), x, width)
    row = refine(at(-1, 0), at(1, 0), y, height)
    cells = torch.stack([column, row], dim=-1)
    return (cells + 0.5) * STRIDE - 0.5, scores


class DetectorObjective:
    """Mean squared error on both images of each pair. networks: detector. Terms: heatmap."""

    def __init__(self, detector: JointDetector, weights: Mapping[str, float]):
        self.detector = detector
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"detector": self.detector}

    def generator_losses(self, batch: Batch, features: None = None) -> tuple[dict[str, Tensor], None]:
        images = torch.cat([batch.source, batch.target])
        joints = torch.cat([batch.source_joints, batch.target_joints])
        valid = torch.cat([batch.source_valid, batch.target_valid])
        maps = target_maps(joints, valid, *images.shape[-2:])
        return {"heatmap": self.weights["heatmap"] * F.mse_loss(self.detector(images).float(), maps)}, None

    def discriminator_losses(self, batch: Batch, output: None) -> dict[str, Tensor]:
        return {}
