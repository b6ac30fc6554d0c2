"""The state that a training run goes on from, what it belongs to, and what becomes of one that does not fit.

A run lives in `.work/STAGE/DATASET/NAME/`, and stays there when it is finished:

    belongs.json    what it belongs to: settings, inputs, code, torch, kind of device, number of processes
    state.pt        everything that the next step depends on: networks, optimisers, random states, the step
    checkpoints/    the generators saved so far; published ones are the same files (hard links)

A run continues from a state that fits what is asked for. One that does not fit is moved to `NAME.set-aside/`, never
deleted, and taken up again by the run that it fits.
"""

import itertools
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from models.variants import Objective
from pipeline.core import console, digests, seals
from pipeline.core.atomic import atomic_file, remove, sync
from pipeline.core.errors import is_shortage
from pipeline.loading import checkpoints
from pipeline.training.run import Run, checkpoint_steps, rate

RECORD, STATE, METRICS = "belongs.json", "state.pt", "metrics.jsonl"
PARTS = {"step", "networks", "optimisers", "rng", "apart", "checkpoints"}  # of a state
OF_STEPS = {"steps", "checkpoint_every", "starts", "thaws"}  # settings that may leave the steps done as they are
DERIVED = {"phase", "starts", "thaws", "jitter"}  # from other settings or from code: named if nothing else changed
OTHER_PARTS = ", so that each sees another part of a batch: other rounding, dropout and noise, and other batch norms"

Record = dict[str, dict[str, Any]]  # part -> name -> value


class Unfit(Exception):
    """A state that the run cannot continue from: why, how to undo that, and a word for its folder's name."""

    def __init__(self, why: str, undo: str, word: str):
        super().__init__(why)
        self.undo, self.word = undo, word


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def belongs(run: Run, processes: int) -> Record:
    """All that a run's state belongs to, as JSON has it."""
    settings = dict(_flat(run.settings))
    for name in ("steps", "checkpoint_every", "batch", "seed", "precision", "accumulate", "compile", "starts", "thaws"):
        settings[name] = getattr(run, name)
    settings |= {"phase": repr(run.phase), "jitter": repr(run.jitter)}
    record = {
        "settings": settings,
        "inputs": {str(path): digests.sha256(path) for path in run.inputs},
        "code": digests.code(("pipeline", "models")) if run.code is None else dict(run.code),
        "machine": {"torch": torch.__version__, "device": run.device.type, "processes": processes},
    }
    return json.loads(json.dumps(record))


def _changes(before: Record, now: Record) -> list[tuple[str, str, Any, Any]]:
    """(part, name, what it was, what it is) of everything that differs; None where there is nothing."""
    return [
        (part, name, before[part].get(name), value)
        for part in now
        for name, value in (dict.fromkeys(before[part]) | now[part]).items()
        if before[part].get(name) != value
    ]


def _unfit(changes: list[tuple[str, str, Any, Any]], because: str = "") -> Unfit:
    """What to say of changes."""
    changes = [change for change in changes if change[1] not in DERIVED] or changes
    why, undo = [], []
    for part, name, before, now in changes[:3]:
        if part in ("inputs", "code") or len(f"{before}{now}") > 60:
            why.append(f"{name} {'is gone' if now is None else 'is new' if before is None else 'changed'}")
            undo.append(f"{name} as it was")
        else:
            why.append(f"{name} was {before} and is {now}")
            undo.append(f"{name} {before}")
    more = [f"and {len(changes) - 3} more"] * (len(changes) > 3)
    word = re.sub(r"[^\w.]+", "-", changes[0][1])
    return Unfit(", ".join([*why, *more]) + because, ", ".join([*undo, *more]), word)


def _depends(run: Run, before: Mapping[str, Any], step: int, objective: Objective) -> str | None:
    """What of the steps up to `step` depends on the number of steps, if anything: then they would have been others."""
    if run.steps != before["steps"]:
        if hasattr(objective, "progress"):
            return ", and its objective follows the share of steps that are done"
        if rate(run.phase, step, run.steps) != rate(run.phase, step, before["steps"]):
            return ", and its learning rates fall towards the last step"
    for now, then in ((run.starts, before["starts"]), (run.thaws, before["thaws"])):
        for name in now.keys() | then.keys():
            firsts = now.get(name, 0), then.get(name, 0)
            if firsts[0] != firsts[1] and min(firsts) <= step:
                return f", and {name} comes in after a share of the steps"
    return None


def is_whole(folder: Path, step: int, saved: Mapping[int, str]) -> bool:
    """Whether the checkpoint of a step is there, as it was saved."""
    path = checkpoints.path(folder / "checkpoints", step)
    return path.exists() and digests.sha256(path) == saved.get(step)


def load(folder: Path, **options: Any) -> dict[str, Any] | None:
    """The state in a run's folder; None if there is none. Raises Unfit if it is damaged."""
    path = folder / STATE
    if not path.exists():
        return None
    try:
        if seals.fault(path) != "":  # torch checks nothing
            raise ValueError
        state = torch.load(path, map_location="cpu", weights_only=True, **options)
        if set(state) != PARTS:
            raise ValueError
    except PermissionError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file; none is the user's
        if is_shortage(error):
            raise
        raise Unfit(f"{STATE} is unreadable ({type(error).__name__})", f"a whole {STATE}", "unreadable") from None
    return state


