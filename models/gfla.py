"""GFLA: Deep Image Spatial Transformation for Person Image Generation (Ren et al., CVPR 2020), a global flow and local
attention; "DIST" in SPIG's Table 1.

docs/papers.md lists what the authors' code fixes and what is chosen here. Strides are relative to the image: attention
is at strides 8 and 4 for images of 256 pixels, and at stride 4 alone for smaller ones.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import exp

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import losses
from models.layers.blocks import (
    Batch,
    InstanceNorm,
    Output,
    PatchDiscriminator,
    channels,
    flow_levels,
    full_precision,
    orthogonal,
    warp,
)
from models.layers.features import Features
from models.layers.losses import widen
from models.layers.pose_maps import JOINTS, batch_heatmaps
from models.layers.schedule import Adam, Component, Jitter, Move, Phase, Variant


def kernel_sizes(height: int) -> dict[int, int]:
    """By stride of an attention, the side of its local patches: as for DeepFashion from 256 pixels on, else as for
    Market-1501.
    """
    return {8: 3, 4: 5} if height >= 256 else {4: 3}


def norm_act(features: int) -> nn.Sequential:
    return nn.Sequential(InstanceNorm(features), nn.LeakyReLU(0.1, inplace=True))


# The released blocks, without the biases that a norm behind them takes back. Their leading norms also stand before the
# first convolutions, on images and heatmaps as they come.

UP = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}


class EncoderBlock(nn.Sequential):
    """Halve the resolution: norm, act, 4x4 stride 2, norm, act, 3x3. (B, inputs, H, W) -> (B, outputs, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            *(norm_act(inputs), nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)),
            *(norm_act(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)),
        )


class DecoderBlock(nn.Module):
    """Double the resolution: norm, act, 3x3, norm, act, 3x3 transposed, plus a transposed shortcut.

    forward: (B, inputs, H, W) -> (B, outputs, 2H, 2W).
    """

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.branch = nn.Sequential(
            *(norm_act(inputs), nn.Conv2d(inputs, hidden, 3, padding=1, bias=False)),
            *(norm_act(hidden), nn.ConvTranspose2d(hidden, outputs, **UP)),
        )
        self.shortcut = nn.ConvTranspose2d(inputs, outputs, **UP)

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + self.shortcut(x)


