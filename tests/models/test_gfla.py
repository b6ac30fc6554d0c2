"""Local attention against loops, other libraries and closed forms; GFLA's layer table, blending and losses."""

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
    assert torch.allclose(found, (expected.unsqueeze(1) * patches(source, flow, size)).sum(2), atol=1e-10)


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
    """Of the generator: (inputs, outputs, kernel side), without the encoder blocks' shortcuts, which are ours."""
    found = Counter()
    for name, module in model.named_modules():
        down = isinstance(model.get_submodule(name.rsplit(".shortcut", 1)[0]), blocks.DownBlock)
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d) or (".shortcut" in name and down):
            continue
        if name.startswith("flow.") == (part == "flow"):
            found[module.in_channels, module.out_channels, module.kernel_size[0]] += 1
    for block in model.attention.values() if part == "renderer" else ():  # one layer on both, split
        half = block.source.in_channels, block.source.out_channels, block.source.kernel_size[0]
        found[half] -= 2
        found[2 * half[0], *half[1:]] += 1
    return +found


def test_layers_are_the_published():
    model = gfla.GFLA(256, 256)
    table = published({8: 3, 4: 5})
    for part, layers in table.items():
        assert convolutions(model, part) == Counter(layers)
    # As the authors count, 14.04 M: every convolution with a bias, and an instance norm's two weights a channel before
    # each but the attentions', shortcuts, skips, heads and the last.
    count = sum(a * b * k * k + b for layers in table.values() for a, b, k in layers)
    blocks_of = [39, 32, 32, 64, 64, 128, 128, 256, 256, 256, 256, 256, 256, 128, 128, 64]
    blocks_of += [3, 64, 64, 128, 128, 256, 18, 64, 64, 128, 128, 256, *[256] * 4, *[128] * 4, *[64] * 4]
    assert (count + 2 * sum(blocks_of)) / 1e6 == pytest.approx(14.047, abs=0.001)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(14.234, abs=0.001)


def test_layers_below_256_pixels():
    model = gfla.GFLA(128, 64)
    table = published({4: 3})
    table["renderer"] = list((Counter(table["renderer"]) - Counter({(128, 256, 4): 1, (256, 256, 3): 1})).elements())
    for part, layers in table.items():  # the source's last encoder block feeds nothing there
        assert convolutions(model, part) == Counter(layers)


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


def test_overfits_eight_pairs(net):
    """All terms and the adversary on 8 pairs: L1 falls below 0.85 of copying the source. To get there in seconds, L1
    weighs ten times its published weight and Adam is faster and has momentum.
    """
    _, objective, phase = build("gfla")
    objective.weights = {**phase.weights, "l1": 50.0}
    adam = {"generator": Adam(0.002, (0.9, 0.99)), "discriminator": Adam(0.0002, (0.9, 0.99))}
    batch = figures(8, 64, 32, seed=0)
    train(objective, replace(phase, optimisers=adam), [batch] * 60, net)
    objective.generator.eval()
    with torch.no_grad():
        generated = objective.generator(batch).image
    assert losses.l1(generated, batch.target) < 0.85 * losses.l1(batch.source, batch.target)


def test_published_settings():
    phase = VARIANTS["gfla"].phase
    assert phase.weights == {
        **{"sampling": 5, "affine": 0.0025, "l1": 5, "adversarial": 2, "perceptual": 0.5, "style": 500}
    }
    assert phase.optimisers["discriminator"].lr == pytest.approx(1e-5)