def _fitting(folder: Path, run: Run, wanted: Record, objective: Objective) -> tuple[int, Record]:
    """The step of the state in `folder`, if the run may go on from it, and what it belongs to. Raises Unfit if not."""
    try:
        if seals.fault(folder / RECORD) != "":
            raise ValueError
        record = seals.read_json(folder / RECORD)
        changes = _changes(record, wanted)
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        raise Unfit(f"{RECORD} is missing or damaged", f"a whole {RECORD}", "unknown") from None
    if any(part != "settings" or name not in OF_STEPS for part, name, *_ in changes):
        raise _unfit(changes, OTHER_PARTS if [name for _, name, *_ in changes] == ["processes"] else "")
    state = load(folder, mmap=True)
    if state is None:
        raise Unfit(f"{STATE} is gone", f"{STATE} back", "no-state")
    because = _depends(run, record["settings"], min(state["step"], run.steps), objective) if changes else None
    if because:
        raise _unfit(changes, because)
    for step in checkpoint_steps(run):
        if step < state["step"] and not is_whole(folder, step, state["checkpoints"]):
            if step not in state["checkpoints"]:
                raise _unfit(changes, f", and no checkpoint of step {step} was kept")
            name = checkpoints.path(folder, step).name
            raise Unfit(f"{name} is gone or damaged", f"{name} as it was", f"without-step-{step}")
    return state["step"], record


def _set_aside(run: Run, unfit: Unfit) -> None:
    """Move what is there out of the way, with its log of losses, and say how to come back to it."""
    try:
        state = load(run.work, mmap=True)
        step = 0 if state is None else state["step"]
    except Unfit:
        step = 0
    step = step or max(checkpoints.steps(run.work / "checkpoints"), default=0)
    folder = run.work.with_name(f"{run.work.name}.set-aside")
    folder.mkdir(exist_ok=True)
    number = next(number for number in itertools.count(1) if not any(folder.glob(f"{number}-*")))
    target = folder / f"{number}-step-{step}-{unfit.word}"
    if run.metrics.exists():
        shutil.move(run.metrics, run.work / METRICS)
    for left in run.work.glob(".*"):  # locks and halves of a process that was killed
        remove(left)
    run.work.rename(target)
    sync(folder)
    sync(folder.parent)
    console.say(
        f"{run.title}: {unfit}; what was trained up to step {step} is set aside in {target}; "
        f"with {unfit.undo} the same command takes it up again"
    )


def _fitting_aside(run: Run, wanted: Record, objective: Objective, further_than: int) -> Path | None:
    """Of what was set aside, the folder with the latest state that the run may go on from."""
    best = None
    for folder in sorted(run.work.parent.glob(f"{run.work.name}.set-aside/*/")):
        with suppress(Unfit):
            step, _ = _fitting(folder, run, wanted, objective)
            if step > further_than:
                best, further_than = folder, step
    return best


def prepare(run: Run, objective: Objective, processes: int) -> dict[str, Any] | None:
    """Make the run's folder ready, and return the state to go on from, None to start with step 1.

    What is there and does not fit is set aside; what was set aside and fits is taken up. Only the first of several
    processes may call this.
    """
    wanted, unfit, step, record = belongs(run, processes), None, 0, {}
    kept = (run.work / STATE).exists() or bool(checkpoints.steps(run.work / "checkpoints"))
    try:
        if kept:
            step, record = _fitting(run.work, run, wanted, objective)
    except Unfit as error:
        unfit = error
    again = _fitting_aside(run, wanted, objective, step)
    if kept and again:
        unfit = unfit or Unfit("what was set aside is further", "that gone", "overtaken")
    if unfit:
        _set_aside(run, unfit)
    if again or unfit or not kept:
        shutil.rmtree(run.work, ignore_errors=True)  # holds nothing that took a step
    if again:
        again.rename(run.work)
        sync(run.work.parent)
        console.say(f"{run.title}: takes up {again} again")
        step, record = _fitting(run.work, run, wanted, objective)
    elif unfit or not kept:
        (run.work / "checkpoints").mkdir(parents=True)
        _note(run, wanted)
        return None
    if (run.work / METRICS).exists():
        run.metrics.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(run.work / METRICS, run.metrics)
    if step <= run.steps:  # a later one belongs to as many steps as it was made for
        _note(run, wanted)
    going_on, done = f"going on after step {step} of {run.steps}", f"all {run.steps} steps were done before"
    changed = f"; {_unfit(_changes(record, wanted))}, on which no step so far depends" if record != wanted else ""
    console.say(f"{run.title}: {going_on if step < run.steps else done}{changed}")
    return load(run.work)


def _note(run: Run, record: Record) -> None:
    with atomic_file(run.work / RECORD) as partial:
        partial.write_text(seals.json_text(record), encoding="utf-8")


def save(run: Run, state: Mapping[str, Any]) -> None:
    with atomic_file(run.work / STATE) as partial:
        with partial.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # of a file that torch could not finish; what the disk said is behind it
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        seals.seal(partial)
