import json
import re
import shutil
import zipfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.anatomy import pose
from pipeline.core import layout, resume, schema, store
from pipeline.core.errors import UserError
from pipeline.extraction import openpose
from pipeline.formats import annotations, openpose_json, pictures
from pipeline.loading import prepared, published_weights
from pipeline.report import prepared as counted
from pipeline.stages import fetch, index, keypoints, pairs, weights
from tests.extraction.test_topdown import COCO_OF, network, painted
from tests.small_project import NAMES, PERSON, annotation, contents, enter, joints, jpeg, write_raw


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


def test_a_byte_order_mark_is_skipped(tmp_path):
    """Notepad and Excel write one; the header looked the same, and was not."""
    text = annotation(["a.jpg"], *joints(0, 1))
    (tmp_path / "a.csv").write_text(text, encoding="utf-8-sig")
    assert "".join(annotations.keypoint_lines(*annotations.read_keypoints(tmp_path / "a.csv"))) == text
    (tmp_path / "p.csv").write_text("from,to\na.jpg,b.jpg\n", encoding="utf-8-sig")
    assert annotations.read_pairs(tmp_path / "p.csv") == [("a.jpg", "b.jpg")]


def test_joint_rounded_to_minus_one_stays_a_joint():
    points = np.full((1, 18, 2), -0.7, np.float32)
    line = list(annotations.keypoint_lines(["a"], points, np.ones((1, 18), bool)))[1]
    assert line == f"a: {[0] * 18}: {[-1] * 18}\n"