class ResBlock(nn.Module):
    """x + (norm, act, 3x3, norm, act, 3x3)."""

    def __init__(self, features: int):
        super().__init__()
        self.branch = nn.Sequential(
            *(norm_act(features), nn.Conv2d(features, features, 3, padding=1, bias=False)),
            *(norm_act(features), nn.Conv2d(features, features, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def last(inputs: int, outputs: int) -> nn.Sequential:
    """Act, 3x3 on reflected borders: the skips and the image."""
    return nn.Sequential(nn.LeakyReLU(0.1), nn.ReflectionPad2d(1), nn.Conv2d(inputs, outputs, 3))


class FlowEstimator(nn.Module):
    """The global flow field estimator: source image and both poses -> flow and visibility at each attention's stride.

    An encoder to 1/32 (where the smallest map would be a single cell, which has no instance norm: to fewer), a decoder
    to 1/4 with additive skips.

    forward: image (B, 3, H, W), source and target heatmaps (B, 18, H, W) -> flows, visibilities as in `Output`.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0):
        super().__init__()
        levels = flow_levels(height, width)
        base, largest = channels(32, scale), channels(256, scale)
        count = [3 + 2 * JOINTS] + [min(base * 2**level, largest) for level in range(levels)]  # count[k] at 1/2^k
        self.down = nn.ModuleList(EncoderBlock(before, after) for before, after in pairwise(count))
        steps = range(levels - 1, 1, -1)  # the levels that the decoder reaches, down to 2
        self.up = nn.ModuleList(DecoderBlock(count[k + 1], count[k], count[k]) for k in steps)
        self.skip = nn.ModuleList(last(count[k], count[k]) for k in steps)
        self.heads = nn.ModuleDict(
            {str(stride): nn.Conv2d(count[stride.bit_length() - 1], 3, 3, padding=1) for stride in kernel_sizes(height)}
        )
        self.apply(orthogonal)

    def forward(self, image: Tensor, source: Tensor, target: Tensor) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        x, encoded, flows, visibilities = torch.cat([image, source, target], dim=1), [], {}, {}
        for down in self.down:
            x = down(x)
            encoded.append(x)
        for up, skip, beside in zip(self.up, self.skip, encoded[-2::-1], strict=False):
            x = up(x) + skip(beside)
            stride = image.shape[-2] // x.shape[-2]
            if str(stride) in self.heads:
                with full_precision(image):
                    found = self.heads[str(stride)](x.float()).unsqueeze(1)
                    flows[stride], visibilities[stride] = found[:, :, :2], torch.sigmoid(found[:, :, 2:])
        return flows, visibilities


def targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Where a flow (B, 2, H, W) in cells points to: x and y, (B, H, W), in cells."""
    x = flow[:, 0] + torch.arange(flow.shape[-1], device=flow.device, dtype=flow.dtype)
    y = flow[:, 1] + torch.arange(flow.shape[-2], device=flow.device, dtype=flow.dtype).unsqueeze(-1)
    return x, y


def weighted_cells(source: Tensor, left: Tensor, top: Tensor, weights: Tensor) -> Tensor:
    """out[l] = sum over i, j of weights[i, j, l] source[top[l] + i, left[l] + j]; outside the grid, the nearest border
    value.

    source (B, C, H, W), left and top (B, H, W) whole numbers, weights (B, m, m, H, W) -> (B, C, H, W). No patch is
    stored: beside its operands, a position needs memory for m^2 weights and cell numbers.
    """
    batch, features, height, width = source.shape
    side = torch.arange(weights.shape[1], device=weights.device).view(-1, 1, 1)
    rows, columns = (
        (first.detach().nan_to_num().unsqueeze(1) + side).clamp(0, length - 1).long()  # (B, m, H, W)
        for first, length in ((top, height), (left, width))
    )
    image = torch.arange(batch, device=weights.device).view(-1, 1, 1, 1, 1)
    index = (image * height + rows.unsqueeze(2)) * width + columns.unsqueeze(1)  # (B, m, m, H, W)

    def bags(values: Tensor) -> Tensor:  # one a position
        return values.flatten(1, 2).permute(0, 2, 3, 1).flatten(0, 2)

    table = source.to(weights.dtype).permute(0, 2, 3, 1).reshape(-1, features)
    total = F.embedding_bag(bags(index), table, per_sample_weights=bags(weights), mode="sum")
    return total.view(batch, height, width, features).permute(0, 3, 1, 2)


def attend(source: Tensor, kernel: Tensor, flow: Tensor) -> Tensor:
    """The paper's content-aware sampling, a weighted sum over the patch that the flow points to: out[l] = sum over
    offsets k of kernel[k, l] source[l + flow[l] + k], bilinear; outside the grid, the nearest border value.

    source (B, C, H, W), kernel (B, n^2, H, W) with the offsets row by row, n odd, flow (B, 2, H, W) as (dx, dy) in
    cells -> (B, C, H, W) of the flow's type, NaN where the flow is NaN or infinite.

    All samples of a patch lie at the same fraction of a cell, so that kernel and bilinear weights make one kernel of
    (n + 1)^2 weights on whole cells.
    """
    size = int(kernel.shape[1] ** 0.5)
    with full_precision(source):
        x, y = targets(flow)
        left, top = x.floor(), y.floor()
        right, below = (x - left)[:, None, None], (y - top)[:, None, None]  # (B, 1, 1, H, W), the farther cell's share
        weights = kernel.to(flow.dtype).unflatten(1, (size, size))  # (B, n rows, n columns, H, W)
        weights = (1 - right) * F.pad(weights, (0, 0, 0, 0, 0, 1)) + right * F.pad(weights, (0, 0, 0, 0, 1, 0))
        weights = (1 - below) * F.pad(weights, (0,) * 7 + (1,)) + below * F.pad(weights, (0,) * 6 + (1, 0))
        return weighted_cells(source, left - size // 2, top - size // 2, weights)


class LocalAttention(nn.Module):
    """Local attention: a kernel predicted from the target's patch and the flowed source patch, applied to the latter
    and averaged over the patch.

    forward: source, target (B, C, H, W), flow (B, 2, H, W) in cells -> (B, C, H, W).

    The predictor's first layer is fully connected on both n x n patches. For the target's patch that is a convolution.
    For the source's it is a convolution to which the flow is applied, since bilinear sampling commutes with
    convolution: no patch needs to be extracted. Its result still changes up to n // 2 cells outside the grid, so these
    cells are kept.
    """

    def __init__(self, features: int, hidden: int, size: int):
        super().__init__()
        self.radius = size // 2
        self.source = nn.Conv2d(features, hidden, size, bias=False)
        self.target = nn.Conv2d(features, hidden, size)
        self.predict = nn.Sequential(nn.LeakyReLU(0.1), nn.Conv2d(hidden, size**2, 1))

    def draw(self) -> None:
        """Initial weights of the first layer, which is one for both patches."""
        both = nn.Conv2d(2 * self.source.in_channels, self.source.out_channels, self.source.kernel_size)
        orthogonal(both)
        with torch.no_grad():
            for part, weight in zip((self.target, self.source), both.weight.chunk(2, dim=1), strict=True):
                part.weight.copy_(weight)

    def kernel(self, source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
        """(B, n^2, H, W) float32, sums to 1 over the patch."""
        r = self.radius
        by_source = self.source(F.pad(source, (2 * r,) * 4, mode="replicate"))  # (B, hidden, H + 2r, W + 2r)
        by_source = warp(by_source, F.pad(flow, (r,) * 4, mode="replicate"))[..., r:-r, r:-r]
        hidden = by_source + self.target(F.pad(target, (r,) * 4, mode="replicate"))
        with full_precision(source):
            return torch.softmax(self.predict(widen(hidden)), dim=1)

    def forward(self, source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
        kernel = self.kernel(source, target, flow)
        return attend(source, kernel / kernel.shape[1], flow)


def encoder(inputs: int, widths: list[int]) -> nn.ModuleList:
    return nn.ModuleList(EncoderBlock(before, after) for before, after in pairwise([inputs, *widths]))


class GFLA(nn.Module):
    """The generator: flow estimator and local neural texture renderer. forward -> Output with flows and visibilities
    at the attentions' strides.

    height, width: multiples of 32; scale: width multiplier.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0):
        super().__init__()
        widths = [channels(base, scale) for base in (64, 128, 256)]  # at strides 2, 4, 8
        hidden = channels(128, scale)
        self.source = encoder(3, widths[: max(kernel_sizes(height)).bit_length() - 1])  # to the coarsest attention
        self.target = encoder(JOINTS, widths)
        self.attention = nn.ModuleDict(
            {
                str(stride): LocalAttention(widths[stride.bit_length() - 2], hidden, size)
                for stride, size in kernel_sizes(height).items()
            }
        )
        steps = [(8, widths[2], widths[1]), (4, widths[1], widths[0]), (2, widths[0], widths[0])]
        self.decoder = nn.ModuleDict(
            {
                str(stride): nn.Sequential(ResBlock(before), DecoderBlock(before, before, after))
                for stride, before, after in steps
            }
        )
        self.image = last(widths[0], 3)
        self.apply(orthogonal)
        for attention in self.attention.values():
            attention.draw()
        self.flow = FlowEstimator(height, width, scale)

    def forward(self, batch: Batch) -> Output:
        source_maps, target_maps = batch_heatmaps(batch)
        flows, visibilities = self.flow(batch.source, source_maps, target_maps)
        image, x, sources = batch.source, target_maps, {}
        for level, block in enumerate(self.source, start=1):
            image = block(image)
            sources[2**level] = image
        for block in self.target:
            x = block(x)
        for stride in (8, 4, 2):
            if stride in flows:
                shown = visibilities[stride].squeeze(1)
                attended = self.attention[str(stride)](sources[stride], x, flows[stride].squeeze(1))
                x = (1 - shown) * x + shown * attended
            x = self.decoder[str(stride)](x)
        return Output(torch.tanh(widen(self.image(x))), flows, visibilities)


# Losses


def gaussian_sample(source: Tensor, flow: Tensor, sigma: float = 2.0) -> Tensor:
    """The mean of the 4x4 cells around each flowed position, weighted by exp(-distance^2 / 2 sigma^2): how the released
    code samples features for the sampling correctness. source (B, C, H, W), flow (B, 2, H, W) -> (B, C, H, W).
    """
    x, y = targets(flow)
    left, top = x.floor() - 1, y.floor() - 1
    cell = torch.arange(4, device=flow.device).view(-1, 1, 1)
    across, down = (  # (B, 4, H, W)
        torch.softmax(-((cell - (at - first).unsqueeze(1)) ** 2) / (2 * sigma**2), dim=1)
        for at, first in ((x, left), (y, top))
    )
    return weighted_cells(source, left, top, down.unsqueeze(2) * across.unsqueeze(1))


def sampling_correctness(source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """As `losses.sampling_correctness` of the whole image, but for the sampling."""
    best = losses.best_cosine(source, target)
    with full_precision(flow):
        cosine = F.cosine_similarity(gaussian_sample(source, widen(flow)), widen(target), dim=1)
        return torch.exp(-cosine / best.clamp(min=1e-6)).mean() - exp(-1)


def affine_residual(flow: Tensor, size: int) -> Tensor:
    """Affine regularisation: the squared residual of the least-squares affine fit to the flow in each size x size
    patch, summed over the patch and averaged over patches and images. flow (B, 2, H, W) in cells.

    The paper fits the positions, which are the flow plus an affine map: the residual is the same.
    """
    with full_precision(flow):
        flow = widen(flow)
        side = torch.arange(size, device=flow.device, dtype=flow.dtype)
        y, x = torch.meshgrid(side, side, indexing="ij")
        basis = torch.linalg.qr(torch.stack([x.flatten(), y.flatten(), torch.ones_like(x).flatten()], dim=1))[0]
        patches = F.unfold(flow, size).unflatten(1, (2, size**2))  # (B, 2, n^2, patches)
        residual = patches - basis @ (basis.T @ patches)
        return residual.square().sum((1, 2)).mean()


def as_fed(images: Tensor, features: Features) -> Tensor:
    """What makes VGG19 see images in [-1, 1] as they are: the released code does not take ImageNet's mean and deviation
    off, and its weights count on that.
    """
    return (images - features.offset) / features.gain if features.net == "vgg19" else images


def flow_losses(
    flows: dict[int, Tensor], source: dict[str, Tensor], target: dict[str, Tensor], features: Features, height: int
) -> dict[str, Tensor]:
    """Sampling correctness of the whole image and affine regularisation, summed over strides."""
    sampling = affine = 0.0
    for stride, size in kernel_sizes(height).items():
        layer, flow = features.correctness[stride], flows[stride].squeeze(1)
        sampling = sampling + sampling_correctness(source[layer], target[layer], flow)
        affine = affine + affine_residual(flow, size)
    return {"sampling": sampling, "affine": affine}


class FlowObjective:
    """Stage one: the flow estimator alone. networks: flow. Terms: sampling, affine."""

    def __init__(self, flow: FlowEstimator, weights: Mapping[str, float]):
        self.flow = flow
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"flow": self.flow}

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], None]:
        flows, _ = self.flow(batch.source, *batch_heatmaps(batch))
        layers = tuple(features.correctness[stride] for stride in flows)
        source, target = features.pair(as_fed(batch.source, features), as_fed(batch.target, features), layers)
        terms = flow_losses(flows, source, target, features, batch.source.shape[-2])
        return {name: self.weights[name] * term for name, term in terms.items()}, None

    def discriminator_losses(self, batch: Batch, output: None) -> dict[str, Tensor]:
        return {}


class GflaObjective:
    """Stage two, end to end. networks: generator, discriminator. Terms: sampling, affine, l1, adversarial, perceptual,
    style.
    """

    def __init__(self, generator: GFLA, discriminator: PatchDiscriminator, weights: Mapping[str, float]):
        self.generator = generator
        self.discriminator = discriminator
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def generate(self, batch: Batch) -> Output:
        return self.generator(batch)

    def generator_losses(
        self, batch: Batch, features: Features | None, output: Output | None = None
    ) -> tuple[dict[str, Tensor], Output]:
        output = self.generate(batch) if output is None else output
        correctness = tuple(features.correctness[stride] for stride in output.flows)
        compared = tuple({*features.content, *features.style})
        real = as_fed(batch.source, features), as_fed(batch.target, features)
        source, target = features.pair(*real, correctness, compared)
        generated = features(as_fed(output.image, features), compared)
        terms = {
            **flow_losses(output.flows, source, target, features, batch.source.shape[-2]),
            "l1": losses.l1(output.image, batch.target),
            "adversarial": losses.least_squares(self.discriminator(output.image), 1.0).mean(),
            "perceptual": losses.perceptual(generated, target, features.content),
            "style": losses.style(generated, target, features.style),
        }
        return {name: self.weights[name] * term for name, term in terms.items()}, output

    def discriminator_losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        real = losses.least_squares(self.discriminator(batch.target), 1.0).mean()
        fake = losses.least_squares(self.discriminator(output.image.detach()), 0.0).mean()
        return {"discriminator": 0.5 * (real + fake)}


# As in the released code, but for the number of steps: that code runs until it is stopped. SPIG's are taken here.
ADAM = Adam(lr=1e-4, betas=(0.0, 0.999))
BATCH = {"market1501": 8, "deepfashion": 8}
STILL = Move(geometric=False, nearest=True, repeat_border=False, drop_joints=False)
AUGMENT = {
    "market1501": Jitter(
        source=replace(STILL, scale=(0.95, 1.05), angle=5.0, shift=5.0), target=replace(STILL, angle=1.0, shift=2.5)
    )
}

COMPONENTS = (
    Component(
        name="gfla_flow",
        paper="GFLA",
        build=FlowEstimator,
        objective=lambda flow, height, width, scale, weights: FlowObjective(flow, weights),
        phase=Phase(
            generators=("flow",),
            discriminators=(),
            optimisers={"flow": ADAM},
            weights={"sampling": 20.0, "affine": 0.01},
            batch=BATCH,
            steps={"market1501": 50_000, "deepfashion": 50_000},
            augment=AUGMENT,
        ),
        features="vgg19",
        into="flow",
    ),
)

VARIANTS = (
    Variant(
        name="gfla",
        paper="GFLA",
        row="SPIG's Table 1, DIST",
        build=GFLA,
        components=("gfla_flow",),
        features="vgg19",
        objective=lambda generator, height, width, scale, weights: GflaObjective(
            generator, PatchDiscriminator(height, width, scale), weights
        ),
        phase=Phase(
            generators=("generator",),
            discriminators=("discriminator",),
            optimisers={"generator": ADAM, "discriminator": replace(ADAM, lr=0.1 * ADAM.lr)},
            weights={
                "sampling": 5.0,
                "affine": 0.0025,
                "l1": 5.0,
                "adversarial": 2.0,
                "perceptual": 0.5,
                "style": 500.0,
            },
            batch=BATCH,
            steps={"market1501": 200_000, "deepfashion": 200_000},
            augment=AUGMENT,
            discriminators_first=True,
        ),
    ),
)
