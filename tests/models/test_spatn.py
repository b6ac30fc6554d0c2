"""SPATN: distance maps, blocks, loss, and what the network reads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from models import spatn
from models.layers import pose_maps
from models.spatn import PHASE, ParsingObjective, PoseAttentionBlock, Spatn
from models.variants import COMPONENTS, VARIANTS
from pipeline.anatomy import pose
from pipeline.anatomy.distance import limb_distance_maps
from tests.figures import figures

SCALE = 0.125


pytestmark = pytest.mark.usefixtures("one_thread")


def random_joints(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inside and outside the image, a fifth missing (NaN), some limbs of no length."""
    generator = torch.Generator().manual_seed(0)
    points = (torch.rand(count, 18, 2, generator=generator) * 1.4 - 0.2) * torch.tensor([width, height])
    points[:, 3] = points[:, 2]
    valid = torch.rand(count, 18, generator=generator) > 0.2
    valid[0] = True
    return points.masked_fill(~valid.unsqueeze(-1), torch.nan), valid


def test_limb_maps_are_those_of_the_store_before_rounding():
    assert pose_maps.LIMBS == pose.LIMBS
    joints, valid = random_joints(5, 40, 28)
    for kappa in (-0.1, -0.5):
        maps = pose_maps.limb_maps(joints, valid, 40, 28, kappa)
        assert maps.dtype == torch.float32
        stored = limb_distance_maps(joints.nan_to_num().numpy(), valid.numpy(), 40, 28, kappa)
        assert stored.any()
        assert np.abs(255 * maps.double().numpy() - stored).max() < 0.513 + 1e-3


@pytest.mark.parametrize("entry", [*COMPONENTS.values(), *VARIANTS.values()], ids=lambda entry: entry.name)
def test_whoever_draws_limb_maps_is_told_their_kappa(entry):
    network = entry.build(64, 32, SCALE, **({"kappa": -0.3} if entry.limb_maps else {}))
    told = [part.kappa for part in network.modules() if isinstance(part, Spatn) and part.kappa is not None]
    assert told == [-0.3] * entry.limb_maps


def test_a_block_changes_the_semantics_where_the_pose_says_so():
    """semantic + sigmoid(pose path) * semantic path, and both go on along the pose path."""
    block = PoseAttentionBlock(6, first=False)
    semantic, poses = torch.randn(2, 6, 8, 7), torch.randn(2, 12, 8, 7)
    out, on = block(semantic, poses)
    attention = torch.sigmoid(block.pose(poses))
    assert torch.allclose(out, semantic + attention * block.semantic(semantic))
    assert torch.equal(on, torch.cat([block.pose(poses), out], dim=1))
    with torch.no_grad():  # zero pose path: half of the change everywhere
        block.pose[-1][0].weight.zero_()
        assert torch.allclose(block(semantic, poses)[0], semantic + 0.5 * block.semantic(semantic))


def test_block_gradients():
    block = PoseAttentionBlock(2, first=True).double()
    inputs = (torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(block, tuple(inputs))


@pytest.mark.parametrize(("kappa", "pose_channels"), [(-0.1, 60), (None, 36)])
def test_layers(kappa, pose_channels):
    """Three convolutions an encoder, the last two of stride 2; six blocks; two deconvolutions and a last layer."""
    net = Spatn(1.0, kappa)
    for encoder, inputs in ((net.semantic, 20), (net.pose, pose_channels)):
        layers = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
        assert [(layer.in_channels, layer.out_channels, layer.stride) for layer in layers] == [
            (inputs, 64, (1, 1)),
            (64, 128, (2, 2)),
            (128, 256, (2, 2)),
        ]
    blocks = [[layer.in_channels for layer in block.modules() if isinstance(layer, nn.Conv2d)] for block in net.blocks]
    assert blocks == [[256] * 4] + 5 * [[256, 256, 512, 256]]
    ups = [layer for layer in net.decoder if isinstance(layer, nn.ConvTranspose2d)]
    assert [(up.in_channels, up.out_channels, up.stride) for up in ups] == [(256, 128, (2, 2)), (128, 64, (2, 2))]
    assert net.decoder[-1].out_channels == 20


@pytest.mark.parametrize("size", [(128, 64), (256, 256), (32, 96)])
def test_output_has_the_image_s_size(size):
    with torch.no_grad():
        logits = Spatn(SCALE)(figures(1, *size, seed=0).without_target())
    assert logits.shape == (1, 20, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("kappa", [-0.1, None])
def test_it_reads_the_source_parsing_and_both_poses(kappa):
    net = Spatn(SCALE, kappa).eval()
    batch = figures(2, 64, 32, seed=0)
    with torch.no_grad():
        first = net(batch.without_target())
        batch.source, batch.target_labels = -batch.source, None
        assert torch.equal(net(batch), first)
        for name in ("source_labels", "source_joints", "target_joints"):
            other = getattr(batch, name).clone()
            other[:1] = other[1:] + (name == "source_labels")
            changed = net(replace(batch, **{name: other}))
            assert not torch.allclose(changed[:1], first[:1], atol=1e-3)
            assert torch.allclose(changed[1:], first[1:], atol=1e-4)  # pairs do not mix


def test_missing_parsing_is_said():
    with pytest.raises(ValueError, match="source_labels"):
        Spatn(SCALE)(replace(figures(1, 32, 32, seed=0), source_labels=None))


def test_cross_entropy_is_the_mean_negative_log_probability():
    logits = torch.randn(2, 20, 3, 4, dtype=torch.float64)
    labels = torch.randint(0, 20, (2, 3, 4), dtype=torch.uint8)
    total = 0.0
    for b in range(2):
        for y in range(3):
            for x in range(4):
                total -= torch.log(logits[b, :, y, x].exp()[labels[b, y, x].long()] / logits[b, :, y, x].exp().sum())
    assert spatn.cross_entropy(logits, labels).item() == pytest.approx(total.item() / 24)
    certain = 100 * torch.nn.functional.one_hot(labels.long(), 20).permute(0, 3, 1, 2).double()
    assert spatn.cross_entropy(certain, labels) < 1e-9


@pytest.mark.slow
def test_overfits_eight_pairs():
    """30 steps at 25 times the published rate: cross-entropy below 0.45, and better labels than the source's."""
    net = Spatn(SCALE)
    objective = ParsingObjective(net, PHASE.weights)
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3, betas=(0.5, 0.999))
    batch = figures(8, 64, 32, seed=0)
    first = objective.generator_losses(batch, None)[0]["cross_entropy"].item()
    assert 2 < first < 6
    for _ in range(30):
        loss = objective.generator_losses(batch, None)[0]["cross_entropy"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.45
    accuracy = (net(batch).argmax(1) == batch.target_labels).float().mean()
    assert accuracy > (batch.source_labels == batch.target_labels).float().mean() + 0.05
