"""SPT: Unsupervised Person Image Generation with Semantic Parsing Transformation (Song et al., CVPR 2019).

H_S (semantic.py) predicts the target's parsing, H_A (appearance.py) draws the image. Training sees no target image:
the generated image is turned back to the source's pose and compared with the source, and is itself judged by its pose,
the style of its regions, and adversaries. docs/papers.md lists what neither the paper nor its released code says.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import detector
from models.detector import JointDetector, target_maps
from models.layers.affine_flow import place
from models.layers.blocks import Batch, Output
from models.layers.deformable import Pose, stacked
from models.layers.features import Features
from models.layers.losses import least_squares
from models.layers.pose_maps import JOINTS, box_masks, torso_length
from models.layers.schedule import Adam, Component, Phase, Variant
from models.spt.appearance import LABELS, AppearanceGenerator, large
from models.spt.losses import (
    FaceDiscriminator,
    PatchDiscriminator,
    face_crops,
    logarithmic,
    shrink,
    squared_error,
    style,
)
from models.spt.semantic import SemanticGenerator, SemanticObjective, StraightThrough, TenLabels

PREDICTED, GIVEN, NONE = "predicted", "given", "none"
PATCH = 0.125  # half the side of a patch around a joint, in torso lengths
# The local enhancer's share of the image grows from 0 to 1 between these shares of the run.
FADE = (0.4, 0.6)


def poses(batch: Batch) -> tuple[Pose, Pose]:
    """The source's and the target's."""
    return Pose(batch.source_joints, batch.source_valid), Pose(batch.target_joints, batch.target_valid)


class SPT(nn.Module):
    """Both generators. forward: Batch -> Output.

    height, width: multiples of 32, of 64 from 256 pixels on; scale: width multiplier. parsing: the target's is
    "predicted" by H_S, "given" in `target_labels`, or "none"; with "none" the source's is not used either. Parsings are
    (B, 10, H, W), one-hot: H_S hands on the likeliest label of each pixel, and a gradient passes straight through.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0, parsing: str = PREDICTED):
        super().__init__()
        if parsing not in (PREDICTED, GIVEN, NONE):
            raise ValueError(f"parsing {parsing!r}: choose from {PREDICTED}, {GIVEN}, {NONE}")
        self.from_where = parsing
        self.image = AppearanceGenerator(height, width, scale, parsing != NONE)
        self.labels = TenLabels()
        if parsing == PREDICTED:
            self.parsing = SemanticGenerator(height, width, scale)

    def source_parsing(self, batch: Batch) -> Tensor | None:
        """ValueError if it is needed and missing."""
        if self.from_where == NONE:
            return None
        if batch.source_labels is None:
            raise ValueError("SPT needs the source's parsing: source_labels is None")
        return self.labels(batch.source_labels, poses(batch)[0])

    def parsings(self, batch: Batch) -> list[Tensor | None]:
        """The source's, the target's, and the source's again as the way back has it: S, S~_t and S~_s. The last is
        H_S(S~_t), or where a parsing is given the source's own. ValueError if one that is needed is missing.
        """
        source = self.source_parsing(batch)
        if self.from_where == NONE:
            return [None] * 3
        if self.from_where == PREDICTED:
            return [source, *map(StraightThrough.apply, self.parsing.predict(source, *poses(batch), ways=2))]
        if batch.target_labels is None:
            raise ValueError("this SPT is given the target's parsing: target_labels is None")
        return [source, self.labels(batch.target_labels, poses(batch)[1]), source]

    def draw(self, batch: Batch, parsings: list[Tensor | None]) -> list[Tensor]:
        """Images (B, 3, H, W) in [-1, 1]: the target's, from the source in the first parsing to the second, and where
        there is a third the source's again, from what was drawn of the target. What depends on poses alone is computed
        for both ways at once, and so is what the second encoder makes of them and of their parsings.
        """
        net, ways, size = self.image, len(parsings) - 1, batch.source.shape[-2:]
        source, target = poses(batch)
        maps = {stride: x.chunk(2) for stride, x in net.heatmaps(stacked(source, target), *size).items()}
        starts, ends = [source, target][:ways], [target, source][:ways]
        warps = net.warp(stacked(*starts), stacked(*ends), *size).split(ways)
        labels = None if parsings[0] is None else torch.cat(parsings[1:])
        ends = net.target(labels, {stride: torch.cat(x[::-1][:ways]) for stride, x in maps.items()}).split(ways)
        images = [batch.source]
        for way in range(ways):
            start = net.source(images[-1], parsings[way], {stride: x[way] for stride, x in maps.items()})
            images.append(net.paint(start, ends[way], warps[way]))
        return images[1:]

    def appearance(self, batch: Batch) -> Tensor:
        """The source person painted into `target_labels`, whatever these are: image (B, 3, H, W) in [-1, 1].

        ValueError for a generator without parsing.
        """
        if self.from_where == NONE:
            raise ValueError("this SPT knows no parsing: take a variant other than the baseline")
        source, target = poses(batch)
        parsings = [self.labels(batch.source_labels, source), self.labels(batch.target_labels, target)]
        return self.draw(batch, parsings)[0]

    def forward(self, batch: Batch) -> Output:
        if self.from_where != PREDICTED:
            return Output(self.draw(batch, self.parsings(batch)[:2])[0])
        source = self.source_parsing(batch)
        (found,) = self.parsing.predict(source, *poses(batch))
        (image,) = self.draw(batch, [source, StraightThrough.apply(found)])
        return Output(image, parsing=found.clamp_min(1e-6).log())


