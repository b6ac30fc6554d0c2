"""Train the weights that the demo starts from: SPGNet and its first stage, on synthetic people whom it never sees.

    python -m benchmarks.demo_weights train --project ONE              an hour or more of one core; goes on if stopped
    python -m benchmarks.demo_weights pack --project ONE               its last checkpoints, in few bits: pretrained/
    python -m benchmarks.demo_weights train --project TWO --on               SPGNet again, on from what was packed
    python -m benchmarks.demo_weights pack --project TWO --on
    python -m benchmarks.demo_weights train --project THREE --on --spgnet 9000                    and again, longer
    python -m benchmarks.demo_weights pack --project THREE --on                  and so on, with --spgnet 6400
    python -m benchmarks.demo_weights train --project FOUR --on --spatn 1000 --spgnet 9000          both stages, on
    python -m benchmarks.demo_weights pack --project FOUR --on --spatn 1000 --spgnet 9000

The people are drawn from another seed than the demo's, so none of them is in its training or its test images. In ONE
they wear patterns, afterwards plain clothes, as in the demo. The networks are those of the demo, at its width. They are
trained without adversary and augmentation, through the seeded features that the demo has, and with rates that fall to
nothing over the last quarter of the steps: that suits short trainings, and is no paper's.
"""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from models.variants import COMPONENTS, VARIANTS, Phase
from pipeline.core import digests, layout, params, yaml_file
from pipeline.core.console import say
from pipeline.loading import checkpoints
from pipeline.training import fit
from pipeline.training.settings import FeatureParams, Params

ROOT = Path(__file__).resolve().parent.parent
PEOPLE = {"seed": 1, "train_identities": 2400}  # 14,400 images
DATA = ("fetch", "index", "keypoints", "parsing", "pairs", "distance_maps")
SPATN = {"seed": 1, "steps": 1800, "checkpoint_every": 250, "batch": 16, "learning_rate": 0.002}
SPGNET = {"seed": 1, "steps": 3200, "checkpoint_every": 250, "batch": 8, "learning_rate": 0.001}
AGAIN = 1600  # steps of SPGNet in the second project
FALL = 0.75  # the share of the steps after which the rates fall
CODE = "code.txt"  # in the project
PACKED = ROOT / "pretrained"
OF_OTHERS = "parsing."  # in SPGNet, the first stage: it has a file of its own


def stage(name: str, *options: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REPOSE_OFFLINE": "1", "REPOSE_MIRROR": ""}
    subprocess.run([sys.executable, "-m", "pipeline", name, *options], env=environment, check=True)


def prepare(clothes: str) -> None:
    """The data set, in the current folder."""
    values = yaml_file.read(ROOT / "params.yaml")
    values["fetch"]["synthetic"] |= PEOPLE | {"clothes": clothes}
    Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False, width=1000), encoding="utf-8")
    Path("params.schema.yaml").write_bytes((ROOT / "params.schema.yaml").read_bytes())
    for name in DATA:
        if not Path(f"data/synthetic/{name}.done").exists():
            stage(name, "--dataset", "synthetic")
            Path(f"data/synthetic/{name}.done").touch()
    stage("weights", "--net", "squeezenet1_1")


def calm(phase: Phase) -> Phase:
    """The phase without adversary, its rates falling at the end."""
    never = dict.fromkeys(phase.steps, 1.0)
    return replace(phase, delays=dict.fromkeys(phase.delays, never), decay_from=FALL)


def note_code() -> None:
    """Which commit last changed what trains."""
    asked = ["git", "-C", str(ROOT), "log", "-1", "--format=%H", "--", "pipeline", "models"]
    Path(CODE).write_bytes(subprocess.run(asked, capture_output=True, check=True).stdout)


def to_start_from(name: str) -> dict[str, str]:
    folder = PACKED / name
    file = checkpoints.path(folder, checkpoints.steps(folder)[-1])
    return {"start": str(file), "start_sha256": digests.sha256(file)}


