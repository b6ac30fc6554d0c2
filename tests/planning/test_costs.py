"""Figures of `repose plan`: those of benchmarks/, scaled, and none where none was measured."""

import copy
import csv
import json
import re
import shutil

import pyarrow as pa
import pytest

from pipeline.core import layout, params, store
from pipeline.planning import costs, faults
from tests.conftest import ROOT


@pytest.fixture
def values(monkeypatch) -> dict:
    monkeypatch.chdir(ROOT)
    params.load.cache_clear()
    return copy.deepcopy(params.load())


def of(values: dict, job: str) -> costs.Cost:
    return next(cost for cost in costs.costs(values) if cost.job == job)


def rows(text: str) -> dict[str, list[str]]:
    """Cells of a markdown table by its first column."""
    cells = (
        [cell.strip().strip("`").replace(",", "") for cell in line.strip("| ").split("|")] for line in text.splitlines()
    )
    return {row[0]: row for row in cells if len(row) > 1}


def test_figures_of_trainings_are_those_of_the_benchmark():
    text = (ROOT / "benchmarks/training.md").read_text(encoding="utf-8")
    counted = rows(text.partition("## What it would cost")[2])
    full = rows(re.search(r"The published width, VGG19.*?(?=\nA quarter)", text, re.DOTALL)[0])
    quarter = rows(re.search(r"\nA quarter of the width.*?(?=\n256x256)", text, re.DOTALL)[0])
    with (ROOT / "pipeline/planning/trainings.csv").open(encoding="utf-8") as handle:
        table = list(csv.DictReader(handle))
    assert len(table) == 47
    for row in table:
        one = counted[row["entry"]]
        assert [*row.values()][1:11] == [one[column] for column in (1, 2, 5, 6, 7, 9, 10, 13, 14, 15)]
        assert row["core_full"] == full.get(row["entry"], ["", "", ""])[2]
        assert row["core_quarter"] == quarter.get(row["entry"], ["", "", ""])[2]


def test_a_row_is_of_an_entry_and_one_without_a_row_has_no_figure(values):
    schema = params.schema()["properties"]
    known = {*schema["components"]["properties"], "detector"}
    for family, block in schema["variants"]["properties"].items():
        known |= set() if family == "floors" else set(block["items"]["then"]["enum"])
    assert {row["entry"] for row in costs._table("trainings")} == known
    new = faults.Training("train synthetic mine", "train.synthetic.mine", "mine", {"steps": 10})
    assert costs._training(new, 64 * 32) == costs.Cost("train synthetic mine", None, None, None, None, "not measured")


def test_a_measured_training_takes_what_was_measured(values):
    """SPIG at the published width and batch on 128x64: 2.39 pairs a second."""
    values["datasets"], values["variants"]["spig"] = ["market1501"], ["spig"]
    cost = of(values, "train market1501 spig")
    assert cost.core_hours == pytest.approx(200_000 * 8 / 2.39 / 3600)
    assert cost.gpu_hours == pytest.approx(200_000 * 11.8e-3 / 3600)
    assert cost.gib == pytest.approx(1.0)
    values["train"]["market1501"]["spig"] |= {"steps": 400_000}
    assert of(values, "train market1501 spig").core_hours == pytest.approx(2 * cost.core_hours)
    values["train"]["market1501"]["spig"] |= {"batch": 16}
    assert of(values, "train market1501 spig").core_hours == pytest.approx(4 * cost.core_hours)
    values["train"]["market1501"]["spig"] |= {"width": 0.25}  # measured, too
    assert of(values, "train market1501 spig").core_hours == pytest.approx(400_000 * 16 / 13.65 / 3600)


def test_a_larger_image_takes_what_it_was_measured_to_take(values):
    """SPIG at 256x256, 0.30 pairs a second: within the tenth that the pixels explain."""
    values["datasets"], values["variants"]["spig"] = ["deepfashion"], ["spig"]
    measured = 200_000 * 6 / 0.30 / 3600
    assert of(values, "train deepfashion spig").core_hours == pytest.approx(measured, rel=0.1)


def test_the_parser_takes_what_it_took(values):
    values["datasets"] = ["market1501"]
    assert of(values, "parsing market1501").core_hours == pytest.approx(444 / 3600, rel=0.01)
    values["parsing"]["market1501"]["source"] = "schp"
    assert of(values, "parsing market1501").core_hours == pytest.approx(21, rel=0.05)
    values["parsing"]["market1501"]["source"] = "none"
    assert "parsing market1501" not in [cost.job for cost in costs.costs(values)]


@pytest.mark.parametrize(("form", "first"), [("resize176", 1), ("resize352", 4)])
def test_deepfashions_data_stages_take_what_they_took(values, form, first):
    """As the table of docs/data.md says."""
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8").partition("## Cost")[2]
    measured = {name.partition("`")[0]: cells[first : first + 3] for name, cells in rows(text).items()}
    dataset = f"deepfashion-{form}"
    values = params.with_forms(values | {"datasets": [dataset]})
    values["keypoints"][dataset] = {"source": "openpose"}
    values["parsing"][dataset] = {"source": "repose", "always": True}
    for stage in ("fetch", "index", "keypoints", "parsing", "distance_maps"):
        seconds, gib, gigabytes = (*measured[stage], "")[:3]
        cost = of(values, f"{stage} {dataset}")
        assert cost.core_hours * 3600 == pytest.approx(float(seconds), rel=0.02)
        assert cost.gib == pytest.approx(float(gib), abs=0.2)
        if gigabytes:
            assert cost.disk_mib * 2**20 / 1e9 == pytest.approx(float(gigabytes), abs=0.05)


