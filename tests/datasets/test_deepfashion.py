import csv
import hashlib
import io
import json
import re
import zipfile
from collections import Counter
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from pipeline import __main__, datasets
from pipeline.anatomy import pose
from pipeline.core import layout, params, store
from pipeline.core.errors import UserError
from pipeline.datasets import deepfashion
from pipeline.datasets.deepfashion import filters
from pipeline.formats import annotations
from pipeline.stages import fetch, index, keypoints, pairs
from tests.conftest import ROOT
from tests.formats.test_archive import encrypted_zip
from tests.small_project import annotation, contents, joints, jpeg

DIGESTS = {
    "train_list": "50f41143dc61c730935a4f97c02bf4c221b030e72af1dcfd6838949227f361d8",
    "test_list": "336650cb7febac6ea0456b9b8c85e1759454fb96bfe14f95243738a81008febf",
    "annotation_test": "365e405fec44c94190ae8a261a0739ca180a3b645732e31b841e959e915aa45c",
    "pairs_test": "3da031d5b376d544a1cc6e24f2618d9909e8d3bd4f9f44d7f355c9e02be644ba",
}
TRAIN = [
    f"{category}/id_{item:08d}/{outfit:02d}_{view}.jpg"
    for category, item in (("WOMEN/Tees_Tanks", 7), ("MEN/Denim", 80), ("WOMEN/Dresses", 2))
    for outfit in (1, 2)
    for view in ("1_front", "4_full", "7_additional")
]
TEST = [f"MEN/Shirts_Polos/id_{item:08d}/03_{view}.jpg" for item in (9, 11, 12, 13) for view in ("1_front", "2_side")]
PATHS = {"train": TRAIN, "test": TEST}
NAMES = {
    "fashionWOMENDressesid0000000202_1front.jpg": "img/WOMEN/Dresses/id_00000002/02_1_front.jpg",
    "fashionMENShirts_Polosid0000180202_4full.jpg": "img_highres/MEN/Shirts_Polos/id_00001802/02_4_full.jpg",
    "fashionWOMENTees_Tanksid0000783805_7additional.jpg": "WOMEN/Tees_Tanks/id_00007838/05_7_additional.jpg",
}


def flat(path: str) -> str:
    """The listed name of a path of PATHS, spelled out by hand: not by the code under test."""
    gender, category, item, view = path.split("/")
    number, rest = view.split("_", 1)
    return "fashion" + gender + category + item.replace("_", "") + number + "_" + rest.replace("_", "")


def canvas(seed: int) -> bytes:
    return jpeg(seed, 256, 256)


