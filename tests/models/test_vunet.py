"""VU-Net's stick figures and crops beside the released code's own calls of OpenCV, its layers in closed form, its
losses, and how its weights begin.
"""

import contextlib
import copy
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import vunet
from models.layers import features
from models.layers.blocks import Batch
from models.variants import VARIANTS
from pipeline.training import loop
from tests.figures import figures
from tests.models.test_spig import build, take, with_gaps

SCALE = 0.125
NAMES = {  # of the released code's joints, in its lists
    **{"cnose": 0, "rshoulder": 2, "relbow": 3, "rwrist": 4, "lshoulder": 5, "lelbow": 6, "lwrist": 7},
    **{"rhip": 8, "rknee": 9, "rankle": 10, "lhip": 11, "lknee": 12, "lankle": 13, "reye": 14, "leye": 15},
}


@pytest.fixture(scope="module")
def net() -> features.Features:
    return features.build("squeezenet1_1")


def posed(count: int = 3, side: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    """Images, joints at whole pixels and which of them are known: all of the first, none of another's trunk."""
    batch = with_gaps(figures(count, side, side, seed=3))
    joints, valid = torch.nan_to_num(batch.source_joints).round(), batch.source_valid.clone()
    joints[0], valid[0] = figures(count, side, side, seed=3).source_joints[0].round(), True
    valid[1, [2, 5, 8, 11]] = torch.tensor([True, True, False, True])
    return batch.source, joints, valid


# Stick figures


def drawn_by_opencv(joints: np.ndarray, valid: np.ndarray, side: int) -> np.ndarray:
    """The code's lines and polygon: (side, side, 3) in 0 to 255."""
    images = [np.zeros((side, side), np.uint8) for _ in range(3)]
    at = {name: tuple(int(value) for value in joints[k]) for name, k in NAMES.items()}
    known = {name: bool(valid[k]) for name, k in NAMES.items()}
    thickness = int(3 * side / 128)

    def line(image: np.ndarray, a: tuple, b: tuple, colour: int) -> None:
        cv2.line(image, a, b, color=colour, thickness=thickness)

    body = ["lhip", "lshoulder", "rshoulder", "rhip"]
    if all(known[name] for name in body):
        cv2.fillPoly(images[2], np.array([[at[name] for name in body]]), 255)
    chain = ["ankle", "knee", "hip", "shoulder", "elbow", "wrist"]
    for image, s in zip(images, "rl", strict=False):
        for a, b in pairwise(chain):
            if known[s + a] and known[s + b]:
                line(image, at[s + a], at[s + b], 255)
    if known["rshoulder"] and known["lshoulder"] and known["cnose"]:
        neck = tuple((np.array(at["rshoulder"]) + np.array(at["lshoulder"])) // 2)
        for image in images[:2]:
            line(image, tuple(map(int, neck)), at["cnose"], 127)
    if known["reye"] and known["leye"] and known["cnose"]:
        line(images[0], at["cnose"], at["reye"], 255)
        line(images[1], at["cnose"], at["leye"], 255)
    return np.stack(images, axis=-1)


@pytest.mark.parametrize("side", [128, 256])
def test_stick_figures_are_the_codes(side):
    """But for the pixels along an outline: OpenCV's thick lines are polygons of whole pixels."""
    _, joints, valid = posed(side=side)
    found = (vunet.stick_figure(joints, valid, side) + 1) * 127.5
    for k in range(len(joints)):
        wanted = drawn_by_opencv(joints[k].numpy(), valid[k].numpy(), side).transpose(2, 0, 1)
        for ours, theirs in zip(found[k].numpy(), wanted, strict=True):
            assert np.mean(np.abs(ours - theirs) > 1) < 0.01
            edge = cv2.dilate(theirs, np.ones((5, 5))) == cv2.erode(theirs, np.ones((5, 5)))
            assert np.abs(ours - theirs)[edge].max() <= 1
    assert set(found.unique().round().int().tolist()) == {0, 127, 255}


def test_a_stick_figure_shows_what_is_known_and_nothing_else():
    _, joints, valid = posed()
    nobody = vunet.stick_figure(joints, torch.zeros_like(valid), 128)
    assert (nobody == -1).all()
    arm = torch.zeros_like(valid)
    arm[:, [3, 4]] = True  # the right forearm
    one = vunet.stick_figure(joints, arm, 128)
    assert (one[0, 0] > 0).sum() > 20
    assert (one[:, 1:] == -1).all()


# Crops of the body's parts


def crops_by_opencv(image: np.ndarray, joints: np.ndarray, valid: np.ndarray, size: int) -> np.ndarray:
    """The code's quadrangles and warps: image (side, side, 3) -> (8, size, size, 3)."""
    side, found = image.shape[0], []
    at = {name: joints[k].astype(np.float64) for name, k in NAMES.items()}
    known = {name: bool(valid[k]) for name, k in NAMES.items()}

    def quad(names: list[str]) -> list | None:
        points = [at[name] for name in names]
        whole = all(known[name] for name in names)
        if names[0] in ("lhip", "rhip") and not whole:
            if not known[names[0]]:
                return None
            points, whole = [points[0], np.array([points[0][0], side - 1])], True
        if len(names) == 3 and not whole:
            if not (known["lshoulder"] and known["rshoulder"]):
                return None
            along = points[1] - points[0]
            normal = np.array([-along[1], along[0]])
            normal = -normal if normal[1] > 0 else normal
            return [points[0] + normal, points[0], points[1], points[1] + normal]
        if not whole:
            return None
        if len(names) == 4:
            return points
        share = 0.25
        if len(names) == 3:
            neck = (points[0] + points[1]) / 2
            points, share = [neck + 2 * (points[2] - neck), neck], 0.5
        along = points[1] - points[0]
        normal = share * np.array([-along[1], along[0]])
        a, b, c, d = points[0] + normal, points[0] - normal, points[1] - normal, points[1] + normal
        return [b, c, d, a] if len(names) == 3 else [a, b, c, d]

    for names in (
        *(["lshoulder", "lhip", "rhip", "rshoulder"], ["lshoulder", "rshoulder", "cnose"], ["lshoulder", "lelbow"]),
        *(["lelbow", "lwrist"], ["rshoulder", "relbow"], ["relbow", "rwrist"], ["lhip", "lknee"], ["rhip", "rknee"]),
    ):
        corners = quad(names)
        if corners is None:
            found.append(np.zeros((size, size, 3), np.float32))
            continue
        to = size * np.float32([[0, 0], [0, 1], [1, 1], [1, 0]])
        matrix = cv2.getPerspectiveTransform(np.float32(corners), to)
        found.append(cv2.warpPerspective(image, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE))
    return np.stack(found)


def test_crops_are_the_codes():
    """Smooth images, since OpenCV rounds positions to a 32nd of a pixel. The second person has no right hip."""
    _, joints, valid = posed()
    images = F.interpolate(torch.rand(3, 3, 9, 9), size=(128, 128), mode="bicubic")
    found = vunet.part_crops(images, joints, valid, 64).unflatten(1, (3, 8))
    for k in range(3):
        image = np.ascontiguousarray(images[k].permute(1, 2, 0).numpy())
        wanted = crops_by_opencv(image, joints[k].numpy(), valid[k].numpy(), 64)
        ours = found[k].permute(1, 2, 3, 0).numpy()
        assert np.abs(ours - wanted).max() < 0.02
        assert np.abs(ours - wanted).mean() < 0.001
    assert found[1, :, 0].abs().max() == 0  # no torso without a hip
    assert found[1, :, 1].abs().max() > 0


def test_corners_on_a_line_give_no_crop():
    _, joints, valid = posed()
    joints[:, 4] = joints[:, 3]  # a forearm of no length
    found = vunet.part_crops(torch.ones(3, 3, 128, 128), joints, torch.ones_like(valid), 32).unflatten(1, (3, 8))
    assert (found[0, :, 5] == 0).all()
    assert torch.allclose(found[0, :, [0, 1, 2, 3, 4, 6, 7]], torch.ones(()), atol=1e-5)


def test_other_shapes_are_stretched_to_a_square():
    assert [vunet.square_side(*size) for size in ((128, 64), (256, 176), (96, 32), (64, 64))] == [128, 256, 128, 64]
    batch = figures(1, 128, 64, seed=0)
    square = vunet.to_square(batch.source, 128)
    joints = vunet.joints_in_square(batch.source_joints, batch.source_valid, 128, 64, 128)
    assert torch.allclose(joints, batch.source_joints * torch.tensor([2.0, 1.0]) + torch.tensor([0.5, 0.0]))
    assert torch.allclose(F.avg_pool2d(square, (1, 2)), batch.source, atol=0.5)
    assert (F.avg_pool2d(square, (1, 2)) - batch.source).abs().mean() < 0.02


# The networks


def test_weight_norm_by_hand():
    torch.manual_seed(0)
    conv, x = vunet.Conv(3, 5), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        conv.gain.copy_(torch.arange(1.0, 6.0))
    weight = torch.stack([w * g / w.square().sum().sqrt() for w, g in zip(conv.weight, conv.gain, strict=True)])
    assert torch.allclose(conv(x), F.conv2d(x, weight, padding=1), atol=1e-6)
    given = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True), torch.rand(4, dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(vunet.WeightNorm.apply, (given[0], given[1].requires_grad_()))
    scaled = copy.deepcopy(conv)
    with torch.no_grad():
        scaled.weight.mul_(7)
    assert torch.allclose(scaled(x), conv(x), atol=1e-5)


def test_the_prior_of_a_group_knows_the_groups_before_it_alone():
    """A change of a latent at (row, column) of its 2x2 cell moves the prior's later groups, nothing else."""
    torch.manual_seed(0)
    prior = vunet.Prior(8).eval()
    x, z = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        before = prior(x, z)
        for group in range(4):
            other = z.clone()
            other[..., group // 2 :: 2, group % 2 :: 2] += 1.0
            moved = (prior(x, other) - before).abs().amax((0, 1)) > 1e-6
            changed = [bool(moved[k // 2 :: 2, k % 2 :: 2].all()) for k in range(4)]
            assert changed == [k > group for k in range(4)]


def test_latents_are_drawn_in_training_and_the_means_in_evaluation():
    torch.manual_seed(0)
    posterior, given = vunet.Posterior(8), [torch.randn(1, 8, 8, 8)] * 2 + [torch.randn(1, 8, 4, 4)] * 2
    means, samples = posterior.eval()(given)
    assert all(torch.equal(*pair) for pair in zip(means, samples, strict=True))
    assert [mean.shape[-1] for mean in means] == [4, 8]
    drawn = []
    for _ in range(8):
        means, samples = posterior.train()(given)
        drawn += [(sample - mean).flatten() for mean, sample in zip(means, samples, strict=True)]
    drawn = torch.cat(drawn)
    assert drawn.std().item() == pytest.approx(1, abs=0.03)
    assert drawn.mean().item() == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    ("size", "levels", "crop", "coarsest"), [((128, 64), 7, 64, 2), ((256, 256), 7, 64, 4), ((64, 32), 6, 32, 2)]
)
def test_scales_are_the_codes(size, levels, crop, coarsest):
    model = vunet.VUNet(*size, SCALE).eval()
    assert (len(model.decoder.first), model.crop) == (levels, crop)
    batch = figures(1, *size, seed=0)
    with torch.no_grad():
        square, means, priors = model.reconstruct(batch.source, batch.source_joints, batch.source_valid)
    assert square.shape == (1, 3, model.side, model.side)
    assert [mean.shape[-1] for mean in means] == [prior.shape[-1] for prior in priors] == [coarsest, 2 * coarsest]


def test_the_image_has_the_sources_appearance_and_the_targets_pose():
    torch.manual_seed(0)
    model, batch = vunet.VUNet(64, 32, SCALE).eval(), figures(1, 64, 32, seed=0)
    model.begin(*vunet.images_of(batch))
    with torch.no_grad():
        first = model(batch.without_target()).image
        assert not torch.allclose(model(replace(batch, source=-batch.source)).image, first, atol=1e-3)
        moved = replace(batch, target_joints=batch.target_joints + 4)
        assert not torch.allclose(model(moved).image, first, atol=1e-3)


# How it begins


def test_every_convolution_begins_at_mean_0_and_deviation_1():
    torch.manual_seed(0)
    model, batch = vunet.VUNet(64, 32, SCALE), figures(8, 64, 32, seed=0)
    model.begin(*vunet.images_of(batch))
    assert model.training
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, vunet.Conv):
            module.register_forward_hook(lambda conv, given, made, name=name: seen.update({name: made}))
    with torch.no_grad():
        model.eval().reconstruct(*vunet.images_of(batch))
    for name, made in seen.items():
        gain = model.get_submodule(name).gain
        variance, mean = torch.var_mean(made, (0, 2, 3), correction=0)
        assert mean.abs().max() < 1e-3, name
        assert torch.allclose(variance[gain < 10], torch.ones(()), atol=1e-3), name
        assert variance.max() < 1.001, name
    kept = copy.deepcopy(model.state_dict())
    model.begin(*vunet.images_of(figures(8, 64, 32, seed=1)))
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())


class Rows:
    """Eight drawn images, in the order of their rows; the machine stops when it comes to `last`."""

    unit, resident = "images", True

    def __init__(self, last: int):
        self.left = last

    def __len__(self) -> int:
        return 8

    def batch(self, rows: Tensor) -> Batch:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return take(figures(8, 32, 32, seed=0), rows[:4])


def test_a_run_begins_once_and_a_resumed_one_does_not(tmp_path, net, monkeypatch):
    """On the whole batch, before the first step; the state that is taken up has begun. A batch to begin on is one more
    that is made.
    """
    calls, ends, real = [], [], vunet.VunetObjective.begin

    def begin(objective, batch):
        calls.append(len(batch.source))
        real(objective, batch)

    monkeypatch.setattr(vunet.VunetObjective, "begin", begin)
    for stops in ((9,), (2, 9)):
        calls.clear()
        for last in stops:
            _, objective, phase = build("vunet", 32, 32)
            run = loop.Run(
                **{"title": "vunet", "phase": phase, "steps": 2, "checkpoint_every": 1, "batch": 8, "seed": 0},
                **{"precision": "fp32", "device": torch.device("cpu"), "work": tmp_path / str(len(stops))},
                **{"metrics": tmp_path / f"{len(stops)}.jsonl", "settings": {}},
            )
            torch.manual_seed(0)
            with contextlib.suppress(KeyboardInterrupt):
                loop.train(run, objective, net, Rows(last))
        assert calls == [4]
        ends.append(objective.generator.state_dict())
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    assert ends[0]["begun"]


# Losses and schedule


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 1e-6), (0.5, 1e-6), (0.625, 0.5), (0.75, 1.0), (0.99, 1.0)])
def test_the_distance_to_the_prior_counts_from_the_middle_of_the_run_on(progress, weight, net):
    _, objective, _ = build("vunet")
    objective.generator.eval()
    objective.progress = progress
    batch = figures(2, 64, 32, seed=0)
    with torch.no_grad():
        terms, _ = objective.generator_losses(batch, net)
        square, means, priors = objective.generator.reconstruct(*vunet.images_of(batch))
    distance = sum(
        0.5 * (m[k] - p[k]).square().sum().item() / 4 for m, p in zip(means, priors, strict=True) for k in range(4)
    )
    assert terms["kl"].item() == pytest.approx(weight * distance, rel=1e-4)
    wanted = vunet.to_square(vunet.images_of(batch)[0], 64)
    with torch.no_grad():
        ours, theirs = net(square, net.second), net(wanted, net.second)
    seen = sum((ours[layer] - theirs[layer]).abs().mean().item() for layer in net.second)
    total = 127.5 * (square - wanted).abs().mean().item() + 255 * 0.226 * seen
    assert terms["perceptual"].item() == pytest.approx(5 * total, rel=1e-4)


def test_the_features_are_the_second_of_each_block():
    """relu1_2, 2_2, 3_2, 4_2 and 5_2: two convolutions after the start or a pooling."""
    layers = features.vgg_layers(4)
    starts = [0, *(k + 1 for k, layer in enumerate(layers) if isinstance(layer, torch.nn.MaxPool2d))]
    assert features.NETS["vgg19"]["second"] == tuple(str(start + 3) for start in starts)


def test_published_schedule():
    phase = VARIANTS["vunet"].phase
    assert VARIANTS["vunet"].data == "images"
    assert phase.batch == {"market1501": 16, "deepfashion": 8}
    assert phase.decay_from * phase.steps["market1501"] == pytest.approx(1000)
    assert phase.optimisers["generator"].betas == (0.5, 0.9)
