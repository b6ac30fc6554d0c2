"""The stage `plan`: a fault is told in seconds and leaves no output; what passes always writes the same."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import __main__ as command_line
from pipeline.core import layout, params
from pipeline.planning.costs import Cost, costs
from pipeline.planning.machine import Machine
from pipeline.stages import plan
from tests.conftest import ROOT
from tests.small_project import enter


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    enter(tmp_path, monkeypatch, datasets=["synthetic"])
    monkeypatch.setenv("REPOSE_OFFLINE", "1")
    monkeypatch.delenv("REPOSE_MIRROR", raising=False)
    yield tmp_path
    params.load.cache_clear()


def edit(**settings) -> None:
    values = yaml.safe_load(Path("params.yaml").read_text())
    for key, value in settings.items():
        *path, last = key.split("__")
        block = values
        for part in path:
            block = block[part]
        block[last] = value
    Path("params.yaml").write_text(yaml.safe_dump(values))
    params.load.cache_clear()


def test_what_passes_writes_the_same_whatever_params_yaml_says(clone, capsys):
    assert command_line.main(["plan"]) == 0
    first = layout.PLAN.read_bytes()
    said = capsys.readouterr().err
    assert "train synthetic spgnet" in said
    assert "plan: nothing in params.yaml stops the run" in said
    edit(train__synthetic__spgnet__steps=7)
    assert command_line.main(["plan"]) == 0
    assert layout.PLAN.read_bytes() == first


def test_faults_are_a_line_each_and_leave_no_output(clone, capsys):
    edit(
        variants__patn=["patn"],
        train__synthetic__patn__missing_weights="stop",
        train__synthetic__patn__features=None,
        parsing__synthetic__source="none",
    )
    assert command_line.main(["plan"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("repose: plan: ")]
    assert len(lines) == 2
    assert "train synthetic patn needs the published network vgg19" in lines[0]
    assert "parsing.synthetic.source is none" in lines[1]
    assert not layout.PLAN.exists()
    record = json.loads(Path("logs/plan/plan.json").read_text())
    assert [f"repose: plan: {line}" for line in record["faults"]] == lines
    assert "train synthetic patn" in [job["job"] for job in record["jobs"]]


def test_it_loads_no_network(clone):
    code = "import sys; from pipeline.__main__ import main; main(['plan']); assert not {'torch'} & {*sys.modules}"
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)


def test_what_may_not_fit_is_said():
    jobs = [Cost("train D v", 1, 1, 12.0, None, "counted"), Cost("score D v", 1, None, 1.0, 4096, "scaled")]
    small = Machine(cores=2, memory=16.0, disk=1.0)
    said = list(plan.too_large(jobs, small, {}))
    assert said[0].startswith("train D v takes some 24 GiB of memory, and this machine has 16 free; a smaller batch")
    assert said[1].startswith("the run writes 4 GiB")
    large = Machine(cores=2, memory=16.0, disk=100.0, gpus=(("H100", 80.0),))
    assert list(plan.too_large(jobs, large, {})) == []


def test_a_sum_says_what_it_leaves_out():
    jobs = [Cost("a", 2.0, None, None, None, "measured"), Cost("b", None, None, None, None, "not measured")]
    _, first, second, together = plan.table(jobs)
    assert first.split()[:2] == ["a", "2.0"]
    assert second.split()[:2] == ["b", "?"]
    assert together.endswith("and 1 jobs that are not known")


def test_a_long_run_is_laid_out_on_several_gpus(monkeypatch):
    monkeypatch.chdir(ROOT)
    params.load.cache_clear()
    values = copy.deepcopy(params.load())
    assert not [*plan.on_gpus(values, [*costs(values)])]  # the demo is no long run
    values["datasets"], values["variants"]["patn"] = ["market1501"], ["patn", *(f"patn-seed{n}" for n in range(1, 16))]
    said, chain = plan.on_gpus(values, [*costs(values)])
    hours = re.fullmatch(r"on so many H100, with 16 cores each: 1: (\d+) h, 8: (\d+) h, 64: (\d+) h", said)
    one, eight, many = map(int, hours.groups())
    assert one > 5 * eight  # each GPU has its cores
    assert many < eight
    assert "train_spgnet@market1501-spgnet 0.5, score_spgnet@market1501-spgnet 0.8" in chain
