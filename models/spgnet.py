"""SPGNet, stage two: Learning Semantic Person Image Generation by Region-Adaptive Normalization (Lv et al., CVPR
2021): the image from the source image, both parsings and the target pose. Stage one is in models/spatn.py.

Tables are the supplement's; where they contradict each other or say nothing, the authors' code decides (docs/papers.md
lists where). Parsing is (B, 20, h, w), one-hot or probabilities, a channel for each CIHP-20 label.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import losses
from models.layers.affine_flow import BACKGROUND, INVISIBLE, VISIBLE, AffineFlow, place
from models.layers.blocks import Batch, Output, channels, full_precision, warp
from models.layers.features import Features
from models.layers.parsing import LABELS, cross_entropy
from models.layers.part_flow import WHOLE_BODY, FlowObjective, PartFlow
from models.layers.pose_maps import JOINTS, disks, heatmaps, one_hot
from models.layers.schedule import Adam, Component, Jitter, Move, Phase, Variant
from models.layers.spectral import NormedConv2d, SpectralNorm
from models.spatn import KAPPA, Spatn

DISK = 1 / 32  # radius of a joint's disk in image heights: 8 px at 256, 4 px at 128


def initialise(module: nn.Module) -> None:
    """As in the code: He et al.'s normal weights, zero biases; batch norms' weights around 1, 0.02 wide."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)


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


