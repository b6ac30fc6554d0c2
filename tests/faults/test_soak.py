"""What a soak looks for is found when it is there."""

import json
import random
import subprocess
import sys
import time

import pytest
import yaml

from pipeline.core import graph
from tests.conftest import ROOT
from tests.faults import soak
from tests.faults.soak import SETTINGS, Soak


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Soak:
    """In a project without outputs."""
    found = Soak(tmp_path, random.Random(0))
    for name in ("project", "tmp", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(found.project)
    found.values = yaml.safe_load((ROOT / "params.yaml").read_text())
    return found


def test_every_setting_is_one_of_params_yaml_and_begins_with_its_first_value(empty):
    from tests.commands.test_engines import make_tiny

    make_tiny(empty.values)
    for name in SETTINGS:
        block = empty.values
        for part in name.split(".")[:-1]:
            block = block[part]
        assert name.split(".")[-1] in block or name in ("train.synthetic.spig.seed", "score.synthetic.bootstrap")
    empty.settings["train.synthetic.spig.steps"] = 1
    empty.write()
    written = yaml.safe_load((empty.project / "params.yaml").read_text())
    assert written["train"]["synthetic"]["spig"]["steps"] == 4
    assert written["distance_maps"]["synthetic"]["kappa"] == -0.1
    assert empty.values["train"]["synthetic"]["spig"]["steps"] == 2


def test_rounds_follow_from_the_seed_and_come_back(tmp_path):
    walks = []
    for seed in (0, 0, 1):
        one, said = Soak(tmp_path, random.Random(seed)), []
        for _ in range(200):
            one.earlier.setdefault(one.key, {})
            said.append(one.choose())
        walks.append((said, [*one.earlier]))
    assert walks[0] == walks[1] != walks[2]
    assert 50 < walks[0][0].count("back to earlier settings") < 110
    assert {name for name in SETTINGS if any(said.startswith(f"{name}:") for said in walks[0][0])} == {*SETTINGS}


def test_a_process_that_stays_is_found(empty):
    """One that has left its parent, and is still in the session of the command."""
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1)  # stayed'])"
    ran = empty.call(sys.executable, "-c", child)
    assert ran.status == 0
    assert len(ran.left) == 1
    assert "stayed" in ran.left[0]
    assert empty.call(sys.executable, "-c", "print('done')").left == []


def test_memory_and_open_files_are_those_of_the_children(empty):
    code = "import time; held = [open('/dev/null') for _ in range(200)], b'x' * (200 << 20); time.sleep(1.2)"
    ran = empty.call(sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])")
    assert 200 < ran.mib < 10_000  # at least what this process had when it started the other
    assert 200 < ran.files < 300


def test_what_ended_badly_says_so(empty):
    ran = empty.call(sys.executable, "-c", "print('why'); raise SystemExit(3)")
    assert (ran.status, ran.said) == (3, "why\n")


def test_other_bytes_with_the_same_settings_are_a_fault(empty, monkeypatch):
    made = empty.project / "data/images"
    made.mkdir(parents=True)
    (made / "part-0").write_bytes(b"one")
    (made / ".snakemake_timestamp").write_bytes(b"now")
    job = graph.Job("index", "", "index", {}, (), ("data/images",), {}, {})
    monkeypatch.setattr(graph, "jobs", lambda values: [job])
    monkeypatch.setattr(soak.params, "load", lambda: {})
    soak.params.load.cache_clear = lambda: None
    empty.compare()
    (made / ".snakemake_timestamp").write_bytes(b"then")
    empty.compare()
    assert (empty.wrong, empty.returned) == ([], 1)
    (made / "part-0").write_bytes(b"two")
    empty.settings["report.title"] = 1
    empty.compare()
    assert not empty.wrong  # other settings
    empty.settings["report.title"] = 0
    empty.compare()
    assert len(empty.wrong) == 1
    assert "data/images/part-0" in empty.wrong[0]
    (made / "part-1").write_bytes(b"new")
    empty.compare()
    assert "of 2" in empty.wrong[1]


def test_a_stage_that_runs_again_is_a_fault(empty, monkeypatch):
    log = empty.project / "logs/index/synthetic.log"
    log.parent.mkdir(parents=True)
    log.write_text("ran")
    monkeypatch.setattr(empty, "module", lambda *command: soak.Ran(0, "", 0.0, 0, []))
    empty.idle()
    assert not empty.wrong

    def again(*command: str) -> soak.Ran:
        time.sleep(0.01)
        log.write_text("ran again")
        return soak.Ran(0, "", 0.0, 0, [])

    monkeypatch.setattr(empty, "module", again)
    empty.idle()
    assert all("index/synthetic.log" in fault for fault in empty.wrong)
    assert len(empty.wrong) == 2


@pytest.mark.parametrize(
    ("command", "said", "fault"),
    [
        ("handoff", soak.Ran(2, "nothing handed over", 0, 0, []), "handoff: nothing handed over"),
        ("verify", soak.Ran(1, "damaged", 0, 0, []), "verify: damaged"),
        (
            "status",
            soak.Ran(0, '{"jobs": [{"job": "index", "state": "stale", "why": "x"}]}', 0, 0, []),
            "index: stale x",
        ),
        ("snakemake", soak.Ran(1, "stopped", 0, 0, []), "snakemake ended with 1: stopped"),
        ("snakemake", soak.Ran(0, "", 0, 0, ["python -m pipeline train"]), "processes left"),
    ],
    ids=["handoff", "verify", "status", "engine", "left"],
)
def test_whatever_has_to_hold_after_a_round(empty, monkeypatch, command, said, fault):
    good = soak.Ran(0, json.dumps({"jobs": [{"job": "index", "state": "done", "why": ""}]}), 1.0, 1, [])

    def module(*words: str) -> soak.Ran:
        return said if command in words[:2] else good

    monkeypatch.setattr(empty, "idle", lambda: None)
    monkeypatch.setattr(empty, "compare", lambda: None)
    monkeypatch.setattr(empty, "module", lambda *words: good)
    empty.run("snakemake")
    assert not empty.wrong
    monkeypatch.setattr(empty, "module", module)
    empty.run("snakemake")
    assert any(fault in found for found in empty.wrong)
    assert len(empty.wrong) == 1
    (empty.project / "data").mkdir()
    (empty.project / "data/.images.123.partial").write_text("")
    empty.run("snakemake")
    assert "half-written" in empty.wrong[-2] or "half-written" in empty.wrong[-1]


def test_a_folder_is_counted_whole(empty):
    (empty.project / ".work/train").mkdir(parents=True)
    (empty.project / ".work/train/state.pt").write_bytes(bytes(1000))
    (empty.folder / "tmp/left").write_bytes(bytes(10))
    found = empty.sizes()
    assert (found[".work"], found["../tmp"], found["runs"]) == ((1000, 1), (10, 1), (0, 0))


def test_make_soak_runs_it():
    said = subprocess.run(["make", "-n", "soak"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m tests.faults.soak" in said
