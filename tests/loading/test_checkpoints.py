import json

import pytest
import torch

from models.variants import COMPONENTS, VARIANTS, Batch
from pipeline.core import seals
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints

META = {
    "kind": "component",
    "name": "spig_flow",
    "dataset": "synthetic",
    "height": 64,
    "width": 32,
    "settings": {"width": 0.1, "seed": 0},
    "marks": [],
}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(3)
    network = COMPONENTS["spig_flow"].build(64, 32, 0.1)
    for step in (20, 100):
        with torch.no_grad():
            next(network.parameters()).add_(1)
        checkpoints.save(tmp_path / "work", step, network)
    checkpoints.publish(tmp_path / "work", [20, 100], META, tmp_path / "out")
    return tmp_path / "out", network


def test_round_trip_from_the_meta_alone(folder):
    out, network = folder
    assert checkpoints.steps(out) == [20, 100]
    before = torch.get_rng_state()
    loaded, meta = checkpoints.load(out, 100)
    assert torch.equal(before, torch.get_rng_state())
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert meta == {**META, "steps": [20, 100]}
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    earlier, _ = checkpoints.load(out, 20)
    first = next(iter(network.state_dict()))
    torch.testing.assert_close(earlier.state_dict()[first] + 1, loaded.state_dict()[first])


def test_equal_networks_give_equal_bytes(folder, tmp_path):
    out, network = folder
    network = network.to(memory_format=torch.channels_last)
    checkpoints.save(tmp_path / "again", 100, network)
    assert checkpoints.path(tmp_path / "again", 100).read_bytes() == checkpoints.path(out, 100).read_bytes()
    checkpoints.write_meta(tmp_path / "again", dict(reversed(checkpoints.meta(out).items())))
    assert (tmp_path / "again/meta.json").read_bytes() == (out / "meta.json").read_bytes()


def test_a_network_without_tensors_has_a_checkpoint_too(tmp_path):
    meta = {**META, "kind": "variant", "name": "copy_source", "settings": {"seed": 0}}
    checkpoints.save(tmp_path / "work", 0, VARIANTS["copy_source"].build(64, 32, 1.0))
    checkpoints.publish(tmp_path / "work", [0], meta, tmp_path / "out")
    module, _ = checkpoints.load(tmp_path / "out", 0)
    image = torch.rand(1, 3, 64, 32)
    assert torch.equal(module(Batch(image, *[None] * 5)).image, image)


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_one_line(folder, keep):
    out, _ = folder
    file = checkpoints.path(out, 100)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged") as error:
        checkpoints.load(out, 100)
    assert file.name in one_line(error)


def test_a_file_of_another_network_is_one_line(folder):
    out, _ = folder
    checkpoints.write_meta(out, {**META, "settings": {"width": 1.0}})
    seals.write_list(out)
    with pytest.raises(UserError, match=r"not of the network .* in the file and .* in the network") as error:
        checkpoints.load(out, 20)
    one_line(error)


def test_missing_and_broken_metas_are_one_line(folder):
    out, _ = folder
    with pytest.raises(UserError, match="there are: 20, 100"):
        checkpoints.load(out, 60)
    (out / seals.LIST).unlink()  # else any other one is damaged
    for broken, complaint in (
        ("{", r"meta\.json: damaged \(no JSON\)"),
        ("[]", "lacks the key kind"),
        (json.dumps({**META, "name": "nobody"}), "no network nobody"),
        (json.dumps({"kind": "openpose", "net": "openpose"}), "no network"),
        (json.dumps({"kind": "component", "name": "spig_flow"}), "lacks the key height"),
    ):
        (out / "meta.json").write_text(broken)
        with pytest.raises(UserError, match=complaint) as error:
            checkpoints.load(out, 20)
        one_line(error)
    (out / "meta.json").unlink()
    with pytest.raises(UserError, match="not there"):
        checkpoints.load(out, 20)
