"""The detector: identities held out, and what its validation measures."""

import pyarrow as pa
import pytest
import torch

from models.detector import target_maps
from pipeline.loading.arrays import ImageData
from pipeline.training import detector


def test_held_out_identities_are_every_tenth():
    people = [f"{number:03d}" for number in range(25) for _ in range(2)] + ["900"]
    table = pa.table(
        {
            "image_id": [f"{row:03d}.png" for row in range(51)],
            "split": ["train"] * 50 + ["test"],
            "person_id": people,
        }
    )
    learn, held_out = detector.split_by_identity(table)
    assert held_out.to_pylist() == ["000.png", "001.png", "020.png", "021.png", "040.png", "041.png"]
    assert len(learn) == 44


class Exact(torch.nn.Module):
    """A detector whose maps peak exactly where it is told to."""

    def __init__(self, data, shift):
        super().__init__()
        self.data, self.shift, self.first = data, shift, 0

    def forward(self, images):
        rows = slice(self.first, self.first + len(images))
        self.first += len(images)
        return target_maps(self.data.joints[rows] + self.shift, self.data.valid[rows], 128, 64)


def test_validation_measures_pixels():
    generator = torch.Generator().manual_seed(0)
    joints = torch.rand(5, 18, 2, generator=generator) * torch.tensor([40.0, 100.0]) + 10
    valid = torch.rand(5, 18, generator=generator) > 0.2
    images = torch.zeros(5, 3, 128, 64, dtype=torch.uint8)
    data = ImageData(images, joints, valid, list("abcde"), torch.device("cpu"))
    exact = detector.validate(Exact(data, 0.0), data, 2)
    assert exact["mean_error_px"] < 0.02
    assert (exact["images"], exact["joints"], exact["within_6px"], exact["found"], exact["false_alarms"]) == (
        5,
        int(valid.sum()),
        1.0,
        1.0,
        0.0,
    )
    moved = detector.validate(Exact(data, torch.tensor([3.0, -4.0])), data, 2)
    assert moved["mean_error_px"] == pytest.approx(5.0, abs=0.02)
    far = detector.validate(Exact(data, torch.tensor([8.0, 0.0])), data, 5)
    assert far["within_6px"] == 0.0
