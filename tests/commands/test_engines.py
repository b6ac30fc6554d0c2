"""Snakemake and DVC on one project folder: each accepts the other's work, re-runs what a change concerns and nothing
else, and does not believe a stage that was killed.

A stage that runs writes its log anew, whichever engine called it: that is how runs are counted.
"""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from pipeline.fetching.networks import NETS
from tests.conftest import copy_project
from tests.warm_python import warm_python

pytestmark = pytest.mark.engines

CHECKED = {"plan/plan.log", "needs/synthetic.log"}  # whenever params.yaml changed
AFTER_TRAIN_SPIG = CHECKED | {  # both runs read the family's settings
    "train/synthetic-spig.log",
    "train/synthetic-spig-seed1.log",
    "score/synthetic-spig.log",
    "score/synthetic-spig-seed1.log",
    "tables/tables.log",
    "report/report.log",
}
BY_DVC = AFTER_TRAIN_SPIG - {"score/synthetic-spig-seed1.log"}  # its seed is its own: the same bytes again
STAGES = 48


def edit(project: Path, change) -> None:
    path = project / "params.yaml"
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def make_tiny(values: dict) -> None:
    """The smallest run that still has every stage, one variant from two seeds. Metrics with a network are left out."""
    wanted = {"floors": ["copy_source"], "spig": ["spig", "spig-seed1"]}
    values["variants"] = {family: wanted.get(family, []) for family in values["variants"]}
    values["fetch"]["synthetic"] |= {"train_identities": 4, "test_identities": 2, "views": 3, "height": 64, "width": 32}
    values["pairs"]["synthetic"]["test_pairs"] = 4
    for block in (values["pretrain"]["synthetic"]["spig_flow"], values["train"]["synthetic"]["spig"]):
        block |= {"steps": 2, "checkpoint_every": 2, "batch": 2, "width": 0.125}
    values["pretrain"]["synthetic"]["detector"] |= {"steps": 2, "batch": 2}
    values["reference"]["synthetic"] |= {"val_pairs": 2, "test_pairs": 4, "batch": 4, "missing_weights": "skip"}
    values["score"]["synthetic"] |= {"batch": 4, "samples": 2, "bootstrap": 100}
    values["tables"] |= {"choose_by": {"metric": "ssim", "split": "val"}, "bootstrap": 100}