def train(steps: dict[str, int], on: bool) -> None:
    width = params.load()["train"]["synthetic"]["spgnet"]["width"]
    settings = {"width": width, "augment": False, "precision": "fp32", "device": "cpu"}
    if steps["spatn"]:
        one = COMPONENTS["spatn"]
        block = Params(**{**SPATN, **settings, **(to_start_from("spatn") if on else {}), "steps": steps["spatn"]})
        fit.train(fit.Task(replace(one, phase=calm(one.phase)), "synthetic", block, "spatn"))
    if steps["spgnet"]:
        one = VARIANTS["spgnet"]
        seen = {"features": "squeezenet1_1", "missing_weights": "seeded", **(to_start_from("spgnet") if on else {})}
        block = FeatureParams(**{**SPGNET, **settings, **seen, "steps": steps["spgnet"]})
        fit.train(fit.Task(replace(one, phase=calm(one.phase)), "synthetic", block, "spgnet", "spgnet"))


def in_few_bits(value: torch.Tensor) -> torch.Tensor:
    """Kernels in 8 bits, of which 3 are the fraction's; other numbers in 16. Training on mends what that takes."""
    if not value.is_floating_point():
        return value
    return value.to(torch.float8_e4m3fn if value.dim() == 4 else torch.float16)


def pack(name: str) -> None:
    """The last checkpoint of a training as a file to start from, and its record."""
    folder, out = layout.checkpoints("synthetic", name), PACKED / name
    step, meta = checkpoints.steps(folder)[-1], checkpoints.meta(folder)
    out.mkdir(parents=True, exist_ok=True)
    for old in checkpoints.steps(out):
        checkpoints.path(out, old).unlink()
    whole = load_file(checkpoints.path(folder, step))
    tensors = {key: in_few_bits(value) for key, value in whole.items() if not key.startswith(OF_OTHERS)}
    save_file(tensors, checkpoints.path(out, step))
    people = f"{PEOPLE['train_identities']:,} synthetic people, none of them the demo's"
    if before := meta.get("start"):
        people += f", after {before['step']:,} steps on {before['trained_on'].replace(people, 'them')}"
    record = {
        "trained_on": people,
        "data": params.load()["fetch"]["synthetic"],
        "code": Path(CODE).read_text(encoding="utf-8").strip(),
        "licence": "Apache-2.0",
    }
    checkpoints.write_meta(out, {**meta, "steps": [step], "components": {}, **record})
    file = checkpoints.path(out, step)
    say(f"{name}: start: {file.relative_to(ROOT)}, start_sha256: {digests.sha256(file)}, {file.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "pack"))
    parser.add_argument("--project", type=Path, required=True, help="a folder for data and trainings; made if missing")
    parser.add_argument(
        "--on",
        action="store_true",
        help="from what is packed: its SPGNet goes on; its first stage, too, where --spatn is given, else it is kept",
    )
    parser.add_argument("--spatn", type=int, help="steps of the first stage; 0: leave it out")
    parser.add_argument("--spgnet", type=int, help="steps of the second; 0: leave it out")
    options = parser.parse_args()
    options.project.mkdir(parents=True, exist_ok=True)
    os.chdir(options.project)
    steps = {"spatn": 0 if options.on else SPATN["steps"], "spgnet": AGAIN if options.on else SPGNET["steps"]}
    steps |= {name: given for name in steps if (given := getattr(options, name)) is not None}
    if options.what == "train":
        prepare("plain" if options.on else "varied")
        if options.on and not steps["spatn"]:
            shutil.copytree(PACKED / "spatn", layout.checkpoints("synthetic", "spatn"), dirs_exist_ok=True)
        note_code()
        train(steps, options.on)
    else:
        for name in filter(steps.get, steps):
            pack(name)


if __name__ == "__main__":
    main()
