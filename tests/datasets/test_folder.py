import hashlib
import json
import zipfile
from collections import Counter
from io import BytesIO
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline import __main__
from pipeline.anatomy import pose
from pipeline.core import layout, params, store
from pipeline.core.errors import UserError
from pipeline.datasets import folder, synthetic
from pipeline.stages import fetch, index, pairs
from tests.datasets.test_deepfashion import project
from tests.small_project import annotation, contents

RAW = layout.raw("folder")
PEOPLE = ("anna", "bo", "carla")


def photograph(seed: int, height: int = 60, width: int = 90) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(cv2.resize(noise, (width, height)))


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """(H, W, 3) RGB of the stored bytes, as the stages read them."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@pytest.fixture
def block(tmp_path) -> dict:
    """The block for `mine/`: three people, three JPEGs each, and what else lies in such folders."""
    for seed, (person, number) in enumerate((person, number) for person in PEOPLE for number in (1, 2, 3)):
        path = tmp_path / f"mine/{person}/{'summer/' if number == 3 else ''}{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(photograph(seed)))
    (tmp_path / "mine/anna/notes.txt").write_text("not an image")
    (tmp_path / "mine/anna/.DS_Store").write_bytes(b"x")
    (tmp_path / "mine/.thumbnails").mkdir()
    (tmp_path / "mine/.thumbnails/1.jpg").write_bytes(b"x")
    return {
        "path": str(tmp_path / "mine"),
        "identity": "subfolder",
        "csv": None,
        "test_share": 0.2,
        "height": 128,
        "width": 64,
        "fit": "pad",
    }


@pytest.fixture
def run(tmp_path, monkeypatch, block):
    def run(**stages) -> dict:
        project(tmp_path / "project", monkeypatch, "folder", fetch=block, **stages)
        fetch.run("folder")
        return json.loads((RAW / "source.json").read_text())

    yield run
    params.load.cache_clear()


def stored() -> dict[str, bytes]:
    with zipfile.ZipFile(RAW / "images.zip") as file:
        return {name: file.read(name) for name in file.namelist()}


def test_ids_and_splits(run, tmp_path):
    source = run()
    test = min(PEOPLE, key=lambda person: hashlib.sha256(person.encode()).hexdigest())
    ids = [f"{person}__{rest}" for person in PEOPLE for rest in ("1.jpg", "2.jpg", "summer__3.jpg")]
    expected = {f"{'test' if one.startswith(test) else 'train'}/{one}" for one in ids}
    assert set(stored()) == expected
    assert list(stored()) == sorted(expected)
    assert {folder.person_id(one) for one in ids} == set(PEOPLE)
    assert source["images"] == {"train": {"count": 6, "people": 2}, "test": {"count": 3, "people": 1}}
    assert source["left_out"] == {}
    assert str(tmp_path) not in (RAW / "source.json").read_text()


def test_same_folder_same_bytes(run):
    run()
    first = contents(Path("data"))
    run()
    assert contents(Path("data")) == first


@pytest.mark.parametrize(
    ("height", "width", "inner"),
    [(60, 90, (42, 43, 64)), (200, 50, (0, 128, 32)), (128, 64, (0, 128, 64)), (10, 10, (32, 64, 64))],
)
def test_pad_keeps_the_shape_and_repeats_the_border(height, width, inner):
    """inner: first row, rows and columns of the picture on the 128 x 64 canvas, worked out by hand."""
    picture = photograph(3, height, width)
    data, reason = folder.fitted(encoded(picture, "PNG"), 128, 64, "pad")
    assert reason == ""
    top, rows, columns = inner
    left = (64 - columns) // 2
    canvas = decoded(data)
    assert canvas.shape == (128, 64, 3)
    part = canvas[top : top + rows, left : left + columns]
    np.testing.assert_array_equal(part, np.asarray(picture.resize((columns, rows), Image.Resampling.BICUBIC)))
    assert (canvas[:top] == canvas[top]).all()
    assert (canvas[top + rows :] == canvas[top + rows - 1]).all()
    assert (canvas[:, :left] == canvas[:, left : left + 1]).all()
    assert (canvas[:, left + columns :] == canvas[:, left + columns - 1 :][:, :1]).all()


def test_squash_fills_the_canvas():
    picture = photograph(3)
    data, _ = folder.fitted(encoded(picture, "PNG"), 128, 64, "squash")
    np.testing.assert_array_equal(decoded(data), np.asarray(picture.resize((64, 128), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_right_size_keeps_its_bytes(kind, mode):
    data = encoded(photograph(1, 128, 64).convert(mode), kind)
    assert folder.fitted(data, 128, 64, "pad") == (data, "")
    assert folder.fitted(data, 64, 128, "pad")[0] != data


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_camera_held_on_its_side(orientation):
    picture = photograph(5, 128, 64)
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data, _ = folder.fitted(encoded(picture.transpose(turn), "PNG", exif=exif), 128, 64, "pad")
    np.testing.assert_array_equal(decoded(data), np.asarray(picture))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(mode):
    picture = photograph(5, 128, 64).convert("RGBA")
    picture.putalpha(Image.fromarray(np.repeat(np.uint8([255, 0]), 64)[:, None].repeat(64, axis=1)))
    data, _ = folder.fitted(encoded(picture.convert(mode), "PNG"), 128, 64, "pad")
    assert (decoded(data)[64:] == 255).all()
    opaque = picture.convert("RGB" if mode != "LA" else "L").convert("RGB")
    assert np.abs(decoded(data)[:64].astype(int) - np.asarray(opaque)[:64]).mean() < (30 if mode == "P" else 0.01)


BAD = {
    "cut": (encoded(photograph(0))[:300], "does not decode"),
    "text": (b"this is no picture", "does not decode"),
    "empty": (b"", "does not decode"),
    "deep": (encoded(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG"), "has pixels of kind I;16, not 8 bits"),
}


@pytest.mark.parametrize("case", BAD)
def test_image_that_cannot_be_used(case):
    data, reason = folder.fitted(BAD[case][0], 128, 64, "pad")
    assert data is None
    assert reason.startswith(BAD[case][1])


def test_what_is_left_out_is_listed(run, tmp_path, capsys):
    mine = tmp_path / "mine"
    (mine / "anna/4.HEIC").write_bytes(b"x")
    (mine / "bo/4.jpg").write_bytes(b"no picture")
    (mine / "nobody.png").write_bytes(encoded(photograph(0), "PNG"))
    source = run()
    assert source["left_out"] == {
        "anna/4.HEIC": "is HEIC, which is not read here; convert it to JPEG or PNG",
        "bo/4.jpg": "does not decode",
        "nobody.png": "is in no sub-folder: whose is it?",
    }
    assert sum(split["count"] for split in source["images"].values()) == 9
    assert "folder: 3 files left out: anna/4.HEIC is HEIC" in " ".join(capsys.readouterr().err.split())


def test_single_images_are_counted_and_never_tested(run, tmp_path, capsys):
    for person in ("dora", "emil", "fay"):
        (tmp_path / "mine" / person).mkdir()
        (tmp_path / "mine" / person / "1.jpg").write_bytes(encoded(photograph(0)))
    source = run()
    assert source["people_with_one_image"] == 3
    assert source["images"] == {"train": {"count": 9, "people": 5}, "test": {"count": 3, "people": 1}}
    assert "3 people have a single image: no pairs of them" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("share", "expected"), [(0.01, 1), (0.5, 2), (0.99, 2)])
def test_test_share_leaves_somebody_on_both_sides(run, block, share, expected):
    block["test_share"] = share
    assert run()["images"]["test"]["people"] == expected


def table(tmp_path: Path, block: dict, text: str) -> None:
    (tmp_path / "people.csv").write_text(text)
    block |= {"identity": "csv", "csv": str(tmp_path / "people.csv")}


def test_csv_names_people_and_splits(run, block, tmp_path):
    lines = ["name,identity,split", "anna/1.jpg,Zoë,train", "bo/1.jpg,Zoë,train", '"./bo/2.jpg",max,test']
    lines += ["carla/summer/3.jpg,max,test"]
    table(tmp_path, block, "\ufeff" + "\n".join(lines) + "\n\n")
    source = run()
    assert set(stored()) == {
        "train/Zoë__anna__1.jpg",
        "train/Zoë__bo__1.jpg",
        "test/max__bo__2.jpg",
        "test/max__carla__summer__3.jpg",
    }
    assert folder.person_id("max__carla__summer__3.jpg") == "max"
    assert source["left_out"]["anna/2.jpg"] == "is not in the CSV"
    assert len(source["left_out"]) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,who\n", r"line 1 is 'file,who', not the header name,identity"),
        ("name,identity\nanna/1.jpg\n", r"line 2 has not the columns name,identity"),
        ("name,identity\nanna/9.jpg,zoe\n", r"line 2: no image anna/9.jpg in"),
        ("name,identity\nanna/1.jpg,zoe\nanna/1.jpg,max\n", r"line 3: anna/1.jpg is zoe in a line before, max here"),
        ("name,identity,split\nanna/1.jpg,zoe,val\n", r"line 2: a person's split is train or test"),
        (
            "name,identity,split\nanna/1.jpg,z,test\nbo/1.jpg,z,train\n",
            r"line 3: .* the same in every line; z has train",
        ),
        ("name,identity,split\nanna/1.jpg,z,test\nbo/1.jpg,y,test\n", r"nobody for the train split"),
        ("name,identity\nanna/1.jpg,a__b\n", r"rename the person 'a__b'"),
        ("name,identity\nanna/1.jpg,a/b\n", r"rename 'anna/1.jpg'|rename the person"),
        ("name,identity\n", r"no image of anybody: fetch.folder.csv names none"),
    ],
)
def test_broken_csv_names_the_line(run, block, tmp_path, text, message):
    table(tmp_path, block, text)
    with pytest.raises(UserError, match=message):
        run()


@pytest.mark.parametrize("name", ["anna_", "an__na"])
def test_person_that_makes_no_id(run, tmp_path, name):
    (tmp_path / "mine/anna").rename(tmp_path / "mine" / name)
    with pytest.raises(UserError, match=f"rename the person '{name}'"):
        run()


@pytest.mark.parametrize("name", ["1,2.jpg", 'a"b.jpg', "new\nline.jpg"])
def test_name_that_breaks_lists(run, tmp_path, name):
    (tmp_path / "mine/anna/1.jpg").rename(tmp_path / "mine/anna" / name)
    with pytest.raises(UserError, match="no comma, quote, slash or unprintable character"):
        run()


def test_two_files_with_one_id(run, tmp_path):
    (tmp_path / "mine/anna/summer__3.jpg").write_bytes(encoded(photograph(0)))
    with pytest.raises(UserError, match=r"both make the id anna__summer__3\.jpg; rename one"):
        run()


def test_too_few_people(run, tmp_path):
    for person in ("bo", "carla"):
        (tmp_path / "mine" / person).rename(tmp_path / person)
    with pytest.raises(UserError, match="1 people with 3 images give nobody for the train split"):
        run()


@pytest.mark.parametrize(
    ("path", "message"), [(None, r"fetch\.folder\.path in params\.yaml"), ("/not/there", "no such folder; correct")]
)
def test_without_a_folder(run, block, path, message):
    block["path"] = path
    with pytest.raises(UserError, match=message):
        run()


def test_from_own_images_to_pairs(run, block, tmp_path):
    """Rendered people as a camera's JPEGs, through every data stage up to pairs; joints from a list made by hand."""
    for path in (tmp_path / "mine").rglob("*.jpg"):
        path.unlink()
    scenes = synthetic.scenes(0, "train", 3, 3)
    joints = {}
    for scene, person in zip(scenes, np.repeat(PEOPLE, 3), strict=True):
        drawn = synthetic.render(scene, 128, 64)
        name = f"{scene.view}.jpg"
        (tmp_path / f"mine/{person}" / name).write_bytes(encoded(Image.fromarray(drawn.image), quality=95))
        joints[f"{person}__{name}"] = drawn.joints
    (tmp_path / "joints").mkdir()
    run(
        keypoints={"source": "annotations", "path": str(tmp_path / "joints")},
        pairs={"val_fraction": 0.1, "test_list": "sampled", "test_pairs": None, "seed": 0},
    )
    split_of = dict(name.split("/")[::-1] for name in stored())
    seen = {}
    for split in ("train", "test"):
        names = sorted(name for name in joints if split_of[name] == split)
        points = np.rint(np.stack([joints[name] for name in names]))
        valid = ~np.isnan(points).any(axis=2)
        (tmp_path / f"joints/annotation-{split}.csv").write_text(annotation(names, points, valid))
        seen |= dict(zip(names, valid[:, pose.SHOULDERS_AND_HIPS].all(axis=1), strict=True))
    for stage in ("index", "keypoints", "pairs"):
        assert __main__.main([stage, "--dataset", "folder"]) == 0
    rows = list(store.iter_rows(layout.images("folder")))
    assert {row["image_id"] for row in rows} == set(joints)
    for row in rows:
        person, _, name = row["image_id"].partition("__")
        assert row["person_id"] == person
        assert row["image"]["bytes"] == (tmp_path / "mine" / person / name).read_bytes()  # already the right size
    assert sum(seen.values()) > 5
    found = store.read_table(layout.pairs("folder")).to_pylist()
    wanted = {
        pair
        for pair in permutations(joints, 2)
        if pair[0].split("__")[0] == pair[1].split("__")[0] and all(map(seen.get, pair))
    }
    assert {(row["source_id"], row["target_id"]) for row in found} == wanted
    assert len(found) == len(wanted)
    people = {
        split: {row["source_id"].split("__")[0] for row in found if row["split"] == split}
        for split in ("train", "val", "test")
    }
    assert Counter(person for some in people.values() for person in some) == dict.fromkeys(PEOPLE, 1)
    assert {split_of[row["source_id"]] for row in found if row["split"] == "test"} == {"test"}


def test_without_joints_index_takes_every_image(run):
    run()
    index.run("folder")
    assert len(store.read_table(layout.images("folder"))) == 9
    assert len(store.read_table(layout.rejects("folder"))) == 0
    with pytest.raises(UserError, match="run: repose keypoints --dataset folder"):
        pairs.run("folder")