@pytest.fixture
def block(tmp_path, monkeypatch) -> dict:
    """The `fetch.deepfashion` block of a small published DeepFashion under `published/`."""
    monkeypatch.delenv("REPOSE_MIRROR", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "published"
    values: dict = {
        "protocol": "canvas256",
        "allow_partial": False,
        "train_share": 0.5,
        "password_env": "DEEPFASHION_PASSWORD",
        "content_sha256": None,
        "annotation_width": None,
    }
    seed = 0
    for split, paths in PATHS.items():
        for path in paths:
            (folder / "img" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "img" / path).write_bytes(canvas(seed))
            seed += 1
        names = [flat(path) for path in paths]
        points, valid = joints(3, len(names), [2, 5, 8, 11])
        points[..., 0] += 96  # to the middle of the canvas
        order = np.random.default_rng(5).permutation(len(names))
        (folder / f"{split}.lst").write_text("".join(f"{name}\n" for name in sorted(names)))
        (folder / f"annotation-{split}.csv").write_text(annotation([names[i] for i in order], points, valid))
        listed = [pair for pair in permutations(names, 2) if pair[0].split("_")[:-1] == pair[1].split("_")[:-1]][::-1]
        (folder / f"pairs-{split}.csv").write_text("from,to\n" + "".join(f"{a},{b}\n" for a, b in listed))
    for key in ("train_list", "test_list", "annotation_train", "annotation_test", "pairs_train", "pairs_test"):
        what, split = key.split("_") if "list" not in key else ("", key.split("_")[0])
        path = folder / (f"{what}-{split}.csv" if what else f"{split}.lst")
        values[key] = {"path": str(path), "file": f"df/{path.name}", "url": None, "sha256": None}
    values["img"] = {"path": str(folder / "img"), "file": "df/img.zip", "url": None}
    values["img_highres"] = {"path": None, "file": "df/img_highres.zip", "url": None}
    return values


def project(folder: Path, monkeypatch, dataset: str, **stages) -> None:
    """Make `folder` a project root with the given blocks of one data set, checked by no schema."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    blocks = {
        "index": {"max_rejects": 0},
        "keypoints": values["keypoints"]["market1501"],
        "pairs": {"val_fraction": 0.02, "test_list": "official", "test_pairs": None, "seed": 0},
    } | stages
    for stage, block in blocks.items():
        values[stage] = {dataset: block}
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump({**values, "datasets": [dataset]}))
    (folder / "params.schema.yaml").write_text("{}")
    monkeypatch.chdir(folder)
    params.load.cache_clear()


@pytest.fixture
def run(tmp_path, monkeypatch, block):
    def run(dataset="deepfashion", **stages) -> Path:
        project(tmp_path / "project", monkeypatch, dataset, fetch=block, **stages)
        fetch.run(dataset)
        return layout.raw(dataset)

    yield run
    params.load.cache_clear()


def source_of(raw: Path) -> dict:
    return json.loads((raw / "source.json").read_text())


def images_of(raw: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(raw / "images.zip") as file:
        return {name: file.read(name) for name in file.namelist()}


def decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("name", NAMES)
def test_published_name(name):
    assert deepfashion.published_name(NAMES[name]) == name
    assert deepfashion.published_name("any/where/" + NAMES[name]) == name
    assert deepfashion.person_id(name) == name[: name.rindex("_")]


def test_short_path_has_no_published_name():
    assert deepfashion.published_name("Dresses/id_00000002/02_1_front.jpg") is None


def test_raw_folder_of_the_256_canvas_keeps_every_byte(run, tmp_path):
    raw = run()
    published = tmp_path / "published"
    expected = {
        f"{split}/{flat(path)}": (published / "img" / path).read_bytes() for split in PATHS for path in PATHS[split]
    }
    assert images_of(raw) == expected
    assert list(images_of(raw)) == sorted(expected)
    for name in ("annotation-train.csv", "annotation-test.csv", "pairs-train.csv", "pairs-test.csv"):
        assert (raw / name).read_bytes() == (published / name).read_bytes()
    source = source_of(raw)
    assert (source["height"], source["width"], source["protocol"]) == (256, 256, "canvas256")
    assert source["images"] == {"train": {"count": 18}, "test": {"count": 8}}
    assert "partial" not in source
    assert str(tmp_path) not in (raw / "source.json").read_text()
    lines = "".join(sorted(f"{hashlib.sha256(v).hexdigest()}  {k.split('/')[1]}\n" for k, v in expected.items()))
    lines = "".join(sorted(lines.splitlines(keepends=True), key=lambda line: line[66:]))
    assert source["content_sha256"] == hashlib.sha256(lines.encode()).hexdigest()


def test_content_digest_decides(run, block):
    digest = source_of(run())["content_sha256"]
    block["content_sha256"] = digest[:12]
    run()
    block["content_sha256"] = "0" * 12
    with pytest.raises(UserError, match=f"content digest {digest}, fetch.deepfashion.content_sha256 says 0000"):
        run()


def test_any_packaging_gives_the_same_bytes(run, block, tmp_path):
    expected = contents(run())
    published = tmp_path / "published"
    flattened = tmp_path / "flattened"
    for split, paths in PATHS.items():  # as PATN's script leaves them
        (flattened / split).mkdir(parents=True)
        for path in paths:
            (flattened / split / flat(path)).write_bytes((published / "img" / path).read_bytes())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for path in [*TEST, *TRAIN]:
            file.write(published / "img" / path, f"In-shop/Img/img/{path}")
        file.writestr("__MACOSX/img/WOMEN/Dresses/id_00000002/._02_1_front.jpg", b"resource fork")
        file.writestr("img/WOMEN/Dresses/id_00009999/02_1_front.jpg", b"in no list")
        file.writestr(f"img_highres/{TRAIN[0]}", b"the same photograph, larger")
    for path in (tmp_path / "published", flattened, tmp_path / "a.zip"):
        block["img"]["path"] = str(path)
        assert contents(run()) == expected, path


def test_doubled_image_is_refused(run, block, tmp_path):
    copy = tmp_path / "published/again" / TRAIN[0]
    copy.parent.mkdir(parents=True)
    copy.write_bytes(canvas(0))
    (tmp_path / "published/img").rename(tmp_path / "published/photos")
    block["img"]["path"] = str(tmp_path / "published")
    with pytest.raises(UserError, match=r"two members for fashionWOMENTees_Tanksid0000000701_1front\.jpg"):
        run()


def test_crop_is_the_middle_of_the_canvas(run, block, tmp_path):
    block["protocol"] = "crop176"
    raw = run()
    stored = images_of(raw)
    for split, paths in PATHS.items():
        for path in paths:
            whole = decoded((tmp_path / "published/img" / path).read_bytes())
            np.testing.assert_array_equal(decoded(stored[f"{split}/{flat(path)}"]), whole[:, 40:216])
    assert (source_of(raw)["height"], source_of(raw)["width"]) == (256, 176)
    index_project(raw)


def index_project(raw: Path) -> None:
    index.run("deepfashion")
    sizes = {(row["height"], row["width"]) for row in store.iter_rows(layout.images("deepfashion"))}
    assert sizes == {(source_of(raw)["height"], source_of(raw)["width"])}
    assert len(store.read_table(layout.rejects("deepfashion"))) == 0


@pytest.mark.parametrize("width", [256, 176])
@pytest.mark.parametrize("protocol", ["canvas256", "crop176", "squash256", "resize352"])
def test_joints_follow_the_form(run, block, tmp_path, protocol, width):
    block |= {"protocol": protocol, "annotation_width": width}
    if width == 176:
        on_crop(tmp_path / "published/annotation-train.csv")
        on_crop(tmp_path / "published/annotation-test.csv")
    if protocol.startswith(("squash", "resize")):
        highres(block, tmp_path, 375, 551)
    raw = run()
    for split in PATHS:
        names, before, seen = annotations.read_keypoints(tmp_path / f"published/annotation-{split}.csv")
        found, after, valid = annotations.read_keypoints(raw / f"annotation-{split}.csv")
        assert found == names
        np.testing.assert_array_equal(valid, seen)
        x = before[..., 0] + (0 if width == 256 else 40)  # on the canvas
        on_form = {"canvas256": x, "squash256": (x - 40) * 256 / 176, "resize352": (x - 40) * 2}
        np.testing.assert_allclose(after[..., 0][seen], on_form.get(protocol, x - 40)[seen], atol=6e-4)
        y = before[..., 1] * (2 if protocol == "resize352" else 1)
        np.testing.assert_array_equal(after[..., 1][seen], y[seen])


def on_crop(path: Path) -> None:
    """Make a keypoint list count x on the 176-wide crop."""
    names, points, valid = annotations.read_keypoints(path)
    points[..., 0] -= 40
    path.write_text(annotation(names, points, valid))


def test_each_list_says_by_its_necks_what_it_counts_x_on(run, tmp_path, capfd):
    """The training list is mostly to be had for the crop, the test list for the canvas."""
    before = {split: (tmp_path / f"published/annotation-{split}.csv").read_text() for split in PATHS}
    on_crop(tmp_path / "published/annotation-train.csv")
    raw = run()
    assert {split: (raw / f"annotation-{split}.csv").read_text() for split in PATHS} == before
    assert "annotation_train counts x on pictures 176 wide" in capfd.readouterr().err


@pytest.mark.parametrize(("width", "remedy"), [(256, "annotation_width to null or 176"), (None, "get PATN's list")])
def test_a_list_of_another_canvas_is_refused(run, block, tmp_path, width, remedy):
    block["annotation_width"] = width
    path = tmp_path / "published/annotation-train.csv"
    on_crop(path)
    if width is None:  # and once more: of no known canvas
        on_crop(path)
    with pytest.raises(UserError, match=rf"annotation-train\.csv: half of the necks lie left of x .*{remedy}"):
        run()


def highres(block: dict, folder: Path, width: int, height: int) -> Path:
    photographs = folder / "photographs/img_highres"
    for seed, path in enumerate([*TRAIN, *TEST]):
        (photographs / path).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (height // 40, width // 40, 3), np.uint8)
        image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
        (photographs / path).write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    block["img_highres"]["path"] = str(photographs)
    return photographs


def test_squash_resamples_the_whole_photograph(run, block, tmp_path):
    photographs = highres(block, tmp_path, 375, 551)
    block["protocol"] = "squash256"
    raw = run()
    images = images_of(raw)
    for name, path in ((f"train/{flat(TRAIN[4])}", TRAIN[4]), (f"test/{flat(TEST[0])}", TEST[0])):
        stored = decoded(images[name]).astype(float)
        area = cv2.resize(decoded((photographs / path).read_bytes()), (256, 256), interpolation=cv2.INTER_AREA)
        assert stored.shape == (256, 256, 3)
        assert np.abs(stored - area).mean() < 2  # another filter of another library, the same geometry
        assert np.abs(stored - np.roll(area, 1, axis=1)).mean() > 1.5 * np.abs(stored - area).mean()
    assert (source_of(raw)["height"], source_of(raw)["width"]) == (256, 256)
    index_project(raw)


def cubic_matrix(before: int, after: int, a: float = -0.5, antialias: bool = True) -> np.ndarray:
    """Keys' cubic as (after, before) weights; antialiased it is stretched by the scale and so takes in every pixel,
    else pixels outside are those at the border.
    """
    scale = before / after
    stretch = scale if antialias else 1
    at = np.arange(-4, before + 4)
    t = np.abs((at + 0.5 - (np.arange(after)[:, None] + 0.5) * scale) / stretch)
    near, far = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * (t**3 - 5 * t**2 + 8 * t - 4)
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    if antialias:
        inside = weights[:, 4:-4]
        return inside / inside.sum(axis=1, keepdims=True)
    found = np.zeros((after, before))
    np.add.at(found.T, np.clip(at, 0, before - 1), weights.T)
    return found


def linear_matrix(before: int, after: int) -> np.ndarray:
    """The two nearest pixels, (after, before) weights."""
    x = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    return np.clip(1 - np.abs(np.arange(before) - x[:, None]), 0, None)


def filtered(picture: np.ndarray, matrix, height: int, width: int) -> np.ndarray:
    """A picture (H, W, 3) as floats, through one of the two matrices."""
    planes = np.moveaxis(picture.astype(float), 2, 0)
    across = matrix(picture.shape[1], width)
    return np.moveaxis(matrix(picture.shape[0], height) @ planes @ across.T, 0, 2)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """A photograph's worth of noise, in whose values no filter here has to be clipped."""
    return np.random.default_rng(0).integers(100, 156, (551, 375, 3), np.uint8)


@pytest.mark.parametrize(("protocol", "size"), [("squash256", (256, 256)), ("resize176", (256, 176))])
def test_bicubic_does_not_alias(noise, protocol, size):
    data, received = deepfashion.convert(cv2.imencode(".png", noise)[1].tobytes(), protocol)
    assert received == (551, 375)
    assert np.abs(decoded(data) - filtered(noise, cubic_matrix, *size)).max() < 1.5  # rounded after each direction


def test_every_filter_is_what_it_says(noise):
    """By its own formula; OpenCV's look at few pixels, which Pillow's widens to all."""
    height, width = 256, 176
    expected = {
        "bicubic": filtered(noise, cubic_matrix, height, width),
        "cv2-bilinear": filtered(noise, linear_matrix, height, width),
        "cv2-cubic": filtered(noise, lambda *of: cubic_matrix(*of, a=-0.75, antialias=False), height, width),
        "squashed": filtered(filters.bicubic(noise, 256, 256), linear_matrix, height, width),
    }
    assert expected.keys() == filters.FILTERS.keys()
    for name, resized in filters.FILTERS.items():
        found = resized(noise, height, width)
        assert (found.shape, found.dtype) == ((height, width, 3), np.uint8), name
        away = {other: np.abs(found - what).max() for other, what in expected.items()}
        assert away[name] < 1.5, away
        assert min(value for other, value in away.items() if other != name) > 5, away


SIZES = {"squash256": (256, 256), "resize176": (256, 176), "resize352": (512, 352)}


@pytest.mark.parametrize("protocol", [name for name, form in deepfashion.FORMS.items() if form.filter])
def test_a_form_is_a_png_of_its_size_by_its_filter(noise, protocol):
    size, _, filter_name = protocol.partition("-")
    jpeg = cv2.imencode(".jpg", noise)[1].tobytes()
    stored, _ = deepfashion.convert(jpeg, protocol)
    assert stored.startswith(b"\x89PNG")
    expected = filters.FILTERS[filter_name or "bicubic"](np.ascontiguousarray(decoded(jpeg)), *SIZES[size])
    assert decoded(stored).shape == (*SIZES[size], 3)
    assert np.abs(decoded(stored).astype(int) - expected).mean() < 0.5  # another decoder of JPEGs


def test_raw_folder_of_a_resized_form(run, block, tmp_path):
    photographs = highres(block, tmp_path, 375, 551)
    block["protocol"] = "resize352"
    raw = run()
    source = source_of(raw)
    assert (source["height"], source["width"], source["protocol"]) == (512, 352, "resize352")
    photograph = (photographs / TRAIN[4]).read_bytes()
    assert images_of(raw)[f"train/{flat(TRAIN[4])}"] == deepfashion.convert(photograph, "resize352")[0]
    _, joints, seen = annotations.read_keypoints(raw / "annotation-train.csv")
    assert abs(np.median(joints[seen[:, 1], 1, 0]) - 176) < 16  # people stay in the middle
    index_project(raw)


def test_small_image_among_high_resolution_ones_is_refused(run, block, tmp_path):
    photographs = highres(block, tmp_path, 375, 551)
    (photographs / TEST[0]).write_bytes(canvas(0))
    block["protocol"] = "squash256"
    with pytest.raises(UserError, match="its images are 256 x 256"):
        run()


@pytest.mark.parametrize(("protocol", "wanted"), [("canvas256", "img.zip"), ("crop176", "img.zip")])
def test_high_resolution_images_where_small_ones_belong(run, block, tmp_path, protocol, wanted):
    block["protocol"] = protocol
    block["img"]["path"] = str(highres(block, tmp_path, 750, 1101))
    with pytest.raises(UserError, match=rf"its images are 750 x 1101; .*{protocol} is made from 256 x 256 \({wanted}"):
        run()


@pytest.mark.parametrize("protocol", ["squash256", "resize352"])
def test_small_images_where_high_resolution_belongs(run, block, protocol):
    block["protocol"] = protocol
    block["img_highres"]["path"] = block["img"]["path"]
    with pytest.raises(UserError, match=r"its images are 256 x 256; .*made from 750 x 1101 \(img_highres\.zip\)"):
        run()


def test_image_that_does_not_decode_is_left_to_index(run, block, tmp_path):
    (tmp_path / "published/img" / TRAIN[0]).write_bytes(b"no picture")
    (tmp_path / "published/img" / TRAIN[1]).write_bytes(jpeg(0, 64, 32))
    block["protocol"] = "crop176"
    run(index={"max_rejects": 2})
    index.run("deepfashion")
    reasons = {row["reason"] for row in store.read_table(layout.rejects("deepfashion")).to_pylist()}
    assert reasons == {"does not decode", "is 64x32 (height x width), not 256x176"}


def test_password_opens_the_archive_and_is_nowhere_else(run, block, tmp_path, monkeypatch, capsys):
    block["allow_partial"] = True
    published = tmp_path / "published/img"
    members = [(f"img/{path}", (published / path).read_bytes()) for path in [*TRAIN[:2], *TEST[:2]]]
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as file:
        for name, data in members:
            file.writestr(name, data)
    block["img"]["path"] = str(tmp_path / "plain.zip")
    expected = contents(run())
    block["img"]["path"] = str(encrypted_zip(tmp_path / "img.zip", members, b"open-sesame"))
    with pytest.raises(UserError, match="encrypted; put its password into the environment variable DEEPFASHION_PASS"):
        run()
    monkeypatch.setenv("DEEPFASHION_PASSWORD", "open-barley")
    with pytest.raises(UserError, match="the password does not open it"):
        run()
    monkeypatch.setenv("DEEPFASHION_PASSWORD", "open-sesame")
    assert contents(run()) == expected
    assert b"open-sesame" not in b"".join(contents(Path()).values())
    assert "open-sesame" not in "".join(capsys.readouterr())


def test_without_any_source_one_line_says_what_to_do(run, block):
    for key in block:
        if isinstance(block[key], dict):
            block[key]["path"] = None
    with pytest.raises(UserError) as error:
        run()
    text = str(error.value)
    assert "\n" not in text
    for wanted in (
        "cannot get img, train_list, test_list, annotation_train, annotation_test, pairs_train, pairs_test",
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
        "non-commercial research only",
        "0B7EVK8r0v71pYkd5TzBiclMzR00",
        "DEEPFASHION_PASSWORD",
        "fetch.deepfashion.img.path",
        "$REPOSE_MIRROR/df/img.zip",
        "https://github.com/tengteng95/Pose-Transfer",
        "df/train.lst, df/test.lst",
        "annotation_train, annotation_test, pairs_train may stay away",
    ):
        assert wanted in text, wanted
    assert "img_highres" not in text


def test_keypoints_and_training_pairs_may_be_missing(run, block, capsys):
    for key in ("annotation_train", "pairs_train"):
        block[key]["path"] = None
    raw = run()
    assert "no keypoint list for train: set keypoints.deepfashion.source in params.yaml to openpose" in (
        " ".join(capsys.readouterr().err.split())
    )
    assert not (raw / "annotation-train.csv").exists()
    assert not (raw / "pairs-train.csv").exists()
    index.run("deepfashion")
    assert len(store.read_table(layout.images("deepfashion"))) == 26
    with pytest.raises(UserError, match=r"annotation-train\.csv: no such keypoint list; .*openpose"):
        keypoints.run("deepfashion")


def test_missing_images_are_refused_by_number(run, tmp_path):
    for path in (TRAIN[0], TRAIN[5], TEST[7]):
        (tmp_path / "published/img" / path).unlink()
    with pytest.raises(UserError, match="2 of 18 train, 1 of 8 test images are missing") as error:
        run()
    assert "fetch.deepfashion.allow_partial: true" in str(error.value)
    assert contents(tmp_path / "project").keys() == {"params.yaml", "params.schema.yaml"}


def test_partial_set_is_cut_to_what_is_there(run, block, tmp_path, capsys):
    gone = {flat(path) for path in (TRAIN[0], TRAIN[5], TEST[7])}
    for path in (TRAIN[0], TRAIN[5], TEST[7]):
        (tmp_path / "published/img" / path).unlink()
    block["allow_partial"] = True
    raw = run()
    published = tmp_path / "published"
    for split in PATHS:
        for kind in ("annotation", "pairs"):
            lines = (published / f"{kind}-{split}.csv").read_text().splitlines(keepends=True)
            kept = [line for line in lines if not any(name in line for name in gone)]
            assert (raw / f"{kind}-{split}.csv").read_text() == "".join(kept)
    partial = source_of(raw)["partial"]
    assert partial["listed"] == {"train": 18, "test": 8}
    assert partial["present"] == {"train": 16, "test": 7}
    assert partial["pairs"] == {"train": {"published": 36, "kept": 28}, "test": {"published": 8, "kept": 6}}
    assert "train_share" not in partial
    said = " ".join(capsys.readouterr().err.split())
    assert "deepfashion is partial: 16 of 18 train, 7 of 8 test images are there" in said
    index.run("deepfashion")
    assert len(store.read_table(layout.rejects("deepfashion"))) == 0
    keypoints.run("deepfashion")
    pairs.run("deepfashion")


def test_without_training_images_some_test_items_stand_in(run, block, tmp_path, capsys):
    for path in TRAIN:
        (tmp_path / "published/img" / path).unlink()
    block |= {"allow_partial": True, "train_share": 0.7}
    raw = run()
    items = {path.split("/")[2] for path in TEST}

    def prefix(item: str) -> str:
        return f"fashionMENShirts_Polos{item.replace('_', '')}"

    ranked = sorted(items, key=lambda item: hashlib.sha256(prefix(item).encode()).hexdigest())
    train = {name for name in map(flat, TEST) if name.startswith(tuple(map(prefix, ranked[:3])))}
    assert {name.split("/")[1] for name in images_of(raw) if name.startswith("train/")} == train
    assert source_of(raw)["images"] == {"train": {"count": 6}, "test": {"count": 2}}
    assert source_of(raw)["partial"]["train_share"] == 0.7
    said = " ".join(capsys.readouterr().err.split())
    assert "6 of the test images stand in for the training split" in said
    assert ", 2 of 8 test pairs (6 were cut because images of theirs train now: train_share)" in said
    official = annotations.read_pairs(tmp_path / "published/pairs-test.csv")
    assert annotations.read_pairs(raw / "pairs-test.csv") == [pair for pair in official if not set(pair) & train]
    rows = (tmp_path / "published/annotation-test.csv").read_text().splitlines(keepends=True)[1:]
    for split in PATHS:
        wanted = [row for row in rows if (row.split(":")[0] in train) == (split == "train")]
        assert (raw / f"annotation-{split}.csv").read_text() == "".join(["name:keypoints_y:keypoints_x\n", *wanted])
    index.run("deepfashion")
    keypoints.run("deepfashion")
    pairs.run("deepfashion")
    counts = Counter(row["split"] for row in store.read_table(layout.pairs("deepfashion")).to_pylist())
    assert counts == {"train": 4, "val": 2, "test": 2}


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 5), (0.99, 9)])
def test_stand_in_never_takes_all_and_never_none(share, expected):
    names = [f"fashionMENPantsid{item:08d}0{outfit}_1front.jpg" for item in range(10) for outfit in (1, 2)]
    chosen = deepfashion.borrowed(names, share)
    assert len({name[:25] for name in chosen}) == expected
    assert len(chosen) == 2 * expected
    assert chosen == deepfashion.borrowed(names[::-1], share)


