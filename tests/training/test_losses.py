"""The losses of a training as curves: few points, each the mean of its span, and nothing of what was not trained."""

import csv
from types import SimpleNamespace

import pytest

from pipeline.core import layout, seals
from pipeline.training import fit, loop, losses


def write(folder, steps, asked=1000):
    log = folder / "log.jsonl"
    log.write_text("".join(map(seals.json_line, steps)))
    losses.write(log, folder / "losses", asked)
    with (folder / "losses/terms.csv").open(newline="") as file:
        return [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)]


def test_a_short_training_keeps_every_step(tmp_path):
    steps = [{"step": step, "l1": 1 / step, "style": float(step)} for step in (1, 2, 3)]
    expected = [(s["step"], name, pytest.approx(s[name], rel=1e-5)) for s in steps for name in ("l1", "style")]
    assert write(tmp_path, steps) == expected


def test_a_long_one_is_thinned_to_the_means_of_its_spans(tmp_path):
    """1000 steps: spans of 4. A term that starts late has points from there on."""
    steps = [{"step": step, "l1": float(step)} | ({"late": 2.0} if step > 500 else {}) for step in range(1, 1001)]
    rows = write(tmp_path, steps)
    assert [row for row in rows if row[1] == "l1"] == [(4 * n, "l1", 4 * n - 1.5) for n in range(1, 251)]
    assert [row[0] for row in rows if row[1] == "late"] == list(range(504, 1001, 4))
    assert max(sum(row[1] == name for row in rows) for name in ("l1", "late")) <= losses.POINTS


def test_the_last_span_ends_with_the_training(tmp_path):
    rows = write(tmp_path, [{"step": step, "l1": 1.0} for step in range(1, 302)])
    assert [row[0] for row in rows] == [*range(2, 301, 2), 301]


def test_steps_that_are_no_longer_asked_for_are_left_out(tmp_path):
    """A training that went further before has the curves of one that did not."""
    steps = [{"step": step, "l1": 1 / step} for step in range(1, 1001)]
    assert write(tmp_path, steps, 400) == write(tmp_path, steps[:400])
    assert write(tmp_path, steps, 2) == [(1, "l1", 1.0), (2, "l1", 0.5)]


def test_published_losses_end_with_the_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit.checkpoints, "publish", lambda *_: None)
    log = tmp_path / "log.jsonl"
    log.write_text("".join(seals.json_line({"step": step, "l1": 1.0}) for step in range(1, 7)))
    fit.publish("synthetic", "spig", loop.Trained(tmp_path, [2, 4], None, log), SimpleNamespace(as_dict=dict))
    lines = (layout.losses("synthetic", "spig") / "terms.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("log", [None, "empty", "gone"])
def test_without_a_log_the_folder_is_empty(tmp_path, log):
    (tmp_path / "empty").touch()
    losses.write(log and tmp_path / log, tmp_path / "losses")
    assert list((tmp_path / "losses").iterdir()) == []
