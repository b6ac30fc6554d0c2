"""SPT's training: what fades in and when, what the discriminators see, the way back, and the variants."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import spt
from models.layers import features
from models.layers.deformable import Pose, ToImage
from models.spt import appearance, losses, semantic
from models.spt.semantic import StraightThrough, TenLabels
from models.variants import COMPONENTS, VARIANTS, Batch
from pipeline.training import loop
from tests.figures import figures
from tests.models.test_spt import build, poses

SCALE = 0.05


@pytest.fixture(scope="module")
def net() -> features.Features:
    return features.build("squeezenet1_1")


@pytest.fixture
def large_at_64(monkeypatch):
    """Images of 64 x 64 are taken for those of 256: with a local enhancer, and a global network at half the size."""
    for module in (spt, appearance, semantic):
        monkeypatch.setattr(module, "large", lambda height, width: min(height, width) >= 64)


def trainer(name: str, size: tuple[int, int], steps: int, net: features.Features) -> loop.Trainer:
    entry = VARIANTS[name]
    torch.manual_seed(0)
    network = entry.build(*size, SCALE)
    objective = entry.objective(network, *size, SCALE, entry.phase.weights)
    thaws = {part: 1 + round(share["deepfashion"] * steps) for part, share in entry.phase.thaw.items()}
    run = loop.Run(
        title=name,
        phase=entry.phase,
        steps=steps,
        checkpoint_every=steps,
        batch=1,
        seed=0,
        precision="fp32",
        device=torch.device("cpu"),
        work=Path("work"),
        metrics=Path("metrics"),
        settings={},
        thaws=thaws,
    )
    return loop.Trainer(run, objective, net)


# The local enhancer fades in


@pytest.mark.usefixtures("large_at_64")
def test_what_fades_in_starts_with_steps_of_the_learning_rate(net):
    """Adam has never seen the enhancer and D_F's entry at full size when their fade begins, at 0.4 of 60 steps: its
    first steps are no longer than the learning rate. With 24 gradients of zero behind them they were up to 5 times.
    """
    made = trainer("spt_ts_gt", (64, 64), 60, net)
    batch = replace(figures(1, 64, 64, seed=0), target=None)
    networks, rate = made.networks, spt.ADAM.lr
    fading = [*networks["generator"].image.local.parameters(), *networks["discriminator"].face.enter_full.parameters()]

    def known() -> int:
        states = [made.optimisers[name].state for name in ("generator", "discriminator")]
        return sum(parameter in state for parameter in fading for state in states)

    for step in (1, 2, 25):  # progress 0, 1/60 and 0.4
        before = [parameter.clone() for parameter in fading]
        made.step(step, batch)
        assert all(torch.equal(a, b) for a, b in zip(fading, before, strict=True))
        assert known() == 0
    for step in (26, 27, 28):
        before = [parameter.detach().clone() for parameter in fading]
        made.step(step, batch)
        moves = [(a - b).abs().max().item() for a, b in zip(fading, before, strict=True)]
        assert max(moves) < 2 * rate
        assert min(moves) > 0
    assert known() == len(fading)


def seen_by(judge: torch.nn.Module, seen: list[Tensor]) -> None:
    judge.register_forward_hook(lambda module, given, scores: seen.append(given[0].detach()))


@pytest.mark.usefixtures("large_at_64")
@pytest.mark.parametrize(("progress", "side"), [(0.0, 32), (0.4, 32), (0.41, 64), (0.9, 64)])
def test_discriminator_works_at_half_the_size_until_the_enhancer_fades_in(progress, side, net):
    """As in the released code, which first trains the global network and D_A at 128 pixels. Of parsings, every second
    pixel: it stays one of ten labels.
    """
    _, objective, _ = build("spt_ts_gt", 64, 64)
    batch = replace(figures(1, 64, 64, seed=0), target=None)
    objective.progress, seen = progress, []
    seen_by(objective.discriminator.image, seen)
    with torch.no_grad():
        _, output = objective.generator_losses(batch, net)
        objective.discriminator_losses(batch, output)
    assert [x.shape for x in seen] == [(2, 12, side, side), (3, 12, side, side)]
    shown = seen[1]
    assert set(shown[:, 3:].unique().tolist()) == {0.0, 1.0}
    step = 64 // side
    assert torch.equal(shown[:1, 3:], output.parsings[0][:, 1:, ::step, ::step])
    assert torch.equal(shown[1:2, 3:], output.parsings[1][:, 1:, ::step, ::step])
    if side == 64:
        assert torch.equal(shown[:, :3], torch.cat([batch.source, output.images]))
    else:
        means = batch.source.unflatten(-1, (32, 2)).unflatten(-3, (32, 2)).mean((-1, -3))
        assert torch.allclose(shown[:1, :3], means, atol=1e-6)


@pytest.mark.usefixtures("large_at_64")
def test_parsing_at_half_the_size_is_every_second_pixel():
    """As in the released code: one-hot in the global network and in H_S, too, where an average is not."""
    network, _, _ = build("spt", 64, 64)
    batch, seen = figures(1, 64, 64, seed=0), {}
    for name in ("image.appearance.enter", "image.pose.enter", "parsing.semantic.enter", "image.local.appearance.0"):
        network.get_submodule(name).register_forward_hook(
            lambda module, given, x, name=name: seen.update({name: given[0]})
        )
    with torch.no_grad():
        source, target, _ = network.parsings(batch)
        network.draw(batch, [source, target])
    assert torch.equal(seen["image.appearance.enter"][:, 3:12], source[:, 1:, ::2, ::2])
    assert torch.equal(seen["image.pose.enter"][:, :9], target[:, 1:, ::2, ::2])
    assert torch.equal(seen["image.local.appearance.0"][:, 3:12], source[:, 1:])
    network.parsing.predict(source, *poses(batch))
    assert torch.equal(seen["parsing.semantic.enter"][:, :10], source[..., ::2, ::2])


# What is handed on from H_S


@pytest.mark.usefixtures("large_at_64")
@pytest.mark.parametrize("thawed", [set(), {"parsing"}], ids=["frozen", "joint"])
@pytest.mark.parametrize("size", [(64, 32), (64, 64)])
def test_what_is_handed_on_are_labels(size, thawed, net):
    """As those of the source: ones and zeros, a label a pixel."""
    _, objective, phase = build("spt", *size)
    loop.freeze_untrained(phase, objective.networks(), thawed)
    batch = replace(figures(2, *size, seed=0), target=None, target_labels=None)
    if hasattr(objective, "progress"):
        objective.progress = 0.9
    _, output = objective.generator_losses(batch, net)
    for parsing in output.parsings:
        assert set(parsing.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(parsing.sum(1), torch.ones(2, *size))


@pytest.mark.parametrize("name", ["spt_ts_pred", "spt", "spt_balanced", "spt_log_loss", "spt_ts_gt_training"])
def test_no_parsing_tells_a_fake(name, net):
    """D_A would only have to tell predicted parsings from the source's, and leave the images as they are: after 300
    steps it did, on equal images. Beside true parsings it sees them, as in the released code.
    """
    _, objective, _ = build(name)
    batch = replace(figures(2, 64, 32, seed=0), target=None, target_labels=None)
    seen: list[Tensor] = []
    seen_by(objective.discriminator.image, seen)
    with torch.no_grad():
        _, output = objective.generator_losses(batch, net)
        objective.discriminator_losses(batch, output)
    fakes, both = seen
    assert torch.equal(fakes, output.images)
    assert torch.equal(both, torch.cat([batch.source, output.images]))


def test_labels_pass_their_gradient_to_the_probabilities():
    probabilities = torch.randn(2, 10, 3, 4).softmax(1).requires_grad_()
    labels = StraightThrough.apply(probabilities)
    assert torch.equal(labels.argmax(1), probabilities.argmax(1))
    assert torch.equal(labels.sum(1), torch.ones(2, 3, 4))
    weight = torch.randn(2, 10, 3, 4)
    (gradient,) = torch.autograd.grad((labels * weight).sum(), probabilities)
    assert torch.equal(gradient, weight)


def test_the_way_back_is_predicted_from_what_was_predicted():
    """S~_s = G_S(E_S(S~_t, P_t, M_t), E_P(P_s, M_s)); a parsing that is given comes back as it was."""
    network, _, _ = build("spt")
    batch = figures(2, 64, 32, seed=0)
    source_pose, target_pose = poses(batch)
    with torch.no_grad():
        source, target, back = network.parsings(batch)
        again = StraightThrough.apply(network.parsing.predict(target, target_pose, source_pose)[0])
        forth = StraightThrough.apply(network.parsing.predict(source, source_pose, target_pose)[0])
        assert torch.equal(source, TenLabels()(batch.source_labels, source_pose))
        given, _, _ = build("spt_ts_gt")
        assert torch.equal(given.parsings(batch)[2], source)
    assert torch.equal(target, forth)
    assert torch.equal(back, again)
    assert not torch.equal(back, source)


def test_the_way_back_is_drawn_from_what_was_drawn():
    """I~_s = G_A(E_A(I~_t, P_t, S~_t), E'_S(P_s, S~_s)): a batch whose source is what was drawn of the target."""
    network, _, _ = build("spt_ts_gt")
    network.eval()
    batch = figures(2, 64, 32, seed=0)
    with torch.no_grad():
        parsings = network.parsings(batch)
        there, back = network.draw(batch, parsings)
        turned = Batch(there, None, batch.target_joints, batch.target_valid, batch.source_joints, batch.source_valid)
        assert torch.allclose(back, network.draw(turned, [parsings[1], parsings[2]])[0], atol=1e-5)


# Precision


def test_last_layer_learns_in_bfloat16():
    """tanh in bfloat16 has no gradient at 4; in float32 it is 0.0013."""
    layer = ToImage(4)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.bias.fill_(4.0)
    with torch.autocast("cpu", torch.bfloat16):
        image = layer(torch.randn(1, 4, 5, 5))
    assert image.dtype == torch.float32
    image.sum().backward()
    assert layer.conv.bias.grad.min() > 25 * 0.001


def test_where_parts_go_does_not_depend_on_autocast():
    network, _, _ = build("spt_ts_gt", 256, 256)
    batch = figures(2, 256, 256, seed=0)
    plain, mixed = [], []
    for found, enabled in ((plain, False), (mixed, True)):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            warp = network.image.warp(*poses(batch), 256, 256)
            found += [x for level in warp.levels.values() for x in level]
            found.append(spt.mask_regions(None, poses(batch)[0], 256, 256))
            found.append(losses.face_crops(batch.source, poses(batch)[0])[0])
            found.append(TenLabels()(batch.source_labels, poses(batch)[0]))
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))


