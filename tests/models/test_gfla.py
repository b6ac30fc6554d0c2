"""Local attention against loops, other libraries and closed forms; GFLA's layer table, blending and losses."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from models import gfla
from models.layers import blocks, features, losses
from models.layers.schedule import Adam
from models.variants import VARIANTS
from tests.figures import figures
from tests.models.test_spig import build, train

SCALE = 0.125


@pytest.fixture(scope="module")
def net() -> features.Features:
    return features.build("squeezenet1_1")


def flows(count: int, height: int, width: int, reach: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return reach * torch.randn(count, 2, height, width, generator=generator, dtype=torch.float64)


def patches(source: Tensor, flow: Tensor, size: int) -> Tensor:
    """(B, C, n^2, H, W): SciPy's bilinear samples around each flowed position, border values outside."""
    count, channels, height, width = source.shape
    radius = size // 2
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    found = np.empty((count, channels, size**2, height, width))
    for b, c in product(range(count), range(channels)):
        for k, (dy, dx) in enumerate(product(range(-radius, radius + 1), repeat=2)):
            at = [rows + flow[b, 1].numpy() + dy, columns + flow[b, 0].numpy() + dx]
            found[b, c, k] = map_coordinates(source[b, c].numpy(), at, order=1, mode="nearest")
    return torch.from_numpy(found)


# Local attention


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("reach", [0.0, 0.7, 6.0])
def test_attention_is_a_weighted_sum_of_the_flowed_patch(size, reach):
    """Each position by itself, flows that leave the grid included."""
    torch.manual_seed(0)
    source = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    kernel = torch.randn(2, size**2, 6, 5, dtype=torch.float64)
    flow = flows(2, 6, 5, reach)
    found = gfla.attend(source, kernel, flow)
    samples = patches(source, flow, size)
    for b, c, y, x in product(range(2), range(3), range(6), range(5)):
        expected = sum(kernel[b, k, y, x] * samples[b, c, k, y, x] for k in range(size**2))
        assert found[b, c, y, x].item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("size", [3, 5])
def test_a_delta_kernel_is_a_warp(size):
    torch.manual_seed(0)
    source, flow = torch.randn(2, 4, 9, 7), flows(2, 9, 7, 2.0).float()
    radius = size // 2
    for k, (dy, dx) in enumerate(product(range(-radius, radius + 1), repeat=2)):
        kernel = torch.zeros(2, size**2, 9, 7)
        kernel[:, k] = 1
        expected = blocks.warp(source, flow + torch.tensor([dx, dy]).view(2, 1, 1))
        assert torch.allclose(gfla.attend(source, kernel, flow), expected, atol=1e-5)


def test_an_even_kernel_without_flow_is_a_mean_filter():
    torch.manual_seed(0)
    source = torch.randn(1, 2, 8, 6)
    expected = F.avg_pool2d(F.pad(source, (2,) * 4, mode="replicate"), 5, stride=1)
    found = gfla.attend(source, torch.full((1, 25, 8, 6), 1 / 25), torch.zeros(1, 2, 8, 6))
    assert torch.allclose(found, expected, atol=1e-6)


