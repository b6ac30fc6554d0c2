"""Soft-Gated Warping-GAN for Pose-Guided Person Image Synthesis (Dong et al., NeurIPS 2018).

Three networks, trained one after the other: the parser predicts the target's parsing, the geometric matcher
(geometric_matcher.py) finds how the source's parsing is warped onto it, and the renderer warps its features as far as
a soft gate lets it. docs/papers.md lists what the paper leaves open.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from models.layers import losses
from models.layers.blocks import Batch, Output, channels, full_precision, initialise, warp
from models.layers.features import Features
from models.layers.parsing import LABELS, conv_norm, cross_entropy, decoder, encoder
from models.layers.pose_maps import JOINTS, disks, one_hot
from models.layers.schedule import Adam, Component, Phase, Variant
from models.sgw_gan.geometric_matcher import Cells, GeometricMatcher, MatcherObjective

RADIUS = 4.0  # of a joint's disk, pixels at any image size
BLOCKS = 9
# The renderer's. Instance norm would remove each channel's mean and contrast, and with them the picture's colours: when
# eight pairs were overfitted for 60 steps, L1 fell to 0.39 with it and to 0.21 with batch norm.
NORM = nn.BatchNorm2d


def source_joints(batch: Batch) -> Tensor:
    """Disks (B, 18, H, W)."""
    return disks(batch.source_joints, batch.source_valid, *batch.source.shape[-2:], RADIUS)


def target_joints(batch: Batch) -> Tensor:
    """Disks (B, 18, H, W)."""
    return disks(batch.target_joints, batch.target_valid, *batch.source.shape[-2:], RADIUS)


class ResidualBlock(nn.Module):
    """x + (3x3, norm, ReLU, 3x3, norm)."""

    def __init__(self, features: int, norm: Callable[[int], nn.Module] = nn.InstanceNorm2d):
        super().__init__()
        conv = partial(conv_norm, features, features, 3, norm=norm)
        self.branch = nn.Sequential(conv(), nn.ReLU(), conv())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class PyramidDiscriminator(nn.Module):
    """pix2pix's: (B, inputs, H, W) -> one logit a patch, and the four feature maps before it, the last first."""

    def __init__(self, inputs: int, scale: float = 1.0):
        super().__init__()
        c1, c2, c3, c4 = (channels(base, scale) for base in (64, 128, 256, 512))

        def level(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            conv = nn.Conv2d(inputs, outputs, 4, stride, 1, bias=False)
            return nn.Sequential(conv, nn.InstanceNorm2d(outputs), nn.LeakyReLU(0.2))

        first = nn.Sequential(nn.Conv2d(inputs, c1, 4, 2, 1), nn.LeakyReLU(0.2))
        self.levels = nn.ModuleList([first, level(c1, c2, 2), level(c2, c3, 2), level(c3, c4, 1)])
        self.last = nn.Conv2d(c4, 1, 4, 1, 1)
        self.apply(initialise)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for level in self.levels:
            x = level(x)
            features.insert(0, x)
        return self.last(x), features


# Stage one: parsing


class PoseGuidedParser(nn.Module):
    """Stage one. forward: Batch -> logits (B, 20, H, W) of the target's parsing.

    Reads the target's joints and `source_labels`, with `image` the source image as well; ValueError without labels.
    Height and width are multiples of 4; scale: width multiplier.
    """

    def __init__(self, scale: float = 1.0, image: bool = False):
        super().__init__()
        self.image = image
        base = channels(64, scale)
        self.layers = nn.Sequential(
            encoder(LABELS + JOINTS + 3 * image, base),
            *(ResidualBlock(4 * base) for _ in range(BLOCKS)),
            decoder(base, LABELS),
        )
        self.apply(initialise)

    def inputs(self, batch: Batch) -> Tensor:
        """(B, 38, H, W): source parsing, target joints; 41 with the image."""
        if batch.source_labels is None:
            raise ValueError("Soft-Gated Warping-GAN needs the source's parsing: source_labels is None")
        maps = [one_hot(batch.source_labels, LABELS), target_joints(batch)]
        return torch.cat([*maps, batch.source] if self.image else maps, dim=1)

    def forward(self, batch: Batch) -> Tensor:
        return self.layers(self.inputs(batch))


class ParserObjective:
    """networks: parser, discriminator (on the parser's inputs and a parsing). Terms: cross_entropy, adversarial."""

    def __init__(self, parser: PoseGuidedParser, discriminator: PyramidDiscriminator, weights: Mapping[str, float]):
        self.parser = parser
        self.discriminator = discriminator
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"parser": self.parser, "discriminator": self.discriminator}

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], Tensor]:
        inputs = self.parser.inputs(batch)
        logits = self.parser.layers(inputs)
        judged = torch.cat([inputs, losses.widen(logits).softmax(1)], dim=1)
        terms = {
            "cross_entropy": cross_entropy(logits, batch.target_labels),
            "adversarial": losses.adversarial_generator(self.discriminator(judged)[0]),
        }
        return {name: self.weights[name] * term for name, term in terms.items()}, judged.detach()

    def discriminator_losses(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        """`output`: the parser's inputs and what it foresaw, as the discriminator saw them."""
        true = torch.cat([output[:, :-LABELS], one_hot(batch.target_labels, LABELS)], dim=1)
        real, fake = self.discriminator(torch.cat([true, output]))[0].chunk(2)
        return {"discriminator": losses.adversarial_discriminator(real, fake)}


# Stage two: rendering


class SoftGatedWarping(nn.Module):
    """F + A_att * warp(R(F)): warped features are added where they belong in the target.

    forward: features (B, C, h, w), flow (B, 2, h, w) in cells -> the same shape, and the gate A_att (B, C, h, w) in
    [0, 1], which sees F and warp(R(F)). `gate=False`: A_att is 1.
    """

    def __init__(self, features: int, gate: bool = True):
        super().__init__()
        self.residual = nn.Sequential(
            *(conv_norm(features, features, 3, norm=NORM), nn.ReLU()),
            *(conv_norm(features, features, 3, norm=NORM), nn.ReLU()),
        )
        self.gate = nn.Conv2d(2 * features, features, 1) if gate else None

    def forward(self, features: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        warped = warp(self.residual(features), flow)
        if self.gate is None:
            return features + warped, torch.ones_like(warped)
        gate = torch.sigmoid(losses.widen(self.gate(torch.cat([features, warped], dim=1))))
        return features + gate * warped, gate


class SoftGatedWarpingGAN(nn.Module):
    """The generator. forward: Batch -> Output with the parser's logits, and at stride 4 the matcher's flow and, as
    visibility, the gate's mean over features. The target's parsing is the parser's labels, in training too.

    height, width: multiples of 32; scale: width multiplier. `parsing=False`: no parsing and no parser, the matcher sees
    joint disks. `warping=False`: no warping block and no matcher. `gate=False`: the gate is fully open. `vgg16`: the
    matcher's features are VGG16's. `image`: the parser also sees the source image.
    """

    def __init__(
        self,
        height: int,
        width: int,
        scale: float = 1.0,
        parsing: bool = True,
        warping: bool = True,
        gate: bool = True,
        vgg16: bool = False,
        image: bool = False,
    ):
        super().__init__()
        base, labels = channels(64, scale), LABELS * parsing
        self.appearance = encoder(3 + labels, base, NORM)
        self.pose = encoder(JOINTS + labels, base, NORM)
        self.warping = SoftGatedWarping(4 * base, gate) if warping else None
        self.renderer = nn.Sequential(
            *(conv_norm(8 * base, 4 * base, 3, norm=NORM), nn.ReLU()),
            *(ResidualBlock(4 * base, NORM) for _ in range(BLOCKS - 1)),  # the warping block is the first of nine
            decoder(base, 3, NORM),
        )
        self.apply(initialise)
        with torch.no_grad():
            self.renderer[-1][-1].weight.mul_(0.1)  # begin inside tanh's linear range
        self.parser = PoseGuidedParser(scale, image) if parsing else None
        matched = LABELS if parsing else JOINTS
        self.matcher = GeometricMatcher(height, width, matched, scale, vgg16) if warping else None
        self.cells = Cells(height // 4, width // 4, self.matcher.control) if warping else None

    def forward(self, batch: Batch) -> Output:
        logits = None
        if self.parser is None:
            pose = target_joints(batch)
            source = batch.source
            matched = (source_joints(batch), pose) if self.warping is not None else ()
        else:
            inputs = self.parser.inputs(batch)
            logits = self.parser.layers(inputs)
            labels, joints = inputs[:, :LABELS], inputs[:, LABELS : LABELS + JOINTS]
            matched = labels, one_hot(logits.argmax(1), LABELS)
            source, pose = torch.cat([batch.source, labels], dim=1), torch.cat([joints, matched[1]], dim=1)
        x = self.appearance(source)
        flows, visibilities = {}, {}
        if self.warping is not None:
            moves = self.cells(*self.matcher(*matched))
            x, gate = self.warping(x, moves)
            flows[4], visibilities[4] = moves.unsqueeze(1), gate.mean(1, keepdim=True).unsqueeze(1)
        drawn = self.renderer(torch.cat([x, self.pose(pose)], dim=1))
        with full_precision(drawn):
            image = torch.tanh(losses.widen(drawn))
        return Output(image, flows, visibilities, parsing=logits)


def perceptual(generated: dict[str, Tensor], target: dict[str, Tensor], layers: tuple[str, ...]) -> Tensor:
    """Johnson et al.'s feature loss: the mean squared difference of features, summed over layers."""
    return sum((losses.widen(generated[name]) - losses.widen(target[name])).square().mean() for name in layers)


def hierarchy(generated: list[Tensor], real: list[Tensor]) -> Tensor:
    """L_PH: sum over the discriminator's layers, each with weight 1, of the mean absolute difference of features."""
    return sum(losses.l1(fake, true) for fake, true in zip(generated, real, strict=True))


class SgwObjective:
    """networks: generator, discriminator. Terms: adversarial, perceptual, hierarchy (where it has a weight).

    The discriminator sees what an image was made from (source image, target joints, predicted parsing) and the image.
    """

    def __init__(
        self, generator: SoftGatedWarpingGAN, discriminator: PyramidDiscriminator, weights: Mapping[str, float]
    ):
        self.generator = generator
        self.discriminator = discriminator
        self.weights = weights

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], Tensor]:
        output = self.generator(batch)
        condition = [batch.source, target_joints(batch)]
        if output.parsing is not None:
            condition.append(one_hot(output.parsing.argmax(1), LABELS))
        shown = torch.cat([*condition, output.image], dim=1)
        judged, fake = self.discriminator(shown)
        with torch.no_grad():
            target = features(batch.target, features.content)
        generated = features(output.image, features.content)
        terms = {
            "adversarial": losses.adversarial_generator(judged),
            "perceptual": perceptual(generated, target, features.content),
        }
        if "hierarchy" in self.weights:
            with torch.no_grad():
                _, real = self.discriminator(torch.cat([*condition, batch.target], dim=1))
            terms["hierarchy"] = hierarchy(fake, real)
        return {name: self.weights[name] * term for name, term in terms.items()}, shown.detach()

    def discriminator_losses(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        """`output`: the generated images as the discriminator saw them. It sees both kinds in one pass: its instance
        norms look at each image by itself.
        """
        true = torch.cat([output[:, :-3], batch.target], dim=1)
        real, fake = self.discriminator(torch.cat([true, output]))[0].chunk(2)
        return {"discriminator": losses.adversarial_discriminator(real, fake)}


# The paper's optimisers, weights and lengths are not known. Chosen here: pix2pix's Adam, pix2pixHD's weights (its
# perceptual 10 is that of an L1; a pair's squared error is 2.7 times its L1 where features have unit scale, and VGG's
# are larger), 10 epochs of 263,632 pairs (Market-1501) and 15 of 101,966 (DeepFashion). For the matcher, as Rocco et
# al.: 20 epochs of 12,936 and 48,674 images.
ADAM = Adam(lr=2e-4, betas=(0.5, 0.999))
BATCH = {"market1501": 32, "deepfashion": 8}
STEPS = {"market1501": 82_385, "deepfashion": 191_186}
WEIGHTS = {"adversarial": 1.0, "perceptual": 2.0, "hierarchy": 10.0}


def parser(name: str, image: bool = False) -> Component:
    return Component(
        name=name,
        paper="SGW-GAN",
        build=lambda height, width, scale: PoseGuidedParser(scale, image),
        objective=lambda net, height, width, scale, weights: ParserObjective(
            net, PyramidDiscriminator(2 * LABELS + JOINTS + 3 * image, scale), weights
        ),
        phase=Phase(
            generators=("parser",),
            discriminators=("discriminator",),
            optimisers={"parser": ADAM, "discriminator": ADAM},
            weights={"cross_entropy": 1.0, "adversarial": 0.1},
            batch=BATCH,
            steps=STEPS,
        ),
        features=None,
        into="parser",
        labels="cihp-20",
        departs=("reading",) if image else (),
    )


def matcher(name: str, parsing: bool = True, vgg16: bool = False) -> Component:
    def maps(batch: Batch) -> Tensor:
        if not parsing:
            return torch.cat([source_joints(batch), target_joints(batch)])
        return one_hot(torch.cat([batch.source_labels, batch.target_labels]), LABELS)

    return Component(
        name=name,
        paper="SGW-GAN",
        build=lambda height, width, scale: GeometricMatcher(height, width, LABELS if parsing else JOINTS, scale, vgg16),
        objective=lambda net, height, width, scale, weights: MatcherObjective(net, weights, maps),
        phase=Phase(
            generators=("matcher",),
            discriminators=(),
            optimisers={"matcher": Adam(lr=1e-3, betas=(0.9, 0.999))},
            weights={"affine": 1.0, "spline": 1.0},
            batch={"market1501": 16, "deepfashion": 16},
            steps={"market1501": 16_170, "deepfashion": 60_843},
            frozen=("features",) if vgg16 else (),
        ),
        features="vgg16" if vgg16 else None,
        into="matcher",
        labels="cihp-20" if parsing else None,
        data="images",
        departs=() if vgg16 else ("design",),
    )


COMPONENTS = (
    parser("sgw_parser"),
    parser("sgw_parser_image", image=True),
    matcher("sgw_matcher"),
    matcher("sgw_matcher_pose", parsing=False),
    matcher("sgw_matcher_vgg16", vgg16=True),
)


def objective(
    generator: SoftGatedWarpingGAN, height: int, width: int, scale: float, weights: Mapping[str, float]
) -> SgwObjective:
    stack = 6 + JOINTS + LABELS * (generator.parser is not None)
    return SgwObjective(generator, PyramidDiscriminator(stack, scale), weights)


def variant(
    name: str,
    row: str,
    components: tuple[str, ...] = ("sgw_parser", "sgw_matcher"),
    weights: Mapping[str, float] = WEIGHTS,
    **switches: bool,
) -> Variant:
    into = {component.name: component.into for component in COMPONENTS}
    return Variant(
        name=name,
        paper="SGW-GAN",
        row=row,
        build=partial(SoftGatedWarpingGAN, **switches),
        components=components,
        labels="cihp-20" if switches.get("parsing", True) else None,
        features="vgg16",
        objective=objective,
        phase=Phase(
            generators=("generator",),
            discriminators=("discriminator",),
            optimisers={"generator": ADAM, "discriminator": ADAM},
            weights=weights,
            batch=BATCH,
            steps=STEPS,
            frozen=tuple(into[component] for component in components),
        ),
    )


VARIANTS = (
    variant("sgw", "Full"),
    variant("sgw_no_parsing", "w/o parsing", ("sgw_matcher_pose",), parsing=False),
    variant("sgw_no_warp", "w/o soft-gated warping-block", ("sgw_parser",), warping=False),
    variant("sgw_no_gate", "w/o A_att", gate=False),
    variant("sgw_no_hierarchy", "w/o L_PH", weights={term: WEIGHTS[term] for term in ("adversarial", "perceptual")}),
    # Other readings of the full system: the matcher as the text has it, stage one as a translation of it does.
    variant("sgw_vgg16", "Full, matcher on VGG16", ("sgw_parser", "sgw_matcher_vgg16"), vgg16=True),
    variant("sgw_image", "Full, image in stage one", ("sgw_parser_image", "sgw_matcher"), image=True),
)
