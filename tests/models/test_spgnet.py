"""SPGNet: layer table, operators against closed forms, schemes of training, both ways of evaluating."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from models import spgnet
from models.layers import features, losses, pose_maps
from models.layers.affine_flow import AffineFlow
from models.layers.blocks import Batch, warp
from models.layers.pose_maps import one_hot
from models.spgnet import FeatureDeformation, Sean, SPGNet, SpgnetObjective, region_average_pooling
from models.variants import COMPONENTS, VARIANTS
from tests.figures import figures

SCALE = 0.125


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def net() -> features.Features:
    return features.build("squeezenet1_1")


def parsing(*shape: int, labels: int = 20) -> torch.Tensor:
    """Random label maps (B, H, W), with regions of more than a pixel."""
    small = torch.randint(0, labels, (shape[0], -(-shape[1] // 4), -(-shape[2] // 4)))
    return small.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, : shape[1], : shape[2]].to(torch.uint8)


# Layers


def sizes(model: SPGNet, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """Output height and width of every module, by name, in one forward pass."""
    found = {}

    def record(name: str, out: object) -> None:
        if isinstance(out, torch.Tensor):
            found.setdefault(name, tuple(out.shape[-2:]))

    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, inputs, out, name=name: record(name, out))
    with torch.no_grad():
        model.eval()(figures(1, height, width, seed=0).without_target())
    return found


@pytest.mark.parametrize(
    ("size", "widths", "warped", "kernel", "bottleneck"),
    [
        ((256, 256), [32, 64, 96, 128, 128, 128, 128, 128], 5, 5, (2, 2)),
        ((128, 64), [32, 64, 96, 128, 128, 128], 4, 3, (4, 2)),
    ],
)
def test_layer_table(size, widths, warped, kernel, bottleneck):
    """Tables B to D at both sizes; the third level has 96 channels, which the decoder needs, though 128 are printed."""
    model = SPGNet(*size)
    levels = len(widths) - 1
    assert model.widths == widths
    for encoder, inputs in ((model.pose, 18), (model.appearance, 3)):
        assert encoder.enter[0].weight.shape == (32, inputs, 1, 1)
        assert [len(blocks) for blocks in encoder.blocks] == [2] * levels
        assert [block.branch[1][0].weight.shape for blocks in encoder.blocks for block in blocks] == [
            (width, width, 3, 3) for width in widths[:-1] for _ in range(2)
        ]
        assert [down[1][0].weight.shape for down in encoder.down] == [
            (after, before, 3, 3) for before, after in pairwise(widths)
        ]
        assert all(down[1][0].stride == (2, 2) for down in encoder.down)
    assert len(model.deformation) == warped
    for width, blocks in zip(widths, model.deformation, strict=False):
        for block in blocks:  # copies of 2 c channels beside: 1x1 to c, joined with c
            assert block.join.side[1][0].weight.shape == (width, 2 * width, 1, 1)
            assert block.join.branch[1][0].weight.shape == (width, 2 * width, 3, 3)
    assert model.fuse[0].weight.shape == (128, 256, 1, 1)
    ups = [level.up[1].weight.shape[:2] for level in reversed(model.decoder)]
    printed = [512, 512, 512, 512, 384, 256, 128][-levels:]
    assert [out for out, _ in ups] == printed
    assert [into for _, into in ups] == widths[:0:-1]
    for width, level in zip(widths, model.decoder, strict=False):
        assert len(level.blocks) == 2
        assert level.norm_first == (kernel == 5)
        for block in level.blocks:
            assert block.skip.weight.shape == (width, 2 * width, 1, 1)
            assert block.conv.weight.shape == (width, 2 * width, 3, 3)
            for sean in (block.skip_norm, block.norm):
                assert sean.style.weight.shape == (4 * width, 128, kernel, kernel)
                assert sean.shared.weight.shape == (64, 20, kernel, kernel)
                assert sean.semantic.weight.shape == (4 * width, 64, kernel, kernel)
                assert sean.label_weight.shape == (20, 128, 128)
    assert model.image[1].weight.shape == (3, 32, 7, 7)
    style = [layer for layer in model.style.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in style] == [32, 64, 128, 256, 128]

    found = sizes(SPGNet(*size, SCALE), *size)
    for level in range(levels):
        at = size[0] // 2**level, size[1] // 2**level
        half = size[0] // 2 ** (level + 1), size[1] // 2 ** (level + 1)
        for name in (f"pose.blocks.{level}.1", f"appearance.blocks.{level}.1", f"decoder.{level}.blocks.1"):
            assert found[name] == at, name
        assert found[f"pose.down.{level}"] == half
        assert (f"deformation.{level}.1" in found) == (level < warped)
    assert found["fuse"] == bottleneck
    assert found["style.features"] == (size[0] // 2, size[1] // 2)
    assert found["image"] == size


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="affine, learned"):
        SPGNet(64, 32, SCALE, flow="3d")


# Operators


def test_joint_disks_match_a_loop():
    joints = torch.tensor([[[3.4, 2.0], [-1.0, 5.0], [4.0, 4.0]]])
    valid = torch.tensor([[True, True, False]])
    maps = pose_maps.disks(joints.masked_fill(~valid.unsqueeze(-1), torch.nan), valid, 8, 7, 2.0)
    for j in range(3):
        for y in range(8):
            for x in range(7):
                inside = valid[0, j] and (x - joints[0, j, 0]) ** 2 + (y - joints[0, j, 1]) ** 2 <= 4
                assert maps[0, j, y, x] == float(inside)
    batch = figures(1, 128, 64, seed=0)
    assert torch.equal(spgnet.joint_maps(batch), pose_maps.disks(batch.target_joints, batch.target_valid, 128, 64, 4.0))


def test_region_average_pooling_matches_a_loop():
    x, labels = torch.randn(2, 5, 9, 7, dtype=torch.float64), parsing(2, 9, 7, labels=4)
    codes = region_average_pooling(x, one_hot(labels, 6).double())
    for b in range(2):
        for label in range(6):
            inside = [x[b, :, i, j] for i in range(9) for j in range(7) if labels[b, i, j] == label]
            expected = torch.stack(inside).mean(0) if inside else torch.zeros(5, dtype=torch.float64)
            assert torch.allclose(codes[b, label], expected), (b, label)
    assert (codes[:, 5] == 0).all()


def test_region_average_pooling_gradients():
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    soft = torch.rand(1, 4, 4, 5, dtype=torch.float64).softmax(1).requires_grad_()
    assert gradcheck(region_average_pooling, (x, soft))


def sean(features: int = 4, kernel: int = 3) -> Sean:
    """A small one with random biases, blends and statistics, in eval mode."""
    module = Sean(features, 0.0625, kernel)
    with torch.no_grad():
        for parameter in (module.label_bias, module.blend, module.noise):
            parameter.normal_()
        module.norm.running_mean.normal_()
        module.norm.running_var.uniform_(0.5, 2)
    return module.double().eval()


def test_sean_with_one_label_is_its_closed_form():
    """Away from the border every convolution of a constant map is the sum of its weights times that constant."""
    module, label = sean(), 7
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    codes = torch.randn(2, 20, 8, dtype=torch.float64)
    maps = one_hot(torch.full((2, 9, 8), label), 20).double()
    with torch.no_grad():
        style = (codes[:, label] @ module.label_weight[label] + module.label_bias[label]).clamp(min=0)
        by_style = style @ module.style.weight.sum((2, 3)).T + module.style.bias
        hidden = (module.shared.weight.sum((2, 3))[:, label] + module.shared.bias).clamp(min=0)
        by_semantic = module.semantic.weight.sum((2, 3)) @ hidden + module.semantic.bias
        shares = torch.sigmoid(module.blend).repeat_interleave(4)  # scales, then shifts
        scale, shift = (shares * by_style + (1 - shares) * by_semantic)[..., None, None].chunk(2, dim=1)
        norm = module.norm
        flat = (x - norm.running_mean.view(-1, 1, 1)) / (norm.running_var + norm.eps).sqrt().view(-1, 1, 1)
        expected = flat * (1 + scale) + shift
        found = module(x, maps, codes)
    inner = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(found[inner], expected[inner])
    assert not torch.allclose(found, expected)


def test_sean_paints_each_region_with_its_own_code():
    """With 1x1 kernels a pixel's style depends on its own label's code, and probabilities mix styles."""
    module = sean(kernel=1)
    labels = parsing(1, 8, 8, labels=3)
    codes = torch.randn(1, 20, 8, dtype=torch.float64)
    other = codes.clone()
    other[:, 1] += 1
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        before, after = (module(x, one_hot(labels, 20).double(), code) for code in (codes, other))
        changed = (before != after).any(1)
        assert torch.equal(changed, labels == 1)
        painted = [one_hot(torch.full((1, 8, 8), k), 20).double() for k in (0, 1)]
        styles = [torch.relu(codes[0, k] @ module.label_weight[k] + module.label_bias[k]) for k in (0, 1)]
        mixed = module.style((0.3 * styles[0] + 0.7 * styles[1]).view(1, -1, 1, 1))
        module.blend.fill_(100.0)  # style alone
        scale, shift = module.modulation(0.3 * painted[0] + 0.7 * painted[1], codes)
        assert torch.allclose(torch.cat([scale, shift], dim=1), mixed.expand(-1, -1, 8, 8))


def test_sean_gradients():
    module = sean(2)
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    maps = torch.rand(2, 20, 3, 4, dtype=torch.float64).softmax(1).requires_grad_()
    codes = torch.randn(2, 20, 8, dtype=torch.float64, requires_grad=True)
    assert gradcheck(module, (x, maps, codes))
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        module.noise.normal_()
    module.train()

    def noisy(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return torch.func.functional_call(module, {"noise": noise}, (x, maps.detach(), codes.detach()))

    assert gradcheck(noisy, (x, module.noise.clone().requires_grad_()))


def test_noise_is_added_in_training_only():
    module = sean()
    arguments = torch.randn(2, 4, 5, 5).double(), torch.rand(2, 20, 5, 5).double(), torch.randn(2, 20, 8).double()
    assert torch.equal(module(*arguments), module(*arguments))
    module.train()
    assert not torch.allclose(module(*arguments), module(*arguments))


def test_pooled_flow_is_the_mean_in_cells():
    flow = torch.randn(2, 2, 8, 4, dtype=torch.float64)
    assert spgnet.pool_flow(flow, 0) is not None
    assert torch.equal(spgnet.pool_flow(flow, 0), flow)
    pooled = spgnet.pool_flow(flow, 2)
    assert pooled.shape == (2, 2, 2, 1)
    assert torch.allclose(pooled[0, :, 1, 0], flow[0, :, 4:].mean((1, 2)) / 4)


def test_pooled_visibility_prefers_visible_then_invisible():
    classes = torch.tensor([[2, 2, 2, 1], [2, 2, 2, 2], [1, 0, 1, 1], [2, 2, 1, 1]]).float().view(1, 1, 4, 4)
    assert spgnet.pool_visibility(classes, 1).view(2, 2).tolist() == [[2, 1], [0, 1]]
    assert spgnet.pool_visibility(classes, 2).item() == 0
    assert torch.equal(spgnet.pool_visibility(classes, 0), classes)


def test_deformation_of_what_stays_and_is_visible_is_the_direct_path():
    block = FeatureDeformation(4).eval()
    x, rest = torch.randn(2, 4, 6, 5), torch.zeros(2, 2, 6, 5)
    with torch.no_grad():
        found = block(x, rest, torch.zeros(2, 1, 6, 5))
        assert torch.allclose(found, block.join(x, torch.cat([x, torch.zeros_like(x)], dim=1)), atol=1e-6)
        hidden = block(x, rest, torch.ones(2, 1, 6, 5))
        assert torch.allclose(hidden, block.join(x, torch.cat([torch.zeros_like(x), x], dim=1)), atol=1e-6)
        nowhere = block(x, rest, torch.full((2, 1, 6, 5), 2.0))
        assert torch.allclose(nowhere, block.join(x, torch.zeros(2, 8, 6, 5)), atol=1e-6)
        assert not torch.allclose(found, hidden, atol=1e-3)
        flow = torch.randn(2, 2, 6, 5)
        moved = block(x, flow, torch.zeros(2, 1, 6, 5))
        assert torch.allclose(moved, block(warp(x, flow), rest, torch.zeros(2, 1, 6, 5)), atol=1e-6)


def test_deformation_gradients():
    block = FeatureDeformation(2).double().eval()
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    flow = torch.randn(1, 2, 4, 3, dtype=torch.float64)
    visibility = torch.randint(0, 3, (1, 1, 4, 3)).double()
    assert gradcheck(lambda x: block(x, flow, visibility), (x,))


# Flow


def test_the_learned_flow_is_visible_where_there_and_back_ends_at_the_start(monkeypatch):
    model = spgnet.LearnedFlow(64, 32, SCALE)
    batch = figures(1, 64, 32, seed=0)
    pose = batch.source_joints, batch.source_valid, batch.target_joints, batch.target_valid
    ways = {True: (3.0, -2.0), False: (-3.0, 2.0)}

    def constant(source, target):
        there = torch.equal(target, pose_maps.heatmaps(batch.target_joints, batch.target_valid, 64, 32))
        return torch.tensor(ways[there]).view(1, 2, 1, 1).expand(1, 2, 64, 32)

    monkeypatch.setattr(model, "one_way", constant)
    _, parts = AffineFlow()(*pose, 64, 32)
    person = parts < 2
    flow, visibility = model(*pose, 64, 32)
    assert torch.equal(visibility == 2, ~person)
    assert (visibility[person] == 0).all()
    assert (flow[:, 0][person[:, 0]] == 3).all()
    assert (flow[~person.expand(-1, 2, -1, -1)] == 0).all()
    ways[False] = (0.0, 2.0)
    assert (model(*pose, 64, 32)[1][person] == 1).all()


def test_the_learned_flow_is_in_pixels():
    """A net that always says (1, -1) cells of a quarter moves by (4, -4) pixels."""
    model = spgnet.LearnedFlow(64, 32, SCALE)
    with torch.no_grad():
        for head, bias in (("8", (0.0, 0.0, 0.0)), ("4", (1.0, -1.0, 0.0))):
            nn.init.zeros_(model.net.nets[0].heads[head].weight)
            model.net.nets[0].heads[head].bias.copy_(torch.tensor(bias))
        maps = torch.rand(1, 18, 64, 32)
        flow = model.one_way(maps, maps)
    assert torch.allclose(flow, torch.tensor([4.0, -4.0]).view(1, 2, 1, 1).expand(1, 2, 64, 32))


def test_the_output_holds_flow_and_visibility():
    model, batch = SPGNet(64, 32, SCALE).eval(), figures(2, 64, 32, seed=0)
    with torch.no_grad():
        output = model(batch)
    pose = batch.source_joints, batch.source_valid, batch.target_joints, batch.target_valid
    flow, visibility = AffineFlow()(*pose, 64, 32)
    assert torch.equal(output.flows[1].squeeze(1), flow)
    assert torch.equal(output.visibilities[1].squeeze(1), (visibility == 0).float())
    assert output.parsing.shape == (2, 20, 64, 32)


# Precision


@pytest.mark.parametrize("name", ["spgnet", "spgnet_learned_flow"])
def test_mixed_precision_leaves_flow_and_last_layer_alone(name):
    """Under autocast flow and visibility are the same (the learned flow's network is not geometry, what it is made into
    is), and a pixel that is nearly white still has a gradient, as has a style code near 1: tanh in bfloat16 gives none
    from 3.5 on.
    """
    model, batch = VARIANTS[name].build(64, 32, SCALE).eval(), figures(2, 64, 32, seed=0)
    with torch.no_grad():
        for last in (model.image[-1], model.style.features[-1]):
            last.weight.mul_(0.01)
            last.bias.fill_(4.0)
    maps = one_hot(batch.target_labels, 20)
    plain = model.render(batch, maps)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.render(batch, maps)
        codes = model.style(batch.source, one_hot(batch.source_labels, 20))
    assert mixed.image.dtype == codes.dtype == torch.float32
    if name == "spgnet":
        assert torch.equal(mixed.flows[1], plain.flows[1])
        assert torch.equal(mixed.visibilities[1], plain.visibilities[1])
    assert mixed.flows[1].dtype == torch.float32
    for out, last in ((mixed.image, model.image[-1]), (codes[codes != 0], model.style.features[-1])):
        (gradient,) = torch.autograd.grad(out.mean(), last.bias)
        assert (gradient > 1e-5).all()


# What is read, and how it is evaluated


def test_the_source_parsing_is_read_and_the_predicted_target_parsing_used():
    model, batch = SPGNet(64, 32, SCALE).eval(), figures(2, 64, 32, seed=0)
    with torch.no_grad():
        output = model(batch.without_target())
        predicted = one_hot(output.parsing.argmax(1), 20)
        assert torch.equal(output.image, model.render(batch, predicted).image)
        assert not torch.equal(output.image, model.render(batch, one_hot(batch.target_labels, 20)).image)
        changed = model(replace(batch, source_labels=(batch.source_labels + 1) % 20))
        assert not torch.equal(output.image, changed.image)
        soft = SPGNet(64, 32, SCALE, soft_parsing=True).eval()
        output = soft(batch)
        assert torch.equal(output.image, soft.render(batch, output.parsing.softmax(1)).image)


def take(batch: Batch, rows: slice) -> Batch:
    return Batch(**{name: value[rows] for name, value in vars(batch).items()})


def test_test_batch_statistics_are_the_released_code_s_way():
    """With them on, an image depends on the others of its batch and on noise; off, on neither. No statistic moves."""
    batch = figures(3, 64, 32, seed=0)
    plain = SPGNet(64, 32, SCALE)
    asked = SPGNet(64, 32, SCALE)
    asked.test_batch_statistics = True
    asked.load_state_dict(plain.state_dict())
    for model, depends in ((plain, False), (asked, True)):
        model.eval()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with torch.no_grad():
            whole, part = model(batch).image[:1], model(take(batch, slice(0, 2))).image[:1]
            assert torch.allclose(whole, part, atol=1e-5) != depends
            next(module for module in model.modules() if isinstance(module, Sean)).noise.fill_(1.0)
            assert torch.equal(model(batch).image, model(batch).image) != depends
        after = model.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items() if not key.endswith("noise"))
    plain.train()
    plain(batch)
    assert not torch.equal(plain.state_dict()["fuse.1.running_mean"], before["fuse.1.running_mean"])


# Training


def objective(name: str, **changes) -> tuple[SPGNet, SpgnetObjective]:
    variant = VARIANTS[name]
    model = variant.build(64, 32, SCALE)
    return model, variant.objective(model, 64, 32, SCALE, {**variant.phase.weights, **changes})


@pytest.mark.parametrize(
    ("name", "sees_truth", "reaches_parsing"),
    [("spgnet", True, False), ("spgnet_sequential", False, False), ("spgnet_joint", False, True)],
)
def test_the_three_schemes(name, sees_truth, reaches_parsing, net):
    """Which parsing stage two is trained on, and whether its loss reaches stage one."""
    model, judged = objective(name)
    batch = figures(2, 64, 32, seed=0)
    terms, output = judged.generator_losses(batch, net)
    (terms["l1"] + terms["perceptual"]).backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parsing.parameters()) == reaches_parsing
    assert (output.parsing is None) == sees_truth
    model.eval()
    with torch.no_grad():
        first = judged.generator_losses(batch, net)[1].image
        other = replace(batch, target_labels=(batch.target_labels + 1) % 20)
        assert torch.equal(first, judged.generator_losses(other, net)[1].image) != sees_truth
    assert ("parsing" in terms) == (name == "spgnet_joint")


def test_variants_differ_as_they_say():
    built = {name: VARIANTS[name].build(64, 32, SCALE) for name in VARIANTS if name.startswith("spgnet")}
    assert set(built) == {"spgnet", "spgnet_sequential", "spgnet_joint", "spgnet_no_distance", "spgnet_learned_flow"}
    for name, model in built.items():
        assert model.parsing.kappa == (None if name == "spgnet_no_distance" else -0.1)
        assert VARIANTS[name].limb_maps == (name != "spgnet_no_distance")
        assert model.soft_parsing == (name == "spgnet_joint")
        assert isinstance(model.flow, spgnet.LearnedFlow if name == "spgnet_learned_flow" else AffineFlow)
        assert VARIANTS[name].phase.frozen == (("flow",) if name == "spgnet_joint" else ("parsing", "flow"))
        assert VARIANTS[name].needs_parsing
    assert COMPONENTS["spatn"].needs_parsing
    assert COMPONENTS["spatn_no_distance"].build(64, 32, SCALE).kappa is None
    assert VARIANTS["spgnet"].build(64, 32, SCALE, kappa=-0.3).parsing.kappa == -0.3


def test_terms_are_those_of_the_released_code(net):
    model, judged = objective("spgnet")
    model.eval()
    judged.discriminator.eval()
    batch = figures(2, 64, 32, seed=0)
    with torch.no_grad():
        terms, output = judged.generator_losses(batch, net)
        other = judged.discriminator_losses(batch, output)
        real, fake = (
            judged.discriminator(torch.cat([batch.source, image, spgnet.joint_maps(batch)], dim=1)).sigmoid()
            for image in (batch.target, output.image)
        )
        ones, zeros = torch.ones_like(real), torch.zeros_like(real)
        entropy = nn.functional.binary_cross_entropy
        pair = [net(image, net.content) for image in (output.image, batch.target)]
    assert terms["l1"].item() == pytest.approx((output.image - batch.target).abs().mean().item(), rel=1e-5)
    content = sum(0.125 * (pair[0][layer] - pair[1][layer]).abs().mean().item() for layer in net.content)
    assert terms["perceptual"].item() == pytest.approx(content, rel=1e-5)
    assert terms["adversarial"].item() == pytest.approx(0.01 * entropy(fake, ones).item(), rel=1e-4)
    expected = 0.01 * 0.5 * (entropy(real, ones) + entropy(fake, zeros)).item()
    assert other["discriminator"].item() == pytest.approx(expected, rel=1e-4)


def test_without_its_weight_there_is_no_adversary(net):
    _, judged = objective("spgnet", adversarial=0.0)
    batch = figures(2, 64, 32, seed=0)
    terms, output = judged.generator_losses(batch, net)
    assert set(terms) == {"l1", "perceptual"}
    assert judged.discriminator_losses(batch, output) == {}


def test_overfits_eight_pairs(net):
    """30 steps at 20 times the published rate, without the adversary: L1 falls below 0.9 of copying the source. Judged
    in training: after so few steps the running statistics lag behind by an accident of rounding.
    """
    model, judged = objective("spgnet", adversarial=0.0)
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.5, 0.999))
    batch = figures(8, 64, 32, seed=0)
    for _ in range(30):
        terms, _ = judged.generator_losses(batch, net)
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
    assert terms["l1"] < 0.9 * losses.l1(batch.source, batch.target)
