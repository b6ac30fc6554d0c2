"""What a generator costs, counted."""

import torch
from torch import nn

from models.variants import VARIANTS, Output
from pipeline.loading import checkpoints
from pipeline.scoring import cost


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, batch):
        return Output(self.layer(batch.source))


def test_a_convolution_has_as_many_as_the_textbook_says():
    batch = cost.blank(16, 8, parsing=False, target_parsing=False, device=torch.device("cpu"))
    assert cost.macs(Convolution(), batch) == 16 * 8 * 3 * 3 * 3 * 3


def test_every_generator_can_be_counted_at_a_small_size(one_thread):
    for name, entry in VARIANTS.items():
        generator = entry.build(64, 32, 0.1).eval()
        batch = cost.blank(64, 32, entry.needs_parsing, entry.given_target_parsing, torch.device("cpu"))
        assert (cost.macs(generator, batch) > 0) == (entry.phase is not None), name


def test_described_is_of_the_checkpoint_asked_for(tmp_path):
    folder = tmp_path / "checkpoints"
    entry = VARIANTS["mean_image"]
    meta = {"kind": "variant", "name": "mean_image", "height": 16, "width": 8, "settings": {}}
    for step in (0, 3):
        checkpoints.save(folder, step, entry.build(16, 8, 1.0))
    checkpoints.path(folder, 0).write_bytes(b"of another step: not to be opened")
    checkpoints.write_meta(folder, meta)
    found = cost.described(folder, 3, "mean_image", torch.device("cpu"))
    assert found["trained"] == meta
    assert (found["parameters"], found["macs"]) == (0, 0)
    assert found["checkpoint_bytes"] == checkpoints.path(folder, 3).stat().st_size
