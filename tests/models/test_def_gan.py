"""Def-GAN's nearest-neighbour loss by a plain loop and in closed form, its networks and its settings by data set."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models import def_gan
from models.layers import features
from models.layers.deformable import PartWarp
from models.variants import VARIANTS
from tests.figures import figures
from tests.models.test_spig import build

SCALE = 0.125


@pytest.fixture(scope="module")
def net() -> features.Features:
    return features.build("squeezenet1_1")


# The nearest-neighbour loss


def nearest_by_a_loop(generated: Tensor, target: Tensor, side: int) -> Tensor:
    """Position by position, as the paper defines it."""
    batch, _, height, width = generated.shape
    total, reach = 0.0, side // 2
    for n in range(batch):
        for y in range(height):
            for x in range(width):
                around = target[n, :, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
                total = total + (around - generated[n, :, y, x, None, None]).abs().sum(0).min()
    return total / (batch * height * width)


@pytest.mark.parametrize("side", [1, 3, 5])
def test_the_nearest_neighbour_is_that_of_a_plain_loop(side):
    torch.manual_seed(side)
    generated = torch.randn(2, 3, 6, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    found, wanted = (of(generated, target, side) for of in (def_gan.nearest_neighbour, nearest_by_a_loop))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)
    gradients = [torch.autograd.grad(loss, generated)[0] for loss in (found, wanted)]
    assert torch.allclose(*gradients, atol=1e-15)
    assert torch.autograd.gradcheck(lambda x: def_gan.nearest_neighbour(x, target, side), generated)


def test_what_is_moved_by_a_position_costs_nothing_but_at_the_border():
    """Shifted by (1, 2) cells, all but the lines that come from outside are found within 5x5 cells, and not in 3x3."""
    torch.manual_seed(0)
    target = torch.randn(1, 4, 9, 9)
    moved = target.roll((1, 2), dims=(2, 3))
    inside = (..., slice(1, 8), slice(2, 7))
    assert def_gan.nearest_neighbour(target, target, 3) == 0
    crop, around = moved[inside], target[inside]
    assert def_gan.nearest_neighbour(crop[..., 1:, 2:], around[..., 1:, 2:], 3) > 0.5
    whole = def_gan.nearest_neighbour(moved, target, 5) * 81
    kept = nearest_by_a_loop(moved, target, 5) * 81
    assert whole.item() == pytest.approx(kept.item(), rel=1e-5)
    lines = moved.clone()
    lines[..., 1:, 2:] = 0
    only = sum(
        (target[0, :, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] - moved[0, :, y, x, None, None]).abs().sum(0).min()
        for y in range(9)
        for x in range(9)
        if y < 1 or x < 2
    )
    assert whole.item() == pytest.approx(only.item(), rel=1e-5)


# The networks


@pytest.mark.parametrize(("size", "halvings", "coarsest"), [((128, 64), 5, (4, 2)), ((256, 256), 6, (4, 4))])
def test_an_encoder_of_256_pixels_has_one_halving_more(size, halvings, coarsest):
    model = def_gan.DefGAN(*size, SCALE).eval()
    assert len(model.appearance.down) == len(model.pose.down) == len(model.decoder.blocks) == halvings
    with torch.no_grad():
        assert model.pose(torch.zeros(1, 18, *size))[-1].shape[-2:] == coarsest
    norms = [not isinstance(block[2], nn.Identity) for block in model.appearance.down]
    assert norms == [True] * (halvings - 1) + [False]
    dropped = [type(block[3]) for block in model.decoder.blocks]
    assert dropped == [nn.Dropout] * 3 + [nn.Identity] * (halvings - 3)  # of values; SPT drops whole channels


@pytest.mark.parametrize("size", [(128, 80), (256, 176), (160, 160)])
def test_sizes_that_do_not_halve_evenly_are_refused(size):
    with pytest.raises(ValueError, match=rf"multiples of (32|64), not {size[0]} x {size[1]}"):
        def_gan.DefGAN(*size, SCALE)


def test_the_source_reaches_the_image_through_moved_skips(monkeypatch):
    """Where nothing is moved the picture is another one: the skips are the deformed ones."""
    torch.manual_seed(0)
    model, batch = def_gan.DefGAN(64, 32, SCALE).eval(), figures(1, 64, 32, seed=0)
    with torch.no_grad():
        image = model(batch).image
        monkeypatch.setattr(PartWarp, "__call__", lambda warp, x: x)
        assert not torch.allclose(model(batch).image, image, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "logits"), [((128, 64), (3, 1)), ((256, 256), (7, 7)), ((64, 32), (3, 1)), ((32, 32), (1, 1))]
)
def test_the_discriminator_judges_patches(size, logits):
    with torch.no_grad():
        found = def_gan.Discriminator(*size, SCALE)(torch.zeros(1, 42, *size))
    assert found.shape == (1, 1, *logits)


def test_the_discriminator_sees_both_images_and_both_poses():
    _, objective, _ = build("def_gan")
    batch = figures(1, 64, 32, seed=0)
    image, maps = objective.generate(batch)
    first = objective.judge(batch, image, maps)
    others = [
        objective.judge(replace(batch, source=-batch.source), image, maps),
        objective.judge(batch, -image, maps),
        objective.judge(batch, image, (maps[0].roll(5, -1), maps[1])),
        objective.judge(batch, image, (maps[0], maps[1].roll(5, -1))),
    ]
    assert all(not torch.allclose(first, other, atol=1e-4) for other in others)


# Losses and schedule


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 1, 3, 1), 0.25)


@pytest.mark.parametrize(("height", "side"), [(64, 3), (256, 5)])
def test_losses_by_size(height, side, net):
    """0.01 of the nearest-neighbour loss at relu1_2 in steps of 8 bits, and the log loss."""
    _, objective, _ = build("def_gan", height, 64 if height == 256 else 32)
    objective.discriminator = Constant()
    batch = figures(1, *(height, 64 if height == 256 else 32), seed=0)
    terms, output = objective.generator_losses(batch, net)
    layer = net.second[0]
    with torch.no_grad():
        generated, target = (net(image, (layer,))[layer] for image in (output[0], batch.target))
        nearest = def_gan.nearest_neighbour(generated, target, side)
    assert terms["nearest"].item() == pytest.approx(0.01 * 255 * 0.226 * nearest.item(), rel=1e-5)
    assert terms["adversarial"].item() == pytest.approx(math.log1p(math.exp(-0.25)), rel=1e-6)
    judged = objective.discriminator_losses(batch, output)["discriminator"]
    assert judged.item() == pytest.approx(math.log1p(math.exp(-0.25)) + math.log1p(math.exp(0.25)), rel=1e-6)


def test_published_schedule():
    phase = VARIANTS["def_gan"].phase
    assert phase.batch == {"market1501": 4, "deepfashion": 2}
    assert set(phase.steps.values()) == {90 * 1000}
    assert phase.decay_from == 1.0
