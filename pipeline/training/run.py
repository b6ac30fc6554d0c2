"""A training run: what it is, and which steps it saves. The loop is in loop.py, what it goes on from in states.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.layers.schedule import Jitter
from models.variants import Phase
from pipeline.core import seals
from pipeline.core.atomic import atomic_file
from pipeline.training.losses import metrics


@dataclass(frozen=True)
class Run:
    """One training run. `settings` are the values that the result depends on; `inputs` the files and folders read.

    `batch` is the global one: of all processes and micro-batches.
    """

    title: str  # "train synthetic spig"
    phase: Phase  # which networks are trained, and how fast: `learning_rate` already applied
    steps: int
    checkpoint_every: int
    batch: int
    seed: int
    precision: str  # fp32 | bf16
    device: torch.device
    work: Path
    metrics: Path
    settings: Mapping[str, Any]
    inputs: tuple[Path, ...] = ()
    code: Mapping[str, str] | None = None  # `digests.code_of` its job; None: all of pipeline/ and models/
    starts: Mapping[str, int] = field(default_factory=dict)  # the first step of a delayed loss term
    thaws: Mapping[str, int] = field(default_factory=dict)  # the first step that trains a frozen submodule
    accumulate: int = 1  # micro-batches a step
    compile: bool = False
    jitter: Jitter | None = None
    tracker: str = "none"  # who watches decides no result: not part of what a state belongs to


def checkpoint_steps(run: Run) -> list[int]:
    """Every `checkpoint_every` steps, and the last."""
    return sorted({*range(run.checkpoint_every, run.steps + 1, run.checkpoint_every), run.steps})


def rate(phase: Phase, step: int, steps: int) -> float:
    """The share of every learning rate that a step of a run of `steps` is made with."""
    left = (1 - (step - 1) / steps) / (1 - phase.decay_from) if phase.decay_from < 1 else 1.0
    return min(left, 1.0)


def keep_metrics(path: Path, last: int) -> None:
    """Cut the metrics log after step `last`: what a stopped run wrote beyond its state is made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as kept:
        for line in metrics(path) if last else ():
            if line["step"] <= last:
                kept.write(seals.json_line(line))
