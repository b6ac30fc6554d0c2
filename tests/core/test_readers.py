"""Every kind of shard opens, with its values, in the four readers that docs/shards.md names."""

import io
import json
import re
from functools import partial
from pathlib import Path

import cv2
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.anatomy.distance import limb_distance_maps
from pipeline.core import layout, schema, store
from tests import tiny_dataset
from tests.conftest import ROOT

DATASET = "synthetic"
KINDS = {
    "images": (layout.images, schema.IMAGES),
    "rejects": (layout.rejects, schema.REJECTS),
    "keypoints": (layout.keypoints, schema.KEYPOINTS),
    "parsing": (layout.parsing, schema.PARSING),
    "pairs": (layout.pairs, schema.PAIRS),
    "pseudo_labels": (partial(layout.pseudo_labels, rule="equation"), schema.PSEUDO_LABELS),
    "distance_maps": (layout.distance_maps, schema.DISTANCE_MAPS),
}
NAMES = [(person, view) for person in range(tiny_dataset.PEOPLE) for view in range(tiny_dataset.VIEWS)]
STORED = [which for which in NAMES if which != (0, tiny_dataset.VIEWS - 1)]  # the last of person 0 is rejected
PSEUDO = [
    {
        "image_id": tiny_dataset.name(*which),
        "pseudo_id": None if number == 3 else tiny_dataset.name(3, 0),
        "cost": None if number == 3 else 10.5 * number,
        "pose_distance": None if number == 3 else 0.25 * number,
    }
    for number, which in enumerate(STORED)
]
REJECTS = [{"image_id": tiny_dataset.name(0, 2), "split": "train", "reason": 'has "quotes", a comma and a\nline'}]


def distance_map(person: int, view: int) -> np.ndarray:
    points, valid = tiny_dataset.joints(person, view)
    return limb_distance_maps(points[None], valid[None], tiny_dataset.HEIGHT, tiny_dataset.WIDTH, -0.1)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small data set in which every kind of shard has rows, with shards of images cut in two files."""
    path = tmp_path_factory.mktemp("readers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SHARD_ROWS", 8)
        patch.setattr(store, "ROW_GROUP", 4)
        tiny_dataset.write(path, DATASET, parsing_source="oracle")
        maps = [
            {
                "image_id": tiny_dataset.name(*which),
                "height": tiny_dataset.HEIGHT,
                "width": tiny_dataset.WIDTH,
                "distance_maps": distance_map(*which).tobytes(),
            }
            for which in STORED
        ]
        store.write_shards(path / layout.distance_maps(DATASET), maps, schema.DISTANCE_MAPS, 2, kappa="-0.1")
        store.write_shards(path / layout.pseudo_labels(DATASET, "equation"), PSEUDO, schema.PSEUDO_LABELS)
    store.write_table(path / layout.rejects(DATASET), REJECTS, schema.REJECTS)
    return path


def files(folder: Path, kind: str) -> list[str]:
    path = folder / KINDS[kind][0](DATASET)
    return [str(part) for part in store.parts(path)] if path.is_dir() else [str(path)]


def plain(value):
    """What a reader gives for a cell, as plain Python: arrays as lists, NaN in a nullable column as None."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return None if isinstance(value, float) and np.isnan(value) else value


def with_pandas(paths: list[str], cache: Path) -> list[dict]:
    frame = pd.concat([pd.read_parquet(path) for path in paths])
    return [plain(row) for row in frame.to_dict("records")]


def with_duckdb(paths: list[str], cache: Path) -> list[dict]:
    found = duckdb.sql(f"SELECT * FROM read_parquet({paths})")
    return [plain(dict(zip(found.columns, row, strict=True))) for row in found.fetchall()]


def with_polars(paths: list[str], cache: Path) -> list[dict]:
    return [plain(row) for row in pl.read_parquet(paths).to_dicts()]


