"""Deformable GANs for Pose-based Human Image Generation (Siarohin et al., CVPR 2018): Def-GAN, the paper's full system.

Its generator is the one that SPT took over (models/layers/deformable.py). The authors trained with different settings
on their two data sets: the images' size decides here. docs/papers.md lists what their code fixes and what is chosen.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import losses
from models.layers.blocks import Batch, Output, channels, full_precision
from models.layers.deformable import (
    DECODER,
    ENCODER,
    HALVINGS,
    WARPED,
    Decoder,
    Encoder,
    PartWarp,
    Pose,
    ToImage,
    down,
    join,
)
from models.layers.features import CAFFE, Features
from models.layers.pose_maps import JOINTS, batch_heatmaps
from models.layers.schedule import Adam, Phase, Variant


def initialise(module: nn.Module) -> None:
    """Keras's initial weights: uniform after Glorot and Bengio, zero biases."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class DefGAN(nn.Module):
    """The generator. forward: Batch -> Output.

    height, width: multiples of 32, of 64 where the larger is more than 128; scale: width multiplier.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0):
        super().__init__()
        deeper = int(max(height, width) > 128)
        unit = 2 ** (HALVINGS + deeper)
        if height % unit or width % unit:
            raise ValueError(f"Def-GAN needs image sides that are multiples of {unit}, not {height} x {width}")
        self.appearance = Encoder(3 + JOINTS, scale, deeper)
        self.pose = Encoder(JOINTS, scale, deeper)
        self.decoder = Decoder(scale, nn.Dropout, deeper)
        self.image = ToImage(channels(DECODER[-1], scale) + 2 * channels(ENCODER[0], scale))
        self.apply(initialise)

    def forward(self, batch: Batch) -> Output:
        return self.draw(batch, *batch_heatmaps(batch))

    def draw(self, batch: Batch, source: Tensor, target: Tensor) -> Output:
        """From the heatmaps of both poses, (B, 18, H, W) each."""
        poses = Pose(batch.source_joints, batch.source_valid), Pose(batch.target_joints, batch.target_valid)
        strides = tuple(2**level for level in range(WARPED))
        warp = PartWarp.of(*poses, *batch.source.shape[-2:], strides)
        appearance = self.appearance(torch.cat([batch.source, source], dim=1))
        skips = join(appearance, self.pose(target), warp)
        return Output(self.image(torch.cat([self.decoder(skips), skips[0]], dim=1)))


class Discriminator(nn.Sequential):
    """Source and target images with their heatmaps (B, 42, H, W) -> logits (B, 1, h, w): 7x7 of 256x256, 3x1 of 128x64.

    As in the code the first 4x4 is not padded. Images less than 64 pixels wide have one halving less.
    """

    def __init__(self, height: int, width: int, scale: float):
        widths = [channels(base, scale) for base in (64, 128, 256, 512)[: 4 if min(height, width) >= 64 else 3]]
        blocks = [down(before, after) for before, after in pairwise(widths)]
        super().__init__(
            nn.Conv2d(2 * (3 + JOINTS), widths[0], 4, stride=2),
            *blocks,
            *(nn.LeakyReLU(0.2), nn.Conv2d(widths[-1], 1, 4, stride=2, padding=1, bias=False)),
        )
        self.apply(initialise)


def nearest_neighbour(generated: Tensor, target: Tensor, side: int) -> Tensor:
    """The nearest-neighbour loss: each position of the generated features is compared with the most similar one of the
    side x side positions around it in the target's, by the sum of absolute differences over channels. Features
    (B, C, H, W), side odd -> the mean over positions. Positions outside the image are nobody's neighbours.

    Which neighbour is nearest is found first, without a graph: the gradient goes through that one alone.
    """
    with full_precision(generated):
        generated, target = losses.widen(generated), losses.widen(target)
        height, width = generated.shape[-2:]
        with torch.no_grad():
            padded = F.pad(target, (side // 2,) * 4, value=-1e4)
            distances = [
                torch.linalg.vector_norm(padded[..., y : y + height, x : x + width] - generated, 1, dim=1)
                for y in range(side)
                for x in range(side)
            ]
            nearest = torch.stack(distances).min(0).indices  # (B, H, W)
            y, x = nearest.div(side, rounding_mode="floor"), nearest % side
            rows = torch.arange(height, device=y.device).unsqueeze(-1)
            place = (rows + y) * padded.shape[-1] + torch.arange(width, device=y.device) + x
            place = place.flatten(1).unsqueeze(1).expand(-1, target.shape[1], -1)
            found = padded.flatten(2).gather(2, place).view_as(target)
        return (found - generated).abs().sum(1).mean()


class DefGanObjective:
    """networks: generator, discriminator. Terms: nearest, adversarial."""

    def __init__(self, generator: DefGAN, height: int, width: int, scale: float, weights: Mapping[str, float]):
        self.generator = generator
        self.discriminator = Discriminator(height, width, scale)
        self.side = 5 if height >= 256 else 3  # of the neighbourhood: DeepFashion's and Market-1501's
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def generate(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The generated image, and the source's and the target's heatmaps."""
        maps = batch_heatmaps(batch)
        return self.generator.draw(batch, *maps).image, maps

    def judge(self, batch: Batch, image: Tensor, maps: tuple[Tensor, Tensor]) -> Tensor:
        return self.discriminator(torch.cat([batch.source, maps[0], image, maps[1]], dim=1))

    def generator_losses(
        self, batch: Batch, features: Features | None, output: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
    ) -> tuple[dict[str, Tensor], tuple[Tensor, tuple[Tensor, Tensor]]]:
        image, maps = output = self.generate(batch) if output is None else output
        (layer,) = layers = features.second[:1]
        with torch.no_grad():
            target = features(batch.target, layers)[layer]
        terms = {
            "nearest": CAFFE * nearest_neighbour(features(image, layers)[layer], target, self.side),
            "adversarial": losses.adversarial_generator(self.judge(batch, image, maps)),
        }
        return {name: self.weights[name] * term for name, term in terms.items()}, output

    def discriminator_losses(self, batch: Batch, output: tuple[Tensor, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        image, maps = output
        real, fake = self.judge(batch, batch.target, maps), self.judge(batch, image.detach(), maps)
        return {"discriminator": self.weights["adversarial"] * losses.adversarial_discriminator(real, fake)}


ADAM = Adam(lr=2e-4, betas=(0.5, 0.999))

# 90 epochs of 1,000 batches.
VARIANTS = (
    Variant(
        name="def_gan",
        paper="Def-GAN",
        row="SPIG's Table 1, Def-GAN",
        build=DefGAN,
        features="vgg19",
        objective=DefGanObjective,
        phase=Phase(
            generators=("generator",),
            discriminators=("discriminator",),
            optimisers={"generator": ADAM, "discriminator": ADAM},
            weights={"nearest": 0.01, "adversarial": 1.0},
            batch={"market1501": 4, "deepfashion": 2},
            steps={"market1501": 90_000, "deepfashion": 90_000},
            discriminators_first=True,
        ),
        departs=("judge", "design"),
    ),
)
