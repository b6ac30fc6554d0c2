"""A sample of the faults of `make faults`, and that they would be noticed."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core import atomic
from tests.conftest import ROOT
from tests.faults import power, verdict
from tests.faults.kinds import KINDS, Try
from tests.faults.project import Ended, Known

# In a process of its own, which has no thread.
SAMPLE = """
import json, random
from tests.faults.__main__ import KINDS, built, trial
from pipeline.core import atomic
chance = random.Random(0)
with built() as project:
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(20)]
    found = [(name, trial(project, name, chance.randrange(KINDS[name][1]), 0)) for name in kinds]
    sync, cut = atomic.sync, "power cut, right after the end"
    atomic.sync = lambda path: sync(path) if path.is_dir() else None
    content = trial(project, cut, 5, 0)
    atomic.sync = lambda path: None if path.is_dir() else sync(path)
    names = trial(project, cut, 5, 0)
print(json.dumps([found, content, names]))
"""


@pytest.mark.slow
def test_a_sample_of_all_kinds_ends_well_and_without_fsync_a_power_cut_does_not():
    done = subprocess.run([sys.executable, "-c", SAMPLE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found, content, names = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 20
    assert {name for name, _ in found} == set(KINDS)
    assert [name for name, outcome in found if outcome == "wrong"] == [], done.stdout
    assert content == names == "wrong"


def after_a_cut(folder: Path, work) -> dict[str, bytes]:
    """What a disk has of the files in a folder if the power fails when `work` is done."""
    with power.cut(folder, random.Random(0)) as record:
        process = os.fork()
        if process == 0:
            record()
            work()
            os._exit(0)
        assert os.waitpid(process, 0)[1] == 0
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def disk(tmp_path) -> Path:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/old").write_bytes(b"old")
    return tmp_path / "disk"


def test_a_power_cut_leaves_what_was_synced_and_undoes_what_was_not(disk):
    def unsynced() -> None:
        (disk / "new").write_bytes(b"new")

    def renamed() -> None:
        (disk / "new").write_bytes(b"new")
        atomic.sync(disk / "new")
        (disk / "new").replace(disk / "old")

    def whole() -> None:
        renamed()
        atomic.sync(disk)

    assert after_a_cut(disk, unsynced)["new"] != b"new"
    assert after_a_cut(disk, renamed) == {"old": b"old", "new": b"new"}
    assert after_a_cut(disk, whole) == {"old": b"new"}


def test_a_power_cut_undoes_links_and_leaves_what_was_there_before(disk):
    def linked() -> None:
        (disk / "second").hardlink_to(disk / "old")

    def linked_and_synced() -> None:
        linked()
        atomic.sync(disk)

    assert after_a_cut(disk, linked) == {"old": b"old"}
    assert after_a_cut(disk, linked_and_synced) == {"old": b"old", "second": b"old"}


class OneFile:
    """A project with one job, whose one output is the file `output`; it says what its next run says."""

    def __init__(self, again: Ended, content: str = "new"):
        self.again, self.content, self.others = again, content, {}
        self.known = {"job": Known({"output": "new"}, 1.0, 1)}
        self.name, self.outputs = "job", ("output",)

    def run(self, job, before):
        return self

    def wait(self) -> Ended:
        Path("output").write_text(self.content)
        return self.again


WELL = Ended(0, "", 1.0)
LINE = Ended(2, "repose: fetch: No space left on device (data/x); free space, then run again\n", 1.0)


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """What `verdict.outcome` says of a run that ended so, and of the one after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verdict, "held", lambda paths: {p: Path(p).read_text() for p in paths if Path(p).exists()})

    def judge(ended: Ended, again: Ended = WELL, content: str = "new", before: str = "nothing", **options) -> str:
        project = OneFile(again, content)
        return verdict.outcome(Try(project, project, random.Random(0), before, **options), [ended])

    return judge


def test_a_run_that_went_well_was_killed_or_said_a_line_is_told_apart(judged):
    Path("output").write_text("new")
    assert judged(WELL) == "undisturbed"
    assert judged(LINE) == "a line"
    assert judged(LINE, names_a_file=True) == "a line"
    assert judged(Ended(-9, "", 1.0), expected={-9}) == "stopped"


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (Ended(1, "Traceback (most recent call last)\n", 1.0), "a traceback"),
        (Ended(1, "repose: fetch failed: a fault of ours, not of your input; details above\n", 1.0), "a traceback"),
        (Ended(-11, "", 1.0), "status -11"),
        (Ended(2, "", 1.0), "status 2"),
        (Ended(2, LINE.said * 2, 1.0), "status 2"),
        (Ended(2, "repose: fetch: No space left on device; free space\n", 1.0), "no file is named"),
    ],
)
def test_an_end_that_helps_nobody_is_wrong(judged, ended, why):
    with pytest.raises(verdict.Wrong, match=why):
        judged(ended, names_a_file=True)


@pytest.mark.parametrize(
    ("again", "content", "why"),
    [
        (Ended(2, LINE.said, 1.0), "new", "the next run: status 2"),
        (Ended(0, "train: its settings changed; what was trained is set aside in .work\n", 1.0), "new", "not taken up"),
        (WELL, "another", "other bytes"),
    ],
)
def test_what_does_not_mend_itself_is_wrong(judged, again, content, why):
    with pytest.raises(verdict.Wrong, match=why):
        judged(LINE, again, content)


def test_half_an_output_and_what_is_left_behind_are_wrong(judged):
    Path("output").write_text("half")
    with pytest.raises(verdict.Wrong, match="of no whole run"):
        judged(LINE)
    Path("output").unlink()
    with pytest.raises(verdict.Wrong, match="gone"):
        judged(WELL)
    Path(".output.here-1.partial").touch()
    with pytest.raises(verdict.Wrong, match="left behind"):
        judged(LINE)
