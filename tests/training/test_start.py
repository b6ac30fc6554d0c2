"""Weights of a stranger's to start from: what is in the file is data, whatever it says of itself."""

import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from pipeline.core import digests
from pipeline.core.errors import UserError
from pipeline.training import start


class Payload:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).eval()


@pytest.fixture
def exported(tmp_path, network) -> Path:
    """A program with a pickle among the inputs that it was traced with."""
    torch.export.save(torch.export.export(network, (torch.zeros(4, 3),)), tmp_path / "whole.pt2")
    pickle = io.BytesIO()
    torch.save(Payload(tmp_path / "was run"), pickle)
    changed(tmp_path / "whole.pt2", tmp_path / "x.pt2", "sample_inputs/model.pt", lambda _: pickle.getvalue())
    (tmp_path / "x.json").write_text(json.dumps({"trained": {"name": "x"}}))
    return tmp_path / "x.pt2"


def changed(file: Path, to: Path, ending: str, change) -> None:
    with zipfile.ZipFile(file) as given, zipfile.ZipFile(to, "w") as written:
        for name in given.namelist():
            written.writestr(name, change(given.read(name)) if name.endswith(ending) else given.read(name))


def read(file: Path) -> dict[str, torch.Tensor]:
    return start.read(str(file), digests.sha256(file), "train.synthetic.x").tensors


def test_the_weights_of_a_program_are_read_and_its_pickles_are_not(exported, network):
    found = read(exported)
    assert found.keys() == network.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())
    assert not exported.with_name("was run").exists()
    with suppress(AssertionError):  # that what was run gave no inputs
        torch.export.load(exported)
    assert exported.with_name("was run").exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"use_pickle": false', b'"use_pickle": true', "0.weight is not there as plain bytes"),
        (b'"as_int": 3', b'"as_int": 3000000000', "RuntimeError"),
        (b'"dtype": 7', b'"dtype": 77', "KeyError"),
        (b'"path_name": "weight_0"', b'"path_name": "../x"', "KeyError"),
    ],
)
def test_a_list_of_weights_that_lies_is_one_line(exported, old, new, says):
    lying = exported.with_name("y.pt2")
    changed(exported, lying, "model_weights_config.json", lambda data: data.replace(old, new))
    exported.with_suffix(".json").rename(lying.with_suffix(".json"))
    with pytest.raises(UserError, match=f"y.pt2 holds no weights of a run .*{says}"):
        read(lying)
