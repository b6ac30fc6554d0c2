"""Pose maps and blocks against loops that spell their definitions out."""

import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from models.layers import blocks, pose_maps


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def joints(count: int, height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Joints inside and slightly outside the image, a fifth of them missing (and NaN, as stored)."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 18, 2, generator=generator) * 1.2 - 0.1
    valid = torch.rand(count, 18, generator=generator) > 0.2
    points = points * torch.tensor([width, height])
    return torch.where(valid.unsqueeze(-1), points, torch.nan), valid


# Pose maps


def test_heatmaps_match_a_pixel_loop():
    points, valid = joints(2, 12, 9)
    maps = pose_maps.heatmaps(points.double(), valid, 12, 9, sigma=2.5)
    for b in range(2):
        for j in range(18):
            for y in range(12):
                for x in range(9):
                    square = (x - points[b, j, 0]) ** 2 + (y - points[b, j, 1]) ** 2
                    expected = math.exp(-square / (2 * 2.5**2)) if valid[b, j] else 0.0
                    assert maps[b, j, y, x].item() == pytest.approx(expected, abs=1e-6)


def test_heatmaps_are_float32_and_ignore_missing_joints():
    points, valid = joints(1, 16, 16)
    maps = pose_maps.heatmaps(points, valid, 16, 16)
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()
    assert (maps[~valid] == 0).all()
    assert (maps[valid].amax((1, 2)) > 0).all()


def test_every_joint_belongs_to_a_part():
    assert set().union(*pose_maps.PARTS.values()) == set(range(18))


def test_torso_length_and_its_fallbacks():
    points = torch.full((4, 18, 2), torch.nan)
    valid = torch.zeros(4, 18, dtype=torch.bool)

    def put(row: int, joint: int, x: float, y: float) -> None:
        points[row, joint], valid[row, joint] = torch.tensor([x, y]), True

    for joint, x, y in ((2, 10, 20), (5, 30, 20), (8, 16, 50), (11, 24, 50), (1, 20, 0)):
        put(0, joint, x, y)  # shoulders win over the neck: (20, 20) to (20, 50)
    put(1, 1, 5, 5)  # neck stands for the shoulders, one hip for both: (5, 5) to (8, 9)
    put(1, 8, 8, 9)
    put(2, 2, 10, 20)  # no hips
    put(3, 8, 10, 20)  # no top
    lengths = pose_maps.torso_length(points, valid, height=128)
    assert lengths.tolist() == pytest.approx([30, 5, 32, 32])


def test_part_boxes_match_a_loop_and_empty_groups_are_empty():
    points, valid = joints(5, 64, 32, seed=1)
    groups, padding = [*pose_maps.PARTS.values(), (0,)], [0.4, 0.25, 0.25, 0.1]
    valid[0, list(groups[0])] = False
    members = torch.tensor([[joint in group for joint in range(18)] for group in groups])
    boxes = pose_maps.part_boxes(points, valid, members, torch.tensor(padding), height=64)
    torso = pose_maps.torso_length(points, valid, 64)
    for b in range(5):
        for p, group in enumerate(groups):
            present = [points[b, j] for j in group if valid[b, j]]
            if not present:
                assert boxes[b, p].tolist() == [math.inf, math.inf, -math.inf, -math.inf]
                continue
            pad = padding[p] * torso[b]
            xs, ys = [q[0] for q in present], [q[1] for q in present]
            expected = [min(xs) - pad, min(ys) - pad, max(xs) + pad, max(ys) + pad]
            assert boxes[b, p].tolist() == pytest.approx([float(v) for v in expected], rel=1e-5)
    assert (pose_maps.box_masks(boxes, 64, 32)[0, 0] == 0).all()


@pytest.mark.parametrize("stride", [1, 4])
def test_box_masks_match_a_pixel_loop(stride):
    boxes = torch.tensor([[[1.6, 5.6, 9.4, 20.5], [-5.0, -5.0, 3.0, 100.0]]])
    height, width = 24 // stride, 12 // stride
    masks = pose_maps.box_masks(boxes, height, width, stride)
    for p in range(2):
        x0, y0, x1, y1 = boxes[0, p].tolist()
        for y in range(height):
            for x in range(width):
                # the mean position of the pixels that the cell covers
                cx, cy = (sum(stride * v + k for k in range(stride)) / stride for v in (x, y))
                assert masks[0, p, y, x].item() == float(x0 <= cx <= x1 and y0 <= cy <= y1)


# Warping


def test_warp_matches_a_loop():
    features, flow = random(2, 3, 5, 4), 3 * random(2, 2, 5, 4, seed=1)
    out = blocks.warp(features, flow)
    for b in range(2):
        for y in range(5):
            for x in range(4):
                # clamped to the border, then the four neighbours
                sx = min(max(x + flow[b, 0, y, x].item(), 0), 3)
                sy = min(max(y + flow[b, 1, y, x].item(), 0), 4)
                x0, y0 = math.floor(sx), math.floor(sy)
                x1, y1 = min(x0 + 1, 3), min(y0 + 1, 4)
                wx, wy = sx - x0, sy - y0
                for c in range(3):
                    f = features[b, c]
                    top = f[y0, x0] * (1 - wx) + f[y0, x1] * wx
                    bottom = f[y1, x0] * (1 - wx) + f[y1, x1] * wx
                    expected = top * (1 - wy) + bottom * wy
                    assert out[b, c, y, x].item() == pytest.approx(expected.item(), abs=1e-9)


def test_warp_moves_by_whole_cells_exactly():
    features = random(1, 2, 6, 7)
    flow = torch.tensor([2.0, -1.0], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 6, 7)
    out = blocks.warp(features, flow)
    assert torch.allclose(out[:, :, 1:, :-2], features[:, :, :-1, 2:])


def test_warp_gradients():
    features = random(1, 2, 4, 5).requires_grad_()
    # away from whole cells, where bilinear sampling has a kink
    flow = (0.3 + 0.4 * torch.rand(1, 2, 4, 5, generator=torch.Generator().manual_seed(3))).double()
    assert gradcheck(blocks.warp, (features, flow.requires_grad_()))


def test_several_flows_sample_the_same_features():
    features, flow = random(2, 3, 5, 4), 2 * random(2, 3, 2, 5, 4, seed=1)
    out = blocks.warp(features, flow)
    assert out.shape == (2, 3, 3, 5, 4)
    for part in range(3):
        assert torch.equal(out[:, :, part], blocks.warp(features, flow[:, part]))


# Convolutional blocks


def test_what_convolutions_read_is_rounded_as_they_would():
    torch.manual_seed(0)
    x, convolution = torch.rand(1, 3, 8, 8), nn.Conv2d(3, 4, 3)
    assert blocks.for_convolutions(x) is x
    with torch.autocast("cpu", torch.bfloat16):
        made = blocks.for_convolutions(x)
        assert made.dtype == torch.bfloat16
        assert torch.equal(convolution(made), convolution(x))
        with blocks.full_precision(x):
            assert blocks.for_convolutions(x) is x


def test_instance_norm_is_torchs():
    torch.manual_seed(0)
    own, torchs = blocks.InstanceNorm(5).double(), nn.InstanceNorm2d(5, affine=True).double()
    with torch.no_grad():
        own.weight.copy_(random(5)), own.bias.copy_(random(5, seed=1))
    torchs.load_state_dict(own.state_dict())
    x, slope = 3 + 2 * random(3, 5, 4, 6, seed=2), random(3, 5, 4, 6, seed=3)
    found = []
    for norm in (own, torchs):
        inputs = x.clone().requires_grad_()
        y = norm(inputs)
        y.backward(slope)
        found.append((y, inputs.grad, norm.weight.grad, norm.bias.grad))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)
    narrow = x.float().to(torch.bfloat16)
    assert own.float()(narrow).dtype == torch.bfloat16