GOOD = annotation(["a.jpg", "b.jpg", "c.jpg"], *joints(1, 3))
BROKEN = {
    "column missing in the header": (GOOD.replace(":keypoints_x", "", 1), "line 1"),
    "no header": (GOOD.split("\n", 1)[1], "line 1"),
    "columns in another order": (
        GOOD.replace("keypoints_y:keypoints_x", "keypoints_x:keypoints_y", 1),
        "line 1 .*in another order",
    ),
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
    assert re.search(where, str(error.value))
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
    with pytest.raises(UserError, match=r"annotation-test\.csv: no such keypoint list"):
        keypoints.run("market1501")


def test_oracle_needs_a_renderer(settle, monkeypatch, tmp_path):
    settle(both())
    with pytest.raises(UserError, match="only a rendered data set has an oracle"):
        keypoints.table("market1501", "oracle")


def test_same_lists_same_bytes(settle):
    settle(both())
    keypoints.run("market1501")
    first = contents(layout.keypoints("market1501").parent)
    keypoints.run("market1501")
    assert contents(layout.keypoints("market1501").parent) == first


# Detectors


def settle_images(settle, source, lists=None, **changes):
    """A project with all images of NAMES indexed and `keypoints.market1501.source` set; returns data/market1501/raw."""
    raw = settle({}, keypoints__market1501={"source": source}, **changes)
    shutil.rmtree(raw)
    encoded = {f"{split}/{name}": jpeg(seed) for split in NAMES for seed, name in enumerate(NAMES[split])}
    write_raw(encoded, lists or {})
    index.run("market1501")
    return raw


def brightness(found):
    """A stand-in for a detector: joint j lies at (mean of the image, j); every third is missing. Counts its images."""

    def find(images):
        found.extend(images)
        points, scores = np.zeros((len(images), 18, 2), np.float32), np.zeros((len(images), 18), np.float32)
        for row, image in enumerate(images):
            assert image.shape == (128, 64, 3)
            points[row] = [(image.mean(), j) for j in range(18)]
            scores[row] = image[..., 0].mean() / 255  # red
        scores[:, ::3], points[:, ::3] = 0, 0
        return points, scores

    return find


def stored_pictures():
    rows = store.read_table(layout.images("market1501")).to_pylist()
    return {row["image_id"]: cv2.imdecode(np.frombuffer(row["image"]["bytes"], np.uint8), 1) for row in rows}


@pytest.mark.parametrize("listed", [True, False])
def test_a_detector_gives_every_image_a_row(settle, monkeypatch, listed):
    settle_images(settle, "openpose", both() if listed else None)
    seen = []
    monkeypatch.setattr(keypoints, "detector", lambda source: (brightness(seen), []))
    keypoints.run("market1501")
    table = store.read_table(layout.keypoints("market1501"))
    assert table.schema.equals(schema.KEYPOINTS)
    stored = stored_pictures()
    assert table.column("image_id").to_pylist() == sorted(stored)
    assert len(seen) == len(stored)
    for row in table.to_pylist():
        picture, names = stored[row["image_id"]], NAMES[row["split"]]
        assert row["image_id"] in names
        assert row["row"] == (names if listed else sorted(names)).index(row["image_id"])
        assert row["person_id"] == row["image_id"].split("_")[0]
        assert row["keypoint_source"] == "openpose"
        red = np.float32(picture[..., 2].mean() / 255)
        for j in range(18):
            if j % 3 == 0:
                assert row["keypoints"][j] is None
                assert row["keypoint_scores"][j] == 0
            else:
                assert row["keypoints"][j] == pytest.approx([picture.mean(), j], rel=1e-6)
                assert row["keypoint_scores"][j] == red


def test_killed_detection_goes_on(settle, monkeypatch):
    settle_images(settle, "openpose", both())
    monkeypatch.setattr(keypoints.resume, "rows", partial(resume.rows, chunk=4))
    seen = []
    monkeypatch.setattr(keypoints, "detector", lambda source: (brightness(seen), []))
    keypoints.run("market1501")
    whole = layout.keypoints("market1501").read_bytes()
    count = len(seen)
    layout.keypoints("market1501").unlink()
    assert not layout.work("keypoints", "market1501").exists()

    seen.clear()
    find = brightness(seen)

    def killed(images):
        if len(seen) >= 8:
            raise KeyboardInterrupt
        return find(images)

    monkeypatch.setattr(keypoints, "detector", lambda source: (killed, []))
    with pytest.raises(KeyboardInterrupt):
        keypoints.run("market1501")
    assert not layout.keypoints("market1501").exists()
    assert len(seen) == 8
    monkeypatch.setattr(keypoints, "detector", lambda source: (find, []))
    keypoints.run("market1501")
    assert len(seen) == count  # nothing twice
    assert layout.keypoints("market1501").read_bytes() == whole
    assert not layout.work("keypoints", "market1501").exists()


@pytest.mark.parametrize("source", ["openpose", "topdown"])
def test_a_network_that_is_not_there_is_one_line(settle, source):
    settle_images(settle, source)
    folder = layout.weights(source)
    folder.mkdir(parents=True)
    (folder / "source.json").write_text(
        json.dumps({"net": source, "status": "missing", "reason": "no url", "files": {}})
    )
    message = rf"set weights\.{source}\.path in params\.yaml and run `repose weights --net {source}`"
    with pytest.raises(UserError, match=message):
        keypoints.run("market1501")


def test_a_topdown_network_of_ones_own(settle, tmp_path):
    """From params.yaml to the table: the painted joints of each image, in its pixels."""
    path = network(tmp_path / "mine.onnx", "simcc")
    raw = settle_images(settle, "topdown", weights__topdown__path=str(path))
    truth, encoded = {}, {}
    for split, names in NAMES.items():
        for seed, name in enumerate(names):
            image, truth[name] = painted(128, 64, seed)
            encoded[f"{split}/{name}"] = cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()
    shutil.rmtree(raw)
    write_raw(encoded, {})
    index.run("market1501")
    weights.run("topdown")
    assert published_weights.files("topdown") == [layout.weights("topdown") / "topdown.onnx"]
    keypoints.run("market1501")
    for row in store.read_table(layout.keypoints("market1501")).to_pylist():
        centres = truth[row["image_id"]]
        for joint, coco in COCO_OF.items():
            assert row["keypoints"][joint] == pytest.approx(centres[coco], abs=0.9)
        assert row["keypoint_source"] == "topdown"


# OpenPose's files


def openpose_files(folder, names, people):
    folder.mkdir()
    for name, found in zip(names, people, strict=True):
        values = [np.column_stack([points, scores]).reshape(-1).tolist() for points, scores in found]
        text = json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": one} for one in values]})
        (folder / openpose_json.member(name)).write_text(text)


def test_openpose_files_stand_in_for_a_list(settle, monkeypatch):
    """Train from the CSV, test from OpenPose's files: of several people the central one, and nobody is 18 nulls."""
    settle_images(settle, "annotations", {"train": both()["train"]}, keypoints__market1501__path="own")
    names = sorted(NAMES["test"])
    rng = np.random.default_rng(0)
    middle = [rng.normal(PERSON, 2).astype(np.float32) for _ in names]
    aside = [points + np.float32((-28, 0)) for points in middle]
    sure = np.full(18, 0.5, np.float32)
    sure[3] = 0
    people = [[(a, sure), (m, sure)] for a, m in zip(aside, middle, strict=True)]
    people[2] = []
    Path("own").mkdir()
    openpose_files(Path("own/openpose-test"), names, people)
    keypoints.run("market1501")
    rows = store.read_table(layout.keypoints("market1501"))
    rows = rows.filter(pc.equal(rows.column("split"), "test")).to_pylist()
    assert [row["image_id"] for row in rows] == names
    assert [row["row"] for row in rows] == list(range(len(names)))
    for number, row in enumerate(rows):
        present = (sure > 0) & (number != 2)
        assert row["keypoints"] == pose.from_array(middle[number], present)
        assert row["keypoint_scores"] == np.where(present, sure, 0).tolist()
        assert row["keypoint_source"] == "files"
    monkeypatch.setattr(prepared, "_complete", lambda dataset: True)
    assert prepared.marks("market1501") == ["joints"]  # half of them are not the published


EVERY = [*NAMES["train"], *NAMES["test"]]


def own_joints(form: str) -> Path:
    """Joint j of every image of NAMES at (30, 5 + 6 j), in the folder or zip `own` (.zip), in one of five forms."""
    points, sure = np.array([(30, 5 + 6 * j) for j in range(18)], np.float32), np.full(18, 0.5, np.float32)
    own = Path("own")
    if form == "lists":
        own.mkdir()
        for split, names in NAMES.items():
            text = annotation(names, points[None].repeat(len(names), 0), np.ones((len(names), 18), bool))
            (own / f"annotation-{split}.csv").write_text(text)
    elif form == "folder":
        openpose_files(own, EVERY, [[(points, sure)]] * 21)
    elif form == "a folder a split":
        own.mkdir()
        for split, names in NAMES.items():
            openpose_files(own / f"openpose-{split}", names, [[(points, sure)]] * len(names))
    else:
        openpose_files(Path("plain"), EVERY, [[(points, sure)]] * 21)
        with zipfile.ZipFile("own.zip", "w") as file:
            for path in Path("plain").iterdir():
                file.writestr(form.replace("NAME", path.name), path.read_bytes())
        return Path("own.zip")
    return own


@pytest.mark.parametrize("form", ["lists", "folder", "a folder a split", "NAME", "json\\NAME"])
def test_joints_of_ones_own_in_every_form(settle, form):
    path = "own" if "NAME" not in form else "own.zip"
    settle_images(settle, "annotations", keypoints__market1501__path=path)
    own_joints(form)
    keypoints.run("market1501")
    rows = store.read_table(layout.keypoints("market1501")).to_pylist()
    assert [row["image_id"] for row in rows] == sorted(EVERY)
    for row in rows:
        assert row["keypoints"] == [[30, 5 + 6 * j] for j in range(18)]
        assert row["keypoint_source"] == "files"


def test_a_zip_of_joints_that_is_cut_short_is_called_so(settle):
    settle_images(settle, "annotations", keypoints__market1501__path="own.zip")
    path = own_joints("NAME")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"own\.zip: not a whole zip archive"):
        keypoints.run("market1501")


