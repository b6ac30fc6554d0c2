"""SPT: Unsupervised Person Image Generation with Semantic Parsing Transformation (Song et al., CVPR 2019).

H_S (semantic.py) predicts the target's parsing, H_A (appearance.py) draws the image. Training sees no target image:
the generated image is turned back to the source's pose and compared with the source, and is itself judged by its pose,
the style of its regions, and adversaries. docs/papers.md lists what neither the paper nor its released code says.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from models import detector
from models.detector import JointDetector, target_maps
from models.layers.affine_flow import place
from models.layers.blocks import Batch, Output
from models.layers.features import Features
from models.layers.losses import least_squares
from models.layers.pose_maps import JOINTS, box_masks, part_boxes
from models.layers.schedule import Adam, Component, Phase, Variant
from models.spt.appearance import LABELS, AppearanceGenerator, Pose, large
from models.spt.losses import (
    FaceDiscriminator,
    PatchDiscriminator,
    common,
    face_crops,
    region_grams,
    shrink,
    squared_error,
    style,
)
from models.spt.semantic import SemanticGenerator, SemanticObjective, spt10

PREDICTED, GIVEN, NONE = "predicted", "given", "none"
PATCH = 0.125  # half the side of a patch around a joint, in torso lengths
# The local enhancer's share of the image grows from 0 to 1 between these shares of the run.
FADE = (0.4, 0.6)


def poses(batch: Batch) -> tuple[Pose, Pose]:
    """The source's and the target's."""
    return (batch.source_joints, batch.source_valid), (batch.target_joints, batch.target_valid)


class SPT(nn.Module):
    """Both generators. forward: Batch -> Output.

    height, width: multiples of 32, of 64 from 256 pixels on; scale: width multiplier. parsing: the target's is
    "predicted" by H_S, "given" in `target_labels`, or "none"; with "none" the source's is not used either.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0, parsing: str = PREDICTED):
        super().__init__()
        if parsing not in (PREDICTED, GIVEN, NONE):
            raise ValueError(f"parsing {parsing!r}: choose from {PREDICTED}, {GIVEN}, {NONE}")
        self.source = parsing
        self.image = AppearanceGenerator(height, width, scale, parsing != NONE)
        if parsing == PREDICTED:
            self.parsing = SemanticGenerator(height, width, scale)

    def source_parsing(self, batch: Batch) -> Tensor | None:
        """(B, 10, H, W), one-hot. ValueError if it is needed and missing."""
        if self.source == NONE:
            return None
        if batch.source_labels is None:
            raise ValueError("SPT needs the source's parsing: source_labels is None")
        return spt10(batch.source_labels, batch.source_joints, batch.source_valid)

    def target_parsing(self, batch: Batch, source: Tensor | None) -> Tensor | None:
        """(B, 10, H, W): H_S's probabilities, or the given labels, one-hot. ValueError if these are missing."""
        if self.source == NONE:
            return None
        if self.source == PREDICTED:
            source_pose, target_pose = poses(batch)
            return self.parsing(source, *source_pose, *target_pose)
        if batch.target_labels is None:
            raise ValueError("this SPT is given the target's parsing: target_labels is None")
        return spt10(batch.target_labels, batch.target_joints, batch.target_valid)

    def appearance(self, batch: Batch) -> Tensor:
        """The source person painted into `target_labels`, whatever these are: image (B, 3, H, W) in [-1, 1].

        ValueError for a generator without parsing.
        """
        if self.source == NONE:
            raise ValueError("this SPT knows no parsing: take a variant other than the baseline")
        source, target = poses(batch)
        source_parsing, target_parsing = spt10(batch.source_labels, *source), spt10(batch.target_labels, *target)
        return self.image(batch.source, source_parsing, source, target_parsing, target)

    def forward(self, batch: Batch) -> Output:
        source_pose, target_pose = poses(batch)
        source = self.source_parsing(batch)
        target = self.target_parsing(batch, source)
        image = self.image(batch.source, source, source_pose, target, target_pose)
        return Output(image, parsing=target.clamp_min(1e-6).log() if self.source == PREDICTED else None)


class Discriminators(nn.Module):
    """D_A on image and parsing, and perhaps D_F on faces; one optimiser trains both."""

    def __init__(self, parsing: bool, face: bool, scale: float = 1.0):
        super().__init__()
        self.image = PatchDiscriminator(3 + (LABELS - 1) * parsing, scale)
        self.face = FaceDiscriminator(scale) if face else None


def semantic_regions(parsing: Tensor, joints: Tensor, valid: Tensor) -> Tensor:
    """Hair, clothes, arms, legs (B, 8, H, W); the background is left out, and the face, which has a discriminator."""
    return parsing[:, 2:]


