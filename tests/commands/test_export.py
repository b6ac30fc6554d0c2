import os
import subprocess
import sys

import pytest

from pipeline import __main__
from pipeline.anatomy import pose
from pipeline.core import layout, store
from pipeline.formats import archive, openpose_json
from pipeline.stages import keypoints, pairs
from tests.conftest import ROOT
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
    (raw / "pairs-test.csv").write_text(f"from,to\n{test[4]},{test[2]}\n{test[3]},{test[5]}\n")
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
    for _ in range(2):  # the second time over the first
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
    first = target.read_bytes() if target.is_file() else None
    export(capfdbinary, "openpose-json", "test", "--output", str(target))
    assert first is None or target.read_bytes() == first


def test_openpose_json_overwrites_nothing_else(lists, capfdbinary, tmp_path):
    arguments = ["export", "--dataset", "market1501", "--what", "openpose-json", "--split", "test"]
    assert __main__.main(arguments) == 2
    assert "--output FOLDER or --output FILE.zip" in capfdbinary.readouterr()[1].decode()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    assert __main__.main([*arguments, "--output", str(tmp_path / "mine")]) == 2
    assert "holds other things" in capfdbinary.readouterr()[1].decode()
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "nowhere", "--what", "pairs", "--split", "train"], "unknown data set nowhere; known: synthetic"),
        (["--dataset", "market1501", "--what", "keypoints", "--split", "val"], "keypoints have no split val"),
        (["--dataset", "synthetic", "--what", "pairs", "--split", "val"], "run the stage that writes it"),
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
