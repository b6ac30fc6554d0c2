"""The full reproduction on so many GPUs, and what the data stages take as the images become more.

    python -m benchmarks.scale params > params.yaml            Market-1501 and DeepFashion, every variant, three seeds
    python -m benchmarks.scale plan [--gpus 1 8 64] [--images 100]   how long that takes, by pipeline/planning; Markdown
    python -m benchmarks.scale stages [--identities 7 28 112]   runs the data stages; Markdown
    python -m benchmarks.scale parts [--at-once 2]             one job of a data stage beside the same as four; Markdown

`plan` measures nothing: what its figures come from stands in pipeline/planning/. `--images 100` is a hundred times the
images and training steps as they are. `stages` renders data sets of more and more people in temporary folders and runs
each data stage on them as the engines do: processor time (user and system, as the kernel counts it), peak memory by the
stage's log, and what lies on disk. `parts` times whole jobs of one thread each, so nothing else may run beside it.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from benchmarks.data import say, table
from pipeline.anatomy import pose
from pipeline.core import graph, layout, params, schema, store, yaml_file
from pipeline.planning import costs, schedule

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ("", "-seed1", "-seed2")
STAGES = ("fetch", "index", "keypoints", "parsing", "pairs", "pseudo_labels", "distance_maps", "describe")


def full() -> dict[str, Any]:
    """params.yaml as published, with both data sets, every variant and three seeds of each; floors have none."""
    values = yaml_file.read(ROOT / "params.yaml")
    values["datasets"] = ["market1501", "deepfashion"]
    known = yaml_file.read(ROOT / layout.PARAMS_SCHEMA)["properties"]["variants"]["properties"]
    values["variants"] |= {
        family: [f"{name}{seed}" for name in known[family]["items"]["then"]["enum"] for seed in SEEDS]
        for family in values["variants"]
        if family != "floors"
    }
    return values


def show_plan(options: argparse.Namespace) -> None:
    values = full()
    for name, counts in costs.IMAGES.items():
        costs.IMAGES[name] = (options.images * counts[0], options.images * counts[1], counts[2])
    jobs, found = graph.jobs(params.with_forms(values)), list(costs.costs(values))
    tasks = schedule.tasks(jobs, found)
    unknown = sum(task.hours == 0 for task in tasks)
    say(f"{len(jobs)} jobs, of which {unknown} take seconds or are not known and count as nothing.")
    rows = []
    for gpus in options.gpus:
        one = schedule.plan(tasks, gpus, gpus * options.cores)
        chain = sum(task.hours for task in one.chain)
        rows.append((f"{gpus:,}", f"{one.hours:,.1f}", f"{one.hours / 24:,.1f}", f"{one.busy:.0%}", f"{chain:.1f}"))
    table(("GPUs", "hours", "days", "of the GPUs held", "longest chain, hours"), rows)
    stages: dict[str, list[schedule.Task]] = defaultdict(list)
    for job, task in zip(jobs, tasks, strict=True):
        if task.hours:
            stages[job.stage].append(task)
    rows = []
    for stage, some in stages.items():
        longest = max(some, key=lambda task: task.hours)
        held = sum(task.gpus * task.hours for task in some)
        cores = sum(task.cores * task.hours for task in some)
        cells = (f"{held:,.1f}" if held else "–", f"{cores:,.1f}", f"{longest.hours:,.2f}", f"`{longest.name}`")
        rows.append((f"`{stage}`", str(len(some)), *cells))
    table(("stage", "jobs", "GPU-hours held", "core-hours held", "longest, hours", "which"), rows)
    say("Longest chain: " + ", ".join(f"`{task.name}` {task.hours:.1f} h" for task in one.chain if task.hours > 0.05))


def stage_costs(identities: int, folder: Path) -> dict[str, tuple[float, float, float]]:
    """Seconds of processor time, MiB of peak memory and MiB on disk of each data stage, on a rendered data set."""
    values = yaml_file.read(ROOT / "params.yaml")
    test = max(2, identities // 4)
    values["fetch"]["synthetic"] |= {"train_identities": identities, "test_identities": test, "views": 6}
    values["parsing"]["synthetic"] = {"source": "repose"}  # a network, as for photographs
    values["variants"]["spt"] = ["spt"]  # so that `pseudo_labels` has something to do
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    for name in ("params.schema.yaml", "dvc.yaml", "pipeline", "models", "reports"):
        (folder / name).symlink_to(ROOT / name)
    found = {}
    for job in (job for job in graph.jobs(values) if job.stage in ("needs", *STAGES)):
        command = [sys.executable, "-m", "pipeline", job.stage]
        command += [part for axis, text in job.axes.items() for part in (f"--{axis}", text)]
        child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        said = child.stderr.read().decode(errors="replace")
        _, status, used = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"{job}: {said}")
        size = sum(
            path.stat().st_size
            for output in job.outputs
            for path in ((folder / output).rglob("*") if (folder / output).is_dir() else [folder / output])
            if path.is_file()
        )
        if job.axes.get("rule") != "balanced":  # which nothing reads here
            peak = re.search(r"peak memory (\d+) MiB", (folder / job.log).read_text(encoding="utf-8"))
            found[job.stage] = (used.ru_utime + used.ru_stime, float(peak[1]), size / 2**20)
    return {stage: found[stage] for stage in STAGES}


def show_stages(options: argparse.Namespace) -> None:
    measured, images = [], []
    for count in options.identities:
        with tempfile.TemporaryDirectory() as folder:
            measured.append(stage_costs(count, Path(folder)))
        images.append(6 * (count + max(2, count // 4)))
    head = [f"{number:,} images" for number in images]
    grown = images[-1] - images[0]
    for title, column, form in (("CPU-s", 0, ",.1f"), ("peak MiB", 1, ",.0f"), ("disk MiB", 2, ",.2f")):
        say("")
        rows = []
        for stage in STAGES:
            cells = [one[stage][column] for one in measured]
            more = f"{(cells[-1] - cells[0]) / grown * 1000:,.2f}" if grown else "–"
            rows.append((f"`{stage}`", *(format(cell, form) for cell in cells), more))
        table((title, *head, "1,000 images more"), rows)


def write_drawn(images: int) -> None:
    """In the current folder: joints anywhere within 128x64, and one blurred picture under as many names."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (16, 8, 3), np.uint8)
    picture = cv2.imencode(".jpg", cv2.resize(coarse, (64, 128)))[1].tobytes()
    names = [f"{number:06d}.jpg" for number in range(images)]
    keys = [{"image_id": name, "split": "train", "person_id": "1"} for name in names]
    rows = (key | {"image": {"bytes": picture, "path": key["image_id"]}, "height": 128, "width": 64} for key in keys)
    store.write_shards(layout.images("synthetic"), rows, schema.IMAGES)
    spots = random.uniform((2, 2), (62, 126), (images, 18, 2)).astype(np.float32)
    found = {"keypoint_scores": [1.0] * 18, "keypoint_source": "drawn"}
    rows = [
        key | found | {"row": row, "keypoints": pose.from_array(spots[row], np.ones(18, bool))}
        for row, key in enumerate(keys)
    ]
    store.write_table(layout.keypoints("synthetic"), rows, schema.KEYPOINTS)


