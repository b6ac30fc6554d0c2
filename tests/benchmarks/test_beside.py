"""Two commits side by side: each runs its own code on the same batches, and learning is compared over seeds."""

import argparse
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import beside
from models.variants import VARIANTS
from tests.conftest import ROOT


@pytest.mark.slow
def test_each_side_runs_the_code_of_its_own_checkout(tmp_path):
    """One step of GFLA's flow network here and where its sampling loss counts twice as much."""
    before, data = tmp_path / "before", tmp_path / "data.npz"
    for name in ("models", "pipeline"):
        shutil.copytree(ROOT / name, before / name, ignore=shutil.ignore_patterns("__pycache__"))
    file = before / "models/gfla.py"
    text = file.read_text(encoding="utf-8")
    assert text.count('"sampling": 20.0') == 1
    file.write_text(text.replace('"sampling": 20.0', '"sampling": 40.0'), encoding="utf-8")
    beside.write_random(data, 64, 32, count=4)
    task = {"name": "gfla_flow", "data": str(data), "batch": 2, "width": 0.05, "seed": 3}
    task |= {"features": "squeezenet1_1", "precision": "fp32"}
    found = {way: beside.losses(where, 2, **task) for way, where in beside.checkouts(before).items()}
    assert [len(found[way]) for way in beside.WAYS] == [2, 2]
    first = {way: found[way][0]["sampling"] for way in beside.WAYS}
    assert first["before"] == pytest.approx(2 * first["after"])
    assert found["before"][0]["affine"] == pytest.approx(found["after"][0]["affine"])
    took = beside.costs(before, 1, **task, length=1000, first=500)
    assert all(seconds > 0 and 100 < peak < 10_000 for seconds, peak in took.values())


@pytest.mark.slow
def test_a_checkout_without_the_code_is_named(tmp_path):
    with pytest.raises((RuntimeError, SystemExit), match=str(tmp_path)):
        beside.Side(tmp_path)


def test_one_variant_stands_for_each_family():
    names = beside.one_a_family()
    assert names == ["spig", "spgnet", "spt_baseline", "sgw", "patn", "gfla", "def_gan", "vunet"]
    assert all(VARIANTS[name].phase for name in names)


@pytest.mark.parametrize(
    ("before", "after", "within"),
    [
        ([1.0, 1.2, 1.1], [1.1, 1.1, 1.1], "yes"),
        ([1.0, 1.2, 1.1], [1.3, 1.3, 1.28], "yes"),
        ([1.0, 1.2, 1.1], [1.31, 1.31, 1.31], "no"),
        ([1.1, 1.1, 1.1], [1.0, 1.4, 1.2], "yes"),  # the later commit's spread counts as well
    ],
)
def test_ends_are_compared_with_the_spread_over_seeds(before, after, within):
    assert beside.verdict({"before": before, "after": after})[-1] == within


def test_curves_are_tabled_and_drawn(tmp_path, monkeypatch, capsys):
    """By runs whose losses are known: before 1 / step + seed, after the same and a new term."""

    def losses(checkout, steps, seed, **task):
        new = {"b": 0.5} if checkout == beside.HERE else {}
        return [{"a": 1 / step + seed} | new for step in range(1, steps + 1)]

    monkeypatch.setattr(beside, "losses", losses)
    monkeypatch.setattr(beside, "write_prepared", lambda *some: None)
    monkeypatch.chdir(tmp_path)
    options = argparse.Namespace(
        output=tmp_path / "picture.svg", project=tmp_path, variants=["gfla"], dataset="synthetic", beside=tmp_path,
        batch=None, width=0.25, precision="bf16", features=None, steps=100, seeds=[0, 1, 2],
    )  # fmt: skip
    beside.curves(options)
    mean = np.mean([1 / step for step in range(51, 101)]) + 1
    lines = capsys.readouterr().out.splitlines()
    assert f"| `gfla` | a | {mean:.4g} (2) | {mean:.4g} (2) | 0 | yes |" in lines
    assert "| `gfla` | b | – |  |  | new |" in lines
    drawn = ElementTree.parse(tmp_path / "picture.svg").getroot().iter("{http://www.w3.org/2000/svg}polyline")
    assert len(list(drawn)) == 6
