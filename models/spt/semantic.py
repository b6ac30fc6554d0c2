"""H_S, the semantic generator of SPT (Song et al., CVPR 2019): the target's parsing from the source's and both poses.

It is trained on pseudo pairs: the parsing of a training image, and of another image that stands in for the same person
in another pose. The authors did not release this part; docs/papers.md lists what is open.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import Batch, channels, full_precision
from models.layers.deformable import DECODER, ENCODER, Decoder, Encoder, Pose, stacked
from models.layers.losses import least_squares, widen
from models.layers.pose_maps import JOINTS, heatmaps, one_hot
from models.spt.appearance import LABELS, initialise, large
from models.spt.losses import PatchDiscriminator

# LIP-20 id -> SPT's: background, face, hair, upper clothes, trousers, skirt, left and right arm, left and right leg.
# LIP-20 does not tell left gloves and socks from right ones: `TenLabels` does.
FROM_LIP20 = (0, 2, 2, 0, 1, 3, 3, 3, 0, 4, 3, 3, 5, 1, 6, 7, 8, 9, 8, 9)
# LIP-20 id, SPT ids of the left and the right limb, joints at the ends of these limbs.
NO_SIDE = ((3, (6, 7), (7, 4)), (8, (8, 9), (13, 10)))

RADIUS = 4  # pixels of the pose mask, at every size
# Pairs of joints that the pose mask connects, in the order of PG2's code.
MASK_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (1, 16), (1, 17), (8, 11), (11, 5), (8, 2), (16, 17),
)  # fmt: skip


class TenLabels(nn.Module):
    """LIP-20 ids (B, H, W) uint8 -> SPT's ten labels, (B, 10, H, W) float, one-hot.

    Gloves (socks) become the arm (leg) whose wrist (ankle) is nearer, the left one where neither is known.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("from_lip20", torch.tensor(FROM_LIP20, dtype=torch.uint8), persistent=False)

    def forward(self, labels: Tensor, pose: Pose) -> Tensor:
        height, width = labels.shape[-2:]
        joints = torch.where(pose.valid.unsqueeze(-1), pose.joints, torch.inf)
        ids = self.from_lip20[labels.long()]
        x = torch.arange(width, device=labels.device)
        y = torch.arange(height, device=labels.device).unsqueeze(-1)
        for lip, (left, right), ends in NO_SIDE:
            to_left, to_right = (
                (x - joints[:, end, 0, None, None]).square() + (y - joints[:, end, 1, None, None]).square()
                for end in ends
            )
            ids = torch.where(labels == lip, torch.where(to_left <= to_right, left, right).to(ids.dtype), ids)
        return one_hot(ids, LABELS)


class PoseMask(nn.Module):
    """PG2's mask of a pose, M -> (B, 1, height, width) float, 0 or 1.

    Every limb with both ends is drawn as disks of radius 4, int(length / 4) steps from end to end, their centres cut to
    whole pixels; the union is dilated, then eroded, by a 5x5 square (pixels beyond the border count in neither).
    """

    def __init__(self):
        super().__init__()
        reach = torch.arange(-RADIUS, RADIUS + 1).square()
        self.register_buffer("ends", torch.tensor(MASK_LIMBS).T.flatten(), persistent=False)  # starts, then ends
        self.register_buffer("disk", (reach + reach.unsqueeze(-1) <= RADIUS**2).float()[None, None], persistent=False)

    def forward(self, pose: Pose, height: int, width: int) -> Tensor:
        points = torch.where(pose.valid.unsqueeze(-1), pose.joints.float(), 0.0)
        start, end = points[:, self.ends].unsqueeze(2).chunk(2, dim=1)  # (B, limbs, 1, 2)
        known = pose.valid[:, self.ends].view(len(points), 2, -1, 1).all(1)  # (B, limbs, 1)
        steps = ((end - start).norm(dim=-1) / RADIUS).floor()  # (B, limbs, 1)
        # Enough for limbs twice as long as the image's diagonal; longer ones, far outside, get larger steps.
        most = 2 * int((height**2 + width**2) ** 0.5 / RADIUS)
        steps = steps.clamp(1, most)
        index = torch.arange(most + 1, device=points.device).clamp(max=steps)  # (B, limbs, most + 1)
        centres = start + (end - start) * (index / steps).unsqueeze(-1)
        x, y = (centres.trunc().long() + RADIUS).unbind(-1)  # on a canvas with room for disks centred outside the image
        tall, wide = height + 2 * RADIUS, width + 2 * RADIUS
        drawn = (x >= 0) & (x < wide) & (y >= 0) & (y < tall) & known
        place = torch.where(drawn, y * wide + x, tall * wide).flatten(1)  # the last place is dropped
        canvas = points.new_zeros(len(points), tall * wide + 1).scatter_(1, place, 1.0)
        canvas = canvas[:, :-1].view(-1, 1, tall, wide)
        with full_precision(canvas):
            mask = (F.conv2d(canvas, self.disk) > 0.5).float()
        mask = F.max_pool2d(mask, 5, 1, 2)
        return -F.max_pool2d(-mask, 5, 1, 2)