def mask_regions(image: Tensor, joints: Tensor, valid: Tensor) -> Tensor:
    """The ten body parts by the pose (B, 10, H, W), for mask-style."""
    return place(joints.float(), valid, *image.shape[-2:])[1].float()


def patch_regions(image: Tensor, joints: Tensor, valid: Tensor) -> Tensor:
    """A square around every joint, a quarter of a torso length wide, (B, 18, H, W), for patch-style."""
    height, width = image.shape[-2:]
    groups = [(joint,) for joint in range(JOINTS)]
    return box_masks(part_boxes(joints.float(), valid, groups, [PATCH] * JOINTS, height), height, width)


REGIONS = {"semantic": semantic_regions, "mask": mask_regions, "patch": patch_regions}


def conv2_1(images: Tensor, features: Features) -> Tensor:
    """The features that content and style compare: images (B, 3, H, W) -> (B, C, h, w).

    The released code scales images in [-1, 1] as if they were in [0, 1], and does not normalise the features; its
    weights rely on both.
    """
    layer = features.content[1]
    return features(2 * images - 1, (layer,))[layer] * features.rms.get(layer, 1.0)


class SptObjective:
    """L_A. networks: generator, discriminator, detector. Terms: adversarial (D_A's and D_F's), pose, content, style.

    `regions`: the style term's, a key of REGIONS. Reads no target image, and the target's parsing only where the
    generator does. `progress` sets the generator's `fade`.
    """

    def __init__(
        self,
        generator: SPT,
        discriminator: Discriminators,
        joint_detector: JointDetector,
        weights: Mapping[str, float],
        regions: str,
    ):
        self.generator = generator
        self.discriminator = discriminator
        self.detector = joint_detector
        self.weights = weights
        self.regions = regions
        if generator.image.local is not None:
            self.progress = 0.0

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "detector": self.detector}

    def judge(self, images: Tensor, parsing: Tensor | None) -> Tensor:
        """D_A's scores; the parsing without its background."""
        return self.discriminator.image(images if parsing is None else torch.cat([images, parsing[:, 1:]], dim=1))

    def face_loss(self, images: Tensor, joints: Tensor, valid: Tensor, wanted: float) -> Tensor:
        """D_F's squared distance from `wanted`, averaged over images; one without a head counts 0."""
        crops, present = face_crops(images, joints, valid)
        return (present * least_squares(self.discriminator.face(crops, self.generator.image.fade), wanted)).mean()

    def generator_losses(
        self, batch: Batch, features: Features | None
    ) -> tuple[dict[str, Tensor], tuple[Tensor | None, ...]]:
        net = self.generator
        if net.image.local is not None:
            first, last = FADE
            net.image.fade.fill_(min(1.0, max(0.0, (self.progress - first) / (last - first))))
        source, target = poses(batch)
        source_parsing = net.source_parsing(batch)
        target_parsing = net.target_parsing(batch, source_parsing)
        there = net.image(batch.source, source_parsing, source, target_parsing, target)
        back = net.image(there, target_parsing, target, source_parsing, source)

        adversarial = self.adversarial(there, target_parsing, *target) + self.adversarial(back, source_parsing, *source)
        size = batch.source.shape[-2:]
        pose = squared_error(self.detector(there), target_maps(*target, *size)) + squared_error(
            self.detector(back), target_maps(*source, *size)
        )

        with torch.no_grad():
            real = conv2_1(batch.source, features)
        shown, returned = (conv2_1(image, features) for image in (there, back))
        regions = REGIONS[self.regions]
        here, away = (
            shrink(regions(batch.source if parsing is None else parsing, *joints), real)
            for parsing, joints in ((source_parsing, source), (target_parsing, target))
        )
        gate, grams = common(here, away), region_grams(shown, away)
        terms = {
            "adversarial": adversarial,
            "pose": pose,
            "content": squared_error(returned, real),
            "style": style(grams, region_grams(real, here), gate) + style(grams, region_grams(returned, here), gate),
        }
        output = source_parsing, target_parsing, there, back
        detached = tuple(None if x is None else x.detach() for x in output)
        return {name: self.weights[name] * term for name, term in terms.items()}, detached

    def adversarial(self, images: Tensor, parsing: Tensor | None, joints: Tensor, valid: Tensor) -> Tensor:
        """The generator's side, on images of a pose."""
        total = least_squares(self.judge(images, parsing), 1.0).mean()
        if self.discriminator.face is not None:
            total = total + self.face_loss(images, joints, valid, 1.0)
        return total

    def discriminator_losses(self, batch: Batch, output: tuple[Tensor | None, ...]) -> dict[str, Tensor]:
        """The source with its parsing is real; each of the two kinds of fakes counts half."""
        if not self.weights["adversarial"]:
            return {}
        source_parsing, target_parsing, there, back = output
        source, target = poses(batch)
        real = least_squares(self.judge(batch.source, source_parsing), 1.0).mean()
        fakes = [
            least_squares(self.judge(image, parsing), 0.0).mean()
            for image, parsing in ((there, target_parsing), (back, source_parsing))
        ]
        terms = {"discriminator": real + 0.5 * sum(fakes)}
        if self.discriminator.face is not None:
            fakes = self.face_loss(there, *target, 0.0) + self.face_loss(back, *source, 0.0)
            terms["face_discriminator"] = self.face_loss(batch.source, *source, 1.0) + 0.5 * fakes
        return terms


