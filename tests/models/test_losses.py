"""Loss terms against closed forms, planted shifts, finite differences."""

import math
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from models.layers import losses


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def constant_flow(dx: float, dy: float, height: int, width: int) -> torch.Tensor:
    """Of one image and one part."""
    return torch.tensor([dx, dy], dtype=torch.float64).view(1, 1, 2, 1, 1).expand(1, 1, 2, height, width)


def shifted_pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Target = source moved by (2, -1) cells, and the cells whose source lies inside the grid."""
    source = random(1, 6, 8, 9)
    target = torch.roll(source, (1, -2), dims=(2, 3))  # target[y, x] = source[y - 1, x + 2]
    inside = torch.zeros(1, 1, 8, 9, dtype=torch.float64)
    inside[..., 1:, :-2] = 1
    return source, target, inside


def test_best_cosine_matches_a_loop():
    source, target = random(2, 5, 3, 4), random(2, 5, 3, 4, seed=1)
    best = losses.best_cosine(source, target)
    for b in range(2):
        for y in range(3):
            for x in range(4):
                t = target[b, :, y, x]
                every = [source[b, :, i, j] for i in range(3) for j in range(4)]
                expected = max(float(s @ t / (s.norm() * t.norm())) for s in every)
                assert best[b, y, x].item() == pytest.approx(expected)


def test_sampling_correctness_is_zero_at_the_true_flow_and_larger_anywhere_else():
    source, target, inside = shifted_pair()
    value = {
        (dx, dy): losses.sampling_correctness(source, target, constant_flow(dx, dy, 8, 9), inside).item()
        for dx in (-2, 0, 1, 2, 2.5, 3)
        for dy in (-2, -1.5, -1, 0, 1)
    }
    assert value.pop((2, -1)) == pytest.approx(0, abs=1e-9)
    assert min(value.values()) > 0.01


def test_sampling_correctness_descends_to_the_true_flow():
    """On features smooth enough to have a slope, gradient descent from rest finds the planted shift."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    centres = [(x0, y0) for x0 in range(-2, 20, 3) for y0 in range(-2, 20, 3)]

    def features(dx: float, dy: float) -> torch.Tensor:
        spots = [torch.exp(-((x + dx - a) ** 2 + (y + dy - b) ** 2) / 18) for a, b in centres]
        return torch.stack(spots).unsqueeze(0)

    source, target = features(0, 0), features(1.5, -1)
    flow = torch.zeros(1, 1, 2, 16, 16, requires_grad=True)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 3:-3, 3:-3] = 1
    optimiser = torch.optim.Adam([flow], lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        losses.sampling_correctness(source, target, flow, mask).backward()
        optimiser.step()
    found = flow.detach()[0, :, :, 3:-3, 3:-3]
    assert (found - torch.tensor([1.5, -1.0]).view(1, 2, 1, 1)).abs().max() < 0.4


def test_sampling_correctness_closed_form_and_mask():
    """One source direction only: cos = max cos everywhere, so the loss is 0; opposite directions give e - 1/e."""
    source = torch.ones(1, 1, 2, 2)
    flow = torch.zeros(1, 1, 2, 2, 2)
    assert losses.sampling_correctness(source, source, flow).item() == pytest.approx(0, abs=1e-6)
    source = torch.tensor([[[[1.0, -1.0]]]])
    target = torch.tensor([[[[1.0, 1.0]]]])
    flow = torch.zeros(1, 1, 2, 1, 2)
    worst = math.e - 1 / math.e
    assert losses.sampling_correctness(source, target, flow).item() == pytest.approx(worst / 2)
    right = torch.tensor([[[[0.0, 1.0]]]])
    assert losses.sampling_correctness(source, target, flow, right).item() == pytest.approx(worst)
    assert losses.sampling_correctness(source, target, flow, 0 * right).item() == 0


def test_sampling_correctness_counts_every_image_alike():
    """Each image's mean over its own mask, whatever its size; one without a mask is a zero among them."""
    source, target = random(3, 4, 5, 5), random(3, 4, 5, 5, seed=1)
    flow, mask = 0.3 * random(3, 1, 2, 5, 5, seed=2), torch.zeros(3, 1, 5, 5, dtype=torch.float64)
    mask[0, :, 1:3, 2:4], mask[1] = 1, 1

    def of(*images: int) -> float:
        some = list(images)
        return losses.sampling_correctness(source[some], target[some], flow[some], mask[some]).item()

    small, large = of(0), of(1)
    assert abs(small - large) > 0.01
    assert of(2) == 0
    assert of(0, 1, 2) == pytest.approx((small + large) / 3, rel=1e-9)
    assert of(0, 1, 2) == pytest.approx(1 / 3 * of(0) + 2 / 3 * of(1, 2), rel=1e-9)


def test_sampling_correctness_is_relative_to_the_best_there_is():
    """No source position matches the target fully (cosine 0.6 at best): choosing the best still costs nothing."""
    source = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]]])  # B 1, C 3, H 1, W 2
    target = torch.tensor([0.6, 0.3, math.sqrt(1 - 0.45)]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    flow = torch.zeros(1, 1, 2, 1, 2)
    flow[0, 0, 0, 0, 1] = -1  # both cells look at the first
    assert losses.sampling_correctness(source, target, flow).item() == pytest.approx(0, abs=1e-6)
    away = math.exp(-0.3 / 0.6) - math.exp(-1)
    assert losses.sampling_correctness(source, target, 1 + flow).item() == pytest.approx(away, abs=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_sampling_correctness_is_the_sum_of_its_parts(masked):
    """Each part written out: warped, compared with the target by torch's cosine, against the best of any position."""
    source, target, flows = random(2, 4, 5, 6), random(2, 4, 5, 6, seed=1), random(2, 3, 2, 5, 6, seed=2)
    masks = random(2, 3, 5, 6, seed=3).relu() if masked else torch.ones(2, 3, 5, 6, dtype=torch.float64)
    best = losses.best_cosine(source, target)
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    expected = 0.0
    for part in range(3):
        position = torch.stack([x + flows[:, part, 0], y + flows[:, part, 1]], dim=-1)
        grid = 2 * position / torch.tensor([5, 4]) - 1
        warped = F.grid_sample(source, grid, padding_mode="border", align_corners=True)
        error = torch.exp(-F.cosine_similarity(warped, target, dim=1) / best.clamp(min=1e-6)) - math.exp(-1)
        for image in range(2):
            mask = masks[image, part]
            expected += 0.5 * (error[image] * mask).sum() / mask.sum()
    found = losses.sampling_correctness(source, target, flows, masks if masked else None)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


def test_sampling_correctness_gradient():
    source, target = random(1, 4, 4, 4), random(1, 4, 4, 4, seed=1)
    flow = 0.2 + 0.6 * torch.rand(1, 2, 2, 4, 4, generator=torch.Generator().manual_seed(2)).double()
    mask = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(3)).double()
    assert gradcheck(lambda f: losses.sampling_correctness(source, target, f, mask), flow.requires_grad_())


def test_l1():
    assert losses.l1(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), -0.25)).item() == 0.25


