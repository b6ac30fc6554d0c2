import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from pipeline.core import layout
from pipeline.core.errors import UserError
from pipeline.loading import published_weights
from pipeline.stages import weights
from tests.small_project import contents, enter

FILES = {"a.xml": b"<net/>", "a.bin": bytes(range(256)), "b.pth": b"b"}


def entry(name: str, path=None, url=None) -> dict:
    return {"path": path, "file": f"weights/{name}", "url": url, "sha256": hashlib.sha256(FILES[name]).hexdigest()[:8]}


@pytest.fixture
def settle(tmp_path, monkeypatch):
    """Enter a project whose weights blocks are those given; `mirror` is its mirror folder."""
    mirror = tmp_path / "mirror/weights"
    mirror.mkdir(parents=True)
    monkeypatch.setenv("REPOSE_MIRROR", str(mirror.parent))
    (tmp_path / "project").mkdir()

    def settle(present=(), **blocks):
        for name in present:
            (mirror / name).write_bytes(FILES[name])
        enter(tmp_path / "project", monkeypatch, **{f"weights__{net}": block for net, block in blocks.items()})
        return mirror

    return settle


def test_all_files_present(settle, tmp_path):
    settle(["a.xml", "a.bin"], openpose={"files": [entry("a.xml"), entry("a.bin")]})
    weights.run("openpose")
    found = contents(layout.weights("openpose"))
    record = json.loads(found.pop("source.json"))
    assert found == {name: FILES[name] for name in ("a.xml", "a.bin")}
    assert record == {
        "net": "openpose",
        "status": "present",
        "reason": "",
        "files": {name: hashlib.sha256(FILES[name]).hexdigest() for name in ("a.xml", "a.bin")},
    }
    assert published_weights.files("openpose") == [layout.weights("openpose") / name for name in ("a.bin", "a.xml")]
    assert published_weights.require("openpose", "stop", "score") == published_weights.files("openpose")


def test_one_of_two_files_is_missing_all(settle, capsys):
    settle(["a.xml"], openpose={"files": [entry("a.xml"), entry("a.bin")]})
    weights.run("openpose")
    assert set(contents(layout.weights("openpose"))) == {"source.json"}
    assert published_weights.files("openpose") is None
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "weights openpose: missing" in said


@pytest.mark.parametrize(("present", "expected"), [(["a.bin", "b.pth"], "a.bin"), (["b.pth"], "b.pth"), ([], None)])
def test_either_takes_the_first_there_is(settle, present, expected):
    settle(present, squeezenet1_1={"either": [entry("a.bin"), entry("b.pth")]})
    weights.run("squeezenet1_1")
    found = published_weights.files("squeezenet1_1")
    assert found == (None if expected is None else [layout.weights("squeezenet1_1") / expected])


def test_missing_is_recorded_the_same_on_every_machine(settle, tmp_path, monkeypatch):
    settle(vgg19={"files": [entry("b.pth", url="http://127.0.0.1:9/b.pth")]})  # port 9: nobody answers
    weights.run("vgg19")
    record = json.loads((layout.weights("vgg19") / "source.json").read_text())
    assert record["status"] == "missing"
    assert record["reason"] == "http://127.0.0.1:9/b.pth: cannot connect"
    assert str(tmp_path) not in json.dumps(record)


def test_wrong_digest_of_ones_own_file_is_an_error(settle, tmp_path):
    (tmp_path / "mine").write_bytes(b"something else")
    settle(vgg19={"files": [entry("b.pth", path=str(tmp_path / "mine"))]})
    with pytest.raises(UserError, match=r"weights\.vgg19\.files\.0\.sha256"):
        weights.run("vgg19")
    assert not layout.weights("vgg19").exists()


def test_wrong_digest_in_the_mirror_is_an_error(settle):
    mirror = settle(vgg19={"files": [entry("b.pth")]})
    (mirror / "b.pth").write_bytes(b"something else")
    with pytest.raises(UserError, match="sha256 is"):
        weights.run("vgg19")


def test_require(settle):
    settle(vgg19={"files": [entry("b.pth")]})
    with pytest.raises(UserError, match="run `python -m pipeline weights --net vgg19`"):
        published_weights.files("vgg19")
    weights.run("vgg19")
    assert published_weights.require("vgg19", "seeded", "train.synthetic.spig") is None
    with pytest.raises(UserError) as error:
        published_weights.require("vgg19", "stop", "train.synthetic.spig")
    for wanted in ("train.synthetic.spig needs", "vgg19", "not in $REPOSE_MIRROR", "missing_weights: seeded"):
        assert wanted in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_state_dict(tmp_path, form):
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1], dtype=torch.int64)}
    path = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pth")
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    read = published_weights.state_dict([path])
    assert set(read) == {"a", "b"}
    for name, value in tensors.items():
        assert torch.equal(read[name], value)
        assert read[name].dtype == value.dtype


class Payload:
    def __reduce__(self):
        return (print, ("run by a pickle",))


@pytest.mark.parametrize("content", ["pickle", "noise", "nested", "truncated", "safetensors"])
def test_state_dict_refuses_anything_else(tmp_path, content, capsys):
    path = tmp_path / ("x.safetensors" if content == "safetensors" else "x.pth")
    if content == "pickle":
        torch.save({"a": Payload()}, path)
    elif content == "nested":
        torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    elif content == "truncated":
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:500])
    else:
        path.write_bytes(b"noise" * 100)
    with pytest.raises(UserError) as error:
        published_weights.state_dict([path])
    assert "\n" not in str(error.value)
    assert "run by a pickle" not in capsys.readouterr().out