def call(project: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess:
    result = subprocess.run([".venv/bin/python", "-m", *command], cwd=project, capture_output=True, text=True)
    if check:
        assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return result


def snakemake(project: Path) -> None:
    call(project, "snakemake", "--cores", "2")


def dvc(project: Path) -> None:
    call(project, "dvc", "repro")


def handoff(project: Path) -> None:
    call(project, "pipeline", "handoff")


def status(project: Path) -> str:
    return call(project, "pipeline", "status").stdout


def logs(project: Path) -> dict[str, int]:
    found = (project / "logs").rglob("*.log")
    return {str(path.relative_to(project / "logs")): path.stat().st_mtime_ns for path in found}


def ran(project: Path, engine) -> set[str]:
    """The stages that `engine` runs, by their logs."""
    before = logs(project)
    engine(project)
    return {name for name, written in logs(project).items() if before.get(name) != written}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    with warm_python(tmp_path_factory.mktemp("python")) as python:
        yield python


@pytest.fixture(scope="module")
def built(tmp_path_factory, python) -> Path:
    """A project that Snakemake has built."""
    project = copy_project(tmp_path_factory.mktemp("built"), python)
    edit(project, make_tiny)
    assert len(ran(project, snakemake)) == STAGES
    return project


def set_seed(seed: int):
    return lambda values: values["train"]["synthetic"]["spig"].update(seed=seed)


def test_snakemake_then_dvc_and_back(built):
    """One story, in order: each test starts from what the one before left the engines with."""
    page = (built / "reports/html/index.html").read_bytes()
    assert b"<small>2 seeds: " in page
    assert "next: nothing to run" in status(built)
    refused = call(built, "pipeline", "handoff", "--dry-run")
    assert "snakemake vouches" in refused.stderr
    handoff(built)
    assert ran(built, dvc) == set()
    assert ran(built, snakemake) == set()

    edit(built, set_seed(7))
    assert "stale train synthetic spig: params.yaml: train.synthetic.spig changed" in status(built)
    refused = call(built, "pipeline", "handoff", check=False)  # neither engine vouches for stale outputs
    assert refused.returncode == 2
    assert "nothing handed over: snakemake does not vouch for data/plan.txt" in refused.stderr
    assert "runs/synthetic/spig/checkpoints" in refused.stderr
    assert "dvc does not vouch for params.yaml" in refused.stderr
    assert ran(built, dvc) == BY_DVC
    handoff(built)
    assert ran(built, snakemake) == set()

    edit(built, set_seed(0))
    assert ran(built, snakemake) == AFTER_TRAIN_SPIG
    assert (built / "reports/html/index.html").read_bytes() == page


def test_dvc_shows_scores_and_curves(built):
    """`dvc metrics show` and `dvc plots show`, which VS Code reads, too."""
    shown = json.loads(call(built, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    spig = shown["reports/metrics/synthetic/spig.json"]["data"]
    assert spig["step"] == 2
    assert 0 < spig["ssim"] < 1
    assert "reports/metrics/synthetic/spig-seed1.json" in shown
    plots = json.loads(call(built, "dvc", "plots", "show", "--json").stdout)["data"]
    curve = plots["reports/curves/synthetic/val/ssim.csv"][0]
    assert curve["content"]["encoding"]["color"]["field"] == "name"
    losses = {name for name in plots if name.endswith("losses/terms.csv")}
    assert losses == {
        f"runs/synthetic/{name}/losses/terms.csv" for name in ("spig", "spig-seed1", "spig_flow", "detector")
    }


def test_snakemakes_report_has_the_page_the_tables_and_the_data(built, tmp_path):
    call(built, "snakemake", "--report", str(tmp_path / "report.zip"))
    with zipfile.ZipFile(tmp_path / "report.zip") as report:
        names = {Path(name).name for name in report.namelist()}
        page = report.read("report/report.html").decode()
    assert {"index.html", "leaderboard_synthetic.csv", "spig_table1.csv", "README.md"} <= names
    for category in ("Report", "Tables", "Data"):
        assert f'"{category}"' in page


@pytest.mark.slow
def test_an_experiment_runs_in_a_folder_of_its_own(built, tmp_path):
    """`dvc exp run --temp`, from a shell that knows no other Python than the system's."""
    project = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(built), str(project)], check=True)
    for command in ("add -A", "-c user.name=a -c user.email=a@b commit -qm start"):
        subprocess.run(["git", *command.split()], cwd=project, check=True)
    before = (project / "params.yaml").read_bytes()
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "-S", "fetch.synthetic.seed=4", "fetch@synthetic"]
    plain = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, env=plain)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "fetch synthetic: 12 train, 6 test images" in result.stdout + result.stderr
    assert (project / "params.yaml").read_bytes() == before


@pytest.mark.slow
def test_an_edited_source_reruns_its_stage(built):
    source = built / "pipeline/stages/report.py"
    source.write_text(source.read_text() + "\n# edited\n")
    assert ran(built, snakemake) == {"report/report.log"}
    handoff(built)
    assert ran(built, dvc) == set()


@pytest.mark.slow
def test_dvc_then_snakemake(tmp_path, python):
    """From nothing. What DVC built and hands over in the story above is a part."""
    project = copy_project(tmp_path, python)
    edit(project, make_tiny)
    assert len(ran(project, dvc)) == STAGES
    assert "next: nothing to run" in status(project)
    handoff(project)
    assert ran(project, snakemake) == set()
    edit(project, set_seed(5))
    assert ran(project, snakemake) == AFTER_TRAIN_SPIG


