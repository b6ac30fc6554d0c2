"""Drawn people whose joints are known exactly: what small training tests learn from."""

import torch
from torch import Tensor

from models.layers.blocks import Batch

LIMBS = [
    (1, 8),
    (1, 11),
    (8, 11),
    (2, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (8, 9),
    (9, 10),
    (11, 12),
    (12, 13),
    (0, 1),
]


def pose(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Standing figures with random arms, legs and place: (count, 18, 2) pixels."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    def limb(start: Tensor, angle: Tensor, length: float) -> Tensor:  # angle from straight down
        return start + length * height * torch.stack([torch.sin(angle), torch.cos(angle)], dim=-1)

    joints = torch.zeros(count, 18, 2)
    neck = torch.stack([uniform(0.4, 0.6) * width, uniform(0.22, 0.28) * height], dim=-1)
    joints[:, 1] = neck
    for side, shoulder, hip in ((-1, 2, 8), (1, 5, 11)):
        joints[:, shoulder] = neck + torch.tensor([side * 0.13 * width, 0.01 * height])
        joints[:, hip] = neck + torch.tensor([side * 0.09 * width, 0.28 * height])
        arm, leg = side * uniform(0.1, 1.2), side * uniform(0.0, 0.4)
        joints[:, shoulder + 1] = limb(joints[:, shoulder], arm, 0.13)
        joints[:, shoulder + 2] = limb(joints[:, shoulder + 1], arm + side * uniform(-0.3, 0.8), 0.12)
        joints[:, hip + 1] = limb(joints[:, hip], leg, 0.18)
        joints[:, hip + 2] = limb(joints[:, hip + 1], leg, 0.18)
    nose = neck - torch.tensor([0.0, 0.1 * height])
    offsets = ((0, 0, 0), (14, -0.03, -0.02), (15, 0.03, -0.02), (16, -0.07, -0.01), (17, 0.07, -0.01))
    for joint, dx, dy in offsets:
        joints[:, joint] = nose + torch.tensor([dx * width, dy * height])
    return joints


# LIP-20 ids of the shapes that `draw` paints: LIMBS, the head, the background.
LABELS = torch.tensor([5, 5, 9, 5, 15, 15, 14, 14, 9, 17, 9, 16, 13, 13, 0])


def draw(joints: Tensor, colours: Tensor, height: int, width: int) -> Tensor:
    """Coloured limbs, a head, a background: joints (B, 18, 2), colours (B, limbs + 2, C) -> (B, C, H, W)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([x, y], dim=-1).float()  # (H, W, 2)
    image = colours[:, -1, :, None, None].expand(-1, -1, height, width)
    shapes = [(a, b, 0.035 * height) for a, b in LIMBS] + [(0, 0, 0.07 * height)]
    for k, (a, b, radius) in enumerate(shapes):
        start, along = joints[:, None, None, a], (joints[:, b] - joints[:, a])[:, None, None]
        t = ((at - start) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-6)
        nearest = start + t.clamp(0, 1).unsqueeze(-1) * along
        inside = ((at - nearest).norm(dim=-1) <= radius).unsqueeze(1)
        image = torch.where(inside, colours[:, k, :, None, None], image)
    return image


def figures(count: int, height: int, width: int, seed: int) -> Batch:
    """Pairs of drawn figures with their parsing, every joint present: one person's clothes, two poses."""
    generator = torch.Generator().manual_seed(seed)
    clothes = torch.rand(count, len(LIMBS) + 2, 3, generator=generator) * 1.8 - 0.9
    source, target = pose(count, height, width, generator), pose(count, height, width, generator)
    valid = torch.ones(count, 18, dtype=torch.bool)
    images = [draw(joints, clothes, height, width) for joints in (source, target)]
    ids = LABELS.float().view(1, -1, 1).expand(count, -1, -1)
    labels = [draw(joints, ids, height, width).squeeze(1).to(torch.uint8) for joints in (source, target)]
    return Batch(*images, source, valid, target, valid, *labels)