class StraightThrough(torch.autograd.Function):
    """The likeliest label, one-hot, of probabilities (B, 10, H, W); its gradient is passed on to the probabilities."""

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor) -> Tensor:
        return one_hot(probabilities.max(1).indices.to(torch.uint8), LABELS)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class SemanticGenerator(nn.Module):
    """E_S, E_P and G_S: the source's parsing and both poses -> the target's parsing (`predict`).

    height, width: multiples of 32, of 64 from 256 pixels on, when it works at half the size; scale: width multiplier.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0):
        super().__init__()
        self.stride = 2 if large(height, width) else 1
        self.semantic, self.pose = Encoder(LABELS + JOINTS + 1, scale), Encoder(JOINTS + 1, scale)
        # No dropout: in joint training its maps would differ from those of its own training.
        self.decoder = Decoder(scale)
        inputs = channels(DECODER[-1], scale) + 2 * channels(ENCODER[0], scale)
        self.labels, self.mask = TenLabels(), PoseMask()
        self.classify = nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, LABELS, 3, padding=1))
        self.apply(initialise)

    def maps(self, pose: Pose, height: int, width: int) -> Tensor:
        """Heatmaps and mask at the working size: (B, 19, height / stride, width / stride)."""
        pose = pose._replace(joints=(pose.joints + 0.5) / self.stride - 0.5)
        size = height // self.stride, width // self.stride
        return torch.cat([heatmaps(*pose, *size), self.mask(pose, *size)], dim=1)

    def logits(self, parsing: Tensor, maps: Tensor, target: list[Tensor]) -> Tensor:
        """From a parsing (B, 10, H, W), of which every second pixel is taken where the stride is 2, the maps of its
        pose, and what `self.pose` makes of the maps of the target's: (B, 10, H / stride, W / stride).
        """
        parsing = parsing[..., :: self.stride, :: self.stride]
        semantic = self.semantic(torch.cat([parsing, maps], dim=1))
        skips = [torch.cat(pair, dim=1) for pair in zip(semantic, target, strict=True)]
        return self.classify(torch.cat([self.decoder(skips), skips[0]], dim=1))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax over labels, at the image's size."""
        with full_precision(logits):
            parsing = widen(logits).softmax(1)
            if self.stride == 1:
                return parsing
            return F.interpolate(parsing, scale_factor=float(self.stride), mode="bilinear", align_corners=False)

    def predict(self, parsing: Tensor, source: Pose, target: Pose, ways: int = 1) -> list[Tensor]:
        """The target's parsing from the source's, and with two ways the source's again from what was found of the
        target's: probabilities (B, 10, H, W). The second way is given labels, as the first one is.
        """
        maps = self.maps(stacked(source, target), *parsing.shape[-2:]).chunk(2)
        ends = [x.chunk(ways) for x in self.pose(torch.cat([maps[1], maps[0]][:ways]))]
        found = []
        for way in range(ways):
            found.append(self.probabilities(self.logits(parsing, maps[way], [x[way] for x in ends])))
            parsing = StraightThrough.apply(found[-1])
        return found


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
        poses = Pose(batch.source_joints, batch.source_valid), Pose(batch.target_joints, batch.target_valid)
        labels = net.labels(torch.cat([batch.source_labels, batch.target_labels]), stacked(*poses))
        source, target = labels.chunk(2)
        target = target[..., :: net.stride, :: net.stride]
        source_maps, maps = net.maps(stacked(*poses), *size).chunk(2)
        logits = net.logits(source, source_maps, net.pose(maps))
        with full_precision(logits):
            fake = widen(logits).softmax(1)
        pose, mask = maps[:, :JOINTS], maps[:, JOINTS:]
        terms = {
            "cross_entropy": cross_entropy(logits, target, mask),
            "adversarial": least_squares(self.discriminator(torch.cat([fake, pose], dim=1)), 1.0).mean(),
        }
        return {name: self.weights[name] * term for name, term in terms.items()}, (target, fake.detach(), pose)

    def discriminator_losses(self, batch: Batch, output: tuple[Tensor, ...]) -> dict[str, Tensor]:
        real, fake, pose = output
        if not self.weights["adversarial"]:
            return {}
        both = torch.cat([torch.cat([real, fake]), torch.cat([pose, pose])], dim=1)
        real, fake = self.discriminator(both).chunk(2)
        return {"discriminator": 0.5 * (least_squares(real, 1.0) + least_squares(fake, 0.0)).mean()}
