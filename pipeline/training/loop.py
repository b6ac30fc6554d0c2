"""The training loop: alternating updates, checkpoints, exact resume, and a stop at the first loss that is no number.

One loop serves every component and variant: what differs between them is an `Objective` and a `Phase` of
`models.variants`. A run that was stopped, by whatever, goes on from its state (pipeline/training/states.py) and ends,
on a CPU, with the same bytes as one that was not.

A step's batch is cut into one part for each process (pipeline/loading/parallel.py) and micro-batch. Every loss is a
mean over images: the losses of the parts, weighed by their share of the images, add up to that of the whole batch, and
so do the gradients, as long as a network looks at each image by itself. Batch norms do not: they see only their part.
"""

import copy
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from models.layers.blocks import InstanceNorm
from models.layers.features import Features
from models.layers.spectral import SpectralNorm
from models.variants import Adam, Batch, Objective, Phase
from pipeline.core import console, digests, seals
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints, parallel, shard_loader
from pipeline.loading.parallel import Group
from pipeline.training import augmentation, compiling, states, tracker
from pipeline.training.order import BatchOrder
from pipeline.training.run import Run, checkpoint_steps, keep_metrics, rate

STATE_SECONDS = 120.0  # at most this much work is lost when the machine is


class Data(Protocol):
    """What the loop asks of a data set: `arrays.PairData` or `arrays.ImageData`."""

    unit: str  # what a batch counts: pairs | images
    resident: bool  # the pictures are where they are used: nothing to fetch ahead

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor) -> Batch: ...


class Trained(NamedTuple):
    """A finished run: where its checkpoints lie, their steps, the generator that the last one holds, and the log."""

    folder: Path
    steps: list[int]
    generator: nn.Module
    metrics: Path | None = None  # the losses of every step; a floor has none


def optimisers(phase: Phase, networks: Mapping[str, nn.Module], device: torch.device) -> dict[str, torch.optim.Adam]:
    """An Adam for each trained network, over the parameters that are not frozen; fused if the device has it."""

    def make(network: nn.Module, adam: Adam) -> torch.optim.Adam:
        fused = device.type in ("cpu", "cuda")
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, adam.lr, adam.betas, weight_decay=adam.weight_decay, fused=fused)

    return {name: make(networks[name], phase.optimisers[name]) for name in (*phase.generators, *phase.discriminators)}


def freeze_untrained(phase: Phase, networks: Mapping[str, nn.Module], thawed: Collection[str] = ()) -> None:
    """Train mode for the networks that the phase names; eval mode and no gradient for all others, and for the
    generator's submodules in `phase.frozen` that are not in `thawed`.
    """
    for name, network in networks.items():
        trained = name in (*phase.generators, *phase.discriminators)
        network.train(trained).requires_grad_(trained)
    for name in set(phase.frozen).difference(thawed):
        networks[phase.generators[0]].get_submodule(name).eval().requires_grad_(False)


def spectral_vectors(networks: Iterable[nn.Module]) -> list[Tensor]:
    """The buffers that every forward of a spectral norm changes, by a step of power iteration, whatever the input."""
    modules = (module for network in networks for module in network.modules())
    return [vector for module in modules if isinstance(module, SpectralNorm) for vector in (module.u, module.v)]


def rounded(modules: Iterable[nn.Module]) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """The weights that are not trained and that bf16 autocast would therefore round anew at every call, and what it
    makes of each. Those of a module that says that it is `float32` are used as they are.
    """
    for module in modules:
        if getattr(module, "float32", False):
            continue
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | InstanceNorm):
            weights = (one for one in module.parameters(recurse=False) if not one.requires_grad)
            yield from ((weight, weight.detach().to(torch.bfloat16)) for weight in weights)
        yield from rounded(module.children())


def put(values: Iterable[tuple[nn.Parameter, Tensor]]) -> None:
    """Let each parameter hold another tensor, which is not copied."""
    for parameter, value in values:
        parameter.data = value