def test_gradients_of_the_attention():
    """Positions away from whole cells, where bilinear sampling has a kink; some outside the grid."""
    torch.manual_seed(0)
    source = torch.randn(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(2, 9, 2, 2, dtype=torch.float64, requires_grad=True)
    flow = (flows(2, 2, 2, 2.0).round() + 0.1 + 0.8 * torch.rand(2, 2, 2, 2, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(gfla.attend, (source, kernel, flow))


def test_a_flow_that_is_no_number_shows():
    source, kernel = torch.ones(1, 2, 5, 5), torch.full((1, 9, 5, 5), 1 / 9)
    flow = torch.zeros(1, 2, 5, 5)
    flow[0, 0, 1, 1], flow[0, 1, 2, 3], flow[0, 0, 4, 4] = torch.nan, torch.inf, 1e20
    found = gfla.attend(source, kernel, flow)
    bad = torch.zeros(5, 5, dtype=torch.bool)
    bad[1, 1] = bad[2, 3] = True
    assert torch.equal(found.isnan(), bad.expand(1, 2, 5, 5))
    assert torch.allclose(found[0, :, ~bad], torch.ones(()))


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("reach", [0.7, 6.0])
def test_the_kernel_is_predicted_from_both_patches(size, reach):
    """The paper's form: extract the target's and the flowed source's patches, one fully connected layer on both."""
    torch.manual_seed(0)
    block = gfla.LocalAttention(4, 8, size).double()
    source, target = torch.randn(2, 2, 4, 7, 6, dtype=torch.float64).unbind(0)
    flow = flows(2, 7, 6, reach)
    both = torch.cat([patches(target, torch.zeros_like(flow), size), patches(source, flow, size)], dim=1)
    weight = torch.cat([block.target.weight, block.source.weight], dim=1).flatten(2)  # (hidden, 2C, n^2)
    hidden = torch.einsum("bckhw,ock->bohw", both, weight) + block.target.bias.view(-1, 1, 1)
    expected = torch.softmax(block.predict(hidden), dim=1)
    with torch.no_grad():
        kernel = block.kernel(source, target, flow)
        assert torch.allclose(kernel, expected, atol=1e-10)
        assert torch.allclose(kernel.sum(1), torch.ones_like(kernel[:, 0]))
        found = block(source, target, flow)
    assert torch.allclose(found, (expected.unsqueeze(1) * patches(source, flow, size)).mean(2), atol=1e-10)


def test_attention_keeps_little_for_its_gradient():
    """No patches: less than a quarter of the n^2 C H W values that extracting them would keep."""
    source = torch.randn(1, 64, 32, 32, requires_grad=True)
    kernel = torch.softmax(torch.randn(1, 25, 32, 32), dim=1).requires_grad_()
    flow = torch.randn(1, 2, 32, 32, requires_grad=True)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.setdefault(x.untyped_storage().data_ptr(), x.untyped_storage()) and x, lambda x: x
    ):
        gfla.attend(source, kernel, flow)
    assert sum(storage.nbytes() for storage in kept.values()) < 25 * source.numel() * 4 / 4


# The networks


def published(scales: dict[int, int]) -> dict[str, list[tuple[int, int, int]]]:
    """The released code's convolutions (inputs, outputs, kernel side) for attentions {stride: patch side}."""

    def encoder(widths: list[int]) -> list[tuple[int, int, int]]:
        return [layer for a, b in pairwise(widths) for layer in ((a, b, 4), (b, b, 3))]

    flow = encoder([39, 32, 64, 128, 256, 256])
    for inputs, outputs, stride in ((256, 256, 16), (256, 128, 8), (128, 64, 4)):
        flow += [(inputs, outputs, 3), (outputs, outputs, 3), (inputs, outputs, 3), (outputs, outputs, 3)]
        flow += [(outputs, 3, 3)] * (stride in scales)  # offsets and mask
    renderer = encoder([3, 64, 128, 256]) + encoder([18, 64, 128, 256])
    for inputs, outputs, stride in ((256, 128, 8), (128, 64, 4), (64, 64, 2)):
        renderer += [(inputs, inputs, 3)] * 3 + [(inputs, outputs, 3)] * 2
        if stride in scales:
            side = scales[stride]
            renderer += [(2 * inputs, 128, side), (128, side**2, 1)]
    return {"flow": flow, "renderer": [*renderer, (64, 3, 3)]}


def convolutions(model: gfla.GFLA, part: str) -> Counter:
    """Of the generator: (inputs, outputs, kernel side)."""
    found = Counter()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and name.startswith("flow.") == (part == "flow"):
            found[module.in_channels, module.out_channels, module.kernel_size[0]] += 1
    for block in model.attention.values() if part == "renderer" else ():  # one layer on both, split
        half = block.source.in_channels, block.source.out_channels, block.source.kernel_size[0]
        found[half] -= 2
        found[2 * half[0], *half[1:]] += 1
    return +found


@pytest.mark.parametrize(("size", "scales"), [((256, 256), {8: 3, 4: 5}), ((128, 64), {4: 3})])
def test_layers_are_the_published(size, scales):
    model, table = gfla.GFLA(*size), published(scales)
    if 8 not in scales:  # the source's last encoder block feeds nothing there
        table["renderer"] = list((Counter(table["renderer"]) - Counter([(128, 256, 4), (256, 256, 3)])).elements())
    for part, layers in table.items():
        assert convolutions(model, part) == Counter(layers)
    assert {m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}


def test_the_discriminator_s_slope_is_the_published(monkeypatch):
    slopes, real = set(), F.leaky_relu
    monkeypatch.setattr(blocks.F, "leaky_relu", lambda x, slope=0.01: slopes.add(slope) or real(x, slope))
    blocks.PatchDiscriminator(64, 32, SCALE)(torch.zeros(1, 3, 64, 32))
    assert slopes == {0.1}


@pytest.mark.parametrize("net", [gfla.GFLA(64, 32, SCALE), blocks.PatchDiscriminator(64, 32, SCALE)], ids=["G", "D"])
def test_weights_start_orthogonal_of_gain_002(net):
    """As rows or, where there are more rows than columns, as columns; the attention's two halves are one matrix."""
    weights = []
    for name, module in net.named_modules():
        if isinstance(module, gfla.LocalAttention):
            weights.append(torch.cat([module.target.weight, module.source.weight], dim=1))
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not name.endswith(("4.source", "4.target")):
            weights.append(module.weight)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            assert not module.bias.any()
    for weight in weights:
        singular = torch.linalg.svdvals(weight.flatten(1))
        torch.testing.assert_close(singular, torch.full_like(singular, 0.02), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("size", "strides"), [((128, 64), {4}), ((256, 256), {8, 4})])
def test_both_sizes(size, strides):
    torch.manual_seed(0)
    model = gfla.GFLA(*size, SCALE).eval()
    with torch.no_grad():
        output = model(figures(1, *size, seed=0).without_target())
    assert output.image.shape == (1, 3, *size)
    assert output.image.isfinite().all()
    assert set(output.flows) == set(output.visibilities) == strides
    for stride in strides:
        assert output.flows[stride].shape == (1, 1, 2, size[0] // stride, size[1] // stride)
        assert output.visibilities[stride].shape == (1, 1, 1, size[0] // stride, size[1] // stride)
        assert output.flows[stride].abs().max() < 1  # starts near rest, half visible
        assert (output.visibilities[stride] - 0.5).abs().max() < 0.25


def test_visibility_chooses_between_image_and_pose():
    """Hidden everywhere, the source image does not matter; visible everywhere, both do: the pose chooses kernels."""
    torch.manual_seed(0)
    model, batch = gfla.GFLA(256, 32, SCALE).eval(), figures(2, 256, 32, seed=0)
    model.apply(blocks.initialise)  # the first kernels are even to within float32's last digits

    def run(logit: float, **changes: Tensor) -> Tensor:
        with torch.no_grad():
            for head in model.flow.heads.values():
                nn.init.zeros_(head.weight)
                head.bias.copy_(torch.tensor([0.0, 0.0, logit]))
            return model(replace(batch, **changes)).image

    other_image, other_pose = {"source": -batch.source}, {"target_joints": batch.target_joints + 20}
    assert torch.equal(run(-200.0), run(-200.0, **other_image))
    assert not torch.equal(run(-200.0), run(-200.0, **other_pose))
    assert not torch.equal(run(200.0), run(200.0, **other_image))
    assert not torch.equal(run(200.0), run(200.0, **other_pose))


def test_the_flow_sees_image_and_both_poses():
    torch.manual_seed(0)
    model, batch = gfla.FlowEstimator(64, 32, SCALE).eval(), figures(1, 64, 32, seed=0)
    source, target = gfla.batch_heatmaps(batch)
    with torch.no_grad():
        first = model(batch.source, source, target)[0][4]
        for other in ((-batch.source, source, target), (batch.source, target, target), (batch.source, source, source)):
            assert not torch.equal(first, model(*other)[0][4])


# Losses


@pytest.mark.parametrize("reach", [0.0, 0.7, 6.0])
def test_gaussian_samples_by_hand(reach):
    """The released kernel: 4x4 cells around the position, exp(-d^2 / 2 sigma^2) along each axis, sigma = 2, over their
    sum; cells outside take the border's value.
    """
    source = torch.randn(2, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flow = flows(2, 6, 5, reach)
    found = gfla.gaussian_sample(source, flow)
    for b, row, column in product(range(2), range(6), range(5)):
        x, y = column + flow[b, 0, row, column].item(), row + flow[b, 1, row, column].item()
        total, expected = 0.0, torch.zeros(3, dtype=torch.float64)
        for i, j in product(range(-1, 3), repeat=2):
            near_y, near_x = math.floor(y) + i, math.floor(x) + j
            weight = math.exp(-((x - near_x) ** 2 + (y - near_y) ** 2) / 8)
            expected += weight * source[b, :, min(max(near_y, 0), 5), min(max(near_x, 0), 4)]
            total += weight
        torch.testing.assert_close(found[b, :, row, column], expected / total)


def test_gradients_of_the_gaussian_samples():
    """Away from whole cells, where the 16 cells change."""
    source = torch.randn(2, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    share = torch.rand(2, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    flow = (flows(2, 2, 2, 2.0).round() + 0.1 + 0.8 * share).requires_grad_()
    assert torch.autograd.gradcheck(gfla.gaussian_sample, (source.requires_grad_(), flow))


def test_sampling_correctness_is_zero_for_flat_features_only():
    """Where all cells are alike, the sample is the best match; else its Gaussian blur costs something even at rest."""
    flat = torch.rand(2, 5, 1, 1).expand(-1, -1, 6, 5)
    assert gfla.sampling_correctness(flat, flat, flows(2, 6, 5, 3.0).float()).item() == pytest.approx(0, abs=1e-6)
    features_of = torch.rand(2, 5, 6, 5, generator=torch.Generator().manual_seed(0))
    at_rest = gfla.sampling_correctness(features_of, features_of, torch.zeros(2, 2, 6, 5)).item()
    away = gfla.sampling_correctness(features_of, features_of, torch.full((2, 2, 6, 5), 3.0)).item()
    assert 0.01 < at_rest < away


def test_vgg19_sees_images_as_they_are(net):
    """In [-1, 1], without ImageNet's mean and deviation, as the released code gives them; a stand-in sees its own."""
    vgg, images = features.build("vgg19"), 2 * torch.rand(1, 3, 16, 8, generator=torch.Generator().manual_seed(0)) - 1
    found = vgg(gfla.as_fed(images, vgg), ("1",))["1"]
    assert torch.allclose(found, vgg.features[:2](images), atol=1e-5)
    assert gfla.as_fed(images, net) is images


@pytest.mark.parametrize("size", [3, 5])
def test_affine_residual_is_the_least_squares_fit_s(size):
    flow = flows(2, 7, 6, 1.0)
    y, x = np.mgrid[:size, :size]
    basis = np.stack([x.ravel(), y.ravel(), np.ones(size**2)], axis=1)
    rows, columns = 7 - size + 1, 6 - size + 1
    total = 0.0
    for b, axis, top, left in product(range(2), range(2), range(rows), range(columns)):
        values = flow[b, axis, top : top + size, left : left + size].numpy().ravel()
        total += np.linalg.lstsq(basis, values, rcond=None)[1].item()
    assert gfla.affine_residual(flow, size).item() == pytest.approx(total / (2 * rows * columns), rel=1e-9)


def test_affine_flows_cost_nothing():
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(8.0), indexing="ij")
    flow = torch.stack([0.3 * x - 0.1 * y + 2, -0.2 * x + 0.4 * y - 1]).unsqueeze(0)
    assert gfla.affine_residual(flow, 5).item() < 1e-8
    assert gfla.affine_residual(flow + 0.05 * x**2, 5).item() > 0.01


def test_discriminator_loss_is_half_of_both_sides(net):
    _, objective, _ = build("gfla")
    batch = figures(2, 64, 32, seed=0)

    class Constant(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.full((len(image), 1, 2, 2), 0.25)

    objective.discriminator = Constant()
    terms, output = objective.generator_losses(batch, net)
    assert terms["adversarial"].item() == pytest.approx(2.0 * 0.75**2)
    assert objective.discriminator_losses(batch, output)["discriminator"].item() == pytest.approx(
        0.5 * (0.75**2 + 0.25**2)
    )


def test_flow_stage_finds_better_matches(net):
    """20 steps at ten times the published rate on 4 pairs: sampling correctness falls below 0.95 of that near rest."""
    _, objective, phase = build("gfla_flow")
    batch = figures(4, 64, 32, seed=0)
    start = objective.generator_losses(batch, net)[0]["sampling"].item()
    train(objective, replace(phase, optimisers={"flow": Adam(1e-3, (0.0, 0.999))}), [batch] * 20, net)
    assert objective.generator_losses(batch, net)[0]["sampling"].item() < 0.95 * start


@pytest.mark.slow
def test_overfits_eight_pairs(net):
    """All terms and the adversary on 8 pairs: L1 falls below 0.7 of grey images'. To get there in seconds, the weights
    start at unit gain, L1 weighs ten times its published weight, and Adam is faster and has momentum.
    """
    _, objective, phase = build("gfla")
    objective.generator.apply(blocks.initialise)
    objective.weights = {**phase.weights, "l1": 50.0}
    adam = {"generator": Adam(0.002, (0.9, 0.99)), "discriminator": Adam(0.0002, (0.9, 0.99))}
    batch = figures(8, 64, 32, seed=0)
    train(objective, replace(phase, optimisers=adam), [batch] * 60, net)
    objective.generator.eval()
    with torch.no_grad():
        generated = objective.generator(batch).image
    assert losses.l1(generated, batch.target) < 0.7 * batch.target.abs().mean()


def test_published_settings():
    phase = VARIANTS["gfla"].phase
    assert phase.weights == {
        **{"sampling": 5, "affine": 0.0025, "l1": 5, "adversarial": 2, "perceptual": 0.5, "style": 500}
    }
    assert phase.optimisers["discriminator"].lr == pytest.approx(1e-5)
