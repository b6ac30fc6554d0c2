"""A training run: what it is, what its result depends on, and the state it goes on from; the loop is in loop.py."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.schedule import Jitter
from models.variants import Phase
from pipeline.core import console, digests
from pipeline.core.atomic import atomic_file
from pipeline.loading import checkpoints


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


def checkpoint_steps(run: Run) -> list[int]:
    """Every `checkpoint_every` steps, and the last."""
    return sorted({*range(run.checkpoint_every, run.steps + 1, run.checkpoint_every), run.steps})


def digest(run: Run, processes: int = 1) -> str:
    """SHA-256 of all that a state belongs to: settings, phase, bytes of the inputs, code of the job, torch."""
    code = digests.code(("pipeline", "models")) if run.code is None else run.code
    facts = [dict(run.settings), repr(run.phase), run.steps, run.checkpoint_every, run.batch, run.seed, run.precision]
    facts += [dict(run.starts), dict(run.thaws), run.accumulate, run.compile, repr(run.jitter), processes]
    facts += [code, [digests.sha256(path) for path in run.inputs], run.device.type, torch.__version__]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def save_state(run: Run, state: Mapping[str, Any]) -> None:
    with atomic_file(run.work / "state.pt") as partial:
        torch.save(state, partial)


def read_state(run: Run, belongs: str) -> dict[str, Any] | None:
    """The state to go on from. One that cannot be used is said, and None returned: the run starts anew."""
    where = run.work / "state.pt"
    if not where.exists():
        return None
    try:
        state = torch.load(where, map_location="cpu", weights_only=True)
        found, step = state["digest"], state["step"]
    except Exception as error:  # torch raises many kinds for a damaged file; none is the user's
        console.say(f"{where}: unreadable ({type(error).__name__}), discarded; {run.title} starts at step 1")
        return None
    if found != belongs:
        console.say(f"{where}: from other settings, inputs or code, discarded; {run.title} starts at step 1")
        return None
    due = (checkpoints.path(run.work / "checkpoints", n) for n in checkpoint_steps(run) if n <= step)
    missing = [path for path in due if not path.exists()]
    if missing:
        console.say(f"{where}: {missing[0].name} is gone, discarded; {run.title} starts at step 1")
        return None
    return state


def keep_metrics(path: Path, last: int) -> None:
    """Cut the metrics log after step `last`: what a stopped run wrote beyond its state is made again."""
    if last == 0 or not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
        return
    with path.open(encoding="utf-8") as old, atomic_file(path) as partial, partial.open("w", encoding="utf-8") as new:
        for line in old:
            if not line.endswith("\n") or json.loads(line)["step"] > last:
                break
            new.write(line)
