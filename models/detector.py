"""A small joint detector: it finds the joints of generated images where no published detector fits the data.

It is trained on a data set's own training images. Its PCKh on real test images is the highest that a score measured
with it can reach, and should be quoted beside every such score. It takes an image at full size and returns 18 heatmaps
at a quarter of it, which peak at 1 on a joint and stay at 0 where the joint is missing.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import Batch, channels
from models.layers.pose_maps import JOINTS, heatmaps
from models.layers.schedule import Adam, Component, Phase

STRIDE = 4
SIGMA = 1.5  # in cells: 6 px in the image, the field's heatmap
# A lower peak is no joint: halfway between a missing joint (0) and one that is there but blurred (0.6).
THRESHOLD = 0.3
PEAK_WEIGHT = 10.0


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class JointDetector(nn.Module):
    """An encoder down to 1/16 of the size, and a decoder back up to 1/4 with additive skips.

    forward: image (B, 3, H, W) in [-1, 1], sizes multiples of 16 -> maps (B, 18, H/4, W/4).
    """

    def __init__(self, scale: float = 1.0):
        super().__init__()
        c2, c4, c8, c16 = (channels(base, scale) for base in (24, 48, 96, 128))
        self.down4 = nn.Sequential(conv_block(3, c2, 2), conv_block(c2, c4, 2), conv_block(c4, c4))
        self.down8 = nn.Sequential(conv_block(c4, c8, 2), conv_block(c8, c8))
        self.down16 = nn.Sequential(conv_block(c8, c16, 2), conv_block(c16, c16), conv_block(c16, c16))
        self.lateral8, self.up8 = nn.Conv2d(c16, c8, 1), conv_block(c8, c8)
        self.lateral4, self.up4 = nn.Conv2d(c8, c4, 1), conv_block(c4, c4)
        self.head = nn.Conv2d(c4, JOINTS, 1)

    def forward(self, image: Tensor) -> Tensor:
        x4 = self.down4(image)
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        x8 = self.up8(x8 + F.interpolate(self.lateral8(x16), scale_factor=2))
        x4 = self.up4(x4 + F.interpolate(self.lateral4(x8), scale_factor=2))
        return self.head(x4)


def target_maps(joints: Tensor, valid: Tensor, height: int, width: int) -> Tensor:
    """The maps to learn: joints (B, 18, 2) in image pixels -> (B, 18, height/4, width/4)."""
    cells = (joints + 0.5) / STRIDE - 0.5
    return heatmaps(cells, valid, height // STRIDE, width // STRIDE, SIGMA)


def decode(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (B, 18, h, w) -> joints (B, 18, 2) in image pixels and peak scores (B, 18).

    A score below THRESHOLD means that the joint is missing; dropping it is the caller's job. The position is that of
    the largest cell, refined in each direction by the parabola through the logarithms of this cell and its two
    neighbours, which is exact for a Gaussian. A cell at the border is not refined across it.
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


def heatmap_loss(maps: Tensor, target: Tensor) -> Tensor:
    """Mean squared error with weight 1 + PEAK_WEIGHT * target.

    A joint fills about a dozen of a map's 512 cells: unweighted, the network predicts zero everywhere for hundreds of
    steps.
    """
    return ((maps.float() - target).square() * (1 + PEAK_WEIGHT * target)).mean()


class DetectorObjective:
    """Heatmap error on both images of each pair. networks: detector. Terms: heatmap."""

    def __init__(self, detector: JointDetector, weights: Mapping[str, float]):
        self.detector = detector
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"detector": self.detector}

    def generator_losses(self, batch: Batch, features: None = None) -> tuple[dict[str, Tensor], None]:
        images = torch.cat([batch.source, batch.target])
        joints = torch.cat([batch.source_joints, batch.target_joints])
        valid = torch.cat([batch.source_valid, batch.target_valid])
        target = target_maps(joints, valid, *images.shape[-2:])
        return {"heatmap": self.weights["heatmap"] * heatmap_loss(self.detector(images), target)}, None

    def discriminator_losses(self, batch: Batch, output: None) -> dict[str, Tensor]:
        return {}


COMPONENTS = (
    Component(
        name="detector",
        paper="ours",
        build=lambda height, width, scale: JointDetector(scale),
        objective=lambda net, height, width, scale, weights: DetectorObjective(net, weights),
        phase=Phase(
            generators=("detector",),
            discriminators=(),
            optimisers={"detector": Adam(lr=0.002, betas=(0.9, 0.999))},
            weights={"heatmap": 100.0},
            batch={"market1501": 32, "deepfashion": 16},
            steps={"market1501": 20_000, "deepfashion": 20_000},
        ),
        features=None,
        into=None,
    ),
)
