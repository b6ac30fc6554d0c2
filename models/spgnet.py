"""SPGNet, stage two: Learning Semantic Person Image Generation by Region-Adaptive Normalization (Lv et al., CVPR
2021): the image from the source image, both parsings and the target pose. Stage one is in models/spatn.py.

Tables are the supplement's; where they contradict each other or say nothing, the authors' code decides (docs/papers.md
lists where). Parsing is (B, 20, h, w), one-hot or probabilities, a channel for each LIP-20 label.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from models.layers import losses
from models.layers.affine_flow import BACKGROUND, INVISIBLE, VISIBLE, AffineFlow, place
from models.layers.blocks import Batch, Output, channels, full_precision, warp
from models.layers.features import Features
from models.layers.parsing import LABELS, cross_entropy
from models.layers.part_flow import FlowObjective, PartFlow
from models.layers.pose_maps import JOINTS, disks, heatmaps, one_hot
from models.layers.schedule import Adam, Component, Jitter, Move, Phase, Variant
from models.spatn import KAPPA, Spatn

DISK = 1 / 32  # radius of a joint's disk in image heights: 8 px at 256, 4 px at 128
WHOLE_BODY = (tuple(range(JOINTS)),)


# Encoders


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution and batch norm; no bias, which the norm would cancel."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """x + BN(3x3(ReLU(x))); with `side` channels beside, x + BN(3x3(ReLU([x, BN(1x1(ReLU(side)))])))."""

    def __init__(self, features: int, side: int = 0):
        super().__init__()
        self.side = nn.Sequential(nn.ReLU(), conv_norm(side, features, 1)) if side else None
        self.branch = nn.Sequential(nn.ReLU(), conv_norm(2 * features if side else features, features, 3))

    def forward(self, x: Tensor, side: Tensor | None = None) -> Tensor:
        return x + self.branch(x if self.side is None else torch.cat([x, self.side(side)], dim=1))


class Encoder(nn.Module):
    """One of Table B's encoders: 1x1, then per level two residual blocks and a 3x3 of stride 2.

    forward: (B, inputs, H, W) -> the features after each residual block, [level][block] of (B, widths[level],
    H/2^level, W/2^level), and the bottleneck (B, widths[-1], H/2^levels, W/2^levels).
    """

    def __init__(self, inputs: int, widths: list[int]):
        super().__init__()
        self.enter = conv_norm(inputs, widths[0], 1)
        self.blocks = nn.ModuleList(nn.ModuleList(ResidualBlock(width) for _ in range(2)) for width in widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(nn.ReLU(), conv_norm(before, after, 3, 2)) for before, after in pairwise(widths)
        )

    def forward(self, x: Tensor) -> tuple[list[list[Tensor]], Tensor]:
        x = self.enter(x)
        features = []
        for blocks, down in zip(self.blocks, self.down, strict=True):
            level = []
            for block in blocks:
                x = block(x)
                level.append(x)
            features.append(level)
            x = down(x)
        return features, x


def pool_flow(flow: Tensor, level: int) -> Tensor:
    """Flow (B, 2, H, W) in pixels -> its mean over cells of 2^level pixels, in cells: (B, 2, H/2^level, W/2^level)."""
    return F.avg_pool2d(flow, 2**level) / 2**level


def pool_visibility(visibility: Tensor, level: int) -> Tensor:
    """Classes (B, 1, H, W) -> classes of cells of 2^level pixels: the first of visible (0), invisible (1), background
    (2) that occurs in the cell.
    """
    return -F.max_pool2d(-visibility, 2**level)


class FeatureDeformation(nn.Module):
    """Table D: warp, separate visible from invisible features, join them in a residual block.

    forward: features (B, C, h, w), flow (B, 2, h, w) in cells, visibility (B, 1, h, w) of 0, 1, 2 -> (B, C, h, w).
    """

    def __init__(self, features: int):
        super().__init__()
        self.join = ResidualBlock(features, side=2 * features)

    def forward(self, features: Tensor, flow: Tensor, visibility: Tensor) -> Tensor:
        warped = warp(features, flow)
        copies = [warped * (visibility == shown) for shown in (VISIBLE, INVISIBLE)]
        return self.join(warped, torch.cat(copies, dim=1))


# Style


def region_average_pooling(features: Tensor, parsing: Tensor) -> Tensor:
    """The mean feature of each label's region: features (B, C, h, w), parsing (B, L, h, w) -> (B, L, C) float.

    Probabilities weigh the mean. Zero for a label without pixels.
    """
    with full_precision(features):
        features, parsing = losses.widen(features).flatten(2), losses.widen(parsing).flatten(2)
        return parsing @ features.transpose(1, 2) / parsing.sum(-1, keepdim=True).clamp(min=1e-6)


class StyleEncoder(nn.Module):
    """Table B's third column, as in the code: source image (B, 3, H, W), its parsing (B, 20, H, W) -> style codes
    (B, 20, C) in [-1, 1], C = 128 at scale 1.
    """

    def __init__(self, scale: float):
        super().__init__()
        c1, c2, c3, c4 = (channels(base, scale) for base in (32, 64, 128, 256))

        def norm_act(features: int) -> tuple[nn.Module, nn.Module]:
            return nn.InstanceNorm2d(features), nn.LeakyReLU(0.2)

        self.features = nn.Sequential(
            *(nn.ReflectionPad2d(1), nn.Conv2d(3, c1, 3, bias=False), *norm_act(c1)),
            *(nn.Conv2d(c1, c2, 3, stride=2, padding=1, bias=False), *norm_act(c2)),
            *(nn.Conv2d(c2, c3, 3, stride=2, padding=1, bias=False), *norm_act(c3)),
            nn.ConvTranspose2d(c3, c4, 3, stride=2, padding=1, output_padding=1, bias=False),
            *norm_act(c4),
            *(nn.ReflectionPad2d(1), nn.Conv2d(c4, c3, 3)),
        )

    def forward(self, image: Tensor, parsing: Tensor) -> Tensor:
        features = torch.tanh(losses.widen(self.features(image)))  # in bfloat16 flat from 3.5 on
        return region_average_pooling(features, parsing[..., ::2, ::2])


class Sean(nn.Module):
    """Region-adaptive normalisation (SEAN): batch norm without weights, then a scale and shift for each pixel, from the
    style code of its label and from the parsing around it, blended by learned shares.

    forward: x (B, C, h, w), parsing (B, 20, h, w), codes (B, 20, S) -> (B, C, h, w). In train mode, noise of a
    learned size (zero at first) is added to x.
    """

    def __init__(self, features: int, scale: float, kernel: int):
        super().__init__()
        style, hidden = channels(128, scale), channels(64, scale)
        conv = partial(nn.Conv2d, kernel_size=kernel, padding=kernel // 2)
        self.noise = nn.Parameter(torch.zeros(features))
        self.norm = nn.BatchNorm2d(features, affine=False)
        self.label_weight = nn.Parameter(torch.empty(LABELS, style, style))  # one linear layer a label
        self.label_bias = nn.Parameter(torch.zeros(LABELS, style))
        nn.init.normal_(self.label_weight, std=math.sqrt(2 / style))
        self.style = conv(style, 2 * features)
        self.shared = conv(LABELS, hidden)
        self.semantic = conv(hidden, 2 * features)
        self.blend = nn.Parameter(torch.zeros(2))  # scale, shift: the style's share before the sigmoid

    def modulation(self, parsing: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift, each (B, C, h, w)."""
        styles = F.relu(torch.einsum("bls,lst->blt", codes, self.label_weight) + self.label_bias)
        painted = torch.einsum("blhw,blt->bthw", parsing, styles)
        by_style = self.style(painted).chunk(2, dim=1)
        by_semantic = self.semantic(F.relu(self.shared(parsing))).chunk(2, dim=1)
        shares = torch.sigmoid(self.blend)
        scale, shift = (s * a + (1 - s) * b for s, a, b in zip(shares, by_style, by_semantic, strict=True))
        return scale, shift

    def forward(self, x: Tensor, parsing: Tensor, codes: Tensor) -> Tensor:
        if self.norm.training:
            noise = torch.randn(len(x), 1, *x.shape[-2:], device=x.device, dtype=x.dtype)
            x = x + noise * self.noise.view(-1, 1, 1)
        scale, shift = self.modulation(parsing, codes)
        return self.norm(x) * (1 + scale) + shift


