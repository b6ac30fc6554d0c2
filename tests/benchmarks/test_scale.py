"""The plan of the full reproduction, and the measurement of data stages on a small data set."""

from types import SimpleNamespace

import pytest

from benchmarks import scale
from models.variants import VARIANTS
from pipeline.core import layout, params
from pipeline.planning import costs
from tests.conftest import ROOT


def test_the_full_reproduction_has_both_data_sets_and_every_variant_from_three_seeds(monkeypatch):
    monkeypatch.chdir(ROOT)
    values = params.check(scale.full(), layout.PARAMS)
    assert values["datasets"] == ["market1501", "deepfashion"]
    runs = [run for _, _, run in params.runs(values)]
    trained = [name for name, one in VARIANTS.items() if one.phase]
    assert sorted(run for run in runs if run.endswith("-seed2")) == sorted(f"{name}-seed2" for name in trained)
    assert len(runs) == 3 * len(trained) + 2


def planned(monkeypatch, capsys, **options) -> str:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(costs, "IMAGES", dict(costs.IMAGES))
    scale.show_plan(SimpleNamespace(**{"gpus": [1, 8], "cores": 16, "images": 1} | options))
    return capsys.readouterr().out


def test_more_gpus_are_faster_and_more_images_slower(monkeypatch, capsys):
    once = planned(monkeypatch, capsys)
    hours = [
        float(line.split("|")[2].replace(",", "")) for line in once.splitlines() if line.startswith(("| 1 |", "| 8"))
    ]
    assert 7 < hours[0] / hours[1] < 8.01
    assert "| `train` | 186 |" in once
    many = planned(monkeypatch, capsys, images=100)
    last = many.splitlines()
    assert any(line.startswith("| `pseudo_labels` | 4 |") and float(line.split("|")[5]) > 100 for line in last)


@pytest.mark.slow
def test_four_parts_are_measured_beside_one_job(capsys):
    scale.show_parts(SimpleNamespace(at_once=2, maps=40, photographs=3))
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("| `")]
    assert [row[0].strip() for row in rows] == ["`distance_maps`", "`parsing`"]
    for row in rows:
        assert all(0.1 < float(cell) < 60 for cell in row[2:5])
        assert row[-1].strip() == "yes"


@pytest.mark.slow
def test_stages_are_measured(tmp_path):
    found = scale.stage_costs(2, tmp_path)
    assert [*found] == [*scale.STAGES]
    for seconds, mib, disk in found.values():
        assert 0.1 < seconds < 60
        assert 30 < mib < 4000
        assert disk > 0
    assert found["distance_maps"][2] > found["pairs"][2]
