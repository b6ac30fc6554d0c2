"""Train the weights that the demo starts from: SPGNet and its first stage, on synthetic people whom the demo never sees.

    python -m benchmarks.demo_weights train --project DIR        an hour or more of one core; goes on where it stopped
    python -m benchmarks.demo_weights pack --project DIR         from its last checkpoints, into pipeline/training/demo/

The people are drawn from another seed than the demo's, so none of them is in its training or its test images. The
networks are those of the demo at its width. They are trained without adversary and augmentation, through the seeded
features that the demo has, and with rates that fall to nothing over the last quarter of the steps: that suits short
trainings, and is no paper's.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from models.variants import COMPONENTS, VARIANTS, Phase
from pipeline.core import params
from pipeline.training import fit
from pipeline.training.settings import FeatureParams, Params

ROOT = Path(__file__).resolve().parent.parent
PEOPLE = {"seed": 1, "train_identities": 2400}  # 14,400 images
DATA = ("fetch", "index", "keypoints", "parsing", "pairs", "distance_maps")
SPATN = {"seed": 1, "steps": 3000, "checkpoint_every": 250, "batch": 16, "learning_rate": 0.002}
SPGNET = {"seed": 1, "steps": 6000, "checkpoint_every": 250, "batch": 8, "learning_rate": 0.001}
FALL = 0.75  # the share of the steps after which the rates fall


def stage(name: str, *options: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REPOSE_OFFLINE": "1", "REPOSE_MIRROR": ""}
    subprocess.run([sys.executable, "-m", "pipeline", name, *options], env=environment, check=True)


def prepare() -> None:
    """The data set, in the current folder."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["fetch"]["synthetic"] |= PEOPLE
    Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False, width=1000), encoding="utf-8")
    Path("params.schema.json").write_bytes((ROOT / "params.schema.json").read_bytes())
    for name in DATA:
        if not Path(f"data/synthetic/{name}.done").exists():
            stage(name, "--dataset", "synthetic")
            Path(f"data/synthetic/{name}.done").touch()
    stage("weights", "--net", "squeezenet1_1")


def calm(phase: Phase) -> Phase:
    """The phase without augmentation and adversary, its rates falling at the end."""
    never = dict.fromkeys(phase.steps, 1.0)
    return replace(phase, augment={}, delays=dict.fromkeys(phase.delays, never), decay_from=FALL)


def train(steps: dict[str, int]) -> None:
    width = params.load()["train"]["synthetic"]["spgnet"]["width"]
    settings = {"width": width, "precision": "fp32", "device": "cpu"}
    if steps["spatn"]:
        one = COMPONENTS["spatn"]
        block = Params(**{**SPATN, **settings, "steps": steps["spatn"]})
        fit.train(fit.Task(replace(one, phase=calm(one.phase)), "synthetic", block, "spatn"))
    if steps["spgnet"]:
        one = VARIANTS["spgnet"]
        seen = {"features": "squeezenet1_1", "missing_weights": "seeded"}
        block = FeatureParams(**{**SPGNET, **settings, **seen, "steps": steps["spgnet"]})
        fit.train(fit.Task(replace(one, phase=calm(one.phase)), "synthetic", block, "spgnet", "spgnet"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train",))
    parser.add_argument("--project", type=Path, required=True, help="a folder for data and trainings; made if missing")
    parser.add_argument("--spatn", type=int, default=SPATN["steps"], help="steps of the first stage; 0: skip it")
    parser.add_argument("--spgnet", type=int, default=SPGNET["steps"], help="steps of the second; 0: skip it")
    options = parser.parse_args()
    options.project.mkdir(parents=True, exist_ok=True)
    os.chdir(options.project)
    prepare()
    train({"spatn": options.spatn, "spgnet": options.spgnet})


if __name__ == "__main__":
    main()
