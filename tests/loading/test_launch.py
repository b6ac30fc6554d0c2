"""`gpus` of a job's settings: as many processes, each of which ends as the command would alone."""

import copy
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from pipeline.__main__ import main
from pipeline.core import graph, layout, params
from pipeline.loading import checkpoints
from tests import tiny_dataset
from tests.conftest import ROOT

TRAIN = ["train", "--dataset", "synthetic", "--variant", "patn"]


@pytest.fixture
def enter(tmp_path, monkeypatch):
    """Write params.yaml with settings for PATN, and stand beside it."""

    def write(**settings):
        tiny_dataset.write_params(tmp_path, patn={"steps": 3, "checkpoint_every": 3, "batch": 2} | settings)
        params.load.cache_clear()

    monkeypatch.chdir(tmp_path)
    for name in ("WORLD_SIZE", "RANK", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # so that it is afterwards as it was, whatever is set here
        monkeypatch.delenv(name)
    yield write
    params.load.cache_clear()


@pytest.fixture
def started(monkeypatch):
    """What torchrun would have been asked to do; the item `ends`, if it is set, is raised."""
    asked = {}

    def pretend(arguments):
        asked["arguments"] = arguments
        if "ends" in asked:
            raise asked["ends"]

    monkeypatch.setattr(run, "run", pretend)
    return asked


def test_as_many_processes_as_a_jobs_own_settings_say():
    values = copy.deepcopy(params.load(ROOT / "params.yaml"))
    values["variants"]["spig"] = ["spig"]
    values["named"]["spig"] = {"spig-fast": {"gpus": 4}, "spig-slow": {"batch": 1}}
    values["train"]["synthetic"]["spig"]["gpus"] = 2
    for component in ("spig_flow", "spig_flow_whole", "spatn"):
        values["pretrain"]["synthetic"][component]["gpus"] = 3
    found = {str(job): job.processes for job in graph.jobs(values) if job.processes > 1}
    assert found == {
        "train synthetic spig": 2,
        "train synthetic spig-fast": 4,
        "train synthetic spig-slow": 2,
        "pretrain synthetic spig_flow": 3,  # nobody asks for the other one
        "pretrain synthetic spatn": 3,
    }


@pytest.mark.parametrize(
    ("settings", "there", "line"),
    [
        ({"gpus": 4, "device": "auto"}, 1, "this machine has 1 GPU; lower it, or set device to cpu"),
        ({"gpus": 4, "device": "cuda"}, 3, "this machine has 3 GPUs; lower it, or set device to cpu"),
        ({"gpus": 4, "device": "auto"}, 0, "this machine has no GPU; lower it, or set device to cpu"),
        ({"gpus": 4, "device": "cuda:1"}, 4, "device is cuda:1, one of them; set device to cuda"),
        ({"gpus": 4, "device": "cuda"}, 4, None),
        ({"gpus": 4, "device": "cpu"}, 0, None),
    ],
)
def test_more_than_there_are_is_one_line(enter, started, monkeypatch, capfd, settings, there, line):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    enter(**settings)
    assert main(TRAIN) == (2 if line else 0)
    said = f"repose: params.yaml: gpus is 4 for train synthetic patn, and {line}\n"
    assert capfd.readouterr().err == (said if line else "")
    assert bool(started) == (line is None)


def test_torchrun_is_told_what_to_start_and_each_process_its_threads(enter, started, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(9))
    enter(gpus=4)
    assert main(TRAIN) == 0
    assert started["arguments"].nproc_per_node == "4"
    assert [started["arguments"].training_script, *started["arguments"].training_script_args] == ["pipeline", *TRAIN]
    assert started["arguments"].module
    assert os.environ["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert main(TRAIN) == 0
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert not layout.log("train", "synthetic", "spt_baseline").exists()  # nor a lock: both are the first process's


def test_one_of_several_starts_no_others(enter, started, monkeypatch):
    enter(gpus=2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(TRAIN) == 2  # it looks for the data, which are not there
    assert not started


def failed(status):
    failure = ProcessFailure(local_rank=1, pid=7, exitcode=status, error_file="none")
    return ChildFailedError("pipeline", {1: failure})


@pytest.mark.parametrize(
    ("ends", "status", "line"),
    [
        (failed(2), 2, ""),
        (failed(1), 1, ""),
        (failed(-9), 2, "a process got signal 9 (too little memory, most often); the same command goes on"),
        (failed(-11), 2, "a process got signal 11 (somebody ended it); the same command goes on"),
        (SignalException("", signal.SIGTERM), 130, ""),
    ],
)
def test_the_command_ends_as_its_processes_do(enter, started, capfd, ends, status, line):
    enter(gpus=2)
    started["ends"] = ends
    assert main(TRAIN) == status
    assert capfd.readouterr().err == (f"repose: train synthetic patn: {line}\n" if line else "")


@pytest.mark.slow
def test_stopped_by_a_signal_it_goes_on_to_the_same_bytes(enter, tmp_path, monkeypatch):
    """Two processes of the CPU, to which the command that started them passes the signal on."""
    tiny_dataset.write(tmp_path)
    enter(gpus=2, steps=20, checkpoint_every=10)
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tiny_dataset.ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline"]
    log, out = layout.metrics_log("train", "synthetic", TRAIN[-1]), layout.checkpoints("synthetic", TRAIN[-1])

    def train():
        return subprocess.Popen([*command, *TRAIN], env=environment, stderr=subprocess.PIPE, text=True)

    first = train()
    while not (log.exists() and len(log.read_text().splitlines()) > 2):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.02)
    first.terminate()
    said = first.communicate(timeout=120)[1]
    assert first.returncode == 130, said
    assert said.count("interrupted; nothing half-written was left") in (1, 2)
    assert not out.exists()
    steps = len(log.read_text().splitlines())
    assert steps < 20
    second = train()
    said = second.communicate(timeout=300)[1]
    assert second.returncode == 0, said
    assert f"going on after step {steps} of 20" in said
    stopped = {step: checkpoints.path(out, step).read_bytes() for step in checkpoints.steps(out)}
    layout.work("train", "synthetic", TRAIN[-1]).rename(tmp_path / "before")
    assert train().wait(300) == 0
    assert {step: checkpoints.path(out, step).read_bytes() for step in checkpoints.steps(out)} == stopped