def with_hugging_face(paths: list[str], cache: Path) -> list[dict]:
    """Pictures are decoded to PIL; here encoded again without loss, as the other readers have bytes."""
    import datasets

    rows = []
    for row in datasets.load_dataset("parquet", data_files=paths, split="train", cache_dir=str(cache)):
        for name, value in row.items():
            if name in ("image", "parsing"):
                assert isinstance(value, Image.Image)
                data = io.BytesIO()
                value.save(data, "PNG")
                row[name] = {"bytes": data.getvalue(), "path": None, "mode": value.mode}
        rows.append(plain(row))
    return rows


READERS = {"pandas": with_pandas, "duckdb": with_duckdb, "polars": with_polars, "datasets": with_hugging_face}


@pytest.fixture(scope="module", params=READERS)
def rows(request, folder, tmp_path_factory):
    """rows(kind): all rows of a kind of shard as one of the readers gives them."""
    read, cache = READERS[request.param], tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "datasets":
            patch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
            patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        yield lambda kind: read(files(folder, kind), cache)


def ids(stored) -> list[str]:
    return [tiny_dataset.name(*which) for which in stored]


def decoded(cell: dict) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(cell["bytes"])))


def test_images(rows):
    found = rows("images")
    assert [row["image_id"] for row in found] == ids(STORED)
    for row, which in zip(found, STORED, strict=True):
        assert (row["split"], row["person_id"]) == ("train", f"{which[0]:04d}")
        assert (row["height"], row["width"]) == (tiny_dataset.HEIGHT, tiny_dataset.WIDTH)
        np.testing.assert_array_equal(decoded(row["image"]), tiny_dataset.picture(*which))
        assert row["image"].get("mode", "RGB") == "RGB"


def test_keypoints(rows):
    found = rows("keypoints")
    assert [row["image_id"] for row in found] == ids(NAMES)
    missing = 0
    for number, (row, which) in enumerate(zip(found, NAMES, strict=True)):
        points, valid = tiny_dataset.joints(*which)
        wanted = [[float(x), float(y)] if seen else None for (x, y), seen in zip(points, valid, strict=True)]
        assert row["keypoints"] == wanted
        assert row["keypoint_scores"] == [float(seen) for seen in valid]
        assert (row["row"], row["keypoint_source"]) == (number, "test")
        missing += wanted.count(None)
    assert missing > 0


def test_parsing(rows):
    found = rows("parsing")
    assert [row["image_id"] for row in found] == ids(STORED)
    for row, which in zip(found, STORED, strict=True):
        np.testing.assert_array_equal(decoded(row["parsing"]), tiny_dataset.label_map(*which))
        assert row["parsing"].get("mode", "L") == "L"
        assert row["label_source"] == "oracle"


def test_pairs(rows):
    found = rows("pairs")
    wanted = [
        (tiny_dataset.name(person, a), tiny_dataset.name(person, b))
        for person in range(tiny_dataset.PEOPLE)
        for a in range(tiny_dataset.VIEWS)
        for b in range(tiny_dataset.VIEWS)
        if a != b
    ]
    assert [(row["source_id"], row["target_id"]) for row in found] == wanted
    assert [row["pair_index"] for row in found] == list(range(len(wanted)))
    assert [row["split"] for row in found] == ["train"] * 18 + ["val"] * 6


def test_distance_maps(rows):
    found = rows("distance_maps")
    assert [row["image_id"] for row in found] == ids(STORED)
    for row, which in zip(found, STORED, strict=True):
        maps = np.frombuffer(row["distance_maps"], np.uint8).reshape(12, row["height"], row["width"])
        np.testing.assert_array_equal(maps, distance_map(*which))


def test_pseudo_labels(rows):
    assert rows("pseudo_labels") == PSEUDO


def test_rejects(rows):
    assert rows("rejects") == REJECTS


# ---- docs/shards.md


def test_the_written_schema_is_the_schema():
    """docs/shards.md has a section a kind of shard, whose table lists exactly the columns and types of schema.py."""
    text = (ROOT / "docs/shards.md").read_text(encoding="utf-8")
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    written = {}
    for section in sections:
        path = re.search(r"data/D/[^` ]*", section.splitlines()[0])
        if path and path.group().endswith(".parquet"):  # no text, and not what scoring writes
            written[path.group()] = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section, flags=re.MULTILINE)
    wanted = {}
    for where, columns in KINDS.values():
        path = where("D").as_posix()
        path = path if path.endswith(".parquet") else f"{path.replace('equation', 'RULE')}/part-*.parquet"
        wanted[path] = [(field.name, type_name(field.type)) for field in columns]
    assert written == wanted