def seconds(commands: list[list[str]], at_once: int) -> float:
    """Until all are done, so many of them at a time."""

    def run(command: list[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "pipeline", *command], env=environment, check=True, capture_output=True)

    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(run, commands))
    return time.perf_counter() - start


def show_parts(options: argparse.Namespace) -> None:
    rows = []
    for stage, images in (("distance_maps", options.maps), ("parsing", options.photographs)):
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            values = yaml_file.read(ROOT / "params.yaml") | {"parts": [0, 1, 2, 3]}
            values["parsing"]["synthetic"] = {"source": "repose", "always": True, "device": "cpu"}
            Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
            shutil.copy(ROOT / "params.schema.yaml", ".")
            params.load.cache_clear()
            write_drawn(images)
            whole, out = [stage, "--dataset", "synthetic"], Path("data/synthetic", stage)
            one = seconds([whole], 1)
            wanted = {path.name: path.read_bytes() for path in out.rglob("*.parquet")}
            shutil.rmtree(out)
            four = seconds([[*whole, "--part", str(part)] for part in range(4)], options.at_once)
            gathered = seconds([whole], 1)
            same = wanted == {path.name: path.read_bytes() for path in out.rglob("*.parquet")} != {}
        cells = (f"{one:,.1f}", f"{four:,.1f}", f"{gathered:,.1f}", f"{one / (four + gathered):.2f}")
        rows.append((f"`{stage}`", f"{images:,}", *cells, "yes" if same else "NO"))
    params.load.cache_clear()
    head = ("stage", "images", "one job, s", f"four, {options.at_once} at once, s", "taking over, s", "times as fast")
    table((*head, "same bytes"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="way", required=True)
    ways.add_parser("params")
    one = ways.add_parser("plan")
    one.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 1000])
    one.add_argument("--cores", type=int, default=schedule.BESIDE, help="a GPU")
    one.add_argument("--images", type=int, default=1, help="times as many")
    one = ways.add_parser("stages")
    one.add_argument("--identities", type=int, nargs="+", default=[7, 28, 112], help="to train on; a quarter to test")
    one = ways.add_parser("parts")
    one.add_argument("--at-once", type=int, default=2, help="jobs: as many as there are idle cores")
    one.add_argument("--maps", type=int, default=32768, help="images for `distance_maps`")
    one.add_argument("--photographs", type=int, default=3072, help="images for `parsing`")
    options = parser.parse_args()
    if options.way == "params":
        print(yaml.safe_dump(full(), sort_keys=False, default_flow_style=None), end="")
    else:
        {"plan": show_plan, "stages": show_stages, "parts": show_parts}[options.way](options)


if __name__ == "__main__":
    main()