class Discriminators(nn.Module):
    """D_A on the image, with `parsing` beside its parsing, and perhaps D_F on faces; one optimiser trains both.

    A parsing of the source that is true, beside predicted ones of what is drawn, would tell D_A all that it needs.
    """

    def __init__(self, parsing: bool, face: bool, scale: float = 1.0):
        super().__init__()
        self.sees_parsing = parsing
        self.image = PatchDiscriminator(3 + (LABELS - 1) * parsing, scale)
        self.face = FaceDiscriminator(scale) if face else None


def semantic_regions(parsing: Tensor, pose: Pose, height: int, width: int) -> Tensor:
    """Hair, clothes, arms, legs (B, 8, H, W); the background is left out, and the face, which has a discriminator."""
    return parsing[:, 2:]


def mask_regions(parsing: Tensor | None, pose: Pose, height: int, width: int) -> Tensor:
    """The ten body parts by the pose (B, 10, H, W), for mask-style."""
    return place(pose.joints.float(), pose.valid, height, width)[1].float()


def patch_regions(parsing: Tensor | None, pose: Pose, height: int, width: int) -> Tensor:
    """A square around every joint, a quarter of a torso length wide, (B, 18, H, W), for patch-style."""
    joints, known = pose.joints.float(), pose.valid.unsqueeze(-1)
    half = PATCH * torso_length(joints, pose.valid, height).view(-1, 1, 1)
    low, high = torch.where(known, joints, torch.inf) - half, torch.where(known, joints, -torch.inf) + half
    return box_masks(torch.cat([low, high], dim=-1), height, width)


REGIONS = {"semantic": semantic_regions, "mask": mask_regions, "patch": patch_regions}


def conv2_1(images: Tensor, features: Features) -> Tensor:
    """The features that content and style compare: images (B, 3, H, W) -> (B, C, h, w).

    The released code scales images in [-1, 1] as if they were in [0, 1], and does not normalise the features; its
    weights rely on both.
    """
    layer = features.content[1]
    return features(2 * images - 1, (layer,))[layer] * features.rms.get(layer, 1.0)


class Drawn(NamedTuple):
    """What the discriminators are shown of a step, without gradients: parsings as of `SPT.parsings`, and the images of
    both ways, the target's before the source's (2 B, 3, H, W).
    """

    parsings: list[Tensor | None]
    images: Tensor


