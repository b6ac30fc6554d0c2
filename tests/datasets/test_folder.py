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
from pipeline.datasets.folder import photograph as own
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
    assert source["left_out"] == {"anna/notes.txt": "is no picture"}
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
    data, reason, box = own.fitted(encoded(picture, "PNG"), 128, 64, "pad")
    assert reason == ""
    top, rows, columns = inner
    left = (64 - columns) // 2
    assert box == (top, left, rows, columns)
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
    data, _, _ = own.fitted(encoded(picture, "PNG"), 128, 64, "squash")
    np.testing.assert_array_equal(decoded(data), np.asarray(picture.resize((64, 128), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_right_size_keeps_its_bytes(kind, mode):
    data = encoded(photograph(1, 128, 64).convert(mode), kind)
    assert own.fitted(data, 128, 64, "pad") == (data, "", (0, 0, 128, 64))
    assert own.fitted(data, 64, 128, "pad")[0] != data


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_camera_held_on_its_side(orientation):
    picture = photograph(5, 128, 64)
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data, _, _ = own.fitted(encoded(picture.transpose(turn), "PNG", exif=exif), 128, 64, "pad")
    np.testing.assert_array_equal(decoded(data), np.asarray(picture))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(mode):
    picture = photograph(5, 128, 64).convert("RGBA")
    picture.putalpha(Image.fromarray(np.repeat(np.uint8([255, 0]), 64)[:, None].repeat(64, axis=1)))
    data, _, _ = own.fitted(encoded(picture.convert(mode), "PNG"), 128, 64, "pad")
    assert (decoded(data)[64:] == 255).all()
    opaque = picture.convert("RGB" if mode != "LA" else "L").convert("RGB")
    assert np.abs(decoded(data)[:64].astype(int) - np.asarray(opaque)[:64]).mean() < (30 if mode == "P" else 0.01)


def zero_filled(data: bytes) -> bytes:
    """Its last third lost, as by a transfer that had made room for the whole file."""
    return data[: 2 * len(data) // 3] + bytes(len(data) // 3)


JPEG = encoded(photograph(0))
BAD = {
    "text": (b"this is no picture", "is no picture"),
    "empty": (b"", "is empty"),
    "zeros": (bytes(9000), "is filled with zeros"),
    "deep": (encoded(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG"), "has pixels of kind I;16, not 8 bits"),
    "zeros from the middle on": (zero_filled(JPEG), "ends before its picture does"),
    "progressive, likewise": (zero_filled(encoded(photograph(0), progressive=True)), "ends before its picture does"),
    "cut": (JPEG[:-400], "ends before its picture does"),
    "PNG, zeros from the middle on": (zero_filled(encoded(photograph(0), "PNG")), "does not decode"),
    "labels": (
        encoded(Image.fromarray(np.uint8([[0, 3], [5, 9]]).repeat(64, 0).repeat(32, 1)), "PNG"),
        "has 4 colours",
    ),
    "film": (encoded(photograph(0), "TIFF", save_all=True, append_images=[photograph(1)]), "holds 2 pictures"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(99), "is HEIC, which is not read here"),
    "mp4": (b"\0\0\0\x18ftypmp42" + bytes(99), "is no picture"),
    "profile": (encoded(photograph(0), icc_profile=b"nonsense"), "has a colour profile that does not fit"),
}


@pytest.mark.parametrize("case", BAD)
def test_image_that_cannot_be_used(case):
    data, reason, _ = own.fitted(BAD[case][0], 128, 64, "pad")
    assert data is None
    assert reason.startswith(BAD[case][1])


def test_what_is_left_out_is_listed(run, tmp_path, capsys):
    mine = tmp_path / "mine"
    (mine / "anna/4.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (mine / "anna/5.NEF").write_bytes(encoded(photograph(0), "TIFF"))
    (mine / "anna/.6.jpg").write_bytes(encoded(photograph(0)))
    (mine / "anna/7.jpg").symlink_to(mine / "gone.jpg")
    (mine / "anna/above").symlink_to(mine)
    (mine / "bo/4.jpg").write_bytes(b"no picture")
    (mine / "bo/again.png").write_bytes((mine / "bo/1.jpg").read_bytes())
    for system in ("__MACOSX/anna/._1.jpg", "bo/Thumbs.db", "bo/._1.jpg", "bo/desktop.ini"):
        (mine / system).parent.mkdir(parents=True, exist_ok=True)
        (mine / system).write_bytes(b"x")
    (mine / "nobody.png").write_bytes(encoded(photograph(0), "PNG"))
    source = run()
    assert source["left_out"] == {
        "anna/4.HEIC": "is HEIC, which is not read here; convert it to JPEG or PNG",
        "anna/5.NEF": "is NEF, a camera's raw picture; convert it to JPEG or PNG",
        "anna/.6.jpg": "is hidden: its name, or that of a folder around it, begins with a dot",
        "anna/7.jpg": "is a link to nothing",
        "anna/above": "is a link to a folder around it",
        "anna/notes.txt": "is no picture",
        "bo/4.jpg": "is no picture",
        "bo/again.png": "is the same picture as bo/1.jpg",
        "nobody.png": "is in no sub-folder: whose is it?",
    }
    assert sum(split["count"] for split in source["images"].values()) == 9
    assert "folder: 9 files left out: anna/.6.jpg is hidden" in " ".join(capsys.readouterr().err.split())


def test_single_images_are_counted_and_never_tested(run, tmp_path, capsys):
    for seed, person in enumerate(("dora", "emil", "fay"), 10):
        (tmp_path / "mine" / person).mkdir()
        (tmp_path / "mine" / person / "1.jpg").write_bytes(encoded(photograph(seed)))
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
    assert len(source["left_out"]) == 6  # notes.txt, too


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
        ("name,identity\nanna/1.jpg,Zoe\nbo/1.jpg, zoe\n", r"line 3: 'zoe' here, 'Zoe' in line 2: one person or two"),
        ("name,identity\nmine/anna/1.jpg,zoe\n", r"line 2: no image .*; anna/1\.jpg is there: name the path below"),
        ("name,identity,split\nanna/1.jpg,z,test\nbo/1.jpg,z ,train\n", r"line 3: .* the same in every line"),
        ("name,identity\n", r"no image of anybody: fetch.folder.csv names none"),
    ],
)
def test_broken_csv_names_the_line(run, block, tmp_path, text, message):
    table(tmp_path, block, text)
    with pytest.raises(UserError, match=message):
        run()


def test_blanks_letter_case_and_the_sign_between_fields_of_a_csv_do_not_matter(run, block, tmp_path):
    lines = ["Name; Identity;split", "anna/1.JPG;zoe;Train", "anna\\2.jpg; zoe;train ", "bo/1.jpg ;max;train", " ; ;"]
    table(
        tmp_path,
        block,
        "\n".join([*lines, "./bo/2.jpg;max;train", "carla/1.jpg;Zo\u00eb;test", "carla/2.jpg;Zoe\u0308;test"]),
    )
    run()
    people_of = {name: folder.person_id(name.split("/")[1]) for name in stored()}
    assert Counter(people_of.values()) == {"zoe": 2, "max": 2, "Zo\u00eb": 2}
    assert "train/zoe__anna__2.jpg" in people_of


def test_the_csv_may_lie_among_the_images(run, block, tmp_path):
    lines = ["name,identity", *(f"{one}/{number}.jpg,{one}" for one in PEOPLE for number in (1, 2))]
    (tmp_path / "mine/people.csv").write_text("\n".join(lines))
    block |= {"identity": "csv", "csv": str(tmp_path / "mine/people.csv")}
    assert "people.csv" not in run()["left_out"]


@pytest.mark.parametrize("name", ["anna_", "an__na"])
def test_person_that_makes_no_id(run, tmp_path, name):
    (tmp_path / "mine/anna").rename(tmp_path / "mine" / name)
    with pytest.raises(UserError, match=f"rename the person '{name}'"):
        run()


@pytest.mark.parametrize("name", ["1,2.jpg", 'a"b.jpg', "a\u200bb.jpg"])
def test_name_that_breaks_lists(run, tmp_path, name):
    (tmp_path / "mine/anna/1.jpg").rename(tmp_path / "mine/anna" / name)
    with pytest.raises(UserError, match="no comma, quote, slash or unprintable character"):
        run()


def test_two_files_with_one_id(run, tmp_path):
    (tmp_path / "mine/anna/summer__3.jpg").write_bytes(encoded(photograph(0)))
    with pytest.raises(UserError, match=r"both make the id anna__summer__3\.jpg; rename one"):
        run()


def arrange(tmp_path: Path, *paths: str) -> Path:
    """A folder of JPEGs at these paths, no two alike."""
    for seed, path in enumerate(paths):
        (tmp_path / "mine2" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine2" / path).write_bytes(encoded(photograph(seed), quality=50))
    return tmp_path / "mine2"


def two_of(*folders: str) -> list[str]:
    return [f"{one}/{number}.jpg" for one in folders for number in (1, 2)]


GROUPED = {  # folders -> train's people, test's people
    "splits": (("train/anna", "train/bo", "test/carla"), "anna bo", "carla"),
    "three splits": (("Training/anna", "validation/bo", "Test/carla"), "anna bo", "carla"),
    "no test": (("train_images/anna", "train_images/bo", "val_images/carla"), "anna bo", "carla"),
    "re-identification": (("bounding_box_train/1", "bounding_box_train/2", "query/3", "gallery/3"), "1 2", "3"),
    "images and labels": (
        ("images/train/anna", "images/train/bo", "images/test/carla", "labels/x/y"),
        "anna bo",
        "carla",
    ),
    "the other way": (
        ("train/images/anna", "train/images/bo", "test/images/carla", "train/masks/bo"),
        "anna bo",
        "carla",
    ),
}


@pytest.mark.parametrize("case", GROUPED)
def test_folders_around_people_are_none(run, block, tmp_path, capsys, case):
    folders, train, test = GROUPED[case]
    paths = [f"{one}/{number}{one[0]}.jpg" for one in folders for number in (1, 2)]
    block["path"] = str(arrange(tmp_path, *paths))
    source = run()
    found = {split: {name.split("/")[1] for name in stored() if name.startswith(split)} for split in ("train", "test")}
    assert {split: {folder.person_id(name) for name in names} for split, names in found.items()} == {
        "train": set(train.split()),
        "test": set(test.split()),
    }
    assert all(" lies in labels/" in f" {why}" or " lies in masks/" in f" {why}" for why in source["left_out"].values())
    assert "are taken for splits, the sub-folders in them for people" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (two_of("train", "test"), r"test/, train/ are splits, and hold no sub-folder a person"),
        (two_of("train", "anna", "bo"), r"train/ beside anna/, bo/: people, too\? If so, set fetch\.folder\.level: 1"),
        (two_of("images", "anna"), r"images/ beside anna/: people, too\?"),
        (
            two_of("train/anna", "train/bo", "test/anna"),
            r"1 of 2 people are in several of test/, train/, such as anna.*level: 2",
        ),
        (
            two_of("set/anna", "set/bo", "set/carla"),
            r"who are the people, set/ or the folders in them, anna/, bo/, carla/\?",
        ),
        (two_of("2023/anna", "2023/bo", "2024/carla"), r"level in params\.yaml: 1 for the former, 2 for the latter"),
        (two_of("Anna", "anna", "bo"), r"'Anna' and 'anna' differ in letter case, blanks or zeros alone"),
        (two_of("07", "7", "8"), r"'07' and '7' differ"),
    ],
    ids=lambda value: value[0].partition("/")[0] if isinstance(value, list) else "",
)
def test_doubtful_people_are_refused(run, block, tmp_path, paths, message):
    block["path"] = str(arrange(tmp_path, *paths))
    with pytest.raises(UserError, match=message):
        run()
    assert not RAW.exists()


@pytest.mark.parametrize(
    ("level", "folders", "expected"),
    [
        (
            2,
            ("2023/anna", "2023/bo", "2024/anna", "2024/carla"),
            {"anna__2023__1.jpg", "anna__2024__1.jpg", "bo__2023__1.jpg"},
        ),
        (1, ("train", "test", "bo"), {"train__1.jpg", "test__1.jpg", "bo__1.jpg"}),
    ],
)
def test_the_level_says_who_is_a_person(run, block, tmp_path, level, folders, expected):
    block |= {
        "path": str(arrange(tmp_path, *two_of(*folders, *(["2024/carla"] if level == 2 else [])))),
        "level": level,
    }
    run()
    assert expected <= {name.split("/")[1] for name in stored()}


def test_people_are_shown_before_a_picture_is_read_and_groups_among_them_are_doubts(run, block, tmp_path, capsys):
    block["path"] = str(arrange(tmp_path, *two_of("anna", "bo", "more/carla", "more/dora")))
    source = run()
    said = " ".join(capsys.readouterr().err.split())
    assert "folder: 8 pictures of 3 people: more (4: more/carla/1.jpg), anna (2: anna/1.jpg), bo (2: bo/1.jpg)" in said
    assert "WARNING: more/ taken for a person each, with several sub-folders: carla/, dora/" in said
    assert said.index("8 pictures") < said.index("WARNING")
    assert len(source["doubts"]) == 1


def test_one_picture_under_two_people_is_said_and_one_in_another_format_is_known(run, tmp_path, capsys):
    mine = tmp_path / "mine"
    with Image.open(mine / "anna/1.jpg") as picture:
        (mine / "anna/9.png").write_bytes(encoded(picture, "PNG"))
    (mine / "bo/mine too.jpg").write_bytes((mine / "carla/2.jpg").read_bytes())
    source = run()
    assert source["left_out"]["anna/9.png"] == "is the same picture as anna/1.jpg"
    assert source["doubts"] == ["1 pictures are there under two people or more: bo/mine too.jpg and carla/2.jpg"]
    assert f"WARNING: {source['doubts'][0]}" in " ".join(capsys.readouterr().err.split())


def test_two_unicode_forms_of_a_name_are_one_person(run, block, tmp_path):
    block["path"] = str(arrange(tmp_path, "Zo\u00eb/1.jpg", "Zoe\u0308 /2.jpg", *two_of("anna", "bo")))
    run()
    assert {folder.person_id(name.split("/")[1]) for name in stored()} == {"Zo\u00eb", "anna", "bo"}


def test_linked_folders_are_followed(run, block, tmp_path):
    block["path"] = str(arrange(tmp_path, *two_of("anna", "bo")))
    (tmp_path / "mine2/carla").symlink_to(tmp_path / "mine/carla")
    assert run()["images"]["train"]["count"] + len([name for name in stored() if "test/" in name]) == 7
    assert sum("carla__" in name for name in stored()) == 3


@pytest.mark.parametrize("name", ["a.jfif", "b.JPE", "c.jpg_large", "d", "e.png", "f.txt"])
def test_a_picture_is_known_by_its_content(run, tmp_path, name):
    (tmp_path / "mine/anna" / name).write_bytes(encoded(photograph(20)))
    source = run()
    assert any(member.endswith(f"/anna__{name}") for member in stored())
    assert source["left_out"] == {"anna/notes.txt": "is no picture"}


@pytest.mark.parametrize(("name", "listed"), [(b"caf\xe9.jpg", "caf\\xe9.jpg"), (b"new\nline.jpg", "new\\x0aline.jpg")])
def test_a_name_that_no_line_holds_is_listed(run, tmp_path, name, listed):
    (tmp_path / "mine/anna" / name.decode(errors="surrogateescape")).write_bytes(JPEG)
    why = "has a name that is not UTF-8, or with control characters; rename it"
    assert run()["left_out"][f"anna/{listed}"] == why


def profile(red: tuple[float, float]) -> bytes:
    """A minimal RGB matrix profile (ICC v2), gamma 2.2, with sRGB's primaries but for red: chromaticities, D50."""

    def at50(x: float, y: float, luminance: float) -> list[float]:
        return [x / y * luminance, luminance, (1 - x - y) / y * luminance]

    columns = {b"rXYZ": at50(*red, 0.25), b"gXYZ": [0.3851, 0.7169, 0.0971], b"bXYZ": [0.1431, 0.0606, 0.7142]}
    number = lambda value: round(value * 65536).to_bytes(4, signed=True)  # noqa: E731
    tags = {name: b"XYZ \0\0\0\0" + b"".join(map(number, xyz)) for name, xyz in columns.items()}
    tags |= {name: b"curv\0\0\0\0\0\0\0\1" + (563).to_bytes(2) + b"\0\0" for name in (b"rTRC", b"gTRC", b"bTRC")}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + b"".join(map(number, (0.9642, 1, 0.8249)))
    tags[b"desc"] = b"desc\0\0\0\0\0\0\0\5wide\0" + bytes(78 + 1)
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + (start + len(body)).to_bytes(4) + len(data).to_bytes(4)
        body += data + bytes(-len(data) % 4)
    size = start + len(body)
    head = size.to_bytes(4) + bytes(4) + b"\2\x10\0\0mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += b"".join(map(number, (0.9642, 1, 0.8249))) + bytes(48)
    return head + len(tags).to_bytes(4) + table + body


def test_a_colour_profile_is_brought_to_srgb_and_srgb_itself_stays():
    from PIL import ImageCms

    picture = photograph(1, 128, 64)
    srgb = encoded(picture, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert own.fitted(srgb, 128, 64, "pad")[0] == srgb
    wide = encoded(picture, "PNG", icc_profile=profile((0.72, 0.28)))
    data, reason, _ = own.fitted(wide, 128, 64, "pad")
    assert reason == ""
    assert decoded(data)[..., 0].mean() > np.asarray(picture)[..., 0].mean() + 2  # its red is more than sRGB's


def test_ink_colours_are_converted():
    picture = photograph(1, 128, 64)
    data, _, _ = own.fitted(encoded(picture.convert("CMYK"), quality=95), 128, 64, "pad")
    assert np.abs(decoded(data).astype(int) - np.asarray(picture)).mean() < 6


def test_damaged_exif_data_lose_no_picture():
    broken = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x07"
    assert own.fitted(encoded(photograph(1, 128, 64), exif=broken), 128, 64, "pad")[1] == ""


def test_bands_are_listed_and_a_picture_without_is_not(run, tmp_path):
    (tmp_path / "mine/anna/8.jpg").write_bytes(encoded(photograph(30, 128, 64)))
    run()
    boxes = json.loads((RAW / "boxes.json").read_text())
    assert boxes["anna__1.jpg"] == [42, 0, 43, 64]
    assert "anna__8.jpg" not in boxes
    assert len(boxes) == 9


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
