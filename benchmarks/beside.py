"""This commit beside another: seconds of a step, in turns, and whether learning is the same. `benchmarks.training` has
the command. Each side runs in a process of its own, from its own checkout, on the same batches.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np
import torch

from benchmarks.data import ratio, say, skeletons, table
from models.variants import COMPONENTS, FAMILIES, VARIANTS
from pipeline.loading import arrays

HERE = Path(__file__).resolve().parent.parent
WAYS = ("before", "after")
SIZES = {"market1501": (128, 64), "deepfashion": (256, 256)}
LAST = 50  # steps whose mean stands for the end of a run
STROKES = {"after": 'stroke="#0072b2"', "before": 'stroke="#d55e00" stroke-dasharray="5 3"'}


class Side:
    """A training in a checkout, a step at a time."""

    def __init__(self, checkout: Path, **task: Any):
        self.checkout = checkout
        command = [sys.executable, "-P", str(HERE / "benchmarks/side.py"), json.dumps(task)]
        self.process = subprocess.Popen(
            command,
            cwd=checkout,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        where = self._answer()
        if Path(where).resolve() != Path(checkout).resolve():
            raise RuntimeError(f"{checkout}: its models came from {where}")

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.checkout}: the training there ended with status {self.process.wait()}")
        return json.loads(line)

    def step(self) -> dict[str, Any]:
        """`seconds` of the processor, `terms` of the loss, and the process's `peak` so far, in MiB."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()


def checkouts(other: Path) -> dict[str, Path]:
    return {"before": other.resolve(), "after": HERE}


def one_a_family() -> list[str]:
    """The first trained variant of each family."""
    found = [[one.name for one in getattr(family, "VARIANTS", ()) if one.phase] for family in FAMILIES]
    return [names[0] for names in found if names]


def write_random(path: Path, height: int, width: int, count: int = 32) -> None:
    """Random images, joints and labels, each image paired with the next."""
    draw = np.random.default_rng(0)
    joints, valid = skeletons(5, count, height, width)
    ids = np.arange(count)
    np.savez(
        path,
        images=draw.integers(256, size=(count, 3, height, width), dtype=np.uint8),
        joints=joints.astype(np.float32),
        valid=valid,
        labels=draw.integers(20, size=(count, height, width), dtype=np.uint8),
        pairs=np.stack([ids, (ids + 1) % count], axis=1),
    )


def write_prepared(path: Path, dataset: str, label_set: str | None) -> None:
    """The training pairs of the project in the working folder."""
    data = arrays.load_pairs(dataset, "train", torch.device("cpu"), label_set=label_set or "lip-20")
    fields = {name: getattr(data, name).numpy() for name in ("images", "joints", "valid", "labels", "pairs")}
    np.savez(path, **fields)


def costs(other: Path, steps: int, **task: Any) -> dict[str, tuple[float, float]]:
    """Of both sides, in turns: the median processor seconds of a step, of which the first is not counted, and the
    process's peak in MiB.
    """
    sides = {way: Side(checkout, **task) for way, checkout in checkouts(other).items()}
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with sides["before"], sides["after"]:
        for _ in range(steps + 1):
            for way, side in sides.items():
                found[way].append(side.step())
    return {way: (statistics.median(one["seconds"] for one in of[1:]), of[-1]["peak"]) for way, of in found.items()}


def speed(options: argparse.Namespace) -> None:
    """A table: a step of each entry before and after, at both sizes."""
    everything = COMPONENTS | VARIANTS
    say(
        f"Processor seconds of one thread, torch {torch.__version__}, {options.width:g} times the published width,"
        f" features {options.features or 'as published'} (seeded), {options.precision}; both commits in turns, medians"
        f" of {options.steps} steps."
    )
    for dataset in options.datasets:
        rows = []
        for name in options.variants or one_a_family():
            entry = everything[name]
            with TemporaryDirectory() as folder:
                data = Path(folder) / "data.npz"
                write_random(data, *SIZES[dataset])
                batch = options.batch or entry.phase.batch[dataset]
                run = {"name": name, "data": str(data), "batch": batch, "width": options.width, "seed": 0}
                run |= {"features": options.features or entry.features or "", "precision": options.precision}
                took = costs(options.beside, options.steps, **run, length=1000, first=500)
            (before, peak_before), (after, peak_after) = (took[way] for way in WAYS)
            seconds = f"{before:.2f}", f"{after:.2f}", ratio(before, after)
            rows.append((f"`{name}`", batch, *seconds, f"{peak_before:.0f}", f"{peak_after:.0f}"))
        print(f"### {SIZES[dataset][0]}x{SIZES[dataset][1]}\n")
        table(("entry", "batch", "before, s", "after, s", "ratio", "before, MiB", "after, MiB"), rows)


