"""What is said of a prepared data set: that mlcroissant and Hugging Face load it, and the card says what is there."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from pipeline.core import layout, params, schema, store
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.datasets import NAMES, get
from pipeline.stages import describe
from tests import tiny_dataset

IMAGES = 11  # of 12, one of which was left out


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Every data stage's output of the tiny data set, in a project folder of its own."""
    tiny_dataset.write(tmp_path, parsing_source="oracle")
    tiny_dataset.write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    params.load.cache_clear()
    rejects = [{"image_id": tiny_dataset.name(0, 2), "split": "train", "reason": "does not decode"}]
    store.write_table(layout.rejects("synthetic"), rejects, schema.REJECTS)
    layout.raw("synthetic").mkdir(exist_ok=True)
    source = {"dataset": "tiny", "terms": "for this test only", "images": {"train": {"count": 12}}}
    (layout.raw("synthetic") / "source.json").write_text(json.dumps(source))
    yield tmp_path
    params.load.cache_clear()


def described() -> dict:
    describe.run("synthetic")
    return json.loads(layout.croissant("synthetic").read_text(encoding="utf-8"))


def test_mlcroissant_validates_it_and_streams_the_records(prepared):
    import mlcroissant

    described()
    found = mlcroissant.Dataset(layout.croissant("synthetic"))
    assert found.metadata.ctx.issues.errors == set()
    stored = store.read_table(layout.images("synthetic")).to_pylist()
    records = list(found.records("images"))
    assert len(records) == len(stored) == IMAGES
    for record, row in zip(records, stored, strict=True):
        assert record["images/image_id"].decode() == row["image_id"]
        assert (record["images/height"], record["images/width"]) == (64, 32)
        expected = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
        np.testing.assert_array_equal(np.asarray(record["images/image"]), expected)
    joints = next(iter(found.records("keypoints")))
    row = store.read_table(layout.keypoints("synthetic")).slice(0, 1).to_pylist()[0]
    given = [point if point is None else list(point) for point in joints["keypoints/keypoints"]]
    assert given == [point if point is None else pytest.approx(point) for point in row["keypoints"]]
    for name in {entry.uuid for entry in found.metadata.record_sets} - {"images", "keypoints"}:
        assert next(iter(found.records(name)))


def test_mlcroissant_notices_a_changed_file(prepared):
    import mlcroissant

    described()
    store.write_table(layout.pairs("synthetic"), store.read_table(layout.pairs("synthetic")).slice(1), schema.PAIRS)
    with pytest.raises(Exception, match="operation") as caught:
        next(iter(mlcroissant.Dataset(layout.croissant("synthetic")).records("pairs")))
    assert "Hash of downloaded file" in str(caught.value.__cause__)


def test_every_file_has_its_digest_and_every_column_its_field(prepared):
    found = described()
    files = {one["contentUrl"]: one["sha256"] for one in found["distribution"] if one["@type"] == "cr:FileObject"}
    root = layout.croissant("synthetic").parent
    assert files == {path.relative_to(root).as_posix(): sha256(path) for path in root.rglob("*.parquet")}
    fields = {one["name"]: [field["name"] for field in one["field"]] for one in found["recordSet"]}
    assert fields.pop("pseudo_labels_balanced") == fields.pop("pseudo_labels_equation") == schema.PSEUDO_LABELS.names
    assert fields == {
        "images": schema.IMAGES.names,
        "rejects": schema.REJECTS.names,
        "keypoints": schema.KEYPOINTS.names,
        "parsing": schema.PARSING.names,
        "pairs": schema.PAIRS.names,
        "distance_maps": schema.DISTANCE_MAPS.names,
    }


def test_tables_without_rows_are_left_out(prepared):
    store.write_shards(layout.pseudo_labels("synthetic", "balanced"), [], schema.PSEUDO_LABELS)
    store.write_shards(layout.parsing("synthetic"), [], schema.PARSING, parsing_source="none")
    assert not {"parsing", "pseudo_labels_balanced"} & {one["name"] for one in described()["recordSet"]}
    card = layout.data_card("synthetic").read_text()
    assert "- Human parsing: none." in card
    assert "- There is no human parsing." in card


def test_the_card_says_what_is_there_and_what_is_not(prepared):
    found = described()
    card = layout.data_card("synthetic").read_text(encoding="utf-8")
    assert "# Synthetic\n" in card
    assert "For this test only. See https://www.apache.org/licenses/LICENSE-2.0." in card
    assert "| train images | 11 of 4 people |" in card
    assert "- 1 images were left out: rejects.parquet says why." in card
    valid = np.array([tiny_dataset.joints(p, v)[1] for p in range(4) for v in range(3)])
    assert f"- {1 - valid.mean():.1%} of the joints are missing." in card
    assert all(f"- {gap}\n" in card for gap in found["rai:dataLimitations"])
    assert all(one["sha256"] in card for one in found["distribution"] if "sha256" in one)
    assert str(prepared) not in card + json.dumps(found)


def test_hugging_face_finds_the_tables_by_the_card(prepared):
    from datasets import get_dataset_config_names, load_dataset

    described()
    folder = str(layout.data_card("synthetic").parent)
    assert set(get_dataset_config_names(folder)) >= {"images", "keypoints", "pairs"}
    rows = load_dataset(folder, "images", split="train", cache_dir=str(prepared / "cache"))
    assert len(rows) == IMAGES
    assert rows[0]["image"].size == (32, 64)


def test_equal_data_give_equal_bytes(prepared):
    written = []
    for _ in range(2):
        described()
        written.append([path("synthetic").read_bytes() for path in (layout.croissant, layout.data_card)])
    assert written[0] == written[1]


def test_ones_own_images_are_described_as_params_yaml_says(prepared, monkeypatch):
    own = describe.Params(title="Our people", creator="The lab", licence="https://example.org/terms")
    monkeypatch.setattr(params, "block", lambda *_: own)
    found = described()
    assert (found["name"], found["license"]) == ("Our people", "https://example.org/terms")
    assert [creator["name"] for creator in found["creator"]] == ["The lab"]
    assert "license: other\nlicense_link: https://example.org/terms\n" in layout.data_card("synthetic").read_text()


def test_a_stage_that_has_not_run_is_named(prepared):
    layout.pairs("synthetic").unlink()
    with pytest.raises(UserError, match=r"data/synthetic/pairs\.parquet: not there"):
        describe.run("synthetic")
    (layout.raw("synthetic") / "source.json").unlink()
    with pytest.raises(UserError, match=r"source\.json: not there, or damaged; run fetch again"):
        describe.run("synthetic")
    assert not layout.croissant("synthetic").exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_says_what_it_is(name):
    about = get(name).ABOUT
    assert about.description.endswith(".")
    assert about.gaps
    assert all(gap.endswith(".") for gap in about.gaps)
    assert name == "folder" or (about.creators and about.licence)