# Variants


def differences(name: str, other: str) -> dict[str, tuple]:
    """The settings of two variants that differ, those of `build` by keywords, and of the objective at 256."""
    found = {}
    for entry in (name, other):
        values = dict(vars(VARIANTS[entry]))
        network = values["build"](256, 256, SCALE)
        objective = values.pop("objective")(network, 256, 256, SCALE, {})
        values |= {
            "build": values["build"].keywords,
            "regions": objective.regions,
            "error": objective.error.__name__,
            "face": objective.discriminator.face is not None,
            "judged": objective.discriminator.image.enter[0].in_channels,
        }
        found[entry] = {key: value for key, value in values.items() if key not in ("name", "row", "departs")}
    return {key: (found[name][key], found[other][key]) for key in found[name] if found[name][key] != found[other][key]}


PREDICTED = {"parsing": "predicted"}
JOINT = {"parsing": {"market1501": 0.8, "deepfashion": 0.8}}


def test_each_variant_differs_in_what_it_names():
    """TS-Pred from E2E in the joint part; TS-GT in where the parsing comes from, in training alone or at test, too;
    the ablations of Figure 7, which start from TS-GT, in one loss each.
    """
    phases = VARIANTS["spt"].phase, VARIANTS["spt_ts_pred"].phase
    assert differences("spt", "spt_ts_pred") == {"phase": phases}
    assert replace(phases[0], thaw={}) == phases[1]
    assert phases[0].thaw == JOINT
    assert differences("spt", "spt_log_loss") == {"error": ("least_squares", "logarithmic")}
    assert differences("spt_ts_pred", "spt_ts_gt_training") == {"components": (("spt_parsing",), ("spt_parsing_true",))}
    given = differences("spt_ts_pred", "spt_ts_gt")
    assert set(given) == {"build", "components", "phase", "given_target_parsing", "judged"}
    assert given["judged"] == (3, 12)  # true parsings beside both images, predicted ones beside none
    assert given["build"] == (PREDICTED, {"parsing": "given"})
    assert replace(VARIANTS["spt_ts_pred"].phase, frozen=()) == VARIANTS["spt_ts_gt"].phase
    assert differences("spt_ts_gt", "spt_mask_style") == {"regions": ("semantic", "mask")}
    assert differences("spt_ts_gt", "spt_patch_style") == {"regions": ("semantic", "patch")}
    assert differences("spt_ts_gt", "spt_no_face") == {"face": (True, False)}