def part_of(state: dict[str, torch.Tensor], part: int, parts: int) -> dict[str, torch.Tensor]:
    """The weights of one of the networks that stand side by side."""
    own = {}
    for key, value in state.items():
        name, _, rest = key.partition("convolutions.")
        if not rest:
            own[key] = value.chunk(parts)[part]
        elif rest.startswith(f"{part}."):
            own[name + rest.removeprefix(f"{part}.")] = value
    return own


@pytest.mark.parametrize("inputs", [(4, 4, 4), (4, 2, 3)])
def test_networks_side_by_side_are_those_networks_one_by_one(inputs):
    """Values and gradients of three hourglasses and the blocks in them, each alone on its own channels."""
    torch.manual_seed(0)
    together = blocks.Hourglass(inputs, 4, 4, 8).double()
    with torch.no_grad():
        for parameter in together.parameters():
            parameter.normal_(std=0.3)
    x = random(2, sum(inputs), 32, 32).requires_grad_()
    maps = together(x)
    slope = {stride: random(*value.shape, seed=stride) for stride, value in maps.items()}
    torch.autograd.backward([maps[8], maps[4]], [slope[8], slope[4]])
    gradients = {key: parameter.grad for key, parameter in together.named_parameters()}
    for part, own_x in enumerate(x.detach().split(inputs, dim=1)):
        alone = blocks.Hourglass(inputs[part], 4, 4, 8).double()
        alone.load_state_dict(part_of(together.state_dict(), part, 3))
        own_x = own_x.clone().requires_grad_()
        own = alone(own_x)
        for stride in (8, 4):
            assert torch.allclose(own[stride], maps[stride].chunk(3, 1)[part], atol=1e-10)
        torch.autograd.backward([own[8], own[4]], [slope[stride].chunk(3, 1)[part] for stride in (8, 4)])
        assert torch.allclose(own_x.grad, x.grad.split(inputs, dim=1)[part], atol=1e-10)
        wanted = part_of(gradients, part, 3)
        for key, parameter in alone.named_parameters():
            assert torch.allclose(parameter.grad, wanted[key], atol=1e-9), key


