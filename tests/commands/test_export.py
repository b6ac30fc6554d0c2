import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.variants import VARIANTS, Batch
from pipeline import __main__
from pipeline.anatomy import labels, pose
from pipeline.commands import portable
from pipeline.core import layout, store
from pipeline.core.errors import UserError
from pipeline.formats import archive, openpose_json, pair_names
from pipeline.loading import checkpoints
from pipeline.stages import keypoints, pairs
from pipeline.training import load_run
from tests.conftest import ROOT
from tests.scored_project import HEIGHT, WIDTH, write_checkpoints
from tests.small_project import NAMES, annotation, enter, joints, jpeg, write_raw


@pytest.fixture
def lists(tmp_path, monkeypatch):
    """Enter a project with keypoints and pairs; return the text of its keypoint lists."""
    block = {"val_fraction": 0.2, "test_list": "official", "test_pairs": 2, "seed": 0}
    enter(tmp_path, monkeypatch, pairs__market1501=block)
    text = {}
    for split, names in NAMES.items():
        points, valid = joints(2, len(names))
        valid[:, [2, 5, 8, 11]] = True
        text[split] = annotation(names, points, valid)
    raw = write_raw({"train/a.jpg": jpeg(0)}, text)
    test = NAMES["test"]
    (raw / "pairs-test.csv").write_text(f"from,to\n{test[3]},{test[2]}\n{test[4]},{test[5]}\n")
    keypoints.run("market1501")
    pairs.run("market1501")
    return text


def export(capfdbinary, what: str, split: str, *more: str) -> tuple[bytes, str]:
    capfdbinary.readouterr()
    assert __main__.main(["export", "--dataset", "market1501", "--what", what, "--split", split, *more]) == 0
    out, err = capfdbinary.readouterr()
    return out, err.decode()


@pytest.mark.parametrize("split", ["train", "test"])
def test_keypoints_come_back_byte_for_byte(lists, capfdbinary, split):
    out, err = export(capfdbinary, "keypoints", split)
    assert out.decode() == lists[split]
    assert f"{len(NAMES[split])} rows of keypoints ({split})" in err


def test_pair_splits(lists, capfdbinary):
    stored = store.read_table(layout.pairs("market1501")).to_pylist()

    def lines(*splits):
        rows = [row for row in stored if row["split"] in splits]
        return "from,to\n" + "".join(f"{row['source_id']},{row['target_id']}\n" for row in rows)

    assert {row["split"] for row in stored} == {"train", "val", "test"}
    for split, parts in {
        "train": ("train", "val"), "train-without-val": ("train",), "val": ("val",), "test": ("test",),
    }.items():  # fmt: skip
        out, err = export(capfdbinary, "pairs", split)
        assert out.decode() == lines(*parts)
        assert f"({split}: " in err
    raw = layout.raw("market1501") / "pairs-test.csv"
    assert export(capfdbinary, "pairs", "test")[0] == raw.read_bytes()
    out, err = export(capfdbinary, "pairs", "train")
    assert out.count(b"\n") == 1 + 5 * 3 * 2  # five people with three images each
    assert "30 pairs (train: 24 train + 6 val)" in err


def test_output_file_appears_whole_or_not_at_all(lists, capfdbinary, tmp_path, monkeypatch):
    target = tmp_path / "sub/pairs.csv"
    out, err = export(capfdbinary, "pairs", "train", "--output", str(target))
    assert out == b""
    assert str(target) in err
    before = target.read_bytes()
    assert before == export(capfdbinary, "pairs", "train")[0]

    def cut(_):
        yield "from,to\n"
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.formats.annotations.pair_lines", cut)
    arguments = ["export", "--dataset", "market1501", "--what", "pairs", "--split", "val", "--output", str(target)]
    assert __main__.main(arguments) == 130
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["pairs.csv"]


@pytest.mark.parametrize("kind", ["folder", "folder.zip"])
def test_openpose_json_comes_back(lists, capfdbinary, tmp_path, kind):
    target = tmp_path / "out" / kind
    out, err = export(capfdbinary, "openpose-json", "test", "--output", str(target))
    assert out == b""
    assert "6 files of keypoints (test)" in err
    rows = store.read_table(layout.keypoints("market1501")).to_pylist()
    rows = {row["image_id"]: row for row in rows if row["split"] == "test"}
    assert len(rows) == 6
    with archive.reading(target) as files:
        assert sorted(files.names) == sorted(f"{name.removesuffix('.jpg')}_keypoints.json" for name in rows)
    for name, (people, scores) in zip(rows, openpose_json.read(target, list(rows)), strict=True):
        assert pose.from_array(people[0], scores[0] > 0) == rows[name]["keypoints"]
        assert scores[0].tolist() == rows[name]["keypoint_scores"]
    assert [path.name for path in target.parent.iterdir()] == [kind]
    if target.is_file():  # an archive is replaced, a folder never
        first = target.read_bytes()
        export(capfdbinary, "openpose-json", "test", "--output", str(target))
        assert target.read_bytes() == first


