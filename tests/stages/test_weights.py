import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from pipeline.core import layout
from pipeline.core.errors import UserError
from pipeline.fetching import networks
from pipeline.fetching.download import Download, Unavailable
from pipeline.loading import published_weights
from pipeline.stages import weights
from tests.small_project import contents, enter

FILES = {"a.xml": b"<net/>", "a.bin": bytes(range(256)), "b.pth": b"b"}


def published(name: str, url=None) -> Download:
    return Download(file=f"weights/{name}", url=url, sha256=hashlib.sha256(FILES[name]).hexdigest()[:8])


@pytest.fixture
def settle(tmp_path, monkeypatch):
    """Enter a project for which the given files are published, some of them `present` in its mirror folder; `path` is
    set for every network.
    """
    mirror = tmp_path / "mirror/weights"
    mirror.mkdir(parents=True)
    monkeypatch.setenv("REPOSE_MIRROR", str(mirror.parent))
    (tmp_path / "project").mkdir()

    def settle(present=(), path=None, settings=(), **nets):
        for name in present:
            (mirror / name).write_bytes(FILES[name])
        monkeypatch.setattr(networks, "NETS", {net: tuple(files) for net, files in nets.items()})
        paths = {f"weights__{net}__path": path and str(path) for net in nets}
        enter(tmp_path / "project", monkeypatch, **{"datasets": ["synthetic"], **paths, **dict(settings)})
        return mirror

    return settle


def test_all_files_present(settle, tmp_path):
    settle(["a.xml", "a.bin"], openpose=[published("a.xml"), published("a.bin")])
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
    settle(["a.xml"], openpose=[published("a.xml"), published("a.bin")])
    weights.run("openpose")
    assert set(contents(layout.weights("openpose"))) == {"source.json"}
    assert published_weights.files("openpose") is None
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "weights openpose: missing" in said


@pytest.mark.parametrize(("present", "expected"), [(["a.bin", "b.pth"], "a.bin"), (["b.pth"], "b.pth"), ([], None)])
def test_either_takes_the_first_there_is(settle, present, expected):
    settle(present, squeezenet1_1=[published("a.bin"), published("b.pth")])
    weights.run("squeezenet1_1")
    found = published_weights.files("squeezenet1_1")
    assert found == (None if expected is None else [layout.weights("squeezenet1_1") / expected])


def test_missing_is_recorded_the_same_on_every_machine(settle, tmp_path, monkeypatch):
    url = "http://127.0.0.1:9/b.pth"  # port 9: nobody answers
    settle(vgg19=[published("b.pth", url)], settings={"weights__vgg19__download": True})
    weights.run("vgg19")
    record = json.loads((layout.weights("vgg19") / "source.json").read_text())
    assert record["status"] == "missing"
    assert record["reason"] == "http://127.0.0.1:9/b.pth: cannot connect"
    assert str(tmp_path) not in json.dumps(record)


def test_wrong_digest_of_ones_own_file_is_an_error(settle, tmp_path):
    (tmp_path / "mine").write_bytes(b"something else")
    settle(path=tmp_path / "mine", vgg19=[published("b.pth")])
    with pytest.raises(UserError, match=r"sha256 is .*, weights\.vgg19 wants"):
        weights.run("vgg19")
    assert not layout.weights("vgg19").exists()


def test_ones_own_copy_under_another_name(settle, tmp_path):
    """A second file lies beside the first; of two that will do, the digest tells which one it is."""
    (tmp_path / "mine.xml").write_bytes(FILES["a.xml"])
    (tmp_path / "mine.bin").write_bytes(FILES["a.bin"])
    settle(path=tmp_path / "mine.xml", openpose=[published("a.xml"), published("a.bin")])
    weights.run("openpose")
    found = contents(layout.weights("openpose"))
    assert (found["a.xml"], found["a.bin"]) == (FILES["a.xml"], FILES["a.bin"])
    (tmp_path / "mine.pth").write_bytes(FILES["b.pth"])
    settle(path=tmp_path / "mine.pth", squeezenet1_1=[published("a.bin"), published("b.pth")])
    weights.run("squeezenet1_1")
    assert published_weights.files("squeezenet1_1") == [layout.weights("squeezenet1_1") / "b.pth"]


def test_what_is_large_is_downloaded_on_request(settle):
    settle(vgg16=[published("b.pth", "http://127.0.0.1:9/b.pth")])
    for download, reason in ((False, "no path, no url"), (True, "cannot connect")):
        with pytest.raises(Unavailable, match=reason):
            weights.gather("vgg16", weights.Params(download=download))


def test_wrong_digest_in_the_mirror_is_an_error(settle):
    mirror = settle(vgg19=[published("b.pth")])
    (mirror / "b.pth").write_bytes(b"something else")
    with pytest.raises(UserError, match="sha256 is"):
        weights.run("vgg19")


def test_require(settle):
    settle(vgg19=[published("b.pth")])
    with pytest.raises(UserError, match="run `repose weights --net vgg19`"):
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


def test_a_network_that_a_job_cannot_do_without_stops_the_run(settle, monkeypatch):
    """Here, and not hours later where it is needed; nothing is left, so that the next run looks again."""
    needed = {"train__synthetic__spgnet__features": None, "train__synthetic__spgnet__missing_weights": "stop"}
    settle(settings=needed, vgg19=[published("b.pth")], vgg16=[published("a.bin")])
    with pytest.raises(UserError) as error:
        weights.run("vgg19")
    assert str(error.value).startswith("train synthetic spgnet needs the published network vgg19: no path, no url")
    assert not layout.weights("vgg19").exists()
    weights.run("vgg16")  # which nothing reads
    assert published_weights.files("vgg16") is None


def test_data_alone_are_made_without_what_only_scoring_needs(settle):
    """Lightweight OpenPose finds joints for PCKh, too: only where images need it does it stop their preparation."""
    openpose = [published("a.xml"), published("a.bin")]
    settle(settings={"pretrain__synthetic__detector__source": "openpose"}, openpose=openpose)
    weights.run("openpose")
    assert published_weights.files("openpose") is None
    settle(settings={"keypoints__synthetic__source": "openpose"}, openpose=openpose)
    with pytest.raises(UserError, match="keypoints synthetic needs the published network openpose"):
        weights.run("openpose")


@pytest.mark.parametrize(
    ("datasets", "download", "asked"),
    [
        (["folder", "synthetic"], "papers", False),
        (["folder", "market1501"], "papers", True),
        (["folder"], True, True),
        (["market1501"], False, False),
    ],
)
def test_large_networks_are_downloaded_for_the_papers_data_sets(settle, monkeypatch, datasets, download, asked):
    urls = []

    def refuse(url, digest):
        urls.append(url)
        raise Unavailable(f"{url}: not here")

    monkeypatch.setattr("pipeline.fetching.download.download", refuse)
    given = {"datasets": datasets, "weights__inception__download": download, "weights__inception__path": None}
    settle(inception=[published("b.pth", "http://127.0.0.1:9/b.pth")], settings=given)
    monkeypatch.setattr(weights, "_stopped", lambda net: [])
    weights.run("inception")
    assert bool(urls) == asked


@pytest.mark.parametrize("path", ["/", ".", "..", "/dev/null"])
def test_a_path_that_is_no_file_is_one_line(settle, path):
    settle(openpose=[published("a.xml"), published("a.bin")])
    with pytest.raises(UserError, match=r"no such file|not a file|damaged, or another file"):
        weights.gather("openpose", weights.Params(path=path))