def test_what_is_no_place_of_joints_is_one_line(settle):
    settle_images(settle, "annotations", keypoints__market1501__path="own")
    own, key = Path("own"), r"keypoints\.market1501\.path"
    with pytest.raises(UserError, match=f"own: no such file or folder; correct {key}"):
        keypoints.run("market1501")
    own.write_text(both()["train"])
    with pytest.raises(UserError, match=f"own: no folder and no zip; {key} names a folder, also where it holds CSVs"):
        keypoints.run("market1501")
    own.unlink()
    own.mkdir()
    with pytest.raises(UserError, match=r"own: holds no NAME_keypoints\.json .*annotation-train\.csv"):
        keypoints.run("market1501")
    (own / "annotation-train.csv").write_text(both()["train"].replace("0007_c1", "anna_0"))
    (own / "annotation-test.csv").write_text(annotation(["test/a.jpg"], *joints(0, 1)))
    with pytest.raises(UserError, match=r"lists none of the 6 test images, the first -1_c1s1.* in it is test/a\.jpg"):
        keypoints.run("market1501")
    assert not layout.keypoints("market1501").exists()


def test_joints_of_another_picture_are_refused_and_doubtful_ones_kept_in_mind(settle, capfd):
    """Of the photographs as they were taken: twice as large; then of people who stand aside, which can be."""
    settle_images(settle, "annotations", keypoints__market1501__path="own")
    Path("own").mkdir()
    for split, names in NAMES.items():
        points, valid = joints(0, len(names))
        (Path("own") / f"annotation-{split}.csv").write_text(annotation(names, 2 * points, valid))
    with pytest.raises(UserError, match=r"lie outside the image: x .* of 128x64 .*source in params\.yaml to openpose"):
        keypoints.run("market1501")
    assert not layout.keypoints("market1501").exists()
    for split, names in NAMES.items():
        points, valid = np.tile(PERSON, (len(names), 1, 1)), np.ones((len(names), 18), bool)
        (Path("own") / f"annotation-{split}.csv").write_text(annotation(names, points, valid))
    keypoints.run("market1501")
    doubts = json.loads(pq.read_schema(layout.keypoints("market1501")).metadata[b"doubts"])
    assert doubts == ["all 21 images have the same joints"]
    assert f"keypoints market1501 (annotations): WARNING: {doubts[0]}" in capfd.readouterr().err
    assert ("doubtful", doubts[0]) in [line[:2] for line in counted.STAGES["keypoints"].lines("market1501")]


