"""What a training step costs on one H100, without one: `python -m benchmarks.cost > table.md`.

One step of every component and variant, at the published width and batch, with VGG features of the paper's net, in bf16
autocast and channels_last, on tensors that have shapes and no values. Of every operation are counted: floating-point
operations (torch's own formulas; a product and a sum are two), bytes (each input and output once), kernels, and the
memory that lives.

An operation takes the longest of computing, of moving its bytes, and of the shortest kernel; these add up to the
device's time. The host starts one kernel after the other, and a step takes what takes longer, the device or the host.
All assumptions are in `H100`, below; what no counter sees is left out: caches, work that overlaps, the optimiser's
fusion beyond one kernel for some tensors, the data set, which lies on the device, and the time of checkpoints and
scores. Autocast is the CPU's: it leaves a few operations in another precision than CUDA's does.
"""

import argparse
import math
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from benchmarks.data import say
from models.layers import features as feature_nets
from models.variants import COMPONENTS, VARIANTS, Batch, Component, Objective, Variant
from pipeline.training import loop

SIZES = {"market1501": (128, 64), "deepfashion": (256, 256)}


@dataclass(frozen=True)
class Machine:
    """What a device is taken to reach, in operations, bytes and seconds."""

    bf16: float  # operations a second of convolutions and matrix products in bf16
    other: float  # of those in float32
    bandwidth: float  # bytes a second
    kernel: float  # seconds of the shortest kernel
    launch: float  # seconds of the host for a kernel: Python, autograd and the launch, without compiling


# An SXM5: half of its 989 T in bf16 and of its 495 T in TF32, 0.8 of its 3.35 TB/s.
H100 = Machine(bf16=495e12, other=247e12, bandwidth=2.7e12, kernel=2e-6, launch=6e-6)

