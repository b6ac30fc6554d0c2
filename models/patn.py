"""PATN: Progressive Pose Attention Transfer for Person Image Generation (Zhu et al., CVPR 2019).

The authors trained with different settings on their two data sets. Here the images' height decides: DeepFashion's
settings from 256 pixels on, Market-1501's below. docs/papers.md lists what their code fixes and what is chosen here.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.layers import losses
from models.layers.blocks import Batch, Output, channels, initialise
from models.layers.features import Features
from models.layers.pose_maps import JOINTS, batch_heatmaps
from models.layers.schedule import Adam, Phase, Variant

BLOCKS = 9
LAYER = {"vgg19": "3", "squeezenet1_1": "1"}  # of the perceptual term: relu1_2, and the closest to it


def is_large(height: int) -> bool:
    """Whether DeepFashion's settings apply rather than Market-1501's."""
    return height >= 256


def norm(features: int, large: bool) -> nn.Module:
    return nn.InstanceNorm2d(features) if large else nn.BatchNorm2d(features)


def encoder(inputs: int, base: int, large: bool) -> nn.Sequential:
    """7x7 and two 3x3 of stride 2: (B, inputs, H, W) -> (B, 4 base, H/4, W/4). No bias, which the norm would cancel."""
    return nn.Sequential(
        *(nn.ReflectionPad2d(3), nn.Conv2d(inputs, base, 7, bias=False), norm(base, large), nn.ReLU()),
        *(nn.Conv2d(base, 2 * base, 3, 2, 1, bias=False), norm(2 * base, large), nn.ReLU()),
        *(nn.Conv2d(2 * base, 4 * base, 3, 2, 1, bias=False), norm(4 * base, large), nn.ReLU()),
    )


def two_convs(inputs: int, outputs: int, large: bool) -> nn.Sequential:
    """3x3, norm, ReLU, dropout, 3x3: the start of every residual branch and attention."""
    return nn.Sequential(
        *(nn.ReflectionPad2d(1), nn.Conv2d(inputs, inputs, 3, bias=False), norm(inputs, large), nn.ReLU()),
        *(nn.Dropout(0.5), nn.ReflectionPad2d(1), nn.Conv2d(inputs, outputs, 3, bias=False)),
    )


class PoseAttentionBlock(nn.Module):
    """Pose-attentional transfer block: image + sigmoid(pose path) * image path; the result is appended to the pose.

    forward: image (B, C, h, w), pose (B, C or 2C, h, w) -> image (B, C, h, w), pose (B, 2C, h, w).
    """

    def __init__(self, features: int, first: bool, large: bool):
        super().__init__()
        self.image = two_convs(features, features, large).append(norm(features, large))
        self.pose = two_convs(features if first else 2 * features, features, large)

    def forward(self, image: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        pose = self.pose(pose)
        image = image + torch.sigmoid(pose) * self.image(image)
        return image, torch.cat([pose, image], dim=1)


class PATN(nn.Module):
    """The generator. forward: Batch -> Output.

    height, width: multiples of 4; scale: width multiplier. Batch norm below 256 pixels, else instance norm without
    weights.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0):
        super().__init__()
        base, large = channels(64, scale), is_large(height)
        self.image = encoder(3, base, large)
        self.pose = encoder(2 * JOINTS, base, large)
        self.blocks = nn.ModuleList(PoseAttentionBlock(4 * base, k == 0, large) for k in range(BLOCKS))
        up = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "bias": False}
        self.decoder = nn.Sequential(
            *(nn.ConvTranspose2d(4 * base, 2 * base, **up), norm(2 * base, large), nn.ReLU()),
            *(nn.ConvTranspose2d(2 * base, base, **up), norm(base, large), nn.ReLU()),
            *(nn.ReflectionPad2d(3), nn.Conv2d(base, 3, 7), nn.Tanh()),
        )
        self.apply(initialise)

    def forward(self, batch: Batch) -> Output:
        image = self.image(batch.source)
        pose = self.pose(torch.cat(batch_heatmaps(batch), dim=1))
        for block in self.blocks:
            image, pose = block(image, pose)
        return Output(self.decoder(image))