def test_own_lists_name_images_by_their_paths(settle):
    """PERSON/NAME in a list, or as a file's place, is the image PERSON__NAME; NAME alone, where there is one."""
    settle({}, keypoints__folder={"source": "annotations", "path": "own"}, datasets=["folder"])
    images = {"train": ["anna__0.jpg", "anna__1.jpg"], "test": ["bob__0.jpg", "bob__2.jpg"]}
    encoded = {f"{split}/{name}": jpeg(0) for split, names in images.items() for name in names}
    write_raw(encoded, {}, "folder")
    index.run("folder")
    own, points = Path("own"), joints(0, 4, range(18))[0]
    own.mkdir()
    person = np.ones(18, np.float32)
    for place, point in zip(("anna/0", "anna/1", "bob/0", "2"), points, strict=True):
        path = own / f"{place}_keypoints.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(openpose_json.write(point, person))
    keypoints.run("folder")
    assert stored_joints("folder") == dict(zip([*images["train"], *images["test"]], points.tolist(), strict=True))
    shutil.rmtree(own)
    own.mkdir()
    for number, (split, names) in enumerate(images.items()):
        paths = [name.replace("__", "/") for name in names]
        text = annotation(paths, points[2 * number : 2 * number + 2], np.ones((2, 18), bool))
        (own / f"annotation-{split}.csv").write_text(text)
    keypoints.run("folder")
    assert stored_joints("folder") == dict(zip([*images["train"], *images["test"]], points.tolist(), strict=True))


def stored_joints(dataset: str) -> dict[str, list]:
    return {row["image_id"]: row["keypoints"] for row in store.read_table(layout.keypoints(dataset)).to_pylist()}


@pytest.mark.parametrize("source", ["openpose", "topdown", "oracle"])
def test_own_joints_and_a_detector_exclude_each_other(settle, source):
    settle({}, keypoints__market1501={"source": source, "path": "own"})
    with pytest.raises(UserError, match=rf"keypoints\.market1501\.path is for annotations, not for {source}"):
        keypoints.run("market1501")


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("market1501", "openpose-test"),
        ("market1501", "pairs-train.csv"),
        ("folder", "openpose-train.zip"),
        ("folder", "annotation-train.csv"),
        ("folder", "pairs-test.csv"),
    ],
)
def test_own_joints_inside_an_output_are_refused_and_kept(settle, dataset, name):
    """`fetch` writes data/D/raw anew: it did so with the user's files in it, which were lost."""
    settle({}, keypoints__folder={"source": "annotations"})
    place = layout.raw(dataset) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("mine")
    for stage in (keypoints, fetch) if "pairs" not in name else (pairs, fetch):
        with pytest.raises(
            UserError, match=rf"{name}: .* nothing of yours may lie there; .*(keypoints|pairs)\.{dataset}\.path"
        ):
            stage.run(dataset)
    assert place.read_text() == "mine"


def test_a_split_without_images_needs_no_list(settle):
    raw = settle({}, keypoints__market1501={"source": "annotations"})
    shutil.rmtree(raw)
    write_raw({f"test/{name}": jpeg(0) for name in NAMES["test"]}, {"test": both()["test"]})
    index.run("market1501")
    keypoints.run("market1501")
    table = store.read_table(layout.keypoints("market1501"))
    assert table.column("image_id").to_pylist() == sorted(NAMES["test"])


@pytest.mark.real
def test_openpose_from_weights_to_table(settle, mirror, monkeypatch):
    """The real network on four real crops through the stage, beside the same crops given to the network directly."""
    monkeypatch.setenv("REPOSE_MIRROR", str(mirror))
    raw = settle({}, keypoints__market1501={"source": "openpose"})
    shutil.rmtree(raw)
    with zipfile.ZipFile(mirror / "market1501/Market-1501-v15.09.15.zip") as archive:
        members = [name for name in archive.namelist() if "bounding_box_train/" in name and name.endswith(".jpg")]
        chosen = {f"train/{name.rsplit('/', 1)[1]}": archive.read(name) for name in members[:4]}
    write_raw(chosen, {})
    index.run("market1501")
    weights.run("openpose")
    keypoints.run("market1501")
    found, valid = pose.batch_arrays(store.read_table(layout.keypoints("market1501")).column("keypoints"))
    images = [pictures.decode_stored(chosen[name], name) for name in sorted(chosen)]
    expected, scores = openpose.OpenPose(published_weights.files("openpose")).central_people(images)
    assert valid.sum() > 40
    assert np.array_equal(valid, scores > 0)
    assert np.array_equal(found, expected)
