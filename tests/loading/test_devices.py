import pytest
import torch

from pipeline.core.errors import UserError
from pipeline.loading import devices


def test_devices_are_checked():
    assert devices.device("auto").type in ("cpu", "cuda")
    assert devices.device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "gpu"):
        with pytest.raises(UserError, match="use auto"):
            devices.device(name)