class SpgBlock(nn.Module):
    """Table C. forward: x (B, C, h, w), skip [pose, warped appearance] (B, 2C, h, w), parsing, codes -> (B, C, h,
    w).
    """

    def __init__(self, features: int, scale: float, kernel: int):
        super().__init__()
        self.skip_norm = Sean(2 * features, scale, kernel)
        self.skip = spectral_norm(nn.Conv2d(2 * features, features, 1, bias=False))
        self.norm = Sean(2 * features, scale, kernel)
        self.conv = spectral_norm(nn.Conv2d(2 * features, features, 3, padding=1, bias=False))

    def forward(self, x: Tensor, skip: Tensor, parsing: Tensor, codes: Tensor) -> Tensor:
        skip = self.skip(F.relu(self.skip_norm(skip, parsing, codes)))
        joined = self.norm(torch.cat([x, skip], dim=1), parsing, codes)
        return x + self.conv(F.relu(joined))


class DecoderLevel(nn.Module):
    """Double the resolution (ReLU, 3x3, pixel shuffle), normalise by region, then the level's SPG blocks.

    At 256 pixels the code normalises before the upsampling and has a plain batch norm after it; for smaller images it
    normalises after the upsampling and has no batch norm.
    """

    def __init__(self, inputs: int, outputs: int, scale: float, kernel: int, norm_first: bool):
        super().__init__()
        self.norm_first = norm_first
        self.norm = Sean(inputs if norm_first else outputs, scale, kernel)
        self.up = nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, 4 * outputs, 3, padding=1, bias=False), nn.PixelShuffle(2))
        if norm_first:
            self.up.append(nn.BatchNorm2d(outputs))
        self.blocks = nn.ModuleList(SpgBlock(outputs, scale, kernel) for _ in range(2))

    def forward(self, x: Tensor, skips: list[Tensor], parsing: Tensor, codes: Tensor) -> Tensor:
        """x (B, inputs, h, w), skips of (B, 2 outputs, 2h, 2w), the last used first; parsing (B, 20, 2h, 2w)."""
        if self.norm_first:
            x = self.up(self.norm(x, parsing[..., ::2, ::2], codes))
        else:
            x = self.norm(self.up(x), parsing, codes)
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(x, skip, parsing, codes)
        return x


