import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.core import layout, store
from pipeline.core.errors import UserError
from pipeline.stages import fetch
from tests.small_project import NAMES, contents, enter, published_market

RAW = layout.raw("market1501")


@pytest.fixture
def block(tmp_path, monkeypatch) -> dict:
    """The `fetch.market1501` block of a small published Market-1501; the test may change it before `settle`."""
    (tmp_path / "published").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.delenv("REPOSE_MIRROR", raising=False)
    return published_market(tmp_path / "published")


@pytest.fixture
def settle(tmp_path, monkeypatch, block):
    return lambda: enter(tmp_path / "project", monkeypatch, fetch__market1501=block)


def zipped(folder: Path, target: Path, prefix="", compression=zipfile.ZIP_DEFLATED, skip=(), extra=()) -> Path:
    with zipfile.ZipFile(target, "w", compression) as archive:
        for path in sorted(folder.rglob("*.jpg"), reverse=True):
            if path.name not in skip:
                archive.write(path, prefix + path.relative_to(folder).as_posix())
        for name, data in extra:
            archive.writestr(name, data)
    return target


def test_raw_folder_of_market(block, settle, tmp_path):
    settle()
    fetch.run("market1501")
    published = tmp_path / "published/Market-1501-v15.09.15"
    with zipfile.ZipFile(RAW / "images.zip") as archive:
        assert archive.namelist() == sorted(f"{split}/{name}" for split in NAMES for name in NAMES[split])
        for split, names in NAMES.items():
            for name in names:
                assert archive.read(f"{split}/{name}") == (published / f"bounding_box_{split}" / name).read_bytes()
    for key, name in (("train", "annotation-train.csv"), ("test", "annotation-test.csv")):
        assert (RAW / name).read_bytes() == (tmp_path / f"published/market-annotation-{key}.csv").read_bytes()
    assert (RAW / "pairs-test.csv").read_bytes() == (tmp_path / "published/market-pairs-test.csv").read_bytes()
    source = json.loads((RAW / "source.json").read_text())
    assert (source["height"], source["width"]) == (128, 64)
    assert source["images"]["train"] == {"count": 15, "sha256": block["images"]["train_sha256"]}
    assert source["files"]["pairs-test.csv"] == block["pairs_test"]["sha256"]
    assert "research only" in source["terms"]
    assert str(tmp_path) not in (RAW / "source.json").read_text()


def test_any_packaging_gives_the_same_bytes(block, settle, tmp_path):
    settle()
    fetch.run("market1501")
    expected = contents(RAW)
    published = tmp_path / "published/Market-1501-v15.09.15"
    junk = [
        ("__MACOSX/d/bounding_box_train/._0002_c1s1_000001_01.jpg", b"resource fork"),
        ("d/bounding_box_train/.hidden.jpg", b""),
        ("d/bounding_box_train/Thumbs.db", b"thumbs"),
        ("d/query/0002_c1s1_000001_00.jpg", b"a query"),
        ("d/gt_bbox/0002_c1s1_000001_00.jpg", b"ground truth"),
        ("readme.txt", b"hello"),
    ]
    packagings = [
        zipped(published, tmp_path / "a.zip", prefix="any/where/", extra=junk),
        zipped(published, tmp_path / "b.zip", compression=zipfile.ZIP_STORED),
        tmp_path / "published",  # a folder further up
    ]
    for path in packagings:
        block["images"]["path"] = str(path)
        settle()
        fetch.run("market1501")
        assert contents(RAW) == expected, path


@pytest.mark.parametrize("change", ["missing", "added", "one byte", "renamed"])
def test_other_images_are_refused(block, settle, tmp_path, change):
    published = tmp_path / "published/Market-1501-v15.09.15"
    image = published / "bounding_box_test" / NAMES["test"][3]
    if change == "missing":
        image.unlink()
    elif change == "added":
        shutil.copy(image, image.with_name("9999_c1s1_000001_00.jpg"))
    elif change == "one byte":
        image.write_bytes(image.read_bytes()[:-1] + b"\0")
    else:
        image.rename(image.with_name("9999_c1s1_000001_00.jpg"))
    settle()
    with pytest.raises(UserError, match=r"bounding_box_test .* has content digest") as error:
        fetch.run("market1501")
    assert "test_sha256" in str(error.value)
    assert not list(Path("data").rglob("*.zip"))  # neither under its name nor as a leftover
    assert not RAW.exists()


def test_failure_keeps_what_was_there(block, settle, tmp_path):
    settle()
    fetch.run("market1501")
    before = contents(Path("data"))
    block["pairs_test"]["sha256"] = "0" * 64
    settle()
    with pytest.raises(UserError, match=r"fetch\.market1501\.pairs_test wants 0000"):
        fetch.run("market1501")
    assert contents(Path("data")) == before