@pytest.mark.parametrize("name", ["thesis.txt", "1234_keypoints.json"])  # the second might be one of an export's own
def test_openpose_json_replaces_no_folder_with_files(lists, capfdbinary, tmp_path, name):
    arguments = ["export", "--dataset", "market1501", "--what", "openpose-json", "--split", "test"]
    assert __main__.main(arguments) == 2
    assert "--output FOLDER or --output FILE.zip" in capfdbinary.readouterr()[1].decode()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("years of work")
    assert __main__.main([*arguments, "--output", str(tmp_path / "mine")]) == 2
    assert "name an empty or a new folder" in capfdbinary.readouterr()[1].decode()
    assert (tmp_path / "mine" / name).read_text() == "years of work"


# ---- generated images and models


@pytest.fixture
def trained(tmp_path, monkeypatch, one_thread):
    """A project with checkpoints of small networks with random weights, by variant."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            entry = VARIANTS[name]
            kappa = {"kappa": -0.1} if entry.limb_maps else {}
            network = entry.build(HEIGHT, WIDTH, 0.125, **kappa)
            with torch.no_grad():
                for parameter in network.parameters():  # what begins at zero would hide a part of the network
                    parameter.copy_(torch.randn_like(parameter) * 0.1 + parameter)
            write_checkpoints("synthetic", name, "variant", network, [3], ["steps"])
            folder = layout.checkpoints("synthetic", name)
            described = checkpoints.meta(folder) | kappa
            checkpoints.write_meta(folder, described | {"settings": {"width": 0.125}})

    return make


ALONE = r"""
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("models", "pipeline", "repose"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
import torch

torch.set_num_threads(1)
described = json.load(open(sys.argv[1]))
given = torch.load(sys.argv[2])
for one in described["inputs"]:
    tensor = given[one["name"]]
    assert list(tensor.shape) == one["shape"] and str(tensor.dtype) == "torch." + one["dtype"], one
known = {one["name"]: given[one["name"]] for one in described["inputs"]}
exec("\n".join(described["call"]), known)
assert list(known["image"].shape) == described["output"]["shape"]
assert not {"models", "pipeline"} & {name.split(".")[0] for name in sys.modules}
torch.save(known["image"], sys.argv[3])
"""


def alone(folder: Path, name: str) -> torch.Tensor:
    """What the exported program `name` makes of the tensors in given.pt, called as its JSON says, without Repose."""
    command = [sys.executable, "-c", ALONE, f"{name}.json", "given.pt", "made.pt"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PATH": "", "HOME": str(folder)})
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "made.pt")


def model(tmp_path: Path, variant: str, *more: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The image of the exported program on other inputs than it was traced with, and that of the network itself."""
    output = str(tmp_path / f"{variant}.pt2")
    arguments = ["--what", "model", "--variant", variant, "--output", output, *more]
    assert __main__.main(["export", "--dataset", "synthetic", *arguments]) == 0
    one = load_run(f"runs/synthetic/{variant}", device="cpu")
    given = portable.example(one, seed=1)
    torch.save(given, tmp_path / "given.pt")
    with torch.no_grad():
        expected = one.generator(Batch(target=None, **given)).image
    assert expected.isfinite().all()
    assert expected.std() > 0.01
    return alone(tmp_path, variant), expected


def test_a_model_runs_without_repose(trained, tmp_path, capsys):
    """To the last bit; on inputs that the export never saw."""
    trained("copy_source")
    found, expected = model(tmp_path, "copy_source", "--step", "3")
    assert torch.equal(found, expected)
    assert "export synthetic: copy_source, step 3, synthetic, " in capsys.readouterr().err
    described = json.loads((tmp_path / "copy_source.json").read_text())
    assert [one["name"] for one in described["inputs"]] == [
        "source", "source_joints", "source_valid", "target_joints", "target_valid",
    ]  # fmt: skip
    assert described["joints"][:2] == ["nose", "neck"]
    assert described["label_set"] is described["labels"] is None
    assert described["trained"]["step"] == 3


@pytest.mark.parametrize(("variant", "label_set"), [("spgnet", "cihp-20"), ("spt_ts_gt", "lip-20")])
def test_a_model_names_the_label_set_that_it_reads(trained, variant, label_set):
    trained(variant)
    described = portable.describe(load_run(f"runs/synthetic/{variant}", device="cpu"), "torch", "a.pt2")
    said = {one["name"]: one["is"] for one in described["inputs"] if one["name"].endswith("_labels")}
    assert described["label_set"] == label_set
    assert described["labels"] == list(labels.NAMES[label_set])
    assert said.pop("source_labels").startswith(f"human parsing, ids 0 to 19 of the set {label_set}")
    assert list(said) == ["target_labels"] * (variant == "spt_ts_gt")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["spig", "spgnet", "spt", "spt_ts_gt", "sgw", "patn", "gfla", "def_gan", "vunet"])
