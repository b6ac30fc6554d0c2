"""SPIG: Structure-aware Person Image Generation with Pose Decomposition and Semantic Correlation (Tang et
al., AAAI 2021).

Numbers in brackets are the paper's equations. What the paper leaves open, listed in docs/papers.md, is as in GFLA, on
which it builds. Strides are relative to the image: flows are at strides 8 and 4; warping, fusion and the non-local
block at 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import Tensor, nn

from models.layers import losses
from models.layers.blocks import (
    Batch,
    DownBlock,
    Hourglass,
    HybridDilatedConv,
    NonLocal2d,
    Output,
    PatchDiscriminator,
    PyramidNonLocal,
    ResBlock,
    UpBlock,
    channels,
    flow_levels,
    for_convolutions,
    initialise,
    warp,
)
from models.layers.features import Features
from models.layers.part_flow import GROUPS, WHOLE_BODY, FlowObjective, PartFlow, sampling_loss
from models.layers.pose_maps import JOINTS, batch_heatmaps, box_masks
from models.layers.schedule import Adam, Component, Phase, Variant


class LocalWarp(nn.Module):
    """The local warping modules of all parts [2, 3, 5], side by side: encode, warp, blend with features of the target's
    pose, correlate neighbours.

    joints: the number of each part's. forward: part images (B, P * 3, H, W), the target's sub-poses one after the other
    (B, sum(joints), H, W), flows (B, P, 2, H/4, W/4), visibilities (B, P, 1, H/4, W/4) -> (B, P * C, H/4, W/4).
    """

    def __init__(self, joints: Sequence[int], scale: float, hdcb: bool):
        super().__init__()
        parts, features = len(joints), channels(128, scale)
        self.image = nn.Sequential(
            DownBlock((3,) * parts, channels(64, scale), first=True),
            DownBlock(channels(64, scale), features, parts=parts),
        )
        self.pose = nn.Sequential(
            DownBlock(joints, channels(32, scale), first=True), DownBlock(channels(32, scale), features, parts=parts)
        )
        self.hdcb = HybridDilatedConv(features, parts) if hdcb else nn.Identity()

    def forward(self, images: Tensor, target: Tensor, flows: Tensor, visibilities: Tensor) -> Tensor:
        parts = flows.shape[1]
        features, pose = (x.unflatten(1, (parts, -1)) for x in (self.image(images), self.pose(target)))
        warped = warp(features.flatten(0, 1), flows.flatten(0, 1)).unflatten(0, (-1, parts))
        return self.hdcb((visibilities * warped + (1 - visibilities) * pose).flatten(1, 2))


class SPIG(nn.Module):
    """The generator. forward -> Output with flows and visibilities at strides 8 and 4, relation maps of sizes
    4 and 6.

    height, width: multiples of 32, at least 64 for the full depth; scale: width multiplier (1: GFLA's widths).
    `part=False`, `hdcb=False`, `pnb=False` are the ablations of the paper's Table 3: one flow network for all 18 joints
    and the whole source image; blended features go straight to fusion; fused features go straight to the decoder.
    """

    def __init__(
        self,
        height: int,
        width: int,
        scale: float = 1.0,
        part: bool = True,
        hdcb: bool = True,
        pnb: bool = True,
    ):
        super().__init__()
        self.part = part
        groups = GROUPS if part else WHOLE_BODY
        fused = channels(256, scale)
        self.local = LocalWarp([len(group) for group in groups], scale, hdcb)
        self.pose = Hourglass(
            JOINTS, channels(64, scale), flow_levels(height, width), channels(256, scale)
        )  # global target pose
        inputs = len(groups) * channels(128, scale) + self.pose.widths[4]
        self.fusion = nn.Sequential(nn.Conv2d(inputs, fused, 3, padding=1), ResBlock(fused), ResBlock(fused))
        self.pnb = PyramidNonLocal(fused) if pnb else None
        self.decoder = nn.Sequential(
            UpBlock(fused, channels(128, scale)),
            UpBlock(channels(128, scale), channels(64, scale)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels(64, scale), 3, 3, padding=1),
        )
        self.apply(initialise)
        with torch.no_grad():
            self.decoder[-1].weight.mul_(0.1)  # begin inside tanh's linear range
        for module in self.modules():
            if isinstance(module, NonLocal2d):
                module.reset_output()
        self.flow = PartFlow(height, width, scale, groups)
        joints = [joint for group in groups for joint in group]
        self.register_buffer("sub_poses", torch.tensor(joints), persistent=False)

    def part_images(self, source: Tensor, joints: Tensor, valid: Tensor) -> Tensor:
        """The source image (B, 3, H, W) for each part, mid-grey (0) outside the part's box: flows stay in image
        coordinates. (B, P * 3, H, W).
        """
        if not self.part:
            return source
        height, width = source.shape[-2:]
        masks = box_masks(self.flow.boxes(joints, valid, height), height, width).to(source.dtype)
        return (source.unsqueeze(1) * masks.unsqueeze(2)).flatten(1, 2)

    def forward(self, batch: Batch) -> Output:
        source_maps, target_maps = map(for_convolutions, batch_heatmaps(batch))
        flows, visibilities = self.flow(source_maps, target_maps)  # [1]
        images = self.part_images(batch.source, batch.source_joints, batch.source_valid)
        sub_poses = target_maps.index_select(1, self.sub_poses)
        parts = self.local(images, sub_poses, flows[4], visibilities[4])  # [2, 3, 5]
        x = self.fusion(torch.cat([parts, self.pose(target_maps)[4]], dim=1))  # [6]
        relations = None
        if self.pnb is not None:
            x, relations = self.pnb(x)  # [7]
        return Output(torch.tanh(losses.widen(self.decoder(x))), flows, visibilities, relations)  # [8]


class SpigObjective:
    """Stage two, end to end [10]. networks: generator, discriminator. Terms: sampling, l1, adversarial,
    perceptual, style.
    """

    def __init__(self, generator: SPIG, discriminator: PatchDiscriminator, weights: Mapping[str, float]):
        self.generator = generator
        self.discriminator = discriminator
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], Output]:
        output = self.generator(batch)
        correctness = tuple(features.correctness.values())
        compared = tuple({*features.content, *features.style})
        source, target = features.pair(batch.source, batch.target, correctness, compared)
        generated = features(output.image, compared)
        terms = {
            "sampling": sampling_loss(self.generator.flow, output.flows, source, target, batch, features),
            "l1": losses.l1(output.image, batch.target),
            "adversarial": losses.adversarial_generator(self.discriminator(output.image)),
            "perceptual": losses.perceptual(generated, target, features.content),
            "style": losses.style(generated, target, features.style),
        }
        return {name: self.weights[name] * term for name, term in terms.items()}, output

    def discriminator_losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        images = torch.cat([batch.target, output.image.detach()])
        real, fake = self.discriminator(images).chunk(2)
        return {"discriminator": losses.adversarial_discriminator(real, fake)}


# Published: Adam (0, 0.99) at a constant 0.001, batch 8 (Market-1501) and 6 (DeepFashion), two stages. The number of
# steps is ours; the discriminator's rate, a tenth of the generator's, is GFLA's.
ADAM = Adam(lr=0.001, betas=(0.0, 0.99))
BATCH = {"market1501": 8, "deepfashion": 6}


def flow(name: str, groups: tuple[tuple[int, ...], ...]) -> Component:
    return Component(
        name=name,
        paper="SPIG",
        build=partial(PartFlow, groups=groups),
        objective=lambda flow, height, width, scale, weights: FlowObjective(flow, weights),
        phase=Phase(
            generators=("flow",),
            discriminators=(),
            optimisers={"flow": ADAM},
            weights={"sampling": 20.0},  # GFLA's for its flow stage
            batch=BATCH,
            steps={"market1501": 50_000, "deepfashion": 50_000},
        ),
        features="vgg19",
        into="flow",
    )


COMPONENTS = (flow("spig_flow", GROUPS), flow("spig_flow_whole", WHOLE_BODY))


def variant(name: str, row: str, components: tuple[str, ...] = ("spig_flow",), **switches: bool) -> Variant:
    return Variant(
        name=name,
        paper="SPIG",
        row=row,
        build=partial(SPIG, **switches),
        components=components,
        features="vgg19",
        objective=lambda generator, height, width, scale, weights: SpigObjective(
            generator, PatchDiscriminator(height, width, scale), weights
        ),
        phase=Phase(
            generators=("generator",),
            discriminators=("discriminator",),
            optimisers={"generator": ADAM, "discriminator": replace(ADAM, lr=0.1 * ADAM.lr)},
            weights=asdict(losses.LossWeights()),
            batch=BATCH,
            steps={"market1501": 200_000, "deepfashion": 200_000},
        ),
    )


VARIANTS = (
    variant("spig", "Table 3, Full"),
    variant("spig_no_part", "Table 3, w/o Part", components=("spig_flow_whole",), part=False),
    variant("spig_no_hdcb", "Table 3, w/o HDCB", hdcb=False),
    variant("spig_no_pnb", "Table 3, w/o PNB", pnb=False),
)