def test_doubled_image_is_refused(block, settle, tmp_path):
    published = tmp_path / "published/Market-1501-v15.09.15"
    double = ("again/bounding_box_train/" + NAMES["train"][0], b"x")
    block["images"]["path"] = str(zipped(published, tmp_path / "a.zip", extra=[double]))
    settle()
    with pytest.raises(UserError, match="two members for train/"):
        fetch.run("market1501")


def test_folder_without_the_data_set(block, settle, tmp_path):
    (tmp_path / "empty").mkdir()
    block["images"]["path"] = str(tmp_path / "empty")
    settle()
    with pytest.raises(UserError, match="is this Market-1501"):
        fetch.run("market1501")


def test_without_any_source_one_line_says_what_to_do(block, settle, monkeypatch, tmp_path):
    for key in block:
        block[key]["path"] = None
    settle()
    with pytest.raises(UserError) as error:
        fetch.run("market1501")
    text = str(error.value)
    assert "\n" not in text
    for wanted in (
        "https://zheng-lab.cecs.anu.edu.au",  # where to ask
        "research only",  # under which terms
        "fetch.market1501.images.path",  # where to say where it is
        "$REPOSE_MIRROR/market.zip",
        "PATN",
        "market-pairs-test.csv into $REPOSE_MIRROR",
    ):
        assert wanted in text
    assert not Path("data").exists() or contents(Path("data")) == {}


def test_mirror_serves_what_has_no_path(block, settle, monkeypatch, tmp_path):
    settle()
    fetch.run("market1501")
    expected = contents(RAW)
    zipped(tmp_path / "published/Market-1501-v15.09.15", tmp_path / "published/market.zip")
    for key in block:
        block[key]["path"] = None
    monkeypatch.setenv("REPOSE_MIRROR", str(tmp_path / "published"))
    settle()
    fetch.run("market1501")
    assert contents(RAW) == expected


def test_interrupt_leaves_nothing(block, settle, monkeypatch):
    settle()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.datasets.market1501._repack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch.run("market1501")
    assert contents(Path("data")) == {}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """A rendered raw folder, twice."""
    small = {"seed": 3, "height": 64, "width": 32, "train_identities": 2, "test_identities": 1, "views": 3}
    folders = []
    with pytest.MonkeyPatch.context() as patch:
        for name in "ab":
            folder = tmp_path_factory.mktemp(name)
            enter(folder, patch, fetch__synthetic=small)
            fetch.run("synthetic")
            folders.append(folder / layout.raw("synthetic"))
    return folders


def test_synthetic_is_the_same_every_time(synthetic):
    first, second = map(contents, synthetic)
    assert first == second
    assert set(first) == {
        "images.zip", "parsing.zip", "annotation-train.csv", "annotation-test.csv", "truth.parquet", "source.json",
    }  # fmt: skip


def test_synthetic_truth_images_and_lists_agree(synthetic):
    raw = synthetic[0]
    truth = store.read_table(raw / "truth.parquet").to_pylist()
    with zipfile.ZipFile(raw / "images.zip") as images, zipfile.ZipFile(raw / "parsing.zip") as parsing:
        assert images.namelist() == parsing.namelist() == sorted(f"{r['split']}/{r['image_id']}" for r in truth)
        assert len(truth) == 9
        for name in images.namelist():
            image = cv2.imdecode(np.frombuffer(images.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
            label = cv2.imdecode(np.frombuffer(parsing.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
            assert (image.shape, label.shape) == ((64, 32, 3), (64, 32))
            assert 1 < len(np.unique(label)) <= 20
    for split in ("train", "test"):
        rows = [row for row in truth if row["split"] == split]
        lines = (raw / f"annotation-{split}.csv").read_text().splitlines()[1:]
        for row, line in zip(rows, lines, strict=True):
            name, y, x = line.split(":")
            assert name == row["image_id"]
            for point, v, u in zip(row["keypoints"], json.loads(y), json.loads(x), strict=True):
                if point is None:
                    assert (u, v) == (-1, -1)
                else:
                    assert max(abs(point[0] - u), abs(point[1] - v)) <= 0.5
                    assert 0 <= point[0] <= 31
                    assert 0 <= point[1] <= 63
            assert len(row["occluded"]) == 18


def test_digest_is_that_of_sha256sum(block):
    """The content digest as the README of the data set's mirror defines it: `sha256sum *`, sorted, hashed."""
    folder = Path(block["images"]["path"]) / "bounding_box_train"
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.glob("*.jpg"))]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == block["images"]["train_sha256"]
