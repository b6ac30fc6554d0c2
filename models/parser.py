"""A small human parser: from an image and its joints to scores of the LIP-20 labels.

An FPN-like decoder on SqueezeNet 1.1 (torchvision's `squeezenet1_1().features`, trained on ImageNet). Wherever this
project parses an image, its joints are known, and they tell what pixels alone do not: which arm is the left one, and
which of two people is meant. They enter the decoder as maps at strides 16, 8 and 4, made on the device from
coordinates. 1.8 M parameters; a 256 x 128 image takes about 0.75 GMAC.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.features import MEAN, STD, squeezenet1_1_layers
from models.layers.pose_maps import JOINTS, heatmaps

LABELS = 20
STRIDE = 16  # image sides are multiples of it
TAPS = {"1": 64, "4": 128, "7": 256, "12": 512}  # layer of the encoder (strides 2, 4, 8, 16) -> its channels
# Arms and legs (OpenPose-18): right upper arm, right forearm, left ..., right thigh, right shin, left ...
LIMBS = ((2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13))
MAPS = JOINTS + len(LIMBS)


def pose_maps(joints: Tensor, valid: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Gaussians on 18 joints and along 8 limbs: joints (B, 18, 2) in image pixels (centres at integers), valid (B, 18)
    bool -> (B, 26, height / stride, width / stride) float32 in [0, 1].

    The standard deviation is one cell, at stride 4 it is 1.5 cells. The maps of a missing joint and of its limbs are
    zero.
    """
    rows, columns, sigma = height // stride, width // stride, 1.5 if stride == 4 else 1.0
    cells = (torch.where(valid.unsqueeze(-1), joints.float(), 0.0) + 0.5) / stride - 0.5
    points = heatmaps(cells, valid, rows, columns, sigma)
    ends = torch.tensor(LIMBS, device=joints.device)
    start, along = cells[:, ends[:, 0]], cells[:, ends[:, 1]] - cells[:, ends[:, 0]]  # (B, L, 2)
    x = torch.arange(columns, device=joints.device) - start[..., :1]  # (B, L, w)
    y = torch.arange(rows, device=joints.device) - start[..., 1:]  # (B, L, h)
    # Distance of every cell to the segment: the nearest of its points lies at share t of the way.
    dot = (y * along[..., 1:]).unsqueeze(-1) + (x * along[..., :1]).unsqueeze(-2)
    t = (dot / along.square().sum(-1).clamp(min=1e-6)[..., None, None]).clamp(0, 1)
    off_x = x.unsqueeze(-2) - t * along[..., 0, None, None]
    off_y = y.unsqueeze(-1) - t * along[..., 1, None, None]
    both = valid[:, ends].all(-1)[..., None, None]
    limbs = torch.exp(-(off_x.square() + off_y.square()) / (2 * sigma**2)) * both
    return torch.cat([points, limbs], dim=1)


class Block(nn.Module):
    """3 x 3 (or 1 x 1) convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class Parser(nn.Module):
    """forward(images, joints, valid): (B, 3, H, W) uint8 or float 0..255 RGB, H and W multiples of 16; (B, 18, 2)
    pixels; (B, 18) bool -> logits (B, 20, H/2, W/2). Cell j is centred on pixel 2 j + 0.5.
    """

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*squeezenet1_1_layers())
        widths = {"12": 160, "7": 96, "4": 64, "1": 40}
        self.lateral = nn.ModuleDict({tap: Block(TAPS[tap], width, 1) for tap, width in widths.items()})
        self.pose = nn.ModuleDict({tap: nn.Conv2d(MAPS, widths[tap], 1) for tap in ("12", "7", "4")})
        self.down = nn.ModuleDict(
            {"7": Block(160, 96, 1), "4": Block(96, 64, 1), "1": Block(64, 40, 1)}
        )  # to the next finer level's channels
        self.mix = nn.ModuleDict(
            {
                "12": nn.Sequential(Block(160, 160), Block(160, 160), Block(160, 160)),
                "7": nn.Sequential(Block(96, 96), Block(96, 96)),
                "4": nn.Sequential(Block(64, 64), Block(64, 64)),
                "1": Block(40, 40),
            }
        )
        self.classify = nn.Conv2d(40, LABELS, 1)
        # pixels to ImageNet's scale
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, joints: Tensor, valid: Tensor) -> Tensor:
        height, width = images.shape[2:]
        x = F.pad((images - self.mean) / self.std, (1, 1, 1, 1), mode="replicate")  # the first convolution does not pad
        taps = {}
        for name, layer in self.features.named_children():
            x = layer(x)
            if name in TAPS:
                taps[name] = self.lateral[name](x)
        x = None
        for tap, stride in (("12", 16), ("7", 8), ("4", 4), ("1", 2)):
            level = taps[tap]
            if x is not None:
                level = level + F.interpolate(self.down[tap](x), scale_factor=2.0, mode="nearest")
            if tap in self.pose:
                level = level + self.pose[tap](pose_maps(joints, valid, height, width, stride))
            x = self.mix[tap](level)
        return self.classify(x)