class SptObjective:
    """L_A. networks: generator, discriminator, detector. Terms: adversarial (D_A's and D_F's), pose, content, style.

    `regions`: the style term's, a key of REGIONS. `error`: the adversaries', `least_squares` or `logarithmic`. Reads no
    target image, and the target's parsing only where the generator does. `progress` sets the generator's `fade`.
    """

    def __init__(
        self,
        generator: SPT,
        discriminator: Discriminators,
        joint_detector: JointDetector,
        weights: Mapping[str, float],
        regions: str,
        error: Callable[[Tensor, float], Tensor],
    ):
        self.generator = generator
        self.discriminator = discriminator
        self.detector = joint_detector
        self.weights = weights
        self.regions = regions
        self.error = error
        if generator.image.local is not None:
            self.progress = 0.0

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "detector": self.detector}

    def judge(self, images: Tensor, parsings: list[Tensor | None]) -> Tensor:
        """D_A's scores of images that are stacked as their parsings are, of which it sees all but the background, if
        any. While the global network of 256 pixels draws alone, it sees both at half the size, of the parsings every
        second pixel.
        """
        shown = [images, torch.cat(parsings)[:, 1:]] if self.discriminator.sees_parsing else [images]
        if self.generator.image.alone:
            shown = [F.avg_pool2d(images, 2), *(x[..., ::2, ::2] for x in shown[1:])]
        return self.discriminator.image(torch.cat(shown, dim=1))

    def faces(self, images: Tensor, *poses: Pose) -> tuple[Tensor, Tensor]:
        """D_F's scores of images that are stacked as their poses are, and whether there is a head, (N,)."""
        net = self.generator.image
        crops, present = face_crops(images, stacked(*poses))
        return self.discriminator.face(crops, None if net.alone else net.fade), present

    def generator_losses(self, batch: Batch, features: Features | None) -> tuple[dict[str, Tensor], Drawn]:
        net = self.generator
        if net.image.local is not None:
            first, last = FADE
            fade = min(1.0, max(0.0, (self.progress - first) / (last - first)))
            net.image.fade.fill_(fade)
            net.image.alone = fade == 0
        source, target = poses(batch)
        ways = target, source
        parsings = net.parsings(batch)
        images = torch.cat(net.draw(batch, parsings))
        # Each of the two ways has its own mean; a mean over both counts half.
        adversarial = 2 * self.error(self.judge(images, parsings[1:]), 1.0).mean()
        if self.discriminator.face is not None:
            scores, present = self.faces(images, *ways)
            adversarial = adversarial + 2 * (present * self.error(scores, 1.0)).mean()

        with torch.no_grad():
            real = conv2_1(batch.source, features)
        drawn = conv2_1(images, features)
        size = images.shape[-2:]
        labels = None if parsings[0] is None else torch.cat(parsings)
        masks = shrink(REGIONS[self.regions](labels, stacked(source, *ways), *size), real)
        terms = {
            "adversarial": adversarial,
            "pose": 2 * squared_error(self.detector(images), target_maps(*stacked(*ways), *size)),
            "content": squared_error(drawn.chunk(2)[1], real),
            "style": style(torch.cat([real, drawn]), masks),
        }
        detached = [None if x is None else x.detach() for x in parsings]
        return {name: self.weights[name] * term for name, term in terms.items()}, Drawn(detached, images.detach())

    def discriminator_losses(self, batch: Batch, output: Drawn) -> dict[str, Tensor]:
        """The source with its parsing is real; each of the two kinds of fakes counts half."""
        if not self.weights["adversarial"]:
            return {}
        source, target = poses(batch)
        images, count = torch.cat([batch.source, output.images]), len(batch.source)

        def errors(scores: Tensor) -> Tensor:
            return torch.cat([self.error(scores[:count], 1.0), self.error(scores[count:], 0.0)])

        def mean(errors: Tensor) -> Tensor:
            return errors[:count].mean() + errors[count:].mean()

        terms = {"discriminator": mean(errors(self.judge(images, output.parsings)))}
        if self.discriminator.face is not None:
            scores, present = self.faces(images, source, target, source)
            terms["face_discriminator"] = mean(present * errors(scores))
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
    replace(SPT_PARSING, name="spt_parsing_balanced", data="balanced_pseudo_pairs", departs=("stand-ins",)),
    replace(SPT_PARSING, name="spt_parsing_true", data="unpaired"),
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
    error: Callable[[Tensor, float], Tensor] = least_squares,
) -> Variant:
    """face: with a face loss from 256 pixels on, so not on Market-1501. joint: the last part of the run trains H_S on
    L_A, too. predictor: the component that a "predicted" parsing comes from. error: the adversaries'.
    """

    def objective(generator: SPT, height: int, width: int, scale: float, weights: Mapping[str, float]) -> SptObjective:
        discriminators = Discriminators(parsing == GIVEN, face and large(height, width), scale)
        return SptObjective(generator, discriminators, JointDetector(), weights, regions, error)

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
        departs=("judge", "reading"),
    )


VARIANTS = (
    variant("spt_baseline", "Table 1, Baseline", NONE, "mask"),
    variant("spt_ts_pred", "Table 1, TS-Pred", PREDICTED),
    # TS-GT takes the true target's parsing instead of the pseudo label: as what H_A is given, in training and in test,
    # or as what H_S learns from, so that a test sees none. The text can be read both ways.
    variant("spt_ts_gt", "Table 1, TS-GT"),
    variant(
        "spt_ts_gt_training",
        "Table 1, TS-GT, true parsing in training alone",
        PREDICTED,
        predictor="spt_parsing_true",
    ),
    variant("spt", "Table 1, E2E", PREDICTED, joint=True),
    variant(
        "spt_balanced",
        "not in the paper: H_S learns from stand-ins by the rule balanced",
        PREDICTED,
        joint=True,
        predictor="spt_parsing_balanced",
    ),
    variant(
        "spt_log_loss",
        "not in the tables: L_adv as printed",
        PREDICTED,
        joint=True,
        error=logarithmic,
    ),
    variant("spt_mask_style", "Figure 7, mask-style loss", regions="mask"),
    variant("spt_patch_style", "Figure 7, patch-style loss", regions="patch"),
    variant("spt_no_face", "Figure 7, w/o face loss", face=False),
)