# Operations that start no kernel: views, and memory that nobody fills.
FREE = {
    *("view", "_unsafe_view", "_reshape_alias", "expand", "permute", "transpose", "t", "slice", "select", "unsqueeze"),
    *("squeeze", "detach", "alias", "as_strided", "split", "split_with_sizes", "unbind", "diagonal", "unfold"),
    *("lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "set_", "resize_"),
    *("detach_", "unsqueeze_", "squeeze_", "is_same_size", "_has_compatible_shallow_copy_type"),
}
# Kernels of an operation that takes more than one.
SEVERAL = {
    "native_batch_norm": 2,
    "native_batch_norm_backward": 2,
    "native_layer_norm_backward": 2,
    "grid_sampler_2d_backward": 2,
    "linalg_inv_ex": 6,
    "_linalg_solve_ex": 6,
    "linalg_lu_factor_ex": 6,
    "_linalg_det": 6,
}
TOGETHER = 64  # tensors that one kernel of a fused optimiser, or of another operation on lists, takes


def size(tensor: Tensor) -> int:
    """Bytes, each element of an expanded tensor once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


class Counting(TorchDispatchMode):
    """Counts the operations of a block, and the bytes of the tensors that live in it."""

    def __init__(self, machine: Machine = H100):
        super().__init__()
        self.machine = machine
        self.live = 0
        self.known: set[int] = set()
        self.clear()

    def clear(self) -> None:
        """Count from here on; what lives now still does."""
        self.operations: Counter[str] = Counter()  # floating-point, by dtype
        self.bytes = self.kernels = 0
        self.seconds = 0.0  # of the device
        self.peak = self.live

    def _born(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, held = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.live += held
        self.peak = max(self.peak, self.live)

        def gone() -> None:
            self.known.discard(key)
            self.live -= held

        weakref.finalize(storage, gone)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Mapping | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = [one for one in tree_iter(result) if isinstance(one, Tensor)]
        for one in outputs:
            self._born(one)
        name = func.overloadpacket.__name__
        if func.namespace != "aten" or name in FREE or not outputs:
            return result
        inputs = [one for one in tree_iter((args, kwargs or {})) if isinstance(one, Tensor)]
        moved = sum(size(one) for one in {id(one): one for one in (*inputs, *outputs)}.values())
        computed = 0
        if func.overloadpacket in flop_registry:
            computed = flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
            self.operations[str(inputs[0].dtype).removeprefix("torch.")] += computed
        kernels = self._kernels(name, args)
        rate = self.machine.bf16 if inputs and inputs[0].dtype == torch.bfloat16 else self.machine.other
        self.kernels += kernels
        self.bytes += moved
        self.seconds += max(computed / rate, moved / self.machine.bandwidth, kernels * self.machine.kernel)
        return result

    @staticmethod
    def _kernels(name: str, args: tuple) -> int:
        if name == "convolution":
            return 1 + (args[2] is not None)
        if name == "convolution_backward":
            return sum(args[10])
        if name == "_fused_adam_" or name.startswith("_foreach"):
            return math.ceil(len(args[0]) / TOGETHER)
        return SEVERAL.get(name, 1)


class Valueless(loop.Trainer):
    """A trainer whose tensors have no values: nothing can be read from them. Laid out as on CUDA."""

    def __init__(self, run: loop.Run, objective: Objective, features: nn.Module | None):
        super().__init__(run, objective, features)
        self.layout = torch.channels_last

    def begin_at(self, step: int) -> None:
        """Do what only the first of many steps does."""
        self._enter(step)

    def _read(self, step: int, terms: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(terms, 0.0)


@contextmanager
def valueless() -> Iterator[None]:
    """Tensors without values. A number read from one is 0.5, and a network that is moved is laid out as on CUDA."""
    item, to = Tensor.item, nn.Module.to

    def laid_out(module: nn.Module, *where: Any, **options: Any) -> nn.Module:
        for part in module.modules():
            for name, one in part._parameters.items():
                if one is not None:
                    layout = torch.channels_last if one.dim() == 4 else torch.contiguous_format
                    again = one.detach().contiguous(memory_format=layout)
                    part._parameters[name] = nn.Parameter(again, one.requires_grad)
        return module

    Tensor.item, nn.Module.to = (lambda tensor: 0.5), laid_out
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        Tensor.item, nn.Module.to = item, to


@dataclass(frozen=True)
class Cost:
    """Of one step of an entry on a data set."""

    name: str
    batch: int
    steps: int  # of the published schedule
    parameters: int  # of the networks that are trained
    operations: Mapping[str, int]  # floating-point, by dtype
    bytes: int
    kernels: int
    peak: int  # bytes
    device: float  # seconds
    host: float

    @property
    def hours(self) -> float:
        """Of the published schedule."""
        return max(self.device, self.host) * self.steps / 3600


def batch_of(entry: Component | Variant, count: int, height: int, width: int) -> Batch:
    """A batch of the entry's kind of data."""
    count = count // 2 if entry.data == "images" else count

    def pose() -> tuple[Tensor, Tensor]:
        return torch.empty(count, 18, 2), torch.ones(count, 18, dtype=torch.bool)

    def labels() -> Tensor | None:
        return torch.zeros(count, height, width, dtype=torch.uint8) if entry.needs_parsing else None

    source, target = torch.empty(count, 3, height, width), torch.empty(count, 3, height, width)
    unseen = entry.data in ("unpaired", "pseudo_pairs")
    return Batch(source, None if unseen else target, *pose(), *pose(), labels(), labels())


def cost(entry: Component | Variant, dataset: str, height: int, width: int, scale: float = 1.0) -> Cost:
    """Of a step half-way through the schedule, when the optimisers' states are there."""
    phase, batch, steps = entry.phase, entry.phase.batch[dataset], 10
    with valueless(), Counting() as counted:
        network = entry.build(height, width, scale)
        run = loop.Run(
            title=entry.name,
            phase=phase,
            steps=steps,
            checkpoint_every=steps,
            batch=batch,
            seed=0,
            precision="bf16",
            device=torch.device("cpu"),
            work=Path("unused"),
            metrics=Path("unused"),
            settings={},
        )
        objective = entry.objective(network, height, width, scale, phase.weights)
        net = feature_nets.build(entry.features) if entry.features else None
        trainer = Valueless(run, objective, net)
        for optimiser in trainer.optimisers.values():  # a step of its own makes its state
            for one in optimiser.param_groups[0]["params"]:
                one.grad = torch.zeros_like(one)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        data = batch_of(entry, batch, height, width)
        trainer.begin_at(steps // 2 + 1)
        counted.clear()
        trainer.step(steps // 2 + 1, data)
        trained = [trainer.networks[name] for name in (*phase.generators, *phase.discriminators)]
        return Cost(
            name=entry.name,
            batch=batch,
            steps=phase.steps[dataset],
            parameters=sum(one.numel() for each in trained for one in each.parameters()),
            operations=dict(counted.operations),
            bytes=counted.bytes,
            kernels=counted.kernels,
            peak=counted.peak,
            device=counted.seconds,
            host=counted.kernels * counted.machine.launch,
        )


HEAD = (
    *("entry", "batch", "M parameters", "T operations", "in bf16", "GB moved", "kernels", "peak, GiB"),
    *("device, ms", "host, ms", "steps", "hours"),
)


def line(cells: tuple[str, ...]) -> None:
    """Of a table, as soon as it is known."""
    print("| " + " | ".join(cells) + " |", flush=True)


def cells(of: Cost) -> tuple[str, ...]:
    total = sum(of.operations.values())
    return (
        f"`{of.name}`", f"{of.batch}", f"{of.parameters / 1e6:.1f}", f"{total / 1e12:.2f}",
        f"{100 * of.operations.get('bfloat16', 0) / total:.0f} %", f"{of.bytes / 1e9:.1f}", f"{of.kernels:,}",
        f"{of.peak / 2**30:.1f}", f"{1e3 * of.device:.1f}", f"{1e3 * of.host:.1f}", f"{of.steps:,}", f"{of.hours:.1f}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = {name: entry for name, entry in (COMPONENTS | VARIANTS).items() if entry.phase}
    parser.add_argument("--entries", nargs="*", default=list(everything), choices=everything, help="default: all")
    parser.add_argument("--datasets", nargs="*", default=list(SIZES), choices=SIZES, help="whose batch and size")
    options = parser.parse_args()
    say(
        f"One H100 as assumed: {H100.bf16 / 1e12:.0f} T operations/s in bf16, {H100.other / 1e12:.0f} T/s in TF32,"
        f" {H100.bandwidth / 1e12:.1f} TB/s, {1e6 * H100.kernel:.0f} µs the shortest kernel, {1e6 * H100.launch:.0f} µs"
        " of the host a kernel. Nothing was measured."
    )
    for dataset in options.datasets:
        print(f"### {SIZES[dataset][0]}x{SIZES[dataset][1]}, {dataset}\n")
        line(HEAD)
        line(("---",) * len(HEAD))
        found = []
        for name in options.entries:
            found.append(cost(everything[name], dataset, *SIZES[dataset]))
            line(cells(found[-1]))
        alone = sum(of.device * of.steps for of in found) / 3600
        print()
        say(
            f"All {len(found)} together: {sum(of.hours for of in found):.0f} hours; {alone:.0f} if the host never"
            " held the device up."
        )


if __name__ == "__main__":
    main()