def test_adversarial_terms_are_equation_12_with_sigmoid():
    real, fake = random(2, 1, 3, 3), random(2, 1, 3, 3, seed=1)
    equation = (1 - fake.sigmoid()).log().mean() + real.sigmoid().log().mean()
    assert losses.adversarial_discriminator(real, fake).item() == pytest.approx(-equation.item())
    assert losses.adversarial_generator(fake).item() == pytest.approx(-fake.sigmoid().log().mean().item())


def test_adversarial_terms_stay_finite_where_sigmoid_saturates():
    logits = torch.tensor([-200.0, 200.0], requires_grad=True)
    total = losses.adversarial_discriminator(logits, logits) + losses.adversarial_generator(logits)
    total.backward()
    assert total.isfinite()
    assert logits.grad.isfinite().all()


def test_generator_has_gradient_where_the_discriminator_wins():
    logits = torch.tensor([-30.0], requires_grad=True)
    losses.adversarial_generator(logits).backward()
    assert logits.grad.item() == pytest.approx(-1)


def test_gram_matches_its_definition():
    features = random(2, 3, 4, 5)
    gram = losses.gram(features)
    for i in range(3):
        for j in range(3):
            expected = (features[:, i] * features[:, j]).sum((1, 2)) / (3 * 4 * 5)
            assert torch.allclose(gram[:, i, j], expected)


def test_style_ignores_place_and_perceptual_does_not():
    a = {"1": random(1, 3, 4, 4), "2": random(1, 2, 2, 2)}
    b = {name: torch.roll(x, (1, 1), (2, 3)) for name, x in a.items()}
    assert losses.style(a, b, ("1", "2")).item() == pytest.approx(0, abs=1e-12)
    expected = sum((a[k] - b[k]).abs().mean() for k in a)
    assert losses.perceptual(a, b, ("1", "2")).item() == pytest.approx(expected.item())
    assert losses.perceptual(a, b, ("2",)).item() == pytest.approx((a["2"] - b["2"]).abs().mean().item())


@pytest.mark.parametrize("term", [losses.perceptual, losses.style])
def test_feature_terms_have_right_gradients(term):
    target = random(1, 2, 3, 3)
    assert gradcheck(lambda x: term({"1": x}, {"1": target}, ("1",)), random(1, 2, 3, 3, seed=1).requires_grad_())


def test_terms_keep_float32_under_autocast():
    source, target = (random(1, 8, 6, 6, seed=s).float() for s in (0, 1))
    flow = torch.full((1, 1, 2, 6, 6), 0.3)
    plain = losses.sampling_correctness(source, target, flow), losses.gram(source)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (F.conv2d(source, torch.ones(1, 8, 1, 1))).dtype == torch.bfloat16  # autocast is on
        mixed = losses.sampling_correctness(source, target, flow), losses.gram(source)
    for a, b in zip(plain, mixed, strict=True):
        assert torch.equal(a, b)


def test_weights_are_the_documented_ones():
    assert asdict(losses.LossWeights()) == {
        "sampling": 5.0,
        "l1": 5.0,
        "adversarial": 2.0,
        "perceptual": 0.5,
        "style": 500.0,
    }


def test_least_squares():
    """Each image by itself, over all its patches and channels."""
    scores = torch.tensor([[-1.0, 0.0], [1.0, 3.0]]).view(2, 1, 2, 1)
    assert losses.least_squares(scores, 1.0).tolist() == [(4 + 1) / 2, (0 + 4) / 2]
    assert losses.least_squares(scores, 0.0).tolist() == [1 / 2, (1 + 9) / 2]
