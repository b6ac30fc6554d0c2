"""The data stages on the whole of Market-1501 (marked real), and the names of the data sets."""

import hashlib
import json
import zipfile
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from pipeline import __main__, datasets
from pipeline.anatomy import pose
from pipeline.anatomy.distance import limb_distance_maps
from pipeline.core import layout, params, store
from pipeline.core.errors import UserError
from pipeline.datasets import market1501
from tests.small_project import enter

STAGES = ("fetch", "index", "keypoints", "pairs", "distance_maps")
CONTENT = {
    "train": "db44dc1aa72e8e72bc61b2a69ae609798873741231dc6eec706be82debfbc972",
    "test": "d4e0084e534f7e6d1a70fdd330ebdf469f75d7b730a28ef2983e3038e377b504",
}
TRAINING_LIST = "b5394ed978c52f2cb424402423496bca4a5eca12a8f7f68393d2f90183120ba1"


def test_every_data_set_offers_what_the_stages_ask_for():
    for name in datasets._MODULES:
        module = datasets.get(name)
        assert callable(module.fetch)
        assert callable(module.person_id)
        assert isinstance(module.JUNK, tuple)
        params.block(module.Fetch, "fetch", name)
    with pytest.raises(UserError, match="known: synthetic, market1501"):
        datasets.get("nowhere")


@pytest.mark.parametrize(
    ("name", "person"),
    [("0002_c1s1_000451_03.jpg", "0002"), ("-1_c1s1_000401_03.jpg", "-1"), ("1501_c6s4_001902_01.jpg", "1501")],
)
def test_person_id(name, person):
    assert market1501.person_id(name) == person


@pytest.fixture(scope="module")
def market(mirror, tmp_path_factory):
    """A project folder with every data stage run on the real data set, once for all tests here."""
    folder = tmp_path_factory.mktemp("market")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPOSE_MIRROR", str(mirror))
        enter(folder, patch)
        for stage in STAGES:
            assert __main__.main([stage, "--dataset", "market1501"]) == 0
        yield mirror / "market1501"
        params.load.cache_clear()


def exported(tmp_path: Path, what: str, split: str) -> bytes:
    target = tmp_path / "list.csv"
    arguments = ["--dataset", "market1501", "--what", what, "--split", split, "--output", str(target)]
    assert __main__.main(["export", *arguments]) == 0
    return target.read_bytes()


@pytest.mark.slow
@pytest.mark.real
def test_images_are_the_published_bytes(market):
    ids = []
    lines = {split: [] for split in CONTENT}
    for row in store.iter_rows(layout.images("market1501"), ["image_id", "split", "image", "height", "width"]):
        ids.append(row["image_id"])
        lines[row["split"]].append(f"{hashlib.sha256(row['image']['bytes']).hexdigest()}  {row['image_id']}\n")
        assert (row["height"], row["width"]) == (128, 64)
    assert ids == sorted(ids)
    assert {split: len(some) for split, some in lines.items()} == {"train": 12_936, "test": 19_732}
    for split, digest in CONTENT.items():
        assert hashlib.sha256("".join(sorted(lines[split], key=lambda line: line[66:])).encode()).hexdigest() == digest
    assert len(store.read_table(layout.rejects("market1501"))) == 0


@pytest.mark.slow
@pytest.mark.real
def test_raw_folder_says_what_it_is(market):
    source = json.loads((layout.raw("market1501") / "source.json").read_text())
    assert {split: part["sha256"] for split, part in source["images"].items()} == CONTENT
    with zipfile.ZipFile(layout.raw("market1501") / "images.zip") as archive:
        assert len(archive.namelist()) == 32_668


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("split", ["train", "test"])
def test_published_keypoints_come_back_byte_for_byte(market, tmp_path, split):
    assert exported(tmp_path, "keypoints", split) == (market / f"market-annotation-{split}.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.real
def test_published_training_list_comes_back_byte_for_byte(market, tmp_path):
    text = exported(tmp_path, "pairs", "train")
    assert text.count(b"\n") == 1 + 263_632
    assert hashlib.sha256(text).hexdigest() == TRAINING_LIST
    groups: dict[str, list[str]] = {}
    for line in (market / "market-annotation-train.csv").read_text().splitlines()[1:]:
        name, y, _ = line.split(":")
        y = json.loads(y)
        if not name.startswith(("-1", "0000")) and -1 not in (y[2], y[5], y[8], y[11]):
            groups.setdefault(name[:4], []).append(name)
    assert (len(groups), sum(map(len, groups.values()))) == (745, 12_116)
    naive = "".join(f"{a},{b}\n" for group in groups.values() for a, b in permutations(group, 2))
    assert text.decode() == "from,to\n" + naive


@pytest.mark.slow
@pytest.mark.real
def test_published_test_list_comes_back_byte_for_byte(market, tmp_path):
    text = exported(tmp_path, "pairs", "test")
    assert text.count(b"\n") == 1 + 12_000
    assert text == (market / "market-pairs-test.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.real
def test_validation_people_are_held_out(market):
    table = store.read_table(layout.pairs("market1501"), ["split", "source_id"]).to_pylist()
    people = {split: {row["source_id"][:4] for row in table if row["split"] == split} for split in ("train", "val")}
    assert not people["train"] & people["val"]
    with_pairs = len(people["train"] | people["val"])
    assert len(people["val"]) == round(0.02 * with_pairs)


@pytest.mark.slow
@pytest.mark.real
def test_distance_maps_of_every_image(market):
    keypoints = store.read_table(layout.keypoints("market1501"), ["image_id", "keypoints"])
    assert len(store.read_table(layout.distance_maps("market1501"), ["image_id"])) == len(keypoints) == 32_668
    reader = store.RandomReader(layout.distance_maps("market1501"))
    for number in np.random.default_rng(0).integers(0, len(keypoints), 50).tolist():
        points, valid = pose.batch_arrays(keypoints.column("keypoints").slice(number, 1))
        stored = reader[keypoints.column("image_id")[number].as_py()]["distance_maps"]
        assert stored == limb_distance_maps(points, valid, 128, 64, -0.1).tobytes()
