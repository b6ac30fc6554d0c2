"""Flow from poses alone, a network for each group of joints: SPIG's, which SPGNet takes over where it learns its flow.

Numbers in brackets are equations of SPIG (Tang et al., AAAI 2021). Strides are relative to the image.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import losses
from models.layers.blocks import Batch, Hourglass, channels, flow_levels, for_convolutions, full_precision, initialise
from models.layers.features import Features
from models.layers.pose_maps import JOINTS, PART_PADDING, PARTS, batch_heatmaps, box_masks, part_boxes

GROUPS = tuple(PARTS.values())
PADDING = tuple(PART_PADDING.values())
WHOLE_BODY = (tuple(range(JOINTS)),)


class PartFlow(nn.Module):
    """The part-based flow generation module: one flow network for each group of joints, from its sub-poses only [1],
    side by side. The flow at 1/4 refines the one at 1/8: it starts from its upsampled, doubled offsets.

    forward: source and target heatmaps (B, 18, H, W) -> flows, visibilities as in `Output`: {stride: (B, P, 2
    or 1, h, w)} float32, for the strides 8 and 4.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0, groups: tuple[tuple[int, ...], ...] = GROUPS):
        super().__init__()
        self.groups = groups
        members = torch.zeros(len(groups), JOINTS, dtype=torch.bool)
        for row, group in zip(members, groups, strict=True):
            row[list(group)] = True
        padding = PADDING if len(groups) == len(PADDING) else (max(PADDING),) * len(groups)
        both = [joint + side for group in groups for side in (0, JOINTS) for joint in group]
        for name, value in (("members", members), ("padding", padding), ("sub_poses", both)):
            self.register_buffer(name, torch.as_tensor(value), persistent=False)
        self.trunk = Hourglass(
            tuple(2 * len(group) for group in groups),
            channels(32, scale),
            flow_levels(height, width),
            channels(256, scale),
        )
        parts = len(groups)
        self.heads = nn.ModuleDict(
            {
                str(stride): nn.Conv2d(parts * self.trunk.widths[stride], parts * 3, 3, padding=1, groups=parts)
                for stride in (8, 4)
            }
        )
        self.heads.float32 = True
        self.apply(initialise)
        for head in self.heads.values():  # start near "sample where you stand", half visible
            nn.init.normal_(head.weight, std=0.001)

    def boxes(self, joints: Tensor, valid: Tensor, height: int) -> Tensor:
        """The parts' boxes in an image `height` pixels high, from its joints (B, 18, 2) -> (B, P, 4)."""
        return part_boxes(joints, valid, self.members, self.padding, height)

    def forward(self, source: Tensor, target: Tensor) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        maps = torch.cat([for_convolutions(source), for_convolutions(target)], dim=1)
        trunk = self.trunk(maps.index_select(1, self.sub_poses))
        with full_precision(source):
            coarse, fine = (self.heads[str(stride)](losses.widen(trunk[stride])) for stride in (8, 4))
            up = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
            found = {8: coarse, 4: up + fine}
            found = {stride: x.unflatten(1, (len(self.groups), 3)) for stride, x in found.items()}
            flows = {stride: x[:, :, :2] for stride, x in found.items()}
            flows[4] = flows[4] + up.unflatten(1, (len(self.groups), 3))[:, :, :2]  # a cell at 1/8 is two at 1/4
            visibilities = {stride: torch.sigmoid(x[:, :, 2:]) for stride, x in found.items()}
        return flows, visibilities


def sampling_loss(
    flow: PartFlow,
    flows: dict[int, Tensor],
    source: dict[str, Tensor],
    target: dict[str, Tensor],
    batch: Batch,
    features: Features,
) -> Tensor:
    """L_sam [9]: summed over parts and strides; each flow is judged only within its part's box in the target image."""
    boxes = flow.boxes(batch.target_joints, batch.target_valid, batch.target.shape[-2])
    total = 0.0
    for stride, layer in features.correctness.items():
        masks = box_masks(boxes, *target[layer].shape[-2:], stride)
        total = total + losses.sampling_correctness(source[layer], target[layer], flows[stride], masks)
    return total


class FlowObjective:
    """Stage one: the flow nets alone, on sampling correctness. networks: flow. Terms: sampling."""

    def __init__(self, flow: PartFlow, weights: Mapping[str, float]):
        self.flow = flow
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"flow": self.flow}

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], None]:
        flows, _ = self.flow(*batch_heatmaps(batch))
        layers = tuple(features.correctness.values())
        source, target = features.pair(batch.source, batch.target, layers)
        loss = sampling_loss(self.flow, flows, source, target, batch, features)
        return {"sampling": self.weights["sampling"] * loss}, None

    def discriminator_losses(self, batch: Batch, output: None) -> dict[str, Tensor]:
        return {}