def losses(checkout: Path, steps: int, **task: Any) -> list[dict[str, float]]:
    """The terms of every step."""
    with Side(checkout, **task, length=steps, first=1) as side:
        return [side.step()["terms"] for _ in range(steps)]


def verdict(ends: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Cells of a row: both means of the seeds' ends, the spread of each (largest less smallest), and whether the means
    are nearer to each other than the larger spread.
    """
    mean = {way: statistics.fmean(ends[way]) for way in WAYS}
    spread = {way: max(ends[way]) - min(ends[way]) for way in WAYS}
    apart = abs(mean["after"] - mean["before"])
    within = "yes" if apart <= max(spread.values()) else "no"
    return (*(f"{mean[way]:.4g} ({spread[way]:.2g})" for way in WAYS), f"{apart:.2g}", within)


def curves(options: argparse.Namespace) -> None:
    """A table of both commits' losses over the same batches, a run for each seed, and their picture."""
    output, rows, panels = options.output.resolve(), [], []
    os.chdir(options.project)
    for name in options.variants or one_a_family():
        entry = (COMPONENTS | VARIANTS)[name]
        with TemporaryDirectory() as folder:
            data = Path(folder) / "data.npz"
            write_prepared(data, options.dataset, entry.labels)
            task = {"name": name, "data": str(data), "batch": options.batch or entry.phase.batch["market1501"]}
            task |= {"width": options.width, "precision": options.precision}
            task |= {"features": options.features or entry.features or ""}
            found = {
                way: [losses(checkout, options.steps, **task, seed=seed) for seed in options.seeds]
                for way, checkout in checkouts(options.beside).items()
            }
        for term in found["after"][0][-1]:
            if not all(term in run[-1] for run in found["before"]):
                rows.append((f"`{name}`", term, "–", "", "", "new"))
                continue
            series = {way: [[step.get(term, 0.0) for step in run] for run in found[way]] for way in WAYS}
            ends = {way: [statistics.fmean(one[-LAST:]) for one in series[way]] for way in WAYS}
            rows.append((f"`{name}`", term, *verdict(ends)))
            panels.append((f"{name}: {term}", series))
    say(
        f"Means of the last {LAST} of {options.steps} steps over {len(options.seeds)} seeds, in brackets the spread"
        " (largest less smallest); terms with their weights."
    )
    table(("entry", "term", "before", "after", "apart", "within the larger spread"), rows)
    output.write_text(picture(panels), encoding="utf-8")


def smooth(values: Sequence[float], over: int = 20) -> list[float]:
    return [statistics.fmean(values[max(0, at - over + 1) : at + 1]) for at in range(len(values))]


def picture(panels: Sequence[tuple[str, Mapping[str, Sequence[Sequence[float]]]]]) -> str:
    """Panels of 240x150, three in a row: a line for each seed, running means."""
    drawn = ""
    for at, (title, series) in enumerate(panels):
        lines = [(way, smooth(one)) for way in WAYS for one in series[way]]
        low, high = min(min(line) for _, line in lines), max(max(line) for _, line in lines)
        drawn += f'<g transform="translate({240 * (at % 3)},{150 * (at // 3)})"><text x="8" y="14">{title}</text>'
        drawn += f'<text x="8" y="28">{high:.3g}</text><text x="8" y="144">{low:.3g}</text>'
        for way, line in lines:
            x = (f"{44 + 188 * step / (len(line) - 1):.1f}" for step in range(len(line)))
            y = (f"{140 - 115 * (value - low) / (high - low or 1):.1f}" for value in line)
            points = " ".join(",".join(point) for point in zip(x, y, strict=True))
            drawn += f'<polyline fill="none" stroke-width="1" {STROKES[way]} points="{points}"/>'
        drawn += "</g>"
    below = 150 * -(-len(panels) // 3)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {below + 24}" font-family="sans-serif"'
        f' font-size="10" fill="#444"><rect width="720" height="{below + 24}" fill="#fff"/>{drawn}'
        f'<text x="8" y="{below + 16}">solid: after; dashed: before; a line for each seed, means of 20 steps</text>'
        "</svg>\n"
    )
