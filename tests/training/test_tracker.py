"""TensorBoard and DVCLive are given the lines of the metrics log, each once, whenever they start to watch."""

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.core import seals
from pipeline.core.errors import UserError
from pipeline.training import tracker

LINES = [{"step": step, "l1": step / 4, "adversarial": -step / 8} for step in range(1, 6)]  # exact in float32


def of_tensorboard(folder: Path) -> list[dict]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    terms = {term: {event.step: event.value for event in events.Scalars(term)} for term in events.Tags()["scalars"]}
    assert all(len(events.Scalars(term)) == len(found) for term, found in terms.items())
    return [{"step": step, **{term: terms[term][step] for term in terms}} for step in next(iter(terms.values()))]


def of_dvclive(folder: Path) -> list[dict]:
    lines: dict[int, dict] = {}
    for path in (folder / "plots/metrics").glob("*.tsv"):
        with path.open(newline="") as handle:
            for row in csv.DictReader(handle, delimiter="\t"):
                line = lines.setdefault(int(row["step"]), {"step": int(row["step"])})
                assert path.stem not in line
                line[path.stem] = float(row[path.stem])
    return list(lines.values())


@pytest.mark.parametrize(("name", "read"), [("tensorboard", of_tensorboard), ("dvclive", of_dvclive)])
def test_it_holds_what_the_log_holds(tmp_path, name, read):
    """The first time from the third step on; then a run that goes on after the fourth, which it had left behind."""
    pytest.importorskip(name)
    log = tmp_path / "synthetic-spig.jsonl"
    for done, last in ((2, 5), (4, 5)):
        log.write_text("".join(map(seals.json_line, LINES[:done])))
        with tracker.following(name, log) as follow:
            for line in LINES[done:last]:
                follow(line)
        assert read(tmp_path / f"synthetic-spig.{name}") == LINES
    assert {path.name for path in tmp_path.iterdir()} == {log.name, f"synthetic-spig.{name}"}


def test_none_writes_nothing(tmp_path):
    with tracker.following("none", tmp_path / "no.jsonl") as follow:
        follow(LINES[0])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(tracker, "find_spec", lambda name: None if name == "dvclive" else find_spec(name))
    tracker.require("none", "train.synthetic.spig")
    line = "train.synthetic.spig.tracker is dvclive, which is not installed: pip install dvclive, or set it to none"
    with pytest.raises(UserError, match=line):
        tracker.require("dvclive", "train.synthetic.spig")
