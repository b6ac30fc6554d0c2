"""Which sizes of image the networks take is known before anything runs, and is what they take."""

from importlib import import_module

import pytest
import torch

from models.layers.blocks import Batch
from pipeline.core import params
from pipeline.planning import faults
from tests.small_project import enter

SIZES = ((64, 32), (96, 48), (128, 80), (256, 176), (256, 192), (288, 256))  # height, width
FAMILIES = ("spig", "spgnet", "spt", "sgw_gan", "patn", "gfla", "def_gan", "vunet")


def takes(family: str, height: int, width: int) -> bool:
    """Whether the family's first variant, an eighth as wide, draws an image of this size."""
    entry = import_module(f"models.{family}").VARIANTS[0]
    joints = torch.rand(1, 18, 2) * torch.tensor([width - 1.0, height - 1.0])
    pose = joints, torch.ones(1, 18, dtype=torch.bool)
    labels = torch.zeros(1, height, width, dtype=torch.uint8)
    try:
        with torch.no_grad():
            generator = entry.build(height, width, 0.125, **({"kappa": -0.1} if entry.limb_maps else {})).eval()
            drawn = generator(Batch(torch.zeros(1, 3, height, width), None, *pose, *pose, labels)).image
    except (RuntimeError, ValueError):
        return False
    return drawn.shape == (1, 3, height, width)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rule_is_what_the_networks_take(family, one_thread):
    for height, width in SIZES:
        unit = faults.unit_of(family, height, width)
        assert takes(family, height, width) == (height % unit == width % unit == 0), (height, width)


def test_every_family_is_known():
    assert set(FAMILIES) == {family for family in params.load()["variants"] if family != "floors"}


def test_a_variant_that_does_not_take_a_form_stops_the_run(tmp_path, monkeypatch):
    variants = {"floors": ["mean_image"], "spig": ["spig"], "patn": ["patn"]}
    enter(tmp_path, monkeypatch, datasets=["deepfashion-resize176", "deepfashion-resize352"], variants=variants)
    lines = [line for line in faults.faults(params.load()) if "multiples of" in line]
    assert lines == [
        "train deepfashion-resize176 spig: its networks take images whose sides are multiples of 32, not 256 x 176;"
        " leave it out of variants.spig in params.yaml, or the data set out of datasets"
    ]
    params.load.cache_clear()