# Flow


class LearnedFlow(nn.Module):
    """Flow from an unsupervised network (`net`: SPIG's, for the whole body at once); arguments and results are
    AffineFlow's.

    A pixel is visible if the flow there and back ends near its start (Meister et al., 2018: within
    sqrt(0.01 (|there|^2 + |back|^2) + 0.5) pixels), and background if it lies in none of the target's part rectangles.
    """

    def __init__(self, height: int, width: int, scale: float):
        super().__init__()
        self.net = PartFlow(height, width, scale, WHOLE_BODY)

    def one_way(self, source: Tensor, target: Tensor) -> Tensor:
        flow = self.net(source, target)[0][4].squeeze(1)
        return 4 * F.interpolate(flow, scale_factor=4.0, mode="bilinear", align_corners=False)

    def forward(
        self,
        source_joints: Tensor,
        source_valid: Tensor,
        target_joints: Tensor,
        target_valid: Tensor,
        height: int,
        width: int,
    ) -> tuple[Tensor, Tensor]:
        source = heatmaps(source_joints, source_valid, height, width)
        target = heatmaps(target_joints, target_valid, height, width)
        person = place(target_joints, target_valid, height, width)[1].any(1, keepdim=True)
        there, back = self.one_way(source, target), self.one_way(target, source)
        returned = warp(back, there)
        error = (there + returned).square().sum(1, keepdim=True)
        size = (there.square() + returned.square()).sum(1, keepdim=True)
        shown = error <= 0.01 * size + 0.5
        visibility = torch.where(person, torch.where(shown, VISIBLE, INVISIBLE), BACKGROUND)
        return torch.where(person, there, 0.0), visibility


