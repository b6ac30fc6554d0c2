"""profiles/slurm on a real cluster of one node (tests/slurm/node): the graph runs through sbatch, whatever happens to a
job on the way.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.commands.test_engines import edit, make_tiny
from tests.conftest import ROOT, copy_project

LONG = 480  # seconds, beside other work
STEPS, SAVED = 120, 40  # of the training, and after how many its state is written
TRAINING = "rule_train_patn_wildcards_synthetic_patn"
LOG = Path("logs/train/synthetic-patn.log")
CHECKPOINTS = "runs/synthetic/patn/checkpoints"
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "REPOSE_OFFLINE": "1", "REPOSE_MIRROR": ""}
# The node has two cores. Without the flag a job is looked at 30 seconds after it began, if it was not done after 10.
SNAKEMAKE = ("--workflow-profile", "profiles/slurm", "--max-threads", "1", "--slurm-init-seconds-before-status-checks")
SNAKEMAKE += ("8",)


def test_the_profile_leaves_to_slurm_what_runs_at_once():
    """`cores` would cap a job's threads at the login node's, `resources` the GPUs of the whole cluster."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert profile["executor"] == "slurm"
    assert not {"cores", "resources", "max-threads", "set-resources"} & profile.keys()
    assert profile["slurm-status-command"] == "squeue"
    assert profile["retries"] > 0
    assert profile["slurm-requeue"] is True
    assert profile["default-resources"] == {"slurm_partition": "", "slurm_account": ""}


def jobs(rule: str = "") -> list[dict[str, str]]:
    """All jobs that SLURM still knows (of a rule), the first first."""
    names = ("JobID", "State", "MinMemory", "tres-per-job", "StartTime", "EndTime", "Comment")
    shown = ["squeue", "--states=all", "--noheader", "--Format", ",".join(f"{name}:|" for name in names)]
    lines = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.splitlines()
    found = [dict(zip(names, line.split("|")[:-1], strict=True)) for line in lines]
    return sorted((job for job in found if rule in job["Comment"]), key=lambda job: int(job["JobID"]))


def wait_for(what: Callable[[], object], snakemake: subprocess.Popen) -> None:
    deadline = time.monotonic() + LONG
    while not what():
        assert snakemake.poll() is None, "Snakemake ended before"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def running(steps: int) -> Callable[[], bool]:
    """Whether a job that trains is running and has logged that many steps."""
    log = LOG.with_suffix(".jsonl")
    return lambda: (
        log.exists() and len(log.read_text().splitlines()) >= steps and jobs(TRAINING)[-1]["State"] == "RUNNING"
    )


@contextmanager
def snakemake_runs(*options: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "snakemake", *SNAKEMAKE, *options]
    with (
        Path("snakemake.txt").open("w") as said,
        subprocess.Popen(command, env=ONE_THREAD, stdout=said, stderr=subprocess.STDOUT) as snakemake,
    ):
        try:
            yield snakemake
        finally:  # where the test failed: with its jobs
            if snakemake.poll() is None:
                snakemake.send_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """On which SLURM can work."""
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("needs Snakemake's plugin: make slurm")
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("needs a SLURM that answers: tests/slurm/node start FOLDER")
    project = copy_project(tmp_path_factory.mktemp("slurm"))

    def of_one_method(values: dict) -> None:
        make_tiny(values)
        wanted = {"floors": ["copy_source"], "patn": ["patn"]}
        values["variants"] = {family: wanted.get(family, []) for family in values["variants"]}
        block = values["train"]["synthetic"]["patn"]
        block |= {"steps": STEPS, "checkpoint_every": SAVED, "batch": 2, "width": 0.125}

    edit(project, of_one_method)
    # Too little for one stage: it takes some 700 MB, and half as much again twice.
    snakefile = (project / "Snakefile").read_text()
    assert snakefile.count("\nHERE =") == 1
    few = "\nNEEDS['reference'] = dict(SCORING, mem_mb=600)\nHERE ="
    (project / "Snakefile").write_text(snakefile.replace("\nHERE =", few))
    return project


