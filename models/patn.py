"""PATN: Progressive Pose Attention Transfer for Person Image Generation (Zhu et al., CVPR 2019).

The authors trained with different settings on their two data sets. Here the images' height decides: DeepFashion's
settings from 256 pixels on, Market-1501's below. docs/papers.md lists what their code fixes and what is chosen here.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import losses
from models.layers.blocks import Batch, Output, channels, full_precision
from models.layers.features import Features
from models.layers.pose_maps import JOINTS, batch_heatmaps
from models.layers.schedule import Adam, Phase, Variant

BLOCKS = 9


def is_large(height: int) -> bool:
    """Whether DeepFashion's settings apply rather than Market-1501's."""
    return height >= 256


class BatchNorm(nn.BatchNorm2d):
    """Does not count its batches, which at a fixed momentum serves nothing and costs a kernel each."""

    def forward(self, x: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        return F.batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)


def norm(features: int, large: bool) -> nn.Module:
    return nn.InstanceNorm2d(features) if large else BatchNorm(features)


class ReflectionPad(nn.Module):
    """As nn.ReflectionPad2d, in its input's precision: autocast on a CPU would widen it to float32 and back."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            return F.pad(x, (self.width,) * 4, mode="reflect")


def encoder(inputs: int, base: int, large: bool) -> nn.Sequential:
    """7x7 and two 3x3 of stride 2: (B, inputs, H, W) -> (B, 4 base, H/4, W/4). No bias, which the norm would cancel."""
    return nn.Sequential(
        *(ReflectionPad(3), nn.Conv2d(inputs, base, 7, bias=False), norm(base, large), nn.ReLU()),
        *(nn.Conv2d(base, 2 * base, 3, 2, 1, bias=False), norm(2 * base, large), nn.ReLU()),
        *(nn.Conv2d(2 * base, 4 * base, 3, 2, 1, bias=False), norm(4 * base, large), nn.ReLU()),
    )


def two_convs(inputs: int, outputs: int, large: bool, bias: bool = False) -> nn.Sequential:
    """3x3, norm, ReLU, dropout, 3x3: the start of every residual branch and attention."""
    return nn.Sequential(
        *(ReflectionPad(1), nn.Conv2d(inputs, inputs, 3, bias=False), norm(inputs, large), nn.ReLU()),
        *(nn.Dropout(0.5), ReflectionPad(1), nn.Conv2d(inputs, outputs, 3, bias=bias)),
    )


class PoseAttentionBlock(nn.Module):
    """Pose-attentional transfer block: image + sigmoid(pose path) * image path; the result is appended to the pose.

    forward: image (B, C, h, w), pose (B, C or 2C, h, w) -> image (B, C, h, w), pose (B, 2C, h, w).
    """

    def __init__(self, features: int, first: bool, large: bool):
        super().__init__()
        self.image = two_convs(features, features, large).append(norm(features, large))
        # The code has biases where it has instance norm; here no norm takes it back.
        self.pose = two_convs(features if first else 2 * features, features, large, bias=large)

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
            *(ReflectionPad(3), nn.Conv2d(base, 3, 7)),
        )
        # The code's initial weights; at other widths, as large as keeps the signal's scale.
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.02 * (64 / base) ** 0.5)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, batch: Batch) -> Output:
        return self.render(batch.source, *batch_heatmaps(batch))

    def render(self, image: Tensor, source: Tensor, target: Tensor) -> Output:
        """The image (B, 3, H, W) of the source's heatmaps in the pose of the target's, (B, 18, H, W) each."""
        image, pose = self.image(image), self.pose(torch.cat([source, target], dim=1))
        for block in self.blocks:
            image, pose = block(image, pose)
        return Output(torch.tanh(losses.widen(self.decoder(image))))


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