FLOWS: dict[str, Callable[[int, int, float], nn.Module]] = {
    "affine": lambda height, width, scale: AffineFlow(),
    "learned": LearnedFlow,
}


# The generator


def scales(height: int, width: int) -> int:
    """How often the encoders halve the size, until the smaller side is two cells: 7 times at 256x256, 5 at 128x64."""
    return min(7, min(height, width).bit_length() - 2)


def initialise(module: nn.Module) -> None:
    """He et al.'s normal weights, zero biases. Under spectral norm torch's weights stay: their size does not matter."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not parametrize.is_parametrized(module):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class SPGNet(nn.Module):
    """Both stages. forward: Batch -> Output with flow and visibility (1: visible) at stride 1, and stage one's logits.

    height, width: multiples of 2^scales; scale: width multiplier. The target's parsing is stage one's prediction
    (`parsing`): the labels, or with `soft_parsing` their probabilities, which let gradients through.
    flow: "affine" or "learned". kappa: of stage one's distance maps, None for none.

    Set `test_batch_statistics` before eval() to evaluate as the released code does, whose eval() does nothing: with
    each test batch's own statistics, and with noise. An image then depends on the others of its batch.
    """

    test_batch_statistics = False

    def __init__(
        self,
        height: int,
        width: int,
        scale: float = 1.0,
        flow: str = "affine",
        kappa: float | None = KAPPA,
        soft_parsing: bool = False,
    ):
        super().__init__()
        if flow not in FLOWS:
            raise ValueError(f"flow {flow!r}: choose from {', '.join(FLOWS)}")
        self.soft_parsing = soft_parsing
        large = min(height, width) >= 256
        levels = scales(height, width)
        self.widths = [channels(min(32 * (level + 1), 128), scale) for level in range(levels + 1)]
        self.pose = Encoder(JOINTS, self.widths)
        self.appearance = Encoder(3, self.widths)
        self.deformation = nn.ModuleList(
            nn.ModuleList(FeatureDeformation(width) for _ in range(2)) for width in self.widths[: min(5, levels - 1)]
        )
        self.style = StyleEncoder(scale)
        self.fuse = conv_norm(2 * self.widths[-1], self.widths[-1], 1)
        self.decoder = nn.ModuleList(
            DecoderLevel(before, after, scale, kernel=5 if large else 3, norm_first=large)
            for after, before in pairwise(self.widths)
        )
        self.image = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(self.widths[0], 3, 7))
        self.apply(initialise)
        with torch.no_grad():
            self.image[-1].weight.mul_(0.1)  # begin inside tanh's linear range
        self.parsing = Spatn(scale, kappa)
        self.flow = FLOWS[flow](height, width, scale)

    def train(self, mode: bool = True) -> "SPGNet":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(mode or self.test_batch_statistics)
                module.track_running_stats = mode  # a test moves none
        return self

    def appearance_features(self, image: Tensor, flow: Tensor, visibility: Tensor) -> tuple[list[list[Tensor]], Tensor]:
        """As `Encoder.forward`, the features of the first levels deformed to the target's pose."""
        features, bottleneck = self.appearance(image)
        for level, blocks in enumerate(self.deformation):
            where = pool_flow(flow, level), pool_visibility(visibility, level)
            features[level] = [block(x, *where) for block, x in zip(blocks, features[level], strict=True)]
        return features, bottleneck

    def render(self, batch: Batch, parsing: Tensor) -> Output:
        """Stage two: the image, given the target's parsing (B, 20, H, W)."""
        size = batch.source.shape[-2:]
        poses = batch.source_joints, batch.source_valid, batch.target_joints, batch.target_valid
        flow, visibility = self.flow(*poses, *size)
        codes = self.style(batch.source, one_hot(batch.source_labels, LABELS))
        appearance, a = self.appearance_features(batch.source, flow, visibility)
        pose, p = self.pose(joint_maps(batch))
        x = self.fuse(torch.cat([p, a], dim=1))
        for level in reversed(range(len(self.decoder))):
            skips = [torch.cat(pair, dim=1) for pair in zip(pose[level], appearance[level], strict=True)]
            stride = 2**level
            x = self.decoder[level](x, skips, parsing[..., ::stride, ::stride], codes)
        with full_precision(x):  # a tanh in bfloat16 is flat from 3.5 on: no gradient
            image = torch.tanh(self.image(losses.widen(x)))
        visible = (visibility == VISIBLE).float()
        return Output(image, {1: flow.unsqueeze(1)}, {1: visible.unsqueeze(1)})

    def forward(self, batch: Batch) -> Output:
        logits = self.parsing(batch)
        parsing = losses.widen(logits).softmax(1) if self.soft_parsing else one_hot(logits.argmax(1), LABELS)
        output = self.render(batch, parsing)
        output.parsing = logits
        return output