def pyramid(flow: Tensor, visibility: Tensor, levels: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What each of the finest `levels` needs to know: the flow's mean over a cell of 2^level pixels, in cells, (B, 2,
    h, w); where the cell is visible, and where invisible, (B, 1, h, w) of 0 and 1.

    flow (B, 2, H, W) in pixels, visibility (B, 1, H, W) of classes. A cell is of the first of visible (0), invisible
    (1), background (2) that occurs in it.
    """
    known, rank = [], BACKGROUND - visibility  # rank: the larger wins
    for level in range(levels):
        if level:
            flow, rank = F.avg_pool2d(flow, 2) / 2, F.max_pool2d(rank, 2)
        known.append((flow, *((rank == BACKGROUND - shown).to(rank.dtype) for shown in (VISIBLE, INVISIBLE))))
    return known


class FeatureDeformation(nn.Module):
    """Table D, for `count` feature maps of a level: warp, separate visible from invisible features, join them in a
    residual block.

    forward: features, a list of (B, C, h, w), and the level's flow and masks from `pyramid` -> features as before.
    Beyond the image there are zeros.
    """

    def __init__(self, features: int, count: int):
        super().__init__()
        self.join = nn.ModuleList(ResidualBlock(features, side=2 * features) for _ in range(count))

    def forward(self, features: list[Tensor], flow: Tensor, visible: Tensor, invisible: Tensor) -> list[Tensor]:
        dtype, ring = features[0].dtype, [1] * 4
        # `warp` repeats the border: a border of zeros, one cell wide, makes it fade to zero as the code does.
        padded = F.pad(torch.cat(features, dim=1), ring), F.pad(flow, ring, mode="replicate")
        warped = warp(*padded)[..., 1:-1, 1:-1].to(dtype).chunk(len(features), dim=1)
        visible, invisible = visible.to(dtype), invisible.to(dtype)
        return [
            join(x, torch.cat([x * visible, x * invisible], dim=1)) for join, x in zip(self.join, warped, strict=True)
        ]


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


def patches(parsing: Tensor, kernel: int) -> Tensor:
    """What a kernel sees around each pixel, zeros outside: (B, L, h, w) -> (B, L kernel^2, h w)."""
    padded = F.pad(parsing, [kernel // 2] * 4)
    return padded.unfold(2, kernel, 1).unfold(3, kernel, 1).permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)


class Regions(nn.Module):
    """Scale and shift of SEAN for each pixel: from the style code of its label (a linear layer a label, ReLU, painted
    by the parsing, a convolution) and from the parsing around it, blended by learned shares. For `count` norms of
    `features` channels at one resolution, all at once.

    forward: parsing (B, 20, h, w), its `patches`, codes (B, 20, S) -> for each norm 1 + scale and shift, each (B, C,
    h, w). A convolution of a painted map is a sum over labels, and a style the same all over its label: so the styles
    go into the kernels, and 20 channels are convolved in place of S.
    """

    def __init__(self, count: int, features: int, scale: float, kernel: int):
        super().__init__()
        style, hidden = channels(128, scale), channels(64, scale)
        self.count = count
        self.label_weight = nn.Parameter(torch.empty(LABELS, style, count * style))
        self.label_bias = nn.Parameter(torch.zeros(LABELS, 1, count * style))
        nn.init.normal_(self.label_weight, std=math.sqrt(2 / style))
        grouped = partial(nn.Conv2d, kernel_size=kernel, padding=kernel // 2, groups=count)  # both hold weights alone
        self.style = grouped(count * style, 2 * count * features)
        self.shared = nn.Conv2d(LABELS, count * hidden, kernel, padding=kernel // 2)
        self.semantic = grouped(count * hidden, 2 * count * features)
        self.blend = nn.Parameter(torch.zeros(count, 2, 1))  # the style's share of scale and shift, before a sigmoid
        self.register_buffer("one", torch.tensor([1.0, 0.0]).view(2, 1), persistent=False)  # in 1 + scale

    def forward(self, parsing: Tensor, around: Tensor, codes: Tensor) -> list[tuple[Tensor, Tensor]]:
        share, parts = torch.sigmoid(self.blend), (self.count, 2, -1)
        by_style, by_semantic = self.style, self.semantic
        bias = torch.lerp(by_semantic.bias.view(parts), by_style.bias.view(parts), share) + self.one
        share = share[..., None, None, None]
        weight = ((1 - share) * by_semantic.weight.unflatten(0, parts)).flatten(0, 2)
        hidden = F.relu(self.shared(parsing))
        blended = F.conv2d(hidden, weight, bias.flatten(), padding=by_semantic.padding, groups=self.count)

        styles = F.relu(torch.baddbmm(self.label_bias, codes.transpose(0, 1), self.label_weight))  # (20, B, count S)
        weight = (share * by_style.weight.unflatten(0, parts)).flatten(1, 2).flatten(3)  # (count, 2 C, S, kernel^2)
        kernels = torch.einsum("lbns,ncst->bnclt", styles.unflatten(2, (self.count, -1)), weight)
        kernels = kernels.flatten(3).flatten(1, 2)  # (B, 2 count C, 20 kernel^2)
        flat = blended.flatten(2)
        if blended.is_contiguous(memory_format=torch.channels_last):  # stay in it
            flat = torch.baddbmm(flat.mT, around.mT, kernels.mT).mT
        else:
            flat = torch.baddbmm(flat, kernels, around)
        maps = flat.unflatten(2, blended.shape[2:]).unflatten(1, (2 * self.count, -1)).unbind(1)
        return list(zip(maps[::2], maps[1::2], strict=True))


class Sean(nn.Module):
    """Region-adaptive normalisation (SEAN): batch norm without weights, then the scale and shift of `Regions`.

    forward: x (B, C, h, w), (1 + scale, shift) -> (B, C, h, w). In train mode, noise of a learned size (zero at first)
    is added to x, the same in all channels but for its size.
    """

    def __init__(self, features: int):
        super().__init__()
        self.noise = nn.Parameter(torch.zeros(features, 1, 1))
        self.norm = nn.BatchNorm2d(features, affine=False)

    def forward(self, x: Tensor, regions: tuple[Tensor, Tensor]) -> Tensor:
        if self.norm.training:
            noise = torch.randn(len(x), 1, *x.shape[-2:], device=x.device, dtype=x.dtype)
            x = torch.addcmul(x, noise, self.noise.to(x.dtype))
        scale, shift = regions
        return torch.addcmul(shift, self.norm(x), scale)


class SpgBlock(nn.Module):
    """Table C. forward: x (B, C, h, w), skip [pose, warped appearance] (B, 2C, h, w), what `Regions` has for each of
    its two norms, the weights of its two convolutions by their spectral norm -> (B, C, h, w).
    """

    def __init__(self, features: int):
        super().__init__()
        self.skip_norm, self.norm = Sean(2 * features), Sean(2 * features)
        self.skip = NormedConv2d(2 * features, features, 1, bias=False)
        self.conv = NormedConv2d(2 * features, features, 3, padding=1, bias=False)

    def forward(
        self, x: Tensor, skip: Tensor, regions: list[tuple[Tensor, Tensor]], weights: tuple[Tensor, ...]
    ) -> Tensor:
        skip = self.skip(F.relu(self.skip_norm(skip, regions[0])), weights[0])
        return x + self.conv(F.relu(self.norm(torch.cat([x, skip], dim=1), regions[1])), weights[1])


class DecoderLevel(nn.Module):
    """Double the resolution (ReLU, 3x3, pixel shuffle), normalise by region, then the level's SPG blocks.

    At 256 pixels the code normalises before the upsampling and has a plain batch norm after it; for smaller images it
    normalises after the upsampling and has no batch norm.
    """

    def __init__(self, inputs: int, outputs: int, scale: float, kernel: int, norm_first: bool, blocks: int):
        super().__init__()
        self.norm_first, self.kernel = norm_first, kernel
        self.norm = Sean(inputs if norm_first else outputs)
        self.norm_regions = Regions(1, inputs if norm_first else outputs, scale, kernel)
        self.up = nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, 4 * outputs, 3, padding=1, bias=False), nn.PixelShuffle(2))
        if norm_first:
            self.up.append(nn.BatchNorm2d(outputs))
        self.blocks = nn.ModuleList(SpgBlock(outputs) for _ in range(blocks))
        self.regions = Regions(2 * blocks, 2 * outputs, scale, kernel)

    def forward(
        self, x: Tensor, skips: list[Tensor], parsing: Tensor, codes: Tensor, weights: tuple[Tensor, ...]
    ) -> Tensor:
        """x (B, inputs, h, w), skips of (B, 2 outputs, 2h, 2w), the last used first; parsing (B, 20, 2h, 2w); the
        blocks' weights, two each.
        """
        around = patches(parsing, self.kernel)
        if self.norm_first:
            coarse = parsing[..., ::2, ::2]
            x = self.up(self.norm(x, *self.norm_regions(coarse, patches(coarse, self.kernel), codes)))
        else:
            x = self.norm(self.up(x), *self.norm_regions(parsing, around, codes))
        regions = self.regions(parsing, around, codes)
        for k, (block, skip) in enumerate(zip(self.blocks, reversed(skips), strict=True)):
            x = block(x, skip, regions[2 * k : 2 * k + 2], weights[2 * k : 2 * k + 2])
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


class SPGNet(nn.Module):
    """Both stages. forward: Batch -> Output with flow and visibility (1: visible) at stride 1, and stage one's logits.

    height, width: multiples of 2^scales; scale: width multiplier. The target's parsing is stage one's prediction
    (`parsing`): the labels, or with `soft_parsing` their probabilities, which let gradients through.
    flow: "affine" or "learned". kappa: of stage one's distance maps, None for none. blocks: SPG blocks a level, each
    with the features of one of the encoders' residual blocks; if one, of the second.
    """

    def __init__(
        self,
        height: int,
        width: int,
        scale: float = 1.0,
        flow: str = "affine",
        kappa: float | None = KAPPA,
        soft_parsing: bool = False,
        blocks: int = 2,
    ):
        super().__init__()
        if flow not in FLOWS:
            raise ValueError(f"flow {flow!r}: choose from {', '.join(FLOWS)}")
        self.soft_parsing, self.spg_blocks = soft_parsing, blocks
        large = min(height, width) >= 256
        levels = scales(height, width)
        self.widths = [channels(min(32 * (level + 1), 128), scale) for level in range(levels + 1)]
        self.pose = Encoder(JOINTS, self.widths)
        self.appearance = Encoder(3, self.widths)
        self.deformation = nn.ModuleList(
            FeatureDeformation(width, blocks) for width in self.widths[: min(5, levels - 1)]
        )
        self.style = StyleEncoder(scale)
        self.fuse = conv_norm(2 * self.widths[-1], self.widths[-1], 1)
        self.decoder = nn.ModuleList(
            DecoderLevel(before, after, scale, kernel=5 if large else 3, norm_first=large, blocks=blocks)
            for after, before in pairwise(self.widths)
        )
        self.image = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(self.widths[0], 3, 7))
        self.apply(initialise)  # before spectral norm too: the size of its weights decides how fast Adam turns them
        self.norm = SpectralNorm([one for one in self.decoder.modules() if isinstance(one, NormedConv2d)])
        with torch.no_grad():
            self.image[-1].weight.mul_(0.1)  # begin inside tanh's linear range
        self.parsing = Spatn(scale, kappa)
        self.flow = FLOWS[flow](height, width, scale)

    def render(self, batch: Batch, parsing: Tensor) -> Output:
        """Stage two: the image, given the target's parsing (B, 20, H, W)."""
        size = batch.source.shape[-2:]
        poses = batch.source_joints, batch.source_valid, batch.target_joints, batch.target_valid
        flow, visibility = self.flow(*poses, *size)
        codes = self.style(batch.source, one_hot(batch.source_labels, LABELS))
        appearance, a = self.appearance(batch.source)
        pose, p = self.pose(joint_maps(batch))
        pose, appearance = ([level[-self.spg_blocks :] for level in levels] for levels in (pose, appearance))
        known = pyramid(flow, visibility, len(self.deformation))
        for level, (deform, what) in enumerate(zip(self.deformation, known, strict=True)):
            appearance[level] = deform(appearance[level], *what)
        x = self.fuse(torch.cat([p, a], dim=1))
        parsing, codes = parsing.to(x.dtype), codes.to(x.dtype)  # under autocast once, not in every norm
        weights, each = self.norm(), 2 * self.spg_blocks
        for level in reversed(range(len(self.decoder))):
            skips = [torch.cat(pair, dim=1) for pair in zip(pose[level], appearance[level], strict=True)]
            stride = 2**level
            own = weights[level * each : (level + 1) * each]
            x = self.decoder[level](x, skips, parsing[..., ::stride, ::stride], codes, own)
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

    def judge(self, batch: Batch, *images: Tensor) -> list[Tensor]:
        """The discriminator's logits of each image, in calls of their own: its batch norms mix no real with fake."""
        joints = joint_maps(batch)
        return [self.discriminator(torch.cat([batch.source, image, joints], dim=1)) for image in images]

    def generate(self, batch: Batch) -> Output:
        if self.true_parsing:
            return self.generator.render(batch, one_hot(batch.target_labels, LABELS))
        return self.generator(batch)

    def generator_losses(
        self, batch: Batch, features: Features | None, output: Output | None = None
    ) -> tuple[dict[str, Tensor], Output]:
        output = output or self.generate(batch)
        with torch.no_grad():
            target = features(batch.target, features.content)
        generated = features(output.image, features.content)
        terms = {
            "l1": losses.l1(output.image, batch.target),
            "perceptual": losses.perceptual(generated, target, features.content),
        }
        if self.weights["adversarial"]:
            terms["adversarial"] = losses.adversarial_generator(*self.judge(batch, output.image))
        if "parsing" in self.weights:
            terms["parsing"] = cross_entropy(output.parsing, batch.target_labels)
        return {name: self.weights[name] * term for name, term in terms.items()}, output

    def discriminator_losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        weight = self.weights["adversarial"]
        if not weight:
            return {}
        real, fake = self.judge(batch, batch.target, output.image.detach())
        return {"discriminator": 0.5 * weight * losses.adversarial_discriminator(real, fake)}


# As in the released code: 10 epochs of 263,632 pairs on Market-1501, 45 of 101,966 on DeepFashion; on both, the
# adversary joins in the sixth epoch. In a step the discriminator is updated first.
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
        parts={"market1501": 4, "deepfashion": 2},
        discriminators_first=True,
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
    departs: tuple[str, ...] = ("flow",),
    **options: bool | int | str | None,
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
        departs=departs,
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
    variant(
        "spgnet_one_block",
        "Table B as printed: one SPG block a level, where the code has two",
        departs=("flow", "reading"),
        blocks=1,
    ),
    variant("spgnet_learned_flow", "not in the paper", ("spatn", "spgnet_flow"), flow="learned"),
)
