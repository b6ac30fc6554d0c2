"""Flow from poses alone, a network for each group of joints: SPIG's, which SPGNet takes over where it learns its flow.

Numbers in brackets are equations of SPIG (Tang et al., AAAI 2021). Strides are relative to the image.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import losses
from models.layers.blocks import Batch, Hourglass, channels, flow_levels, full_precision, initialise
from models.layers.features import Features
from models.layers.pose_maps import PART_PADDING, PARTS, batch_heatmaps, box_masks, part_boxes

GROUPS = tuple(PARTS.values())
PADDING = tuple(PART_PADDING.values())


class FlowNet(nn.Module):
    """One part's flow net: (source sub-pose, target sub-pose) -> flow and visibility logits at strides 8 and
    4 [1].

    forward: maps (B, 2 * joints, H, W) -> {8: (B, 3, H/8, W/8), 4: (B, 3, H/4, W/4)} float32, channels (dx,
    dy, logit). The flow at 1/4 refines the one at 1/8: it starts from its upsampled, doubled offsets.
    """

    def __init__(self, joints: int, levels: int, scale: float):
        super().__init__()
        self.trunk = Hourglass(2 * joints, channels(32, scale), levels, channels(256, scale))
        self.heads = nn.ModuleDict(
            {str(stride): nn.Conv2d(self.trunk.widths[stride], 3, 3, padding=1) for stride in (8, 4)}
        )

    def forward(self, maps: Tensor) -> dict[int, Tensor]:
        trunk = self.trunk(maps)
        with full_precision(maps):
            coarse = self.heads["8"](trunk[8].float())
            up = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
            up = torch.cat([2 * up[:, :2], up[:, 2:]], dim=1)
            return {8: coarse, 4: up + self.heads["4"](trunk[4].float())}


class PartFlow(nn.Module):
    """The part-based flow generation module: one FlowNet per joint group, from sub-poses only [1].

    forward: source and target heatmaps (B, 18, H, W) -> flows, visibilities as in `Output`: {stride: (B, P, 2
    or 1, h, w)}.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0, groups: tuple[tuple[int, ...], ...] = GROUPS):
        super().__init__()
        self.groups = groups
        levels = flow_levels(height, width)
        self.nets = nn.ModuleList(FlowNet(len(group), levels, scale) for group in groups)
        self.apply(initialise)
        for net in self.nets:
            for head in net.heads.values():  # start near "sample where you stand", half visible
                nn.init.normal_(head.weight, std=0.001)

    def forward(self, source: Tensor, target: Tensor) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        parts = [
            net(torch.cat([source[:, group], target[:, group]], dim=1))
            for net, group in zip(self.nets, self.groups, strict=True)
        ]
        stacked = {stride: torch.stack([part[stride] for part in parts], dim=1) for stride in (8, 4)}
        flows = {stride: x[:, :, :2] for stride, x in stacked.items()}
        visibilities = {stride: torch.sigmoid(x[:, :, 2:]) for stride, x in stacked.items()}
        return flows, visibilities


def sampling_loss(
    flows: dict[int, Tensor],
    source: dict[str, Tensor],
    target: dict[str, Tensor],
    batch: Batch,
    features: Features,
    groups: tuple[tuple[int, ...], ...],
) -> Tensor:
    """L_sam [9]: summed over parts and strides; each flow is judged only within its part's box in the target image."""
    height = batch.target.shape[-2]
    padding = PADDING if len(groups) == len(PADDING) else (max(PADDING),) * len(groups)
    boxes = part_boxes(batch.target_joints, batch.target_valid, groups, padding, height)
    total = 0.0
    for stride, layer in features.correctness.items():
        best = losses.best_cosine(source[layer], target[layer])
        masks = box_masks(boxes, *best.shape[-2:], stride)
        for part in range(len(groups)):
            total = total + losses.sampling_correctness(
                source[layer], target[layer], flows[stride][:, part], masks[:, part], best
            )
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
        with torch.no_grad():
            source, target = features(batch.source, layers), features(batch.target, layers)
        loss = sampling_loss(flows, source, target, batch, features, self.flow.groups)
        return {"sampling": self.weights["sampling"] * loss}, None

    def discriminator_losses(self, batch: Batch, output: None) -> dict[str, Tensor]:
        return {}
