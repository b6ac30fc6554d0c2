import zipfile

import cv2
import numpy as np
import pytest

from pipeline import __main__
from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.stages import index
from tests.small_project import NAMES, annotation, contents, enter, joints, jpeg, write_raw

EVERY = {f"{split}/{name}": jpeg(seed) for split in NAMES for seed, name in enumerate(NAMES[split])}
LISTS = {split: annotation(names, *joints(0, len(names))) for split, names in NAMES.items()}
FIRST = f"train/{NAMES['train'][0]}"


@pytest.fixture
def settle(tmp_path, monkeypatch):
    def settle(images=EVERY, lists=LISTS, max_rejects=0):
        enter(tmp_path, monkeypatch, index__market1501__max_rejects=max_rejects)
        write_raw(images, lists)

    return settle


def rejects() -> list[tuple[str, str, str]]:
    table = store.read_table(layout.rejects("market1501"))
    assert table.schema.equals(schema.REJECTS)
    return [(row["image_id"], row["split"], row["reason"]) for row in table.to_pylist()]


def test_bytes_are_kept_and_rows_sorted(settle):
    settle()
    index.run("market1501")
    rows = list(store.iter_rows(layout.images("market1501")))
    ids = [row["image_id"] for row in rows]
    assert ids == sorted(ids, key=str.encode)
    assert ids[0].startswith("-1")
    assert {f"{row['split']}/{row['image_id']}": row["image"]["bytes"] for row in rows} == EVERY
    assert {(row["height"], row["width"]) for row in rows} == {(128, 64)}
    assert all(row["person_id"] == row["image_id"].split("_")[0] for row in rows)
    assert all(row["image"]["path"] == row["image_id"] for row in rows)
    assert rejects() == []


REASONS = {
    "text": (b"this is no picture", "does not decode"),
    "empty": (b"", "does not decode"),
    "cut": (jpeg(0)[: len(jpeg(0)) // 2], "does not decode"),
    "small": (jpeg(0, 64, 32), "is 64x32 (height x width), not 128x64"),
    "turned": (jpeg(0, 64, 128), "is 64x128 (height x width), not 128x64"),
}


@pytest.mark.parametrize("case", REASONS)
def test_bad_image_is_rejected_with_its_reason(settle, case):
    data, reason = REASONS[case]
    settle(EVERY | {FIRST: data}, max_rejects=1)
    index.run("market1501")
    assert rejects() == [(NAMES["train"][0], "train", reason)]
    assert len(store.read_table(layout.images("market1501"))) == len(EVERY) - 1


def test_image_and_keypoints_must_both_be_there(settle):
    without = {name: data for name, data in EVERY.items() if name != FIRST}
    extra = without | {"test/0099_c1s1_000001_01.jpg": jpeg(9)}
    settle(extra, max_rejects=2)
    index.run("market1501")
    assert rejects() == [
        (NAMES["train"][0], "train", "in the keypoint list, but no such image"),
        ("0099_c1s1_000001_01.jpg", "test", "no row in the keypoint list"),
    ]


def test_name_in_both_splits_is_used_once(settle):
    name = NAMES["train"][0]
    settle(EVERY | {f"test/{name}": jpeg(77)}, max_rejects=2)
    index.run("market1501")
    assert [reject[0] for reject in rejects()] == [name, name]
    assert {reject[2] for reject in rejects()} == {"its name occurs twice", "no row in the keypoint list"}


def test_no_keypoint_lists_no_demand(settle):
    settle(lists={})
    index.run("market1501")
    assert rejects() == []


def test_list_of_one_split_demands_nothing_of_the_other(settle):
    """The train keypoints of DeepFashion may be missing while the test keypoints are there."""
    settle(EVERY | {"test/0099_c1s1_000001_01.jpg": jpeg(9)}, lists={"test": LISTS["test"]}, max_rejects=1)
    index.run("market1501")
    assert rejects() == [("0099_c1s1_000001_01.jpg", "test", "no row in the keypoint list")]
    assert len(store.read_table(layout.images("market1501"))) == len(EVERY)


def test_images_of_mixed_size_where_the_data_set_has_no_one_size(settle):
    settle(EVERY | {FIRST: jpeg(0, 64, 32)})
    (layout.raw("market1501") / "source.json").write_text('{"height": null, "width": null}')
    index.run("market1501")
    sizes = {(row["height"], row["width"]) for row in store.iter_rows(layout.images("market1501"))}
    assert sizes == {(128, 64), (64, 32)}


def test_more_than_max_rejects_stops_in_one_line(settle, capsys):
    bad = [f"train/{name}" for name in NAMES["train"][:5]]
    settle(EVERY | dict.fromkeys(bad, b"x"), max_rejects=4)
    with pytest.raises(UserError, match=r"5 images cannot be used, more than index\.max_rejects = 4: ") as error:
        index.run("market1501")
    assert "does not decode" in str(error.value)
    assert not layout.images("market1501").exists()
    assert not layout.rejects("market1501").exists()
    assert __main__.main(["index", "--dataset", "market1501"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("repose: ")]) == 1


def test_exactly_max_rejects_is_fine(settle):
    settle(EVERY | {FIRST: b"x"}, max_rejects=1)
    index.run("market1501")


def test_same_raw_same_bytes(settle):
    settle(EVERY | {FIRST: b"x"}, max_rejects=1)
    index.run("market1501")
    first = contents(layout.images("market1501").parent)
    index.run("market1501")
    assert contents(layout.images("market1501").parent) == first


def test_interrupt_leaves_nothing_and_exits_130(settle, monkeypatch, capsys):
    settle()
    real = zipfile.ZipFile.read
    calls = []

    def read(self, name, *rest):
        calls.append(name)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return real(self, name, *rest)

    monkeypatch.setattr(zipfile.ZipFile, "read", read)
    assert __main__.main(["index", "--dataset", "market1501"]) == 130
    assert "index interrupted" in capsys.readouterr().err
    assert {path.name for path in layout.images("market1501").parent.iterdir()} == {"raw"}


def test_without_raw_data(settle, tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)
    with pytest.raises(UserError, match="run: repose fetch"):
        index.run("market1501")


def test_exif_turn_does_not_change_the_size():
    """Joints are in pixels of the stored image: an orientation tag must not swap height and width."""
    data = cv2.imencode(".jpg", np.zeros((128, 64, 3), np.uint8))[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (64, 128, 3)
    assert pictures.decode(turned).shape == (128, 64, 3)