def test_dilated_convolution_follows_equation_4():
    hdcb = blocks.HybridDilatedConv(2).double()
    x = random(1, 2, 7, 6)
    for layer, rate in ((0, 1), (2, 2)):
        convolution = hdcb[layer]
        y = convolution(x)
        for m in range(7):
            for n in range(6):
                expected = convolution.bias.clone()
                for i in (-1, 0, 1):
                    for j in (-1, 0, 1):
                        row, column = m + rate * i, n + rate * j
                        if 0 <= row < 7 and 0 <= column < 6:
                            expected = expected + convolution.weight[:, :, i + 1, j + 1] @ x[0, :, row, column]
                assert torch.allclose(y[0, :, m, n], expected)
    # together: a receptive field of 7, each neighbour within it seen
    probe = random(1, 2, 15, 15).requires_grad_()
    blocks.HybridDilatedConv(2).double()(probe)[0, :, 7, 7].sum().backward()
    seen = probe.grad.abs().sum((0, 1)) > 0
    assert seen.any(0).nonzero().flatten().tolist() == list(range(4, 11))


def test_non_local_matches_a_dense_loop():
    torch.manual_seed(0)
    block = blocks.NonLocal2d(4).double()
    nn.init.normal_(block.out.weight)
    x = random(1, 4, 2, 3)
    y, relation = block(x)
    cells = [x[0, :, i, j] for i in range(2) for j in range(3)]
    theta, phi, g = (conv.weight.flatten(1) for conv in (block.theta, block.phi, block.g))
    for i, query in enumerate(cells):
        logits = torch.stack([(theta @ query + block.theta.bias) @ (phi @ key) for key in cells])
        weight = torch.softmax(logits, 0)
        assert torch.allclose(relation[0, i].double(), weight, atol=1e-6)
        response = sum(w * (g @ value) for w, value in zip(weight, cells, strict=True))
        expected = block.out.weight.flatten(1) @ response + block.out.bias
        assert torch.allclose(y[0, :, i // 3, i % 3], expected, atol=1e-6)


def test_pyramid_pools_the_most_significant_and_starts_as_identity():
    torch.manual_seed(0)
    block = blocks.PyramidNonLocal(8)
    x = random(2, 8, 16, 8).float()
    y, relations = block(x)
    assert torch.equal(y, x)  # the last 1x1 is zero
    assert {size: tuple(r.shape) for size, r in relations.items()} == {4: (2, 16, 16), 6: (2, 36, 36)}
    for relation in relations.values():
        assert torch.allclose(relation.sum(-1), torch.ones(()))
    # lowering a cell that is no region's maximum changes nothing
    pooled = x.unfold(2, 4, 4).unfold(3, 2, 2).amax((4, 5))
    lowest = (x[0, 0] == x[0, 0].min()).nonzero()[0]
    changed = x.clone()
    changed[0, 0, lowest[0], lowest[1]] -= 5
    assert torch.equal(block(changed)[1][4], relations[4])
    assert torch.allclose(relations[4], block.blocks[0](pooled)[1])


def test_down_and_up_blocks_halve_and_double():
    x = torch.randn(2, 8, 8, 4)
    assert blocks.DownBlock(8, 16)(x).shape == (2, 16, 4, 2)
    assert blocks.UpBlock(8, 16)(x).shape == (2, 16, 16, 8)


def test_image_colour_survives_the_encoder():
    """Two flat images of different brightness are told apart: instance norm alone would make them equal."""
    torch.manual_seed(0)
    encoder = nn.Sequential(blocks.DownBlock(3, 8, first=True), blocks.DownBlock(8, 8)).apply(blocks.initialise)
    dark, bright = (encoder(torch.full((1, 3, 32, 32), v))[..., 2:-2, 2:-2] for v in (0.1, 0.8))
    assert (dark - bright).abs().mean() > 0.1


@pytest.mark.parametrize(("height", "width", "levels"), [(128, 64, 5), (256, 256, 5), (32, 32, 4)])
def test_hourglass_grids(height, width, levels):
    net = blocks.Hourglass(6, 8, levels, 16)
    maps = net(torch.randn(1, 6, height, width))
    assert {s: m.shape[2:] for s, m in maps.items()} == {s: (height // s, width // s) for s in (8, 4)}
    assert {s: m.shape[1] for s, m in maps.items()} == net.widths


@pytest.mark.parametrize(("size", "patches"), [((128, 64), (16, 8)), ((256, 256), (16, 16))])
def test_discriminator_patches_and_unit_spectral_norm(size, patches):
    torch.manual_seed(0)
    net = blocks.PatchDiscriminator(*size, scale=0.25)
    for _ in range(30):  # each pass in train mode is one power iteration
        logits = net(torch.randn(1, 3, *size))
    assert logits.shape == (1, 1, *patches)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 3 * len(net.blocks) + 1  # three a block, and the last
    assert [id(m) for m in net.norm.convolutions] == [id(m) for m in convolutions]
    for weight in net.norm():
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_channels():
    assert [blocks.channels(128, s) for s in (1.0, 0.5, 0.25, 0.01)] == [128, 64, 32, 8]


def test_warp_passes_a_diverged_flow_on_as_nan_and_survives_its_gradient():
    features = torch.rand(1, 2, 4, 4, requires_grad=True)
    flow = torch.zeros(1, 2, 4, 4)
    flow[0, 0, 1, 2], flow[0, 1, 3, 3] = torch.nan, torch.inf
    flow.requires_grad_()
    warped = blocks.warp(features, flow)
    warped.sum().backward()
    assert warped.isnan().any(1).sum() == 2
    assert torch.allclose(warped[0, :, 0], features[0, :, 0])