@pytest.mark.slow
def test_unrecorded_outputs_are_not_blessed(built, tmp_path):
    """Outputs without a record of Snakemake's, which would overlook a changed seed: handed over only if DVC vouches."""
    handoff(built)
    project = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(built), str(project)], check=True)
    subprocess.run(["rm", "-rf", str(project / ".snakemake")], check=True)
    edit(project, set_seed(3))
    refused = call(project, "pipeline", "handoff", check=False)
    assert refused.returncode == 2
    assert "snakemake does not vouch for data/plan.txt (updated input files), " in refused.stderr
    assert "dvc does not vouch for params.yaml" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    edit(project, set_seed(0))
    handoff(project)
    assert "next: nothing to run" in status(project)
    assert ran(project, snakemake) == set()


def test_a_fault_stops_either_engine_before_anything_runs(built, tmp_path, monkeypatch):
    """And not the data alone, which do without it."""
    monkeypatch.setenv("REPOSE_OFFLINE", "1")
    project = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(built), str(project)], check=True)

    def without_vgg19(values: dict) -> None:
        values["variants"]["patn"] = ["patn"]
        values["train"]["synthetic"]["patn"] |= {"features": None, "missing_weights": "stop"}

    edit(project, without_vgg19)
    (project / "data/synthetic/pairs.parquet").unlink()  # so that there is something to do before
    for engine, may_run in ((("snakemake", "--cores", "2"), set()), (("dvc", "repro"), {"plan/plan.log"})):
        stopped = None

        def run(project: Path, engine=engine) -> None:
            nonlocal stopped
            stopped = call(project, *engine, check=False)

        assert ran(project, run) == may_run
        assert stopped.returncode != 0
        assert "train synthetic patn needs the published network vgg19" in stopped.stdout + stopped.stderr
    call(project, "snakemake", "--cores", "2", "prepared")
    assert (project / "data/synthetic/pairs.parquet").exists()


def kill_all_in(project: Path) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == project:
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue  # gone, or not ours


