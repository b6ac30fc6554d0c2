import numpy as np
import pytest

from pipeline import layout, pose, schema, store
from pipeline.datasets import annotations
from pipeline.errors import UserError
from pipeline.stages import keypoints
from tests.small_project import NAMES, annotation, contents, enter, joints, jpeg, write_raw


@pytest.fixture
def settle(tmp_path, monkeypatch):
    def settle(lists, **changes):
        enter(tmp_path, monkeypatch, **changes)
        return write_raw({"train/0001_x.jpg": jpeg(0)}, lists)

    return settle


def both(seed=0):
    return {split: annotation(names, *joints(seed, len(names))) for split, names in NAMES.items()}


def test_rows_joints_and_scores(settle):
    settle(both())
    keypoints.run("market1501")
    table = store.read_table(layout.keypoints("market1501"))
    assert table.schema.equals(schema.KEYPOINTS)
    ids = table.column("image_id").to_pylist()
    assert ids == sorted(ids)
    rows = {row["image_id"]: row for row in table.to_pylist()}
    for split, names in NAMES.items():
        points, valid = joints(0, len(names))
        for number, (name, point, seen) in enumerate(zip(names, points, valid, strict=True)):
            row = rows[name]
            assert (row["split"], row["row"], row["person_id"]) == (split, number, name.split("_")[0])
            assert row["keypoints"] == pose.from_array(point, seen)
            assert row["keypoint_scores"] == seen.astype(float).tolist()
            assert row["keypoint_source"] == "annotations"


def test_missing_is_where_y_is_minus_one(tmp_path):
    """Lists for cropped canvases hold joints left of the image: x is negative there, -1 included."""
    y = [-1, 0, 5] + [3] * 15
    x = [-1, -31, -1] + [3] * 15
    (tmp_path / "a.csv").write_text(f"name:keypoints_y:keypoints_x\na.jpg: {y}: {x}\n")
    names, points, valid = annotations.read_keypoints(tmp_path / "a.csv")
    assert valid[0].tolist() == [False] + [True] * 17
    assert points[0, 1].tolist() == [-31, 0]
    assert points[0, 2].tolist() == [-1, 5]
    assert points[0, 0].tolist() == [0, 0]
    assert "".join(annotations.keypoint_lines(names, points, valid)) == (tmp_path / "a.csv").read_text()


@pytest.mark.parametrize("seed", range(5))
def test_lists_round_trip_byte_for_byte(tmp_path, seed):
    names = [f"{i:04d}.jpg.jpg" for i in np.random.default_rng(seed).permutation(50)]
    text = annotation(names, *joints(seed, 50))
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert "".join(annotations.keypoint_lines(*annotations.read_keypoints(tmp_path / "a.csv"))) == text


def test_windows_line_ends_are_read(tmp_path):
    text = annotation(["a.jpg"], *joints(0, 1))
    (tmp_path / "a.csv").write_bytes(text.replace("\n", "\r\n").encode())
    assert "".join(annotations.keypoint_lines(*annotations.read_keypoints(tmp_path / "a.csv"))) == text


def test_joint_rounded_to_minus_one_stays_a_joint():
    points = np.full((1, 18, 2), -0.7, np.float32)
    line = list(annotations.keypoint_lines(["a"], points, np.ones((1, 18), bool)))[1]
    assert line == f"a: {[0] * 18}: {[-1] * 18}\n"


GOOD = annotation(["a.jpg", "b.jpg", "c.jpg"], *joints(1, 3))
BROKEN = {
    "column missing in the header": (GOOD.replace(":keypoints_x", "", 1), "line 1"),
    "no header": (GOOD.split("\n", 1)[1], "line 1"),
    "column missing in a row": (GOOD.replace("b.jpg: ", ""), "line 3"),
    "a joint missing": (GOOD.replace("c.jpg: [", "c.jpg: ["[:-1] + "[5, "), "line 4"),
    "no number": (GOOD.replace("b.jpg: [", "b.jpg: [x"), "line 3"),
    "a word": (GOOD.replace("c.jpg: [", 'c.jpg: ["5", ').replace(", -1]: [", "]: [", 1), "line"),
    "not finite": (GOOD.replace("b.jpg: [", "b.jpg: [1e999, "), "line 3"),
    "cut": (GOOD[:-10], "line 4"),
    "empty line": (GOOD.replace("b.jpg", "\nb.jpg"), "line 3"),
    "twice": (GOOD.replace("c.jpg", "a.jpg"), "line 4: a.jpg occurs twice, first in line 2"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_list_names_file_and_line(settle, case):
    text, where = BROKEN[case]
    raw = settle(both() | {"test": text})
    with pytest.raises(UserError) as error:
        keypoints.run("market1501")
    assert str(raw / "annotation-test.csv") in str(error.value)
    assert where in str(error.value)
    assert "\n" not in str(error.value)
    assert not layout.keypoints("market1501").exists()


def test_bytes_that_are_no_text(settle):
    raw = settle(both())
    path = raw / "annotation-train.csv"
    path.write_bytes(path.read_bytes()[:40] + b"\xff\xfe" + path.read_bytes()[40:])
    with pytest.raises(UserError, match=r"annotation-train\.csv: line 2 is not UTF-8"):
        keypoints.run("market1501")


def test_name_in_both_lists(settle):
    lists = both()
    lists["test"] = lists["test"].replace(NAMES["test"][2], NAMES["train"][0])
    settle(lists)
    with pytest.raises(UserError, match="in the train list and in the test list"):
        keypoints.run("market1501")


def test_list_that_is_not_there(settle):
    settle({"train": both()["train"]})
    with pytest.raises(UserError, match=r"annotation-test\.csv: not there"):
        keypoints.run("market1501")


def test_oracle_needs_a_renderer(settle, monkeypatch, tmp_path):
    settle(both())
    with pytest.raises(UserError, match="only a rendered data set has an oracle"):
        keypoints.table(layout.raw("market1501"), "market1501", "oracle")


def test_same_lists_same_bytes(settle):
    settle(both())
    keypoints.run("market1501")
    first = contents(layout.keypoints("market1501").parent)
    keypoints.run("market1501")
    assert contents(layout.keypoints("market1501").parent) == first
