import zipfile

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import archive, layout, schema, store
from pipeline.errors import UserError
from pipeline.stages import index, parsing
from tests.small_project import contents, enter, jpeg, write_raw

NAMES = [f"{split}/{i:04d}_c1s1_000001_00.png" for split, i in (("train", 2), ("test", 1), ("train", 3))]


def label_map(seed: int, height=128, width=64, top=20) -> bytes:
    labels = np.random.default_rng(seed).integers(0, top, (height, width), np.uint8)
    return cv2.imencode(".png", labels)[1].tobytes()


@pytest.fixture
def settle(tmp_path, monkeypatch):
    def settle(maps: dict | None, source="oracle"):
        enter(tmp_path, monkeypatch, parsing__synthetic__source=source)
        raw = write_raw({name: jpeg(0) for name in NAMES}, {}, "synthetic")
        if maps is not None:
            archive.write(raw / "parsing.zip", sorted(maps.items()))
        index.run("synthetic")

    return settle


def test_oracle_keeps_the_bytes_in_image_order(settle):
    maps = {name: label_map(seed) for seed, name in enumerate(NAMES)}
    settle(maps)
    parsing.run("synthetic")
    rows = list(store.iter_rows(layout.parsing("synthetic")))
    assert [row["image_id"] for row in rows] == [
        row["image_id"] for row in store.iter_rows(layout.images("synthetic"), ["image_id"])
    ]
    by_id = {name.split("/")[1]: data for name, data in maps.items()}
    assert {row["image_id"]: row["parsing"]["bytes"] for row in rows} == by_id
    assert {row["label_source"] for row in rows} == {"oracle"}
    first = contents(layout.parsing("synthetic"))
    parsing.run("synthetic")
    assert contents(layout.parsing("synthetic")) == first


def test_none_is_an_empty_shard_that_says_so(settle):
    settle(None, source="none")
    parsing.run("synthetic")
    table = store.read_table(layout.parsing("synthetic"))
    assert len(table) == 0
    assert table.schema.equals(schema.PARSING)
    assert pq.read_schema(layout.parsing("synthetic") / "part-00000.parquet").metadata[b"parsing_source"] == b"none"


BAD = {
    "not there": None,
    "no picture": b"x",
    "empty": b"",
    "size": label_map(0, 64, 32),
    "colour": cv2.imencode(".png", np.zeros((128, 64, 3), np.uint8))[1].tobytes(),
    "16 bit": cv2.imencode(".png", np.zeros((128, 64), np.uint16))[1].tobytes(),
    "label 20": label_map(0, top=21),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_label_map_is_one_line(settle, case):
    maps = {name: label_map(1) for name in NAMES} | {NAMES[0]: BAD[case]}
    settle({name: data for name, data in maps.items() if data is not None})
    with pytest.raises(UserError) as error:
        parsing.run("synthetic")
    assert NAMES[0] in str(error.value)
    assert "\n" not in str(error.value)
    assert not layout.parsing("synthetic").exists()


def test_oracle_of_a_data_set_without_label_maps(settle):
    settle(None)
    with pytest.raises(UserError, match=r"no parsing\.zip"):
        parsing.run("synthetic")


def test_label_map_in_the_wrong_split(settle):
    maps = {name: label_map(1) for name in NAMES[1:]} | {NAMES[0].replace("train", "test"): label_map(0)}
    settle(maps)
    with zipfile.ZipFile(layout.raw("synthetic") / "parsing.zip") as written:
        assert len(written.namelist()) == 3
    with pytest.raises(UserError, match="no label map train/"):
        parsing.run("synthetic")
