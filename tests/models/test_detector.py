"""The joint detector: exact decoding, and learning the joints of drawn figures."""

import pytest
import torch

from models import detector
from models.variants import COMPONENTS
from tests.figures import figures


def points(count: int, height: int, width: int, margin: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(count, 18, 2, generator=generator)
    return margin + unit * (torch.tensor([width, height]) - 1 - 2 * margin)


@pytest.mark.parametrize(("height", "width"), [(128, 64), (96, 160)])
def test_decode_inverts_target_maps_exactly(height, width):
    joints = points(4, height, width, margin=6)
    maps = detector.target_maps(joints, torch.ones(4, 18, dtype=torch.bool), height, width)
    assert maps.shape == (4, 18, height // 4, width // 4)
    found, scores = detector.decode(maps)
    assert torch.allclose(found, joints, atol=0.01)
    # at worst the joint lies on a corner between four cells
    assert scores.min() >= torch.exp(torch.tensor(-2 * 0.5**2 / (2 * detector.SIGMA**2))) - 1e-5


def test_decode_stays_within_half_a_cell_at_the_border():
    height, width = 64, 32
    joints = torch.rand(2, 18, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([31.0, 63.0])
    maps = detector.target_maps(joints, torch.ones(2, 18, dtype=torch.bool), height, width)
    found, _ = detector.decode(maps)
    assert (found - joints).abs().max() <= detector.STRIDE / 2 + 1e-3


def test_missing_joint_scores_below_threshold():
    joints, valid = points(1, 64, 64, 6), torch.ones(1, 18, dtype=torch.bool)
    valid[0, 4] = False
    joints[0, 4] = torch.nan
    found, scores = detector.decode(detector.target_maps(joints, valid, 64, 64))
    assert torch.equal(scores >= detector.THRESHOLD, valid)
    assert found.isfinite().all()


def test_decode_of_flat_and_extreme_maps_is_finite():
    for maps in (torch.zeros(1, 18, 8, 4), torch.full((1, 18, 8, 4), -3.0), torch.randn(1, 18, 8, 4) * 1e4):
        found, scores = detector.decode(maps)
        assert found.isfinite().all()
        assert scores.isfinite().all()
        assert (found >= 0).all()
        assert (found[..., 0] <= 15).all()
        assert (found[..., 1] <= 31).all()


def test_heatmap_loss_weighs_peaks():
    maps, target = torch.zeros(1, 18, 2, 2), torch.zeros(1, 18, 2, 2)
    assert detector.heatmap_loss(maps + 0.5, target).item() == pytest.approx(0.25)
    target[:] = 1
    assert detector.heatmap_loss(maps, target).item() == pytest.approx(1 + detector.PEAK_WEIGHT)
    assert detector.heatmap_loss(target, target).item() == 0


def test_size():
    parameters = sum(p.numel() for p in detector.JointDetector().parameters())
    assert 300_000 < parameters < 1_000_000


def test_learns_drawn_figures():
    """50 steps at half width on 64x32: the median error on unseen figures falls from tens of pixels to under three."""
    height, width = 64, 32
    train, test = figures(256, height, width, seed=0), figures(32, height, width, seed=1)
    component = COMPONENTS["detector"]
    torch.manual_seed(0)
    net = component.build(height, width, 0.5)
    objective = component.objective(net, height, width, 0.5, component.phase.weights)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.005)

    def median_error() -> float:
        net.eval()
        with torch.no_grad():
            found, _ = detector.decode(net(test.target))
        net.train()
        return (found - test.target_joints).norm(dim=-1).median().item()

    before = median_error()
    for step in range(50):
        rows = slice(step % 16 * 16, step % 16 * 16 + 16)
        batch = type(train)(*(getattr(train, name)[rows] for name in train.__dataclass_fields__))
        losses, _ = objective.generator_losses(batch, None)
        optimiser.zero_grad()
        losses["heatmap"].backward()
        optimiser.step()
    assert before > 10
    assert median_error() < 3
