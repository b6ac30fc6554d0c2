"""The training loop: alternating updates, checkpoints, exact resume, and a stop at the first loss that is no number.

One loop serves every component and variant: what differs between them is an `Objective` and a `Phase` of
`models.variants`. A run lives in `.work/STAGE/DATASET/NAME/` until it is finished:

    state.pt        everything that the next step depends on: networks, optimisers, random states, the step
    checkpoints/    the generators saved so far

A run that was stopped, by whatever, goes on from `state.pt` and ends, on a CPU, with the same bytes as one that was
not. The state carries a digest of the settings, inputs and code it belongs to and is thrown away with any other.
"""

import hashlib
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from models.features import Features
from models.variants import Adam, Batch, Objective, Phase
from pipeline import checkpoints, console
from pipeline.atomic import atomic_file
from pipeline.device_data import BatchOrder
from pipeline.errors import UserError

STATE_SECONDS = 120.0  # at most this much work is lost when the machine is
SHARED_CODE = ("models.blocks", "models.features", "models.losses", "models.pose_maps", "pipeline.engine")


class Data(Protocol):
    """What the loop asks of a data set: `device_data.PairData` or `device_data.ImageData`."""

    unit: str  # what a batch counts: pairs | images

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor) -> Batch: ...


@dataclass(frozen=True)
class Run:
    """One training run. `settings` are the values that the result depends on; `inputs` the files and folders read."""

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
    starts: Mapping[str, int] = field(default_factory=dict)  # the first step of a delayed loss term
    thaws: Mapping[str, int] = field(default_factory=dict)  # the first step that trains a frozen submodule


class Trained(NamedTuple):
    """A finished run: where its checkpoints lie, their steps, and the generator after the last."""

    folder: Path
    steps: list[int]
    generator: nn.Module


def checkpoint_steps(run: Run) -> list[int]:
    """Every `checkpoint_every` steps, and the last."""
    return sorted({*range(run.checkpoint_every, run.steps + 1, run.checkpoint_every), run.steps})


def digest(run: Run, objective: Objective) -> str:
    """SHA-256 of all that a state belongs to: settings, phase, bytes of the inputs, code of the networks, torch."""
    own = {type(module).__module__ for net in objective.networks().values() for module in net.modules()}
    own |= {type(objective).__module__, *SHARED_CODE}
    root = Path(__file__).parent.parent
    code = (root / f"{name.replace('.', '/')}.py" for name in sorted(own))
    inputs = (file for path in run.inputs for file in (sorted(path.rglob("*")) if path.is_dir() else [path]))
    facts = [dict(run.settings), repr(run.phase), run.steps, run.checkpoint_every, run.batch, run.seed, run.precision]
    facts += [dict(run.starts), dict(run.thaws)]
    total = hashlib.sha256(json.dumps([*facts, run.device.type, torch.__version__], sort_keys=True).encode())
    for file in (*code, *inputs):
        if file.is_file():
            with file.open("rb") as handle:
                total.update(file.name.encode() + hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()


def optimisers(phase: Phase, networks: Mapping[str, nn.Module], device: torch.device) -> dict[str, torch.optim.Adam]:
    """One Adam a trained network, over what is not frozen in it; fused where the device has it."""

    def make(network: nn.Module, adam: Adam) -> torch.optim.Adam:
        fused = device.type in ("cpu", "cuda")
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, adam.lr, adam.betas, weight_decay=adam.weight_decay, fused=fused)

    return {name: make(networks[name], phase.optimisers[name]) for name in (*phase.generators, *phase.discriminators)}


def freeze_untrained(phase: Phase, networks: Mapping[str, nn.Module], thawed: Collection[str] = ()) -> None:
    """Train mode for the networks that the phase names; eval mode and no gradient for all others, and for
    what is in `phase.frozen` and not `thawed` in the generator.
    """
    for name, network in networks.items():
        trained = name in (*phase.generators, *phase.discriminators)
        network.train(trained).requires_grad_(trained)
    for name in set(phase.frozen).difference(thawed):
        networks[phase.generators[0]].get_submodule(name).eval().requires_grad_(False)


@contextmanager
def _backends(device: torch.device, precision: str) -> Iterator[None]:
    """Deterministic on the CPU; on CUDA the fastest convolutions, and TF32 only where bf16 is allowed anyway."""
    if device.type == "cuda":
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=precision == "bf16"):
            yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, and nothing here reads such memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill


