"""The parser's network: its pose maps against brute force, its encoder against the project's own, its size."""

import numpy as np
import pytest
import torch

from models.layers import features
from models.parser import LABELS, LIMBS, MAPS, Parser, pose_maps


@pytest.fixture(scope="module")
def network() -> Parser:
    torch.manual_seed(0)
    return Parser().eval()


def brute_force(joints: np.ndarray, stride: int, rows: int, columns: int, sigma: float) -> np.ndarray:
    """One person's maps straight from the definition: the nearest of 1,001 points along the bone."""
    places = (joints + 0.5) / stride - 0.5
    y, x = np.mgrid[:rows, :columns]
    cells = np.stack([x.ravel(), y.ravel()], 1)
    out = []
    for first, second in [(joint, joint) for joint in range(18)] + list(LIMBS):
        line = places[first] + np.linspace(0, 1, 1001)[:, None] * (places[second] - places[first])
        nearest = ((line[None] - cells[:, None]) ** 2).sum(2).min(1)
        out.append(np.exp(-nearest / (2 * sigma**2)).reshape(rows, columns))
    return np.stack(out)


@pytest.mark.parametrize(("stride", "sigma"), [(16, 1.0), (8, 1.0), (4, 1.5)])
def test_pose_maps_are_gaussians_on_joints_and_limbs(stride, sigma):
    joints = np.random.default_rng(1).uniform(-4, 60, (18, 2))
    found = pose_maps(torch.tensor(joints)[None], torch.ones(1, 18, dtype=torch.bool), 64, 48, stride)
    assert found.shape == (1, MAPS, 64 // stride, 48 // stride)
    np.testing.assert_allclose(found[0], brute_force(joints, stride, 64 // stride, 48 // stride, sigma), atol=1e-4)


def test_a_missing_joint_empties_its_map_and_its_limbs_and_its_value_does_not_matter():
    joints = torch.rand(2, 18, 2) * 64
    joints[1] = joints[0]
    valid = torch.ones(2, 18, dtype=torch.bool)
    valid[1, 3] = False  # right elbow: end of limbs 0 and 1
    joints[1, 3] = torch.nan
    full, without = pose_maps(joints, valid, 64, 64, 8)
    gone = [3, 18, 19]
    assert not without[gone].any()
    assert full[gone].amax((1, 2)).min() > 0.5
    rest = [channel for channel in range(MAPS) if channel not in gone]
    assert torch.equal(full[rest], without[rest])


def test_logits_lie_on_half_the_grid_and_weights_stay_under_8_mb_in_fp16(network):
    x = torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8)
    with torch.no_grad():
        logits = network(x, torch.zeros(2, 18, 2), torch.zeros(2, 18, dtype=torch.bool))
    assert logits.shape == (2, LABELS, 32, 24)
    assert sum(tensor.numel() for tensor in network.state_dict().values()) * 2 < 8e6


def test_encoder_is_the_pretrained_network_on_imagenet_scale(network):
    """Its deepest layer equals that of `models.layers.features`, which takes images in -1..1 and has its own tests."""
    extractor = features.build("squeezenet1_1")
    network.features.load_state_dict(extractor.features.state_dict())  # weights that carry the signal all the way
    images = torch.randint(0, 256, (1, 3, 64, 32)).float()
    seen = {}
    handle = network.features[12].register_forward_hook(lambda module, given, result: seen.update(deepest=result))
    with torch.no_grad():
        network(images, torch.zeros(1, 18, 2), torch.zeros(1, 18, dtype=torch.bool))
        expected = extractor(images / 127.5 - 1, ("12",))["12"]
    handle.remove()
    assert seen["deepest"].std() > 0.1
    torch.testing.assert_close(seen["deepest"], expected, rtol=1e-3, atol=1e-4)


def test_every_weight_learns(network):
    torch.manual_seed(1)
    learner = Parser().train()
    joints, valid = torch.rand(2, 18, 2) * 64, torch.ones(2, 18, dtype=torch.bool)
    learner(torch.rand(2, 3, 64, 64) * 255, joints, valid).square().mean().backward()
    still = [name for name, weight in learner.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still


def test_joints_change_the_answer(network):
    images = torch.rand(1, 3, 64, 32).expand(2, 3, 64, 32) * 255
    joints, valid = torch.rand(1, 18, 2).expand(2, 18, 2) * 32, torch.tensor([[True] * 18, [False] * 18])
    with torch.no_grad():
        known, unknown = network(images, joints, valid)
    assert (known - unknown).abs().max() > 1e-3