@pytest.mark.slurm
@pytest.mark.slow
def test_every_stage_runs_through_sbatch_and_a_training_that_was_stopped_goes_on(project, monkeypatch):
    """Requeued as by a preemption, then killed; meanwhile another job is out of memory."""
    monkeypatch.chdir(project)
    with snakemake_runs() as snakemake:
        wait_for(running(SAVED + 5), snakemake)
        (stopped,) = jobs(TRAINING)
        subprocess.run(["scontrol", "requeue", stopped["JobID"]], check=True)
        wait_for(lambda: jobs(TRAINING)[-1]["State"] == "PENDING", snakemake)
        wait_for(running(2 * SAVED + 5), snakemake)
        assert "going on after step" in LOG.read_text()
        subprocess.run(["scancel", "--signal=KILL", "--full", stopped["JobID"]], check=True)
        assert snakemake.wait(timeout=LONG) == 0, Path("snakemake.txt").read_text()[-4000:]

    first, second = jobs(TRAINING)
    assert (first["JobID"], first["MinMemory"]) == (stopped["JobID"], "32000M")
    assert first["State"] != "COMPLETED"
    assert (second["State"], second["MinMemory"]) == ("COMPLETED", "62.50G")
    on_gpu = [job for job in jobs() if job["tres-per-job"] == "gres:gpu:1"]
    assert {first["JobID"], second["JobID"]} <= {job["JobID"] for job in on_gpu}
    at_once = [sum(one["StartTime"] <= job["StartTime"] < one["EndTime"] for one in on_gpu) for job in on_gpu]
    assert max(at_once) == 2, "as many as there are GPUs"
    reference = jobs("rule_reference_wildcards_synthetic")
    assert [(job["State"], job["MinMemory"]) for job in reference] == [("FAILED", "600M"), ("COMPLETED", "1200M")]
    assert jobs("rule_report")[0]["State"] == "COMPLETED"
    assert not jobs("rule_fetch_wildcards_synthetic")  # where Snakemake runs
    assert (project / "reports/html/index.html").stat().st_size > 100_000

    stopped_twice = (Path(CHECKPOINTS) / "_SHA256SUMS").read_text()
    assert f"step-{STEPS:07d}.safetensors" in stopped_twice
    for folder in (".work/train", CHECKPOINTS):
        shutil.rmtree(folder)
    train = [sys.executable, "-m", "pipeline", "train", "--dataset", "synthetic", "--variant", "patn"]
    subprocess.run(train, env=ONE_THREAD, check=True)
    assert (Path(CHECKPOINTS) / "_SHA256SUMS").read_text() == stopped_twice, "in one go"


@pytest.mark.slurm
@pytest.mark.slow
def test_of_a_cancelled_run_nothing_is_believed(project, monkeypatch):
    """Ctrl-C ends the jobs, too; what a training had done is no output, and the next run goes on from it."""
    monkeypatch.chdir(project)
    edit(project, lambda values: values["train"]["synthetic"]["patn"].update(seed=5))
    LOG.with_suffix(".jsonl").unlink(missing_ok=True)
    with snakemake_runs(CHECKPOINTS) as snakemake:
        wait_for(running(SAVED + 5), snakemake)
        snakemake.send_signal(signal.SIGINT)
        assert snakemake.wait(timeout=LONG) != 0
    ended = time.monotonic() + 60
    while (state := jobs(TRAINING)[-1]["State"]) in ("RUNNING", "COMPLETING"):
        assert time.monotonic() < ended
        time.sleep(0.2)
    assert state == "CANCELLED"
    assert not Path(CHECKPOINTS).exists()
    status = [sys.executable, "-m", "pipeline", "status"]
    said = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    assert "train synthetic patn" in said.partition("next:")[0]
    here = [sys.executable, "-m", "snakemake", "--workflow-profile", "none", "--cores", "1", CHECKPOINTS]
    subprocess.run(here, env=ONE_THREAD, check=True)
    assert "going on after step" in LOG.read_text()
    assert (Path(CHECKPOINTS) / f"step-{STEPS:07d}.safetensors").exists()
