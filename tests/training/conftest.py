"""Fixtures of the tests that train every entry."""

from functools import partial

import pytest
import torch

from models.layers import features
from tests.training.entries import thin


@pytest.fixture
def thin_features(monkeypatch, one_thread):
    """VGG16 and VGG19 are thin, and torch has one thread."""
    for net in ("vgg16", "vgg19"):
        with torch.device("meta"):
            layers = features.NETS[net]["layers"]()
        monkeypatch.setitem(features.NETS[net], "layers", partial(thin, layers))