def type_name(kind: pa.DataType) -> str:
    """A column's type as docs/shards.md writes it."""
    if kind == schema.IMAGE:
        return "struct<bytes: binary, path: string>"
    if kind == schema.POINTS:
        return "float32[18][2]"
    if kind == schema.JOINT_SCORES:
        return "float32[18]"
    return "float32" if kind == pa.float32() else str(kind)


def test_the_written_kinds_are_all_that_a_prepared_data_set_has(folder):
    there = {path.name.removesuffix(".parquet") for path in (folder / "data" / DATASET).iterdir()}
    assert there == set(KINDS)


@pytest.mark.parametrize("language", ["pandas", "duckdb", "polars", "datasets"])
def test_the_written_snippets_run(folder, monkeypatch, tmp_path, language):
    """Each reader's snippet, as it stands in docs/shards.md, with the tiny data set under the name used there."""
    text = (ROOT / "docs/shards.md").read_text(encoding="utf-8")
    snippets = [
        code
        for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        if f"import {language}" in code or f"from {language} import" in code
    ]
    assert len(snippets) == 1
    (tmp_path / "data").symlink_to(folder / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    if language == "datasets":
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    found = {}
    exec(compile(snippets[0], f"docs/shards.md ({language})", "exec"), found)
    np.testing.assert_array_equal(np.asarray(found["picture"]), tiny_dataset.picture(0, 0))
    joints, valid = tiny_dataset.joints(0, 0)
    np.testing.assert_array_equal(found["joints"], np.where(valid[:, None], joints, np.nan))


def test_the_written_pytorch_dataset_gives_what_is_stored(folder, monkeypatch, tmp_path):
    """As it stands in docs/shards.md: both images of a pair, with joints, labels and distance maps."""
    import torch

    text = (ROOT / "docs/shards.md").read_text(encoding="utf-8")
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "import torch" in code)
    (tmp_path / "data").symlink_to(folder / "data")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(compile(code, "docs/shards.md (PyTorch)", "exec"), found)
    pairs = store.read_table(folder / layout.pairs(DATASET), filters=[("split", "=", "train")])
    rejected = REJECTS[0]["image_id"]
    named = zip(pairs["source_id"].to_pylist(), pairs["target_id"].to_pylist(), strict=True)
    wanted = [pair for pair in named if rejected not in pair]
    assert 0 < len(wanted) == len(found["pairs"]) < len(pairs)
    which = {tiny_dataset.name(*one): one for one in STORED}
    for side, image_id in zip(("source", "target"), wanted[1], strict=True):
        one = {key: value[1].numpy() for key, value in found["batch"][side].items()}
        joints, valid = tiny_dataset.joints(*which[image_id])
        np.testing.assert_array_equal(one["image"].transpose(1, 2, 0), tiny_dataset.picture(*which[image_id]))
        np.testing.assert_array_equal(one["joints"], np.where(valid[:, None], joints, np.nan))
        np.testing.assert_array_equal(one["distance_maps"], distance_map(*which[image_id]))
        row = store.RandomReader(folder / layout.parsing(DATASET))[image_id]
        labels = cv2.imdecode(np.frombuffer(row["parsing"]["bytes"], np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(one["labels"], labels)
    assert found["batch"]["target"]["image"].dtype == torch.uint8


def test_metadata_says_what_the_shards_were_made_with(folder):
    metadata = pq.read_schema(files(folder, "images")[0]).metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert pq.read_schema(files(folder, "distance_maps")[0]).metadata[b"kappa"] == b"-0.1"


def test_bytes_are_what_was_encoded(folder):
    """The image column holds the file as it came, not what a reader makes of it."""
    table = store.read_table(folder / layout.images(DATASET))
    for cell, which in zip(table["image"].to_pylist(), STORED, strict=True):
        assert cell["bytes"] == cv2.imencode(".png", tiny_dataset.picture(*which)[:, :, ::-1])[1].tobytes()
