"""H_S, the semantic generator of SPT (Song et al., CVPR 2019): the target's parsing from the source's and both poses.

It is trained on pseudo pairs: the parsing of a training image, and of another image that stands in for the same person
in another pose. The authors did not release this part; docs/papers.md lists what is open.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import Batch, channels, full_precision
from models.layers.losses import least_squares, widen
from models.layers.pose_maps import JOINTS, heatmaps, one_hot
from models.spt.appearance import DECODER, ENCODER, LABELS, Decoder, Encoder, initialise, large
from models.spt.losses import PatchDiscriminator

# LIP-20 id -> SPT's: background, face, hair, upper clothes, trousers, skirt, left and right arm, left and right leg.
# LIP-20 does not tell left gloves and socks from right ones: `spt10` does.
FROM_LIP20 = (0, 2, 2, 0, 1, 3, 3, 3, 0, 4, 3, 3, 5, 1, 6, 7, 8, 9, 8, 9)
# LIP-20 id, SPT ids of the left and the right limb, joints at the ends of these limbs.
NO_SIDE = ((3, (6, 7), (7, 4)), (8, (8, 9), (13, 10)))

RADIUS = 4  # pixels of the pose mask, at every size
# Pairs of joints that the pose mask connects, in the order of PG2's code.
MASK_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (1, 16), (1, 17), (8, 11), (11, 5), (8, 2), (16, 17),
)  # fmt: skip


def spt10(labels: Tensor, joints: Tensor, valid: Tensor) -> Tensor:
    """LIP-20 ids (B, H, W) uint8 -> SPT's ten labels, (B, 10, H, W) float, one-hot.

    Gloves (socks) become the arm (leg) whose wrist (ankle) is nearer, the left one where neither is known.
    """
    height, width = labels.shape[-2:]
    ids = torch.tensor(FROM_LIP20, dtype=torch.uint8, device=labels.device)[labels.long()]
    x = torch.arange(width, device=labels.device)
    y = torch.arange(height, device=labels.device).unsqueeze(-1)
    for lip, (left, right), ends in NO_SIDE:
        ends = torch.where(valid[:, ends].unsqueeze(-1), joints[:, ends], torch.inf)[..., None, None]  # (B, 2, 2, 1, 1)
        far = (x - ends[:, :, 0]).square() + (y - ends[:, :, 1]).square()  # (B, 2, H, W)
        side = torch.where(far[:, 0] <= far[:, 1], left, right).to(ids.dtype)
        ids = torch.where(labels == lip, side, ids)
    return one_hot(ids, LABELS)


def pose_mask(joints: Tensor, valid: Tensor, height: int, width: int) -> Tensor:
    """PG2's mask of a pose, M: joints (B, 18, 2), valid (B, 18) -> (B, 1, height, width) float, 0 or 1.

    Every limb with both ends is drawn as disks of radius 4, int(length / 4) steps from end to end, their centres cut to
    whole pixels; the union is dilated, then eroded, by a 5x5 square (pixels beyond the border count in neither).
    """
    ends = torch.tensor(MASK_LIMBS, device=joints.device)
    points = torch.where(valid.unsqueeze(-1), widen(joints), 0.0)
    start, end = points[:, ends[:, 0]].unsqueeze(2), points[:, ends[:, 1]].unsqueeze(2)  # (B, limbs, 1, 2)
    steps = ((end - start).norm(dim=-1) / RADIUS).floor()  # (B, limbs, 1)
    # Enough for limbs twice as long as the image's diagonal; longer ones, far outside, get larger steps.
    most = 2 * int((height**2 + width**2) ** 0.5 / RADIUS)
    steps = steps.clamp(1, most)
    index = torch.arange(most + 1, device=joints.device).clamp(max=steps)  # (B, limbs, most + 1)
    centres = start + (end - start) * (index / steps).unsqueeze(-1)
    centres = centres.trunc().long() + RADIUS  # on a canvas with room for disks centred outside the image
    tall, wide = height + 2 * RADIUS, width + 2 * RADIUS
    x, y = centres.unbind(-1)
    drawn = (x >= 0) & (x < wide) & (y >= 0) & (y < tall) & valid[:, ends].all(-1, keepdim=True)
    place = torch.where(drawn, y * wide + x, tall * wide).flatten(1)  # the last place is dropped
    canvas = points.new_zeros(len(points), tall * wide + 1).scatter_(1, place, 1.0)
    canvas = canvas[:, :-1].view(-1, 1, tall, wide)
    reach = torch.arange(-RADIUS, RADIUS + 1, device=joints.device)
    disk = (reach.square() + reach.square().unsqueeze(-1) <= RADIUS**2).to(canvas.dtype)
    with full_precision(canvas):
        mask = (F.conv2d(canvas, disk[None, None]) > 0.5).to(canvas.dtype)
    mask = F.max_pool2d(mask, 5, 1, 2)
    return -F.max_pool2d(-mask, 5, 1, 2)


class SemanticGenerator(nn.Module):
    """E_S, E_P and G_S. forward: source parsing (B, 10, H, W), both poses -> the target's, probabilities (B, 10, H, W).

    height, width: multiples of 32, of 64 from 256 pixels on, when it works at half the size; scale: width multiplier.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0):
        super().__init__()
        self.stride = 2 if large(height, width) else 1
        self.semantic, self.pose = Encoder(LABELS + JOINTS + 1, scale), Encoder(JOINTS + 1, scale)
        # No dropout: in joint training its maps would differ from those of its own training.
        self.decoder = Decoder(scale, dropout=False)
        inputs = channels(DECODER[-1], scale) + 2 * channels(ENCODER[0], scale)
        self.classify = nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, LABELS, 3, padding=1))
        self.apply(initialise)

    def pose_maps(self, joints: Tensor, valid: Tensor, height: int, width: int) -> Tensor:
        """Heatmaps and mask at the working size: (B, 19, height / stride, width / stride)."""
        joints = (joints + 0.5) / self.stride - 0.5
        size = height // self.stride, width // self.stride
        return torch.cat([heatmaps(joints, valid, *size), pose_mask(joints, valid, *size)], dim=1)

    def logits(
        self, parsing: Tensor, source_joints: Tensor, source_valid: Tensor, target_joints: Tensor, target_valid: Tensor
    ) -> Tensor:
        """At the working size: (B, 10, H / stride, W / stride)."""
        size = parsing.shape[-2:]
        parsing = F.avg_pool2d(parsing, self.stride) if self.stride > 1 else parsing
        semantic = self.semantic(torch.cat([parsing, self.pose_maps(source_joints, source_valid, *size)], dim=1))
        pose = self.pose(self.pose_maps(target_joints, target_valid, *size))
        skips = [torch.cat(pair, dim=1) for pair in zip(semantic, pose, strict=True)]
        return self.classify(torch.cat([self.decoder(skips), skips[0]], dim=1))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax over labels, at the image's size."""
        with full_precision(logits):
            parsing = widen(logits).softmax(1)
            if self.stride == 1:
                return parsing
            return F.interpolate(parsing, scale_factor=float(self.stride), mode="bilinear", align_corners=False)

    def forward(
        self, parsing: Tensor, source_joints: Tensor, source_valid: Tensor, target_joints: Tensor, target_valid: Tensor
    ) -> Tensor:
        logits = self.logits(parsing, source_joints, source_valid, target_joints, target_valid)
        return self.probabilities(logits)


def cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """L_S^ce: logits (B, 10, h, w), one-hot labels of that shape, pose mask (B, 1, h, w); a mean over pixels."""
    with full_precision(logits):
        return -((labels * widen(logits).log_softmax(1)).sum(1, keepdim=True) * (1 + mask)).mean()


class SemanticObjective:
    """L_S, on pseudo pairs. networks: parsing, discriminator. Terms: cross_entropy, adversarial."""

    def __init__(self, parsing: SemanticGenerator, discriminator: PatchDiscriminator, weights: Mapping[str, float]):
        self.parsing = parsing
        self.discriminator = discriminator
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"parsing": self.parsing, "discriminator": self.discriminator}

    def generator_losses(self, batch: Batch, features: None) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        net, size = self.parsing, batch.source.shape[-2:]
        source = spt10(batch.source_labels, batch.source_joints, batch.source_valid)
        target = spt10(batch.target_labels, batch.target_joints, batch.target_valid)
        target = target[..., :: net.stride, :: net.stride]
        poses = batch.source_joints, batch.source_valid, batch.target_joints, batch.target_valid
        logits = net.logits(source, *poses)
        pose = net.pose_maps(batch.target_joints, batch.target_valid, *size)
        with full_precision(logits):
            fake = widen(logits).softmax(1)
        pose, mask = pose[:, :JOINTS], pose[:, JOINTS:]
        terms = {
            "cross_entropy": cross_entropy(logits, target, mask),
            "adversarial": least_squares(self.discriminator(torch.cat([fake, pose], dim=1)), 1.0).mean(),
        }
        return {name: self.weights[name] * term for name, term in terms.items()}, (target, fake.detach(), pose)

    def discriminator_losses(self, batch: Batch, output: tuple[Tensor, ...]) -> dict[str, Tensor]:
        real, fake, pose = output
        if not self.weights["adversarial"]:
            return {}
        real, fake = (self.discriminator(torch.cat([parsing, pose], dim=1)) for parsing in (real, fake))
        return {"discriminator": 0.5 * (least_squares(real, 1.0) + least_squares(fake, 0.0)).mean()}