def joint_maps(batch: Batch) -> Tensor:
    """The target's joints as disks (B, 18, H, W)."""
    height, width = batch.source.shape[-2:]
    return disks(batch.target_joints, batch.target_valid, height, width, DISK * height)


class ConditionalDiscriminator(nn.Sequential):
    """PatchGAN with batch norm, on source image, target or generated image, and target joints: (B, 24, H, W) -> a logit
    for each patch.
    """

    def __init__(self, scale: float = 1.0):
        c1, c2, c3, c4 = (channels(base, scale) for base in (64, 128, 256, 512))

        def block(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
            conv = nn.Conv2d(inputs, outputs, 4, stride, 1, bias=False)
            return conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)

        super().__init__(
            *(nn.Conv2d(6 + JOINTS, c1, 4, 2, 1), nn.LeakyReLU(0.2)),
            *block(c1, c2, 2),
            *block(c2, c3, 2),
            *block(c3, c4, 1),
            nn.Conv2d(c4, 1, 4, 1, 1),
        )
        self.apply(initialise)


class SpgnetObjective:
    """Stage two. networks: generator, discriminator. Terms: l1, perceptual, adversarial; with both stages trained
    together also parsing, stage one's cross-entropy.

    true_parsing: the generator is given the parsing of the target photograph, not stage one's prediction.
    """

    def __init__(
        self,
        generator: SPGNet,
        discriminator: ConditionalDiscriminator,
        weights: Mapping[str, float],
        true_parsing: bool,
    ):
        self.generator = generator
        self.discriminator = discriminator
        self.weights = weights
        self.true_parsing = true_parsing

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def judge(self, batch: Batch, image: Tensor) -> Tensor:
        return self.discriminator(torch.cat([batch.source, image, joint_maps(batch)], dim=1))

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], Output]:
        if self.true_parsing:
            output = self.generator.render(batch, one_hot(batch.target_labels, LABELS))
        else:
            output = self.generator(batch)
        with torch.no_grad():
            target = features(batch.target, features.content)
        generated = features(output.image, features.content)
        terms = {
            "l1": losses.l1(output.image, batch.target),
            "perceptual": losses.perceptual(generated, target, features.content),
        }
        if self.weights["adversarial"]:
            terms["adversarial"] = losses.adversarial_generator(self.judge(batch, output.image))
        if "parsing" in self.weights:
            terms["parsing"] = cross_entropy(output.parsing, batch.target_labels)
        return {name: self.weights[name] * term for name, term in terms.items()}, output

    def discriminator_losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        weight = self.weights["adversarial"]
        if not weight:
            return {}
        real, fake = self.judge(batch, batch.target), self.judge(batch, output.image.detach())
        return {"discriminator": 0.5 * weight * losses.adversarial_discriminator(real, fake)}