@contextmanager
def holding(values: Sequence[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Let parameters hold other tensors for a while."""
    before = [(parameter, parameter.data) for parameter, _ in values]
    put(values)
    try:
        yield
    finally:
        put(before)


@contextmanager
def backends(device: torch.device, precision: str) -> Iterator[None]:
    """Deterministic on the CPU; on CUDA the fastest convolutions, and TF32, for matrix products too, only where bf16 is
    allowed anyway.
    """
    if device.type == "cuda":
        tf32, products = precision == "bf16", torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        try:
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
                yield
        finally:
            torch.set_float32_matmul_precision(products)
        return
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it takes time, and nothing here reads such memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill


@contextmanager
def _stop_between_steps(patient: bool) -> Iterator[list[int]]:
    """SIGINT and SIGTERM fill the list that is yielded, so that the current step can finish. A second signal stops at
    once, unless `patient`: torchrun repeats the one that the terminal has already sent.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked and not patient:
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

    def __init__(self, run: Run, objective: Objective, features: Features | None, group: Group | None = None):
        self.run, self.objective, self.features = run, objective, features
        self.group = group or parallel.alone(run.device)
        self.networks = objective.networks()
        self.layout = torch.channels_last if run.device.type == "cuda" else torch.contiguous_format
        for network in (*self.networks.values(), *([] if features is None else [features])):
            network.to(run.device, memory_format=self.layout)
        self.generator = self.networks[run.phase.generators[0]]
        self.thawed = set(run.thaws)  # Adam skips parameters without a gradient, those that are still frozen
        freeze_untrained(run.phase, self.networks, self.thawed)
        self.rounds = run.precision == "bf16" and not getattr(self.generator, "float32", False)
        if self.rounds:
            trained = {*run.phase.generators, *run.phase.discriminators}
            untrained = [network for name, network in self.networks.items() if name not in trained]
            put(rounded([*untrained, *([] if features is None else [features])]))
        self.frozen: list[tuple[nn.Parameter, Tensor]] | None = None  # the generator's frozen weights, for autocast
        self.optimisers = optimisers(run.phase, self.networks, run.device)
        # 1 once a loss was no finite number: no optimiser takes a step from then on, long before the host knows.
        self.failed, self.one = torch.zeros((), device=run.device), torch.ones((), device=run.device)
        for optimiser in self.optimisers.values():
            optimiser.found_inf = self.failed
        if run.compile:
            compiling.compile_blocks(self.networks.values(), run.device)

    def _enter(self, step: int) -> None:
        """Set the terms' weights, the frozen parts, progress and learning rates of `step`."""
        run = self.run
        thawed = {name for name, first in run.thaws.items() if step >= first}
        if thawed != self.thawed:
            freeze_untrained(run.phase, self.networks, thawed)
            self.thawed, self.frozen = thawed, None
        if self.frozen is None:
            self.frozen = list(rounded([self.generator])) if self.rounds else []
        if run.starts:
            at = {term: weight * (step >= run.starts.get(term, 1)) for term, weight in run.phase.weights.items()}
            self.objective.weights = at
        if hasattr(self.objective, "progress"):
            self.objective.progress = (step - 1) / run.steps
        share = rate(run.phase, step, run.steps)
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = run.phase.optimisers[name].lr * share

    def _autocast(self):
        bf16 = self.run.precision == "bf16"
        return torch.autocast(self.run.device.type, torch.bfloat16) if bf16 else nullcontext()

    def _each(self, parts: Sequence[Callable[[], Any]]) -> Iterator[Any]:
        """What each part returns, in the run's precision; all start from the same spectral vectors, as the whole batch
        does.
        """
        powers = spectral_vectors(self.networks.values()) if len(parts) > 1 else []
        before = [value.clone() for value in powers]
        for number, part in enumerate(parts):
            if number and powers:
                torch._foreach_copy_(powers, before)
            with self._autocast():
                made = part()
            yield made

    def _update(
        self,
        step: int,
        names: tuple[str, ...],
        parts: Sequence[Callable[[], Mapping[str, Tensor]]],
        shares: Sequence[float],
    ) -> dict[str, Tensor]:
        """One step of the optimisers `names` on the losses of all parts, as long as all losses are finite numbers;
        returns the terms, summed over parts and processes, {} if there are none.
        """
        for name in names:
            self.optimisers[name].zero_grad(set_to_none=True)
        terms, total = (), None
        for losses, share in zip(self._each(parts), shares, strict=True):
            if not losses:
                return {}
            found = self.group.sum(share * torch.stack([loss.detach().float() for loss in losses.values()]))
            terms, total = tuple(losses), found if total is None else total + found
            if self.run.device.type == "cpu":  # some of its kernels crash on a NaN, and nothing has to be waited for
                self._read(step, dict(zip(terms, found, strict=True)))
            (share * sum(losses.values())).backward()
        torch._amp_foreach_non_finite_check_and_unscale_([total], self.failed, self.one)  # one kernel, unlike isfinite
        for name in names:
            self.group.sum_gradients(self.networks[name].parameters())
            self.optimisers[name].step()
        return dict(zip(terms, total, strict=True))

    def _read(self, step: int, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Loss terms as numbers, for which the host waits. Raises UserError if one is NaN or infinite."""
        values = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                _stop(self.run, step, f"the loss term {name} is {value}")
        return values

    def _update_generators(
        self, step: int, batches: Sequence[Batch], shares: Sequence[float], made: Sequence[Any]
    ) -> tuple[dict[str, Tensor], list[Any]]:
        """The loss terms, and each part's output, which `made` holds if it was made before."""
        phase, outputs = self.run.phase, []

        def losses_of(*of: Any) -> Mapping[str, Tensor]:
            losses, output = self.objective.generator_losses(*of)
            outputs.append(output)
            return losses

        parts = [partial(losses_of, batch, self.features, *made[k : k + 1]) for k, batch in enumerate(batches)]
        for name in phase.discriminators:  # gradients pass through to the generators, and none is kept here
            self.networks[name].requires_grad_(False)
        terms = self._update(step, phase.generators, parts, shares)
        for name in phase.discriminators:
            self.networks[name].requires_grad_(True)
        return terms, outputs

    def step(self, step: int, *batches: Batch, shares: Sequence[float] = (1.0,)) -> dict[str, float]:
        """Update generators and discriminators, in the phase's order, on the parts of one batch; return the value of
        every loss term, for which the host waits at the end.

        shares: each part's share of the global batch. Raises UserError if a loss is NaN or infinite: then neither it
        nor what came after it has changed a weight or an optimiser's state.
        """
        phase = self.run.phase
        for batch in batches:
            batch.source = batch.source.contiguous(memory_format=self.layout)
            if batch.target is not None:
                batch.target = batch.target.contiguous(memory_format=self.layout)
        self._enter(step)

        def update_discriminators(outputs: Sequence[Any]) -> dict[str, Tensor]:
            judge = self.objective.discriminator_losses
            parts = [partial(judge, *both) for both in zip(batches, outputs, strict=True)]
            return self._update(step, phase.discriminators, parts, shares) if phase.discriminators else {}

        with holding(self.frozen):
            if phase.discriminators_first:
                made = list(self._each([partial(self.objective.generate, batch) for batch in batches]))
                judged = update_discriminators(made)
                terms, _ = self._update_generators(step, batches, shares, made)
            else:
                terms, made = self._update_generators(step, batches, shares, ())
                judged = update_discriminators(made)
        self.group.average_statistics(self.networks[name] for name in (*phase.generators, *phase.discriminators))
        return self._read(step, terms | judged)

    def state(self, step: int) -> dict[str, Any]:
        """All that the next step depends on, the same in every process. All processes must call this."""
        cuda = torch.cuda.get_rng_state(self.run.device) if self.run.device.type == "cuda" else None
        networks = {name: network.state_dict() for name, network in self.networks.items()}
        apart = {name: networks.pop(name) for name in self.run.phase.apart if name in networks}
        return {
            "step": step,
            "networks": networks,
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "rng": self.group.gather({"cpu": torch.get_rng_state(), "cuda": cuda}),
            "apart": self.group.gather(apart),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, values in (state["networks"] | state["apart"][self.group.rank]).items():
            self.networks[name].load_state_dict(values)
        self.frozen = None
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        rng = state["rng"][self.group.rank]
        torch.set_rng_state(rng["cpu"])
        if rng["cuda"] is not None:
            torch.cuda.set_rng_state(rng["cuda"], self.run.device)

    def check(self, step: int) -> None:
        """Raises UserError if a weight or buffer is NaN or infinite."""
        for name, network in self.networks.items():
            finite = [value.isfinite().all() for value in network.state_dict().values()]
            if finite and not torch.stack(finite).all():
                _stop(self.run, step, f"a weight of the network {name} is no finite number")


def _stop(run: Run, step: int, what: str) -> None:
    folder = run.work / "checkpoints"
    good = checkpoints.steps(folder)
    last = f"last good checkpoint: {checkpoints.path(folder, good[-1])}" if good else "no checkpoint yet"
    advice = "lower learning_rate or set precision: fp32, then run again"
    raise UserError(f"{run.title}: {what} at step {step}; {last}; {advice}")


def parts_of(run: Run, data: Data, group: Group) -> Callable[[int], tuple[list[Batch], list[float]]]:
    """A function of the step: this process's micro-batches, augmented, and their shares of the global batch.

    Raises UserError if the batch has fewer rows than parts.
    """
    parts = group.size * run.accumulate
    if run.batch < parts:
        where = f"{group.size} processes of {run.accumulate} micro-batches"
        raise UserError(f"{run.title}: a batch of {run.batch} cannot be split over {where}; set a larger batch")
    order = BatchOrder(len(data), run.batch, run.seed)
    own = slice(group.rank * run.accumulate, (group.rank + 1) * run.accumulate)

    def make(step: int) -> tuple[list[Batch], list[float]]:
        rows = order.rows(step).tensor_split(parts)[own]
        batches = [data.batch(some) for some in rows]
        if run.jitter is not None:
            moves = augmentation.draws(run.jitter, run.batch, run.seed, step).tensor_split(parts)[own]
            batches = [augmentation.move(batch, run.jitter, some) for batch, some in zip(batches, moves, strict=True)]
        return batches, [len(some) / run.batch for some in rows]

    return make


def _open(run: Run, trainer: Trainer) -> tuple[int, dict[int, str]]:
    """Restore the state of an earlier run that fits; return the last step that is done, and the digests of its
    checkpoints by step.
    """
    rank = trainer.group.rank
    found = states.prepare(run, trainer.objective, trainer.group.size) if rank == 0 else None
    trainer.group.wait()  # the folder is what it will be
    found = states.load(run.work) if rank else found
    if found is None:
        if rank:  # the first goes on as if it were alone; each other draws its own dropout and noise
            torch.manual_seed(int(torch.randint(2**62, (rank,))[-1]))
        done, saved = 0, {}
    else:
        trainer.restore(found)
        if found["step"] > run.steps:
            checkpoints.restore(run.work / "checkpoints", run.steps, trainer.generator)
        done, saved = found["step"], dict(found["checkpoints"])
    if rank == 0:
        if done in checkpoint_steps(run) and not states.is_whole(run.work, done, saved):
            saved[done] = digests.sha256(checkpoints.save(run.work / "checkpoints", done, trainer.generator))
        keep_metrics(run.metrics, done)
    return done, saved


def _save(folder: Path, step: int, generator: nn.Module, look: Callable[[int, nn.Module], None] | None) -> str:
    """Save a checkpoint and let `look` see a copy of its generator; return the file's digest."""
    digest = digests.sha256(checkpoints.save(folder, step, generator))
    if look is not None:
        look(step, copy.deepcopy(generator).eval())
    return digest


def train(
    run: Run,
    objective: Objective,
    features: Features | None,
    data: Data,
    group: Group | None = None,
    look: Callable[[int, nn.Module], None] | None = None,
) -> Trained:
    """Start or continue a training run, alone or as one process of `group`, of which only the first writes.

    look: called at every checkpoint with the step and the generator saved, in eval mode. The caller seeds torch before
    it builds the networks, and publishes the checkpoints. Raises UserError at a loss that is NaN or infinite,
    KeyboardInterrupt (state saved) on SIGINT or SIGTERM.
    """
    group = group or parallel.alone(run.device)
    make, trainer = parts_of(run, data, group), Trainer(run, objective, features, group)
    folder, wanted, writes = run.work / "checkpoints", checkpoint_steps(run), group.rank == 0
    first, saved = _open(run, trainer)
    steps = range(first + 1, run.steps + 1)
    made = (make(step) for step in steps) if data.resident else shard_loader.ahead(make, steps, run.device)
    started = state_time = time.monotonic()
    with (
        backends(run.device, run.precision),
        _stop_between_steps(patient=group.size > 1) as asked,
        (run.metrics if writes else Path(os.devnull)).open("a", buffering=1, encoding="utf-8") as log,
        tracker.following(run.tracker if writes else "none", run.metrics) as follow,
        closing(made) as parts,
        console.progress(run.title, run.steps) as advance,
    ):
        advance(first)
        if not first and hasattr(objective, "begin"):
            objective.begin(data.batch(BatchOrder(len(data), run.batch, run.seed).rows(1)))
        for step, (batches, shares) in zip(steps, parts, strict=False):
            values = trainer.step(step, *batches, shares=shares)
            line = {"step": step, **values}
            log.write(seals.json_line(line))
            follow(line)
            took = (time.monotonic() - started) / (step - first)
            terms = (f"{name} {value:.4g}" for name, value in values.items())
            advance(1, note := "  ".join([f"{run.batch / took:.1f} {data.unit}/s", *terms]))
            stop, due = group.any(bool(asked), time.monotonic() - state_time > STATE_SECONDS)
            if step in wanted or stop or due:
                trainer.check(step)
                if writes:
                    os.fsync(log.fileno())  # the state that follows is of as many steps
                if step in wanted and writes:
                    saved[step] = _save(folder, step, trainer.generator, look)
                    left = timedelta(seconds=round(took * (run.steps - step)))
                    console.say(f"{run.title}: step {step} of {run.steps}  {note}  {left} left")
                state = trainer.state(step)
                if writes:
                    states.save(run, {**state, "checkpoints": saved})
                state_time = time.monotonic()
            if stop:
                raise KeyboardInterrupt
    group.wait()
    return Trained(folder, wanted, trainer.generator, run.metrics)