def test_every_family_s_model_runs_without_repose(trained, tmp_path, variant):
    trained(variant)
    found, expected = model(tmp_path, variant)
    assert torch.equal(found, expected)


@pytest.mark.slow
def test_a_model_as_onnx(trained, tmp_path):
    """Run by another engine: not to the last bit."""
    pytest.importorskip("onnxscript")
    import openvino

    trained("patn")
    output = str(tmp_path / "patn.onnx")
    arguments = ["--what", "model", "--variant", "patn", "--format", "onnx", "--output", output]
    assert __main__.main(["export", "--dataset", "synthetic", *arguments]) == 0
    one = load_run("runs/synthetic/patn", device="cpu")
    given = portable.example(one, seed=1)
    with torch.no_grad():
        expected = one.generator(Batch(target=None, **given)).image
    compiled = openvino.Core().compile_model(output, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (found,) = compiled({name: tensor.numpy() for name, tensor in given.items()}).values()
    apart = (torch.from_numpy(found) - expected).abs()
    assert apart.mean() < 1e-3 * expected.std()


def test_names_of_generated_images():
    pairs = [("a.jpg", "b.jpg"), ("a.png", "b.jpg"), ("b.jpg", "c_2_b.jpg")]
    assert pair_names.file_names(pairs) == [
        "a.jpg_2_b.jpg_vis.png", "a.png_2_b.jpg_vis.png", "b_2_c_2_b_vis.png",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"a\.jpg_2_b\.jpg_vis would be the image of two pairs"):
        pair_names.file_names([("a.jpg", "b.jpg"), ("a.jpg", "b.jpg")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--what", "model", "--variant", "patn"], "model is no text: say where with --output NAME.pt2 or NAME.onnx"),
        (["--what", "model", "--output", "x.pt2"], "say which trained network with --variant"),
        (
            ["--what", "model", "--variant", "patn", "--output", "x.bin"],
            "--output x.bin: give a name that ends in .pt2",
        ),
        (["--what", "model", "--variant", "spog", "--output", "x.pt2"], "unknown variant spog; known: "),
        (["--what", "model", "--variant", "spig", "--output", "x.pt2"], "no checkpoint; run: repose train"),
        (["--what", "generated", "--variant", "patn"], "generated is no text: say where with --output FOLDER"),
        (["--what", "pairs"], "pairs of which split? say --split train, "),
    ],
)
def test_what_cannot_be_written_is_one_line(trained, capsys, arguments, message):
    trained("patn")
    capsys.readouterr()
    assert __main__.main(["export", "--dataset", "synthetic", *arguments]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("repose:")]
    assert len(said) == 1
    assert message in said[0]
    assert sorted(path.name for path in Path().iterdir()) == ["runs"]


def test_onnx_without_its_package_is_one_line(trained, capsys, monkeypatch):
    trained("patn")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    arguments = ["--what", "model", "--variant", "patn", "--format", "onnx", "--output", "x.onnx"]
    assert __main__.main(["export", "--dataset", "synthetic", *arguments]) == 2
    assert "ONNX needs the package onnxscript; install it, or take --format torch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "nowhere", "--what", "pairs", "--split", "train"], "unknown data set nowhere; known: synthetic"),
        (["--dataset", "market1501", "--what", "keypoints", "--split", "val"], "keypoints have no split val"),
        (["--dataset", "synthetic", "--what", "pairs", "--split", "val"], "run: repose pairs --dataset synthetic"),
    ],
)
def test_what_cannot_be_exported_is_one_line(lists, capfdbinary, arguments, message):
    capfdbinary.readouterr()
    assert __main__.main(["export", *arguments]) == 2
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert message in err.decode()
    assert err.count(b"\n") == 1


def test_reader_that_stops_early(lists, tmp_path):
    """`export ... | head`: no traceback, no complaint. `true` has gone long before the first byte."""
    table = store.read_table(layout.keypoints("market1501"))
    assert len(table) > 1
    code = f"{sys.executable} -m pipeline export --dataset market1501 --what keypoints --split train | true"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(code, shell=True, capture_output=True, env=environment, check=False)
    assert b"Traceback" not in done.stderr
    assert b"Broken pipe" not in done.stderr
    assert b"15 rows of keypoints" in done.stderr