@pytest.mark.slow
@pytest.mark.parametrize("engine", [snakemake, dvc])
def test_a_killed_stage_is_redone(built, tmp_path, engine):
    """SIGKILL in the middle of training: no output under the final name, and the next run ends as if undisturbed."""
    project = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(built), str(project)], check=True)
    handoff(project)  # whatever ran before this test, DVC has nothing else to do

    def one_long_run(values: dict) -> None:  # of two, the engine might train the other first
        values["variants"]["spig"] = ["spig"]
        values["train"]["synthetic"]["spig"].update(steps=40, checkpoint_every=10)

    edit(project, one_long_run)
    steps = project / "logs/train/synthetic-spig.jsonl"
    steps.unlink()
    command = [sys.executable, "-m", *(["snakemake", "--cores", "2"] if engine is snakemake else ["dvc", "repro"])]
    process = subprocess.Popen(
        command, cwd=project, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 600  # beside other work
    while not (steps.exists() and len(steps.read_text().splitlines()) >= 12):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kill_all_in(project)  # Snakemake starts its jobs in sessions of their own
    assert not (project / "runs/synthetic/spig/checkpoints").exists()
    assert "failed train synthetic spig: stopped without a last word" in status(project)
    if engine is snakemake:
        call(project, "snakemake", "--unlock")
    assert ran(project, engine) >= {name for name in AFTER_TRAIN_SPIG - CHECKED if "seed1" not in name}
    found = sorted(path.name for path in (project / "runs/synthetic/spig/checkpoints").glob("*.safetensors"))
    assert found == [f"step-{step:07d}.safetensors" for step in (10, 20, 30, 40)]


TOY = '''
"""One convolution."""

from torch import nn

from models.layers.blocks import Batch, Output
from models.layers.schedule import Adam, Phase, Variant


class Toy(nn.Module):
    def __init__(self, height: int, width: int, scale: float):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, batch: Batch) -> Output:
        return Output(self.layer(batch.source))


class ToyObjective:
    def __init__(self, generator, height, width, scale, weights):
        self.generator, self.weights = generator, weights

    def networks(self):
        return {"generator": self.generator}

    def generator_losses(self, batch, features):
        output = self.generator(batch)
        return {"l1": self.weights["l1"] * (output.image - batch.target).abs().mean()}, output

    def discriminator_losses(self, batch, output):
        return {}


SIZES = {"market1501": 4, "deepfashion": 4}
PHASE = Phase(("generator",), (), {"generator": Adam(1e-3, (0.5, 0.999))}, {"l1": 1.0}, SIZES, SIZES)
VARIANTS = (Variant("toy", "none", "one convolution", Toy, objective=ToyObjective, phase=PHASE),)
'''
TOY_STAGES = """
  train_toy:
    <<: *train
    desc: Train ${item.variant} on ${item.dataset}
    vars: &toy [{family: toy, network: models/toy.py}]
    matrix: &each_of_toy {dataset: "${datasets}", variant: "${variants.toy}"}

  score_toy: {<<: *score, vars: *toy, matrix: *each_of_toy}
"""


def insert(path: Path, before: str, text: str) -> None:
    old = path.read_text()
    assert old.count(before) == 1
    path.write_text(old.replace(before, text + before))


@pytest.mark.slow
def test_a_new_family_variant_and_metric(built, tmp_path):
    """Each in the places that README names. What was there before is not trained again; a metric scores all anew."""
    handoff(built)
    project = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(built), str(project)], check=True)
    (project / "models/toy.py").write_text(TOY.lstrip())
    insert(project / "models/variants.py", '"detector")', '"toy", ')
    insert(project / "dvc.yaml", "\n  # reports/scores and data stand for", TOY_STAGES)
    floors = project / "models/floors.py"
    floors.write_text(
        floors.read_text() + "\nVARIANTS += (Variant('copy_again', 'none', 'floor', lambda *sizes: CopySource()),)\n"
    )

    def named(values: dict) -> None:
        values["variants"] |= {"floors": ["copy_source", "copy_again"], "toy": ["toy"]}
        for blocks in values["train"].values():
            blocks["toy"] = {"seed": 0, "steps": 2, "checkpoint_every": 2, "batch": 2, "precision": "fp32"}

    edit(project, named)
    call(project, "pipeline", "schema")
    new = {f"{stage}/synthetic-{name}.log" for stage in ("train", "score") for name in ("toy", "copy_again")}
    family = {f"{stage}/synthetic-copy_source.log" for stage in ("train", "score")}  # whose file was edited
    results = {"tables/tables.log", "report/report.log"}
    assert ran(project, dvc) == new | family | results | CHECKED
    handoff(project)

    (project / "pipeline/metrics/toy.py").write_text(
        "def brightness(images):\n    return images.mean(axis=(1, 2, 3)) / 1.0\n"
    )
    metrics = project / "pipeline/metrics/__init__.py"
    insert(
        metrics,
        'Metric("psnr"',
        'Metric("toy", "mean of all pixels", True, (0, 255), (), lambda c: toy.brightness(c.generated)),\n    ',
    )
    insert(metrics, "pckh, pose_error, psnr", "toy, ")
    scores = {f"score/synthetic-{name}.log" for name in ("toy", "copy_again", "copy_source", "spig", "spig-seed1")}
    scores |= {f"score_components/synthetic-{name}.log" for name in ("spatn", "spatn_no_distance")}
    assert ran(project, snakemake) == {"reference/synthetic.log"} | scores | results
    assert b"toy" in (project / "reports/tables/all_scores.csv").read_bytes()


def test_no_run_of_either_engine_asked_for_an_address_but_those_of_weights(built, python):
    """The last of this file. Without a mirror the stage `weights` looks for what params.yaml lets it download."""
    asked = python.with_name("connections")
    named = {urlsplit(one.url).hostname for files in NETS.values() for one in files if one.url}
    for arguments, address in map(json.loads, asked.read_text().splitlines() if asked.exists() else ()):
        assert arguments[0] == "weights", (arguments, address)
        assert address in named
    (built / "phones.py").write_text("import socket\nsocket.create_connection(('127.0.0.1', 9))\n")
    assert call(built, "phones", "home", check=False).returncode == 1
    assert json.loads(asked.read_text().splitlines()[-1]) == [["home"], "127.0.0.1"]