def test_true_parsing_in_training_teaches_the_parsing_generator():
    """It replaces the stand-ins of H_S; the variant that starts from it knows no target's parsing itself."""
    component, ours = COMPONENTS["spt_parsing_true"], COMPONENTS["spt_parsing"]
    assert replace(component, name=ours.name, data=ours.data) == ours
    assert component.data == "unpaired"
    assert not VARIANTS["spt_ts_gt_training"].given_target_parsing


def test_logarithmic_variant_has_both_adversaries_in_the_log_form(net):
    _, objective, _ = build("spt_log_loss")
    batch = replace(figures(2, 64, 32, seed=0), target=None, target_labels=None)
    objective.generator.eval()
    with torch.no_grad():
        terms, output = objective.generator_losses(batch, net)
        real, *fakes = (objective.discriminator.image(x).sigmoid() for x in (batch.source, *output.images.chunk(2)))
        wanted = sum(-fake.log().mean() for fake in fakes)
        judged = -real.log().mean() - 0.5 * sum((1 - fake).log().mean() for fake in fakes)
        found = objective.discriminator_losses(batch, output)["discriminator"]
    assert terms["adversarial"].item() == pytest.approx(wanted.item(), rel=1e-4)
    assert found.item() == pytest.approx(judged.item(), rel=1e-4)


def test_people_are_stacked_in_order():
    first, second = poses(figures(2, 64, 32, seed=0))
    both = spt.stacked(first, second)
    assert isinstance(both, Pose)
    assert torch.equal(both.joints[2:], second.joints)
    assert torch.equal(both.valid[:2], first.valid)
