import torch

from models.layers import pose_maps


def test_one_hot_agrees_with_torchs_own():
    labels = torch.randint(0, 20, (3, 17, 11), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.one_hot(labels.long(), 20).permute(0, 3, 1, 2).float()
    given = torch.full((3, 20, 17, 11), torch.nan)
    for found in (pose_maps.one_hot(labels, 20), pose_maps.one_hot(labels, 20, out=given)):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)
    assert torch.equal(pose_maps.one_hot(labels, 8), wanted[:, :8])  # ids beyond the set are in no channel
    assert pose_maps.one_hot(labels[:0], 20).shape == (0, 20, 17, 11)


def test_heatmaps_into_given_memory_are_the_same_and_hold_no_denormal():
    joints = torch.tensor([[[0.0, 0.0], [250.5, 9.0], [-30.0, 300.0]]])
    valid = torch.tensor([[True, True, False]])
    fresh = pose_maps.heatmaps(joints, valid, 256, 256)
    given = torch.full((1, 3, 256, 256), torch.nan)
    assert pose_maps.heatmaps(joints, valid, 256, 256, out=given) is given
    assert torch.equal(given, fresh)
    assert fresh[fresh > 0].min() >= torch.finfo(torch.float32).tiny
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    wanted = torch.exp(-((x - 250.5) ** 2 + (y - 9) ** 2) / 72)
    torch.testing.assert_close(fresh[0, 1], wanted, rtol=1e-5, atol=1e-18)