def test_pair_of_images_outside_the_list_is_refused(run, block, tmp_path):
    with (tmp_path / "published/pairs-test.csv").open("a") as file:
        file.write(f"{flat(TRAIN[0])},{flat(TEST[0])}\n")
    message = r"pairs-test\.csv: 1 of 9 pairs, the first .* are not both in the test list: the pairs of another split\?"
    with pytest.raises(UserError, match=message):
        run()
    block["allow_partial"] = True  # cuts pairs that lack an image, not those of training images
    (tmp_path / "published/img" / TEST[7]).unlink()
    with pytest.raises(UserError, match=message):
        run()


def test_other_list_is_refused(run, block, tmp_path):
    (tmp_path / "published/test.lst").write_text("<html>sign in</html>\n")
    with pytest.raises(UserError, match=r"is this PATN's train\.lst or test\.lst"):
        run()


def test_other_images_are_refused(run, block, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/1.jpg").write_bytes(canvas(0))
    block |= {"allow_partial": True}
    block["img"]["path"] = str(tmp_path / "other")
    with pytest.raises(UserError, match="none of the listed images is in it; is this DeepFashion"):
        run()


def test_sample_has_a_name_of_its_own(run, block, tmp_path):
    (tmp_path / "published/img" / TRAIN[0]).unlink()
    with pytest.raises(UserError, match=r"fetch\.deepfashion_sample\.allow_partial"):
        run("deepfashion_sample")
    assert datasets.get("deepfashion_sample").person_id is deepfashion.person_id


def test_a_form_is_a_data_set_with_a_name_of_its_own(run, tmp_path):
    (tmp_path / "published/img" / TRAIN[0]).unlink()
    with pytest.raises(UserError, match=r"fetch\.deepfashion-other\.allow_partial"):
        run("deepfashion-other")
    assert datasets.get("deepfashion-other") is deepfashion
    assert datasets.title("deepfashion-other") == "DeepFashion (other)"
    with pytest.raises(UserError, match="unknown data set toy-other"):
        datasets.get("toy-other")


@pytest.fixture(scope="module")
def published(mirror) -> Path:
    folder = mirror / "deepfashion"
    if not folder.is_dir():
        pytest.skip(f"no deepfashion/ in {mirror}")
    return folder


@pytest.mark.real
def test_every_listed_name_is_that_of_an_in_shop_path(published):
    names = [name for split in ("train", "test") for name in (published / f"{split}.lst").read_text().split()]
    parts = re.compile(
        r"fashion(WOMEN|MEN)([A-Z][A-Za-z_]+)id(\d{8})(\d\d)_(\d)(front|side|back|full|flat|additional)\.jpg"
    )
    paths = [parts.sub(r"img/\1/\2/id_\3/\4_\5_\6.jpg", name) for name in names]
    assert len(set(paths)) == len(names) == 52_712
    assert all(path.startswith("img/") for path in paths)
    assert [deepfashion.published_name(path) for path in paths] == names


@pytest.mark.real
def test_rule_gives_the_published_test_pairs_line_for_line(published):
    names, _, valid = annotations.read_keypoints(published / "fasion-annotation-test.csv")
    groups: dict[str, list[str]] = {}
    for name, seen in zip(names, valid, strict=True):
        if seen[list(pose.SHOULDERS_AND_HIPS)].all():
            groups.setdefault(deepfashion.person_id(name), []).append(name)
    rule = [pair for group in groups.values() for pair in permutations(group, 2)]
    order = np.random.RandomState(0).permutation(len(rule))
    official = annotations.read_pairs(published / "fashion-resize-pairs-test.csv")
    assert len(official) == 8_570
    assert [rule[i] for i in order] == official


@pytest.mark.real
def test_both_published_keypoint_lists_say_the_same(published):
    names, canvas_points, valid = annotations.read_keypoints(published / "fasion-annotation-test.csv")
    cropped = annotations.read_keypoints(published / "fashion-resize-annotation-test.csv")
    assert cropped[0] == names
    np.testing.assert_array_equal(cropped[2], valid)
    np.testing.assert_array_equal(cropped[1][valid], canvas_points[valid] - [40, 0])
    assert (cropped[1][valid][:, 0].min(), cropped[1][valid][:, 0].max()) == (-31, 205)


@pytest.fixture(scope="module")
def sample(published, tmp_path_factory):
    """A project folder with the data stages run on 376 of the real test photographs, and the sample's own list."""
    photographs = published.parent.parent / "real/deepfashion_sample.zip"
    if not photographs.exists():
        pytest.skip(f"needs {photographs.name} in a folder real/ beside the mirror")
    block = {
        "protocol": "canvas256",
        "allow_partial": True,
        "train_share": 0.6,
        "password_env": "DEEPFASHION_PASSWORD",
        "content_sha256": "2a114946e7eaab7cc90b3f3b2c5556985cdbc4a36b4a583b758d6d8900dd5f8f",
        "annotation_width": 256,
        "img": {"path": str(photographs), "file": "", "url": None},
    }
    files = {
        "train_list": "train.lst",
        "test_list": "test.lst",
        "annotation_test": "fasion-annotation-test.csv",
        "pairs_test": "fashion-resize-pairs-test.csv",
    }
    for key, name in files.items():
        block[key] = {"path": str(published / name), "file": "", "url": None, "sha256": DIGESTS[key]}
    for key in ("annotation_train", "pairs_train"):
        block[key] = {"path": None, "file": "not/there", "url": None, "sha256": None}
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("sample")
        patch.delenv("REPOSE_MIRROR", raising=False)
        chosen = {"val_fraction": 0.1, "test_list": "official", "test_pairs": None, "seed": 0}
        project(folder, patch, "deepfashion_sample", fetch=block, pairs=chosen)
        for stage in ("fetch", "index", "keypoints", "pairs"):
            assert __main__.main([stage, "--dataset", "deepfashion_sample"]) == 0
        with zipfile.ZipFile(photographs) as file:
            images = {Path(name).stem: file.read(name) for name in file.namelist() if name.endswith(".png")}
            text = file.read("deepfashion_sample/index.csv").decode()
        yield published, images, list(csv.DictReader(io.StringIO(text)))
        params.load.cache_clear()


@pytest.mark.real
def test_sample_images_are_stored_byte_for_byte(sample):
    _, images, _ = sample
    rows = list(store.iter_rows(layout.images("deepfashion_sample")))
    assert {Path(row["image_id"]).stem: row["image"]["bytes"] for row in rows} == images
    assert len(rows) == 376
    assert {(row["height"], row["width"]) for row in rows} == {(256, 256)}
    assert len(store.read_table(layout.rejects("deepfashion_sample"))) == 0
    assert Counter(row["split"] for row in rows) == {"train": 225, "test": 151}


@pytest.mark.real
def test_sample_splits_share_no_item_and_keep_the_published_joints(sample):
    published, _, _ = sample
    rows = store.read_table(layout.keypoints("deepfashion_sample")).to_pylist()
    items = {split: {row["person_id"][:-2] for row in rows if row["split"] == split} for split in ("train", "test")}
    assert {split: len(some) for split, some in items.items()} == {"train": 104, "test": 70}
    assert not items["train"] & items["test"]
    names, points, valid = annotations.read_keypoints(published / "fasion-annotation-test.csv")
    known = {name: pose.from_array(*one) for name, *one in zip(names, points, valid, strict=True)}
    assert all(row["keypoints"] == known[row["image_id"]] for row in rows)
    order = {split: [row["row"] for row in rows if row["split"] == split] for split in items}
    assert all(sorted(some) == list(range(len(some))) for some in order.values())


@pytest.mark.real
def test_sample_pairs_are_official_ones(sample):
    published, images, listed = sample
    official = annotations.read_pairs(published / "fashion-resize-pairs-test.csv")
    there = [pair for pair in official if Path(pair[0]).stem in images and Path(pair[1]).stem in images]
    assert len(there) == 434
    assert len({(row["source"], row["target"]) for row in listed}) == 199  # of 200 rows
    assert {(row["source"], row["target"]) for row in listed} <= set(there)
    rows = store.read_table(layout.pairs("deepfashion_sample")).to_pylist()
    found = {
        split: [(row["source_id"], row["target_id"]) for row in rows if row["split"] == split]
        for split in ("train", "val", "test")
    }
    keypoints_of = store.read_table(layout.keypoints("deepfashion_sample")).to_pylist()
    test = {row["image_id"] for row in keypoints_of if row["split"] == "test"}
    assert found["test"] == [pair for pair in there if pair[0] in test]
    assert sorted(found["train"] + found["val"]) == sorted(pair for pair in there if pair[0] not in test)
    assert {split: len(some) for split, some in found.items()} == {"train": 232, "val": 22, "test": 180}
    partial = source_of(layout.raw("deepfashion_sample"))["partial"]
    assert partial["present"] == {"train": 0, "test": 376}
    cut = len(there) - len(found["test"])
    assert partial["pairs"] == {"test": {"published": 8570, "kept": len(found["test"]), "train_share": cut}}
