import cv2
import numpy as np
import pytest
import torch
from torch import nn

from models.layers.blocks import Output
from pipeline import drawing
from pipeline.loading import arrays
from pipeline.training import samples
from tests import tiny_dataset


class Negative(nn.Module):
    """1 - source; draws a random number, and must not be shown the target."""

    def forward(self, batch):
        assert batch.target is None
        assert batch.target_labels is None
        torch.rand(3)
        return Output(-batch.source)


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    tiny_dataset.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return arrays.load_pairs("synthetic", "val", torch.device("cpu"), samples.PAIRS)


def test_a_row_shows_source_pose_target_and_what_was_made(pairs, tmp_path):
    before = torch.get_rng_state()
    samples.draw(Negative(), pairs, tmp_path / "logs/step-0000007.png")
    assert torch.equal(before, torch.get_rng_state())
    sheet = cv2.imread(str(tmp_path / "logs/step-0000007.png"))[:, :, ::-1]
    gap = drawing.beside([np.zeros((1, 1, 3), np.uint8)]).shape[1] - 1
    assert sheet.shape == (4 * (64 + gap), 4 * (32 + gap), 3)
    for row, (one, other) in enumerate(pairs.pairs.tolist()):
        source, target = (
            tiny_dataset.picture(int(name[:4]), int(name[5])) for name in (pairs.ids[one], pairs.ids[other])
        )
        cells = [sheet[row * (64 + gap) :, column * (32 + gap) :][:64, :32] for column in range(4)]
        np.testing.assert_array_equal(cells[0], source)
        pose = drawing.skeleton(np.zeros_like(target), pairs.joints[other].numpy(), pairs.valid[other].numpy())
        np.testing.assert_array_equal(cells[1], pose)
        np.testing.assert_array_equal(cells[2], target)
        np.testing.assert_array_equal(cells[3], 255 - source)