def semantic_objective(
    parsing: SemanticGenerator, height: int, width: int, scale: float, weights: Mapping[str, float]
) -> SemanticObjective:
    return SemanticObjective(parsing, PatchDiscriminator(LABELS + JOINTS, scale), weights)


# Published: the weights of L_A (in the released code) and the batch. The optimiser is that of the code which it builds
# on, since its options were not released; steps and L_S's weights are ours.
ADAM = Adam(lr=2e-4, betas=(0.5, 0.999))
BATCH = {"market1501": 16, "deepfashion": 4}
# The same for all variants, so that joint training is not longer training; its joint part is the last fifth.
STEPS, ALONE = 250_000, 0.8

SPT_PARSING = Component(
    name="spt_parsing",
    paper="SPT",
    build=SemanticGenerator,
    objective=semantic_objective,
    phase=Phase(
        generators=("parsing",),
        discriminators=("discriminator",),
        optimisers={"parsing": ADAM, "discriminator": ADAM},
        weights={"cross_entropy": 1.0, "adversarial": 0.1},
        batch=BATCH,
        steps={"market1501": 50_000, "deepfashion": 50_000},
    ),
    features=None,
    into="parsing",
    labels="lip-20",
    data="pseudo_pairs",
)
COMPONENTS = (
    SPT_PARSING,
    replace(SPT_PARSING, name="spt_parsing_balanced", data="balanced_pseudo_pairs"),
    # The pose loss has a detector of its own: what a method was trained on must not measure its PCKh. It always has its
    # full width: `objective` knows no other.
    replace(
        detector.COMPONENTS[0],
        name="spt_detector",
        paper="SPT",
        build=lambda height, width, scale: JointDetector(),
        data="images",
    ),
)


def variant(
    name: str,
    row: str,
    parsing: str = GIVEN,
    regions: str = "semantic",
    face: bool = True,
    joint: bool = False,
    predictor: str = "spt_parsing",
) -> Variant:
    """face: with a face loss from 256 pixels on, so not on Market-1501. joint: the last part of the run trains H_S on
    L_A, too. predictor: the component that a "predicted" parsing comes from.
    """

    def objective(generator: SPT, height: int, width: int, scale: float, weights: Mapping[str, float]) -> SptObjective:
        discriminators = Discriminators(parsing != NONE, face and large(height, width), scale)
        return SptObjective(generator, discriminators, JointDetector(), weights, regions)

    return Variant(
        name=name,
        paper="SPT",
        row=row,
        build=partial(SPT, parsing=parsing),
        components=(predictor,) if parsing == PREDICTED else (),
        labels=None if parsing == NONE else "lip-20",
        features="vgg16",
        objective=objective,
        phase=Phase(
            generators=("generator",),
            discriminators=("discriminator",),
            optimisers={"generator": ADAM, "discriminator": ADAM},
            weights={"adversarial": 1.0, "pose": 700.0, "content": 0.03, "style": 1.0},
            batch=BATCH,
            steps={"market1501": STEPS, "deepfashion": STEPS},
            frozen=("parsing",) if parsing == PREDICTED else (),
            thaw={"parsing": {"market1501": ALONE, "deepfashion": ALONE}} if joint else {},
        ),
        judges={"detector": "spt_detector"},
        data="unpaired",
        given_target_parsing=parsing == GIVEN,
    )


VARIANTS = (
    variant("spt_baseline", "Table 1, Baseline", NONE, "mask"),
    variant("spt_ts_pred", "Table 1, TS-Pred", PREDICTED),
    variant("spt_ts_gt", "Table 1, TS-GT"),
    variant("spt", "Table 1, E2E", PREDICTED, joint=True),
    variant(
        "spt_balanced",
        "not in the paper: H_S learns from stand-ins by the rule balanced",
        PREDICTED,
        joint=True,
        predictor="spt_parsing_balanced",
    ),
    variant("spt_mask_style", "Figure 7, mask-style loss", regions="mask"),
    variant("spt_patch_style", "Figure 7, patch-style loss", regions="patch"),
    variant("spt_no_face", "Figure 7, w/o face loss", face=False),
)