class ImagePool(nn.Module):
    """Shows a discriminator earlier images too. The first `size` that come are kept and passed on; from then on each is
    passed on or, at even odds, takes the place of a random one of those kept, which is passed on instead.

    forward: images (B, C, H, W) -> as many. Chance comes from the CPU's generator, so that the host knows the places.
    """

    def __init__(self, size: int, features: int, height: int, width: int):
        super().__init__()
        self.register_buffer("images", torch.zeros(size, features, height, width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.count = 0  # `seen`, on the host
        self.register_load_state_dict_post_hook(lambda pool, keys: setattr(pool, "count", int(pool.seen)))

    def exchange(self, given: int) -> list[int]:
        """Where to find what is passed on, then what is kept afterwards: rows of the images kept and given."""
        size = len(self.images)
        kept, passed = list(range(size)), []
        odds, places = ([draw.item() for draw in row] for row in torch.rand(2, given))
        for row, odd, place in zip(range(size, size + given), odds, places, strict=True):
            slot = self.count if self.count < size else int(place * size)
            if self.count >= size and odd > 0.5:
                passed.append(kept[slot])
                kept[slot] = row
            else:
                passed.append(row)
                if self.count < size:
                    kept[slot] = row
            self.count += 1
        return passed + kept

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        rows = torch.tensor(self.exchange(len(images)))
        if images.is_cuda:
            rows = rows.pin_memory().to(images.device, non_blocking=True)
        passed, kept = torch.cat([self.images, images]).index_select(0, rows).split([len(images), len(self.images)])
        self.images.copy_(kept)
        self.seen.fill_(self.count)
        return passed


POOL = 50  # images, on Market-1501


class PatnObjective:
    """networks: generator, appearance (judges an image beside the source), shape (beside the target's joints). Terms:
    l1, perceptual, adversarial.

    Below 256 pixels, as on Market-1501: log loss, the first two terms count ten times, and a pool of earlier fakes for
    each discriminator (networks: appearance_pool, shape_pool). Else, as on DeepFashion: least squares.
    """

    def __init__(self, generator: PATN, height: int, width: int, scale: float, weights: Mapping[str, float]):
        self.generator = generator
        self.appearance = Discriminator(3 + 3, height, scale)
        self.shape = Discriminator(3 + JOINTS, height, scale)
        self.large = is_large(height)
        inputs = {} if self.large else {"appearance": 3 + 3, "shape": 3 + JOINTS}
        self.pools = {name: ImagePool(POOL, count, height, width) for name, count in inputs.items()}
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        pools = {f"{name}_pool": pool for name, pool in self.pools.items()}
        return {"generator": self.generator, "appearance": self.appearance, "shape": self.shape} | pools

    def shown(self, batch: Batch, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What each discriminator is given of an image: the source image, or the target's heatmaps."""
        return {
            "appearance": torch.cat([image, batch.source], dim=1),
            "shape": torch.cat([image, target], dim=1),
        }

    def judge(self, shown: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"appearance": self.appearance(shown["appearance"]), "shape": self.shape(shown["shape"])}

    def generator_losses(
        self, batch: Batch, features: Features | None
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        maps = batch_heatmaps(batch)
        output = self.generator.render(batch.source, *maps)
        layers = features.second[:1]
        with torch.no_grad():
            target = features(batch.target, layers)
        generated = features(output.image, layers)
        judged = self.judge(self.shown(batch, output.image, maps[1])).values()
        reconstruction = 1.0 if self.large else 10.0
        fooled = [
            losses.least_squares(x, 1.0).mean() if self.large else losses.adversarial_generator(x) for x in judged
        ]
        terms = {
            "l1": reconstruction * losses.l1(output.image, batch.target),
            "perceptual": reconstruction * losses.perceptual(generated, target, layers),
            "adversarial": sum(fooled) / 2,
        }
        return {name: self.weights[name] * term for name, term in terms.items()}, (output.image.detach(), maps[1])

    def discriminator_losses(self, batch: Batch, output: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """output: the generated image and the target's heatmaps."""
        image, target = output
        fakes = self.shown(batch, image, target)
        fakes |= {name: pool(fakes[name]) for name, pool in self.pools.items()}
        real, fake = self.judge(self.shown(batch, batch.target, target)), self.judge(fakes)
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
        objective=PatnObjective,
        phase=Phase(
            generators=("generator",),
            discriminators=("appearance", "shape"),
            apart=("appearance_pool", "shape_pool"),
            optimisers={"generator": ADAM, "appearance": ADAM, "shape": ADAM},
            weights={"l1": 1.0, "perceptual": 1.0, "adversarial": 5.0},
            batch={"market1501": 32, "deepfashion": 7},
            steps={"market1501": 87_500, "deepfashion": 400_000},
            decay_from=5 / 7,
        ),
        departs=("design",),
    ),
)
COMPONENTS = ()
