"""SPATN, stage one of SPGNet: Learning Semantic Person Image Generation by Region-Adaptive Normalization (Lv et
al., CVPR 2021): the target's parsing from the source's parsing and both poses.

The authors did not release the code of this stage. What their figure and supplement leave open, listed in
docs/papers.md, is as in PATN, on whose pose-attentional blocks it builds.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.layers.blocks import Batch, channels
from models.layers.features import Features
from models.layers.parsing import LABELS, conv_norm, cross_entropy, decoder, encoder
from models.layers.pose_maps import JOINTS, LIMBS, heatmaps, limb_maps, one_hot
from models.layers.schedule import Adam, Component, Phase

BLOCKS = 6
KAPPA = -0.1  # the released code's, per pixel


class PoseAttentionBlock(nn.Module):
    """Semantic-PATB: the pose path says where the semantic path changes.

    forward: semantic (B, C, h, w), pose (B, C or 2C, h, w) -> semantic (B, C, h, w), pose (B, 2C, h, w).
    """

    def __init__(self, features: int, first: bool):
        super().__init__()
        self.semantic = nn.Sequential(conv_norm(features, features, 3), nn.ReLU(), conv_norm(features, features, 3))
        inputs = features if first else 2 * features
        self.pose = nn.Sequential(conv_norm(inputs, features, 3), nn.ReLU(), conv_norm(features, features, 3))

    def forward(self, semantic: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        pose = self.pose(pose)
        semantic = semantic + torch.sigmoid(pose) * self.semantic(semantic)
        return semantic, torch.cat([pose, semantic], dim=1)


class Spatn(nn.Module):
    """The parsing generator. forward: Batch -> logits (B, 20, H, W) of the target's parsing.

    Height and width are multiples of 4; scale: width multiplier; kappa: how fast the distance maps fall off, None to
    leave them out (the supplement's section C). Reads the batch's poses and `source_labels`; ValueError where these are
    missing.
    """

    def __init__(self, scale: float = 1.0, kappa: float | None = KAPPA):
        super().__init__()
        self.kappa = kappa
        base = channels(64, scale)
        self.semantic = encoder(LABELS, base)
        self.pose = encoder(2 * (JOINTS + len(LIMBS) * (kappa is not None)), base)
        self.blocks = nn.ModuleList(PoseAttentionBlock(4 * base, first=k == 0) for k in range(BLOCKS))
        self.decoder = decoder(base, LABELS)

    def pose_maps(self, batch: Batch) -> Tensor:
        """Both poses' maps, the source's first: (B, 36, H, W), or (B, 60, H, W) with distance maps."""
        size = batch.source.shape[-2:]
        joints = torch.stack([batch.source_joints, batch.target_joints], dim=1).flatten(0, 1)  # both poses at once
        valid = torch.stack([batch.source_valid, batch.target_valid], dim=1).flatten(0, 1)
        maps = heatmaps(joints, valid, *size)
        if self.kappa is not None:
            maps = torch.cat([maps, limb_maps(joints, valid, *size, self.kappa)], dim=1)
        return maps.unflatten(0, (-1, 2)).flatten(1, 2)

    def forward(self, batch: Batch) -> Tensor:
        if batch.source_labels is None:
            raise ValueError("SPATN needs the source's parsing: source_labels is None")
        semantic = self.semantic(one_hot(batch.source_labels, LABELS))
        pose = self.pose(self.pose_maps(batch))
        for block in self.blocks:
            semantic, pose = block(semantic, pose)
        return self.decoder(semantic)


class ParsingObjective:
    """Stage one. networks: parsing. Terms: cross_entropy."""

    def __init__(self, parsing: Spatn, weights: Mapping[str, float]):
        self.parsing = parsing
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"parsing": self.parsing}

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], None]:
        loss = cross_entropy(self.parsing(batch), batch.target_labels)
        return {"cross_entropy": self.weights["cross_entropy"] * loss}, None

    def discriminator_losses(self, batch: Batch, output: None) -> dict[str, Tensor]:
        return {}


# Published: the cross-entropy. Optimiser, batch and length are PATN's: 2.8 million pairs, without its decay.
PHASE = Phase(
    generators=("parsing",),
    discriminators=(),
    optimisers={"parsing": Adam(lr=2e-4, betas=(0.5, 0.999))},
    weights={"cross_entropy": 1.0},
    batch={"market1501": 32, "deepfashion": 7},
    steps={"market1501": 87_500, "deepfashion": 400_000},
)

SPATN = Component(
    name="spatn",
    paper="SPGNet",
    build=lambda height, width, scale, kappa=KAPPA: Spatn(scale, kappa),
    objective=lambda parsing, height, width, scale, weights: ParsingObjective(parsing, weights),
    phase=PHASE,
    features=None,
    into="parsing",
    labels="cihp-20",
    limb_maps=True,
)
COMPONENTS = (
    SPATN,
    replace(SPATN, name="spatn_no_distance", build=lambda height, width, scale: Spatn(scale, None), limb_maps=False),
)