@contextmanager
def _stop_between_steps() -> Iterator[list[int]]:
    """SIGINT and SIGTERM let the step at hand finish: they fill the list yielded. A second one stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Trainer:
    """The state of a run and its one step."""

    def __init__(self, run: Run, objective: Objective, features: Features | None):
        self.run, self.objective, self.features = run, objective, features
        self.networks = objective.networks()
        self.layout = torch.channels_last if run.device.type == "cuda" else torch.contiguous_format
        for network in (*self.networks.values(), *([] if features is None else [features])):
            network.to(run.device, memory_format=self.layout)
        self.thawed = set(run.thaws)  # the optimiser holds what is still frozen: Adam passes over it, without a state
        freeze_untrained(run.phase, self.networks, self.thawed)
        self.optimisers = optimisers(run.phase, self.networks, run.device)

    def _enter(self, step: int) -> None:
        """Bring weights, frozen parts and progress to what they are in `step`."""
        run = self.run
        thawed = {name for name, first in run.thaws.items() if step >= first}
        if thawed != self.thawed:
            freeze_untrained(run.phase, self.networks, thawed)
            self.thawed = thawed
        if run.starts:
            at = {term: weight * (step >= run.starts.get(term, 1)) for term, weight in run.phase.weights.items()}
            self.objective.weights = at
        if hasattr(self.objective, "progress"):
            self.objective.progress = (step - 1) / run.steps

    def _update(self, step: int, names: tuple[str, ...], losses: Mapping[str, Tensor]) -> dict[str, float]:
        values = _finite(self.run, step, losses)  # before backward: a NaN must reach neither a weight nor a kernel
        for name in names:
            self.optimisers[name].zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        for name in names:
            self.optimisers[name].step()
        return values

    def step(self, step: int, batch: Batch) -> dict[str, float]:
        """Update generators, then discriminators, on one batch; return the value of every loss term.

        Raises UserError if one is NaN or infinite.
        """
        run, phase = self.run, self.run.phase
        batch.source = batch.source.contiguous(memory_format=self.layout)
        if batch.target is not None:
            batch.target = batch.target.contiguous(memory_format=self.layout)

        def autocast():
            return torch.autocast(run.device.type, torch.bfloat16) if run.precision == "bf16" else nullcontext()

        self._enter(step)
        for name in phase.discriminators:  # the generators' gradient passes through, none is kept
            self.networks[name].requires_grad_(False)
        with autocast():
            losses, output = self.objective.generator_losses(batch, self.features)
        values = self._update(step, phase.generators, losses)
        for name in phase.discriminators:
            self.networks[name].requires_grad_(True)
        if phase.discriminators:
            with autocast():
                losses = self.objective.discriminator_losses(batch, output)
            if losses:
                values |= self._update(step, phase.discriminators, losses)
        return values

    def state(self, step: int, belongs: str) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state(self.run.device) if self.run.device.type == "cuda" else None
        return {
            "digest": belongs,
            "step": step,
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "rng": {"cpu": torch.get_rng_state(), "cuda": cuda},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        torch.set_rng_state(state["rng"]["cpu"])
        if state["rng"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.run.device)

    def unsound(self) -> str | None:
        """The first network with a weight or buffer that is no finite number."""
        for name, network in self.networks.items():
            if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
                return name
        return None


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


def _keep_metrics(path: Path, last: int) -> None:
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


def _finite(run: Run, step: int, terms: Mapping[str, Tensor]) -> dict[str, float]:
    """Loss terms as numbers, fetched in one transfer. Raises UserError if one is NaN or infinite."""
    found = torch.stack([term.detach().float() for term in terms.values()]).tolist()
    for name, value in zip(terms, found, strict=True):
        if not math.isfinite(value):
            _stop(run, step, f"the loss term {name} is {value}")
    return dict(zip(terms, found, strict=True))


def _stop(run: Run, step: int, what: str) -> None:
    folder = run.work / "checkpoints"
    good = checkpoints.steps(folder)
    last = f"last good checkpoint: {checkpoints.path(folder, good[-1])}" if good else "no checkpoint yet"
    advice = "lower learning_rate or set precision: fp32, then run again"
    raise UserError(f"{run.title}: {what} at step {step}; {last}; {advice}")


def train(run: Run, objective: Objective, features: Features | None, data: Data) -> Trained:
    """Run, or go on with, a training run.

    The caller seeds torch before it builds the networks, publishes the checkpoints, then deletes `run.work`. Raises
    UserError at a loss that is NaN or infinite, KeyboardInterrupt (state saved) on SIGINT or SIGTERM.
    """
    trainer = Trainer(run, objective, features)
    generator = trainer.networks[run.phase.generators[0]]
    belongs = digest(run, objective)
    folder, wanted = run.work / "checkpoints", checkpoint_steps(run)
    order = BatchOrder(len(data), run.batch, run.seed)

    state = read_state(run, belongs)
    if state is None:
        shutil.rmtree(run.work, ignore_errors=True)
        folder.mkdir(parents=True)
    else:
        trainer.restore(state)
        console.say(f"{run.title}: going on after step {state['step']} of {run.steps}")
    first = 0 if state is None else state["step"]
    _keep_metrics(run.metrics, first)

    started = saved = time.monotonic()
    with (
        _backends(run.device, run.precision),
        _stop_between_steps() as stop,
        run.metrics.open("a", buffering=1, encoding="utf-8") as log,
        console.progress(run.title, run.steps) as advance,
    ):
        advance(first)
        for step in range(first + 1, run.steps + 1):
            values = trainer.step(step, data.batch(order.rows(step)))
            log.write(json.dumps({"step": step, **values}) + "\n")
            rate = (step - first) * run.batch / (time.monotonic() - started)
            note = f"{rate:.1f} {data.unit}/s  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            advance(1, note)
            if step in wanted or stop or time.monotonic() - saved > STATE_SECONDS:
                bad = trainer.unsound()
                if bad:
                    _stop(run, step, f"a weight of the network {bad} is no finite number")
                log.flush()
                if step in wanted:
                    checkpoints.save(folder, step, generator)
                    console.say(f"{run.title}: step {step} of {run.steps}  {note}")
                save_state(run, trainer.state(step, belongs))
                saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt
    return Trained(folder, wanted, generator)