class DiscriminatorBlock(nn.Module):
    """x + (3x3, norm, ReLU, dropout, 3x3, norm)."""

    def __init__(self, features: int, large: bool):
        super().__init__()
        self.branch = two_convs(features, features, large).append(norm(features, large))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Discriminator(nn.Sequential):
    """Two images, or an image and a pose, (B, inputs, H, W) -> logits (B, 4 * 64, H/4, W/4).

    As in the code, every channel of the last features is a logit: no convolution reduces them to one.
    """

    def __init__(self, inputs: int, height: int, scale: float):
        base, large = channels(64, scale), is_large(height)
        super().__init__(encoder(inputs, base, large), *(DiscriminatorBlock(4 * base, large) for _ in range(3)))


class PatnObjective:
    """networks: generator, appearance (judges an image beside the source), shape (beside the target's joints). Terms:
    l1, perceptual, adversarial.

    Below 256 pixels, as on Market-1501: log loss, and the first two terms count ten times. Else, as on DeepFashion:
    least squares.
    """

    def __init__(self, generator: PATN, height: int, scale: float, weights: Mapping[str, float]):
        self.generator = generator
        self.appearance = Discriminator(3 + 3, height, scale)
        self.shape = Discriminator(3 + JOINTS, height, scale)
        self.large = is_large(height)
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "appearance": self.appearance, "shape": self.shape}

    def judge(self, batch: Batch, image: Tensor) -> dict[str, Tensor]:
        return {
            "appearance": self.appearance(torch.cat([image, batch.source], dim=1)),
            "shape": self.shape(torch.cat([image, batch_heatmaps(batch)[1]], dim=1)),
        }

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], Output]:
        output = self.generator(batch)
        layers = (LAYER[features.net],)
        with torch.no_grad():
            target = features(batch.target, layers)
        generated = features(output.image, layers)
        judged = self.judge(batch, output.image).values()
        reconstruction = 1.0 if self.large else 10.0
        fooled = [
            losses.least_squares(x, 1.0).mean() if self.large else losses.adversarial_generator(x) for x in judged
        ]
        terms = {
            "l1": reconstruction * losses.l1(output.image, batch.target),
            "perceptual": reconstruction * losses.perceptual(generated, target, layers),
            "adversarial": sum(fooled) / 2,
        }
        return {name: self.weights[name] * term for name, term in terms.items()}, output

    def discriminator_losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        real, fake = self.judge(batch, batch.target), self.judge(batch, output.image.detach())
        terms = {}
        for name in real:
            if self.large:
                loss = (losses.least_squares(real[name], 1.0) + losses.least_squares(fake[name], 0.0)).mean()
            else:
                loss = losses.adversarial_discriminator(real[name], fake[name])
            terms[name] = self.weights["adversarial"] * loss / 2
        return terms


ADAM = Adam(lr=2e-4, betas=(0.5, 0.999))

# 700 rounds of 4,000 random pairs, 2.8 million in all; the rate falls to 0 over the last 200.
VARIANTS = (
    Variant(
        name="patn",
        paper="PATN",
        row="SPIG's Table 1, PATN",
        build=PATN,
        features="vgg19",
        objective=lambda generator, height, width, scale, weights: PatnObjective(generator, height, scale, weights),
        phase=Phase(
            generators=("generator",),
            discriminators=("appearance", "shape"),
            optimisers={"generator": ADAM, "appearance": ADAM, "shape": ADAM},
            weights={"l1": 1.0, "perceptual": 1.0, "adversarial": 5.0},
            batch={"market1501": 32, "deepfashion": 7},
            steps={"market1501": 87_500, "deepfashion": 400_000},
            decay_from=5 / 7,
        ),
    ),
)
COMPONENTS = ()