def test_between_two_sizes_the_nearer_one_counts(values):
    values["datasets"] = ["deepfashion"]  # 256x256: the rows of 256x176, by pixels and by width
    values["parsing"]["deepfashion"] |= {"always": True}
    assert of(values, "index deepfashion").core_hours == pytest.approx(90 * 256 / 176 / 3600, rel=0.01)
    assert of(values, "parsing deepfashion").core_hours == pytest.approx(1880 * 256 / 176 / 3600, rel=0.01)
    assert of(values, "parsing deepfashion").basis == "scaled"


def test_a_reference_takes_its_controls_and_what_inception_sees(values):
    """Milliseconds: 8 a pair by the detector, 34 a picture of a control by what is no network's, 136 by Inception."""
    source = (ROOT / "pipeline/scoring/controls.py").read_text(encoding="utf-8")
    assert source.count("\n    Control(\n") + source.count('\n    Control("') == costs.CONTROLS
    of_reference = params.schema()["$defs"]["stages.reference.Params"]["properties"]
    assert of_reference["controls"]["default"] == costs.CONTROLLED
    values["datasets"] = ["market1501"]
    seconds = {}
    for number in (0, 100, 200):
        values["reference"]["market1501"]["controls"] = number
        seconds[number] = of(values, "reference market1501").core_hours * 3600
    assert seconds[0] == pytest.approx(12_000 * 0.144)
    assert seconds[100] - seconds[0] == pytest.approx(8 * 100 * 0.170)
    del values["reference"]["market1501"]["controls"]
    assert of(values, "reference market1501").core_hours * 3600 == pytest.approx(seconds[200])
    values["datasets"], values["reference"]["deepfashion"]["controls"] = ["deepfashion"], 0  # fid-train-tv, too
    assert of(values, "reference deepfashion").core_hours * 3600 == pytest.approx(8_570 * 0.280 + 48_674 * 0.136)


def test_a_network_that_is_skipped_takes_nothing(values, monkeypatch):
    values["datasets"], values["reference"]["market1501"]["controls"] = ["market1501"], 0
    monkeypatch.setenv("REPOSE_OFFLINE", "1")
    monkeypatch.delenv("REPOSE_MIRROR", raising=False)
    values["reference"]["market1501"]["missing_weights"] = "skip"
    assert of(values, "reference market1501").core_hours * 3600 == pytest.approx(12_000 * 0.008)
    assert of(values, "score market1501 mean_image").core_hours * 3600 == pytest.approx(12_000 * 0.034)
    values["reference"]["market1501"]["missing_weights"] = "seeded"
    assert of(values, "score market1501 mean_image").core_hours * 3600 == pytest.approx(12_000 * 0.170)


def test_every_checkpoint_of_every_run_is_scored(values):
    values["datasets"], values["named"]["spgnet"] = ["market1501"], {"spgnet-short": {"steps": 25_000}}
    assert of(values, "score market1501 spgnet").core_hours == pytest.approx(9 * 12_000 * 0.210 / 3600)
    assert of(values, "score market1501 spgnet-short").core_hours == pytest.approx(3 * 12_000 * 0.210 / 3600)


def test_stand_ins_are_ranked_in_the_square_of_their_number(values, monkeypatch):
    values["datasets"], values["variants"]["spt"] = ["market1501"], ["spt"]
    once = of(values, "pseudo_labels market1501 equation").core_hours * 3600
    assert once == pytest.approx(204, rel=0.01)
    assert not [cost for cost in costs.costs(values) if cost.job == "pseudo_labels market1501 balanced"]
    monkeypatch.setitem(costs.IMAGES, "market1501", (32_668, 10 * 12_936, 12_000))
    many = of(values, "pseudo_labels market1501 equation").core_hours * 3600
    assert many == pytest.approx(10 * (once - 22.4) + 100 * 22.4, rel=0.01)


def test_what_is_not_known_is_no_figure(values):
    values["datasets"] = ["folder"]
    cost = of(values, "index folder")
    assert cost.core_hours is None
    assert cost.basis == "not known before the images are counted"


def test_own_images_are_counted(values, tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image")
    values["datasets"] = ["folder"]
    values["fetch"]["folder"] |= {"path": str(tmp_path), "height": 256, "width": 256}
    assert costs.size(values, "folder").images == 12
    assert of(values, "index folder").core_hours == pytest.approx(12 * 1.71 * 256 / 176 / 3.6e6)


def test_what_was_fetched_and_paired_is_counted(values, tmp_path, monkeypatch):
    values["datasets"] = ["deepfashion_sample"]
    assert of(values, "score deepfashion_sample spgnet").core_hours is None
    shutil.copy(layout.PARAMS_SCHEMA, tmp_path)
    monkeypatch.chdir(tmp_path)
    layout.raw("deepfashion_sample").mkdir(parents=True)
    counts = {"images": {"train": {"count": 100}, "test": {"count": 40}}}
    (layout.raw("deepfashion_sample") / "source.json").write_text(json.dumps(counts))
    splits = pa.table({"split": ["test"] * 7 + ["train"] * 9})
    store.write_table(layout.pairs("deepfashion_sample"), splits, splits.schema)
    found = costs.size(values, "deepfashion_sample")
    assert (found.images, found.training, found.pairs) == (140, 100, 7)
    assert of(values, "score deepfashion_sample spgnet").core_hours > 0