# As in the released code: 10 epochs of 263,632 pairs on Market-1501, 45 of 101,966 on DeepFashion; on both, the
# adversary joins in the sixth epoch.
WEIGHTS = {"l1": 1.0, "perceptual": 0.125, "adversarial": 0.01}
ADAM = Adam(lr=2e-4, betas=(0.5, 0.999))

# The centre of the scaling is the code's, which takes the height for the width there and the width for the height: at
# 128x64, a quarter of the way down the right border.
MOVES = Jitter(target=Move(scale=(1 / 1.2, 1.2), shift=10.0, whole_pixels=True, centre=(1.0, 0.25)))


def phase(frozen: tuple[str, ...], **weights: float) -> Phase:
    return Phase(
        generators=("generator",),
        discriminators=("discriminator",),
        optimisers={"generator": ADAM, "discriminator": Adam(lr=2e-5, betas=ADAM.betas, weight_decay=4e-4)},
        weights={**WEIGHTS, **weights},
        batch={"market1501": 32, "deepfashion": 4},
        steps={"market1501": 82_385, "deepfashion": 1_147_118},
        frozen=frozen,
        delays={"adversarial": {"market1501": 5 / 10, "deepfashion": 5 / 45}},
        augment={"market1501": MOVES},
    )


SECOND_STAGE = phase(frozen=("parsing", "flow"))
BOTH_STAGES = phase(frozen=("flow",), parsing=1.0)


def objective(
    generator: SPGNet, height: int, width: int, scale: float, weights: Mapping[str, float], true_parsing: bool
) -> SpgnetObjective:
    return SpgnetObjective(generator, ConditionalDiscriminator(scale), weights, true_parsing)


COMPONENTS = (
    Component(
        name="spgnet_flow",
        paper="SPGNet",
        build=lambda height, width, scale: PartFlow(height, width, scale, WHOLE_BODY),
        objective=lambda flow, height, width, scale, weights: FlowObjective(flow, weights),
        phase=Phase(
            generators=("flow",),
            discriminators=(),
            optimisers={"flow": ADAM},
            weights={"sampling": 20.0},
            batch={"market1501": 32, "deepfashion": 4},
            steps={"market1501": 50_000, "deepfashion": 50_000},
        ),
        features="vgg19",
        into="flow.net",
    ),
)


def variant(
    name: str,
    row: str,
    components: tuple[str, ...] = ("spatn",),
    true_parsing: bool = True,
    schedule: Phase = SECOND_STAGE,
    **options: bool | str | None,
) -> Variant:
    return Variant(
        name=name,
        paper="SPGNet",
        row=row,
        build=partial(SPGNet, **options),
        components=components,
        labels="cihp-20",
        features="vgg19",
        objective=partial(objective, true_parsing=true_parsing),
        phase=schedule,
        limb_maps="kappa" not in options,
    )


VARIANTS = (
    variant("spgnet", "Table A, S1 || S2"),
    variant("spgnet_sequential", "Table A, S1 then S2", true_parsing=False),
    variant(
        "spgnet_joint",
        "Table A, S1 and S2 jointly",
        true_parsing=False,
        schedule=BOTH_STAGES,
        soft_parsing=True,
    ),
    variant("spgnet_no_distance", "section C, without distance maps", ("spatn_no_distance",), kappa=None),
    variant("spgnet_learned_flow", "not in the paper", ("spatn", "spgnet_flow"), flow="learned"),
)
