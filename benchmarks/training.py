"""One training step of every variant, our way beside the plain way: `python -m benchmarks.training speed > table.md`.

    speed    pairs/s, memory and the share of the arithmetic peak, both ways in turns in one run; a profile of our step
    curves   the losses of both ways over the same batches of a prepared project, and a picture of them
    compile  our step with and without torch.compile, in turns in one run, and what compiling costs

With `--beside CHECKOUT` the first two compare this commit with the one that lies there, before and after a change:
    speed    processor seconds of a step of both, in turns, each in a process of its own; one entry of each family
    curves   the losses of both over the same batches of a prepared project, a run for each seed, and whether their ends
             are nearer to each other than one commit's seeds are

Ours: the data set resident as uint8, maps made on the device, bf16 autocast, fused Adam, and on CUDA channels_last. The
plain way: float32 with PyTorch's defaults, which on CUDA are TF32 convolutions, channels first, unfused Adam, and a
DataLoader with 2 workers that decodes JPEGs and makes dense heatmaps on the CPU, as the field's loaders do. Both run
the same networks and losses, with seeded feature weights.

Seconds are the clock's on CUDA. On a CPU they are processor seconds, the loader's among them: what else runs on the
machine then does not count, and on one core of its own a step takes as long.
"""

import argparse
import copy
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import torch
import torch._inductor.config
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import beside
from benchmarks.data import DensePairs, ratio, say, skeletons, table, write_data_set
from models.layers import features as feature_nets
from models.variants import VARIANTS, Batch, Variant
from pipeline.loading import arrays, devices
from pipeline.loading.arrays import PairData
from pipeline.training import loop
from pipeline.training.order import BatchOrder

SIZES = {"market1501": (128, 64), "deepfashion": (256, 256)}
WAYS = ("ours", "plain")
STROKES = {"ours": 'stroke="#0072b2"', "plain": 'stroke="#d55e00" stroke-dasharray="5 3"'}
WARM = 2  # steps in which everything is compiled
IMAGES = 64  # of the random data set that the speed is measured on


@dataclass(frozen=True)
class Setup:
    """What a step is measured on: a variant at a data set's published batch and size, `width` times as wide."""

    variant: Variant
    dataset: str
    width: float
    features: str | None  # None: the published net
    device: torch.device
    precision: str = "bf16"  # of our way

    @property
    def batch(self) -> int:
        return self.variant.phase.batch[self.dataset]

    def trainer(self, way: str, seed: int = 0) -> loop.Trainer:
        """Networks and optimisers from a seed, set up `way`."""
        torch.manual_seed(seed)
        height, width = SIZES[self.dataset]
        network = self.variant.build(height, width, self.width)
        phase = self.variant.phase
        objective = self.variant.objective(network, height, width, self.width, phase.weights)
        run = loop.Run(
            title=self.variant.name,
            phase=phase,
            steps=1,
            checkpoint_every=1,
            batch=self.batch,
            seed=seed,
            precision="fp32" if way == "plain" else self.precision,
            device=self.device,
            work=Path("unused"),
            metrics=Path("unused"),
            settings={},
            compile=way == "compiled",
        )
        published = self.variant.features
        net = feature_nets.build(self.features or published) if published else None
        trainer = loop.Trainer(run, objective, net)
        if way == "plain":
            make_plain(trainer)
        return trainer


def make_plain(trainer: loop.Trainer) -> None:
    """Channels first, and an Adam that updates one tensor at a time."""
    trainer.layout = torch.contiguous_format
    nets = [*trainer.networks.values(), *([] if trainer.features is None else [trainer.features])]
    for network in nets:
        network.to(memory_format=torch.contiguous_format)
    for optimiser in trainer.optimisers.values():
        del optimiser.found_inf  # the loop's flag, which only fused kernels read
        for group in optimiser.param_groups:
            group |= {"fused": False, "foreach": False}


def backends(way: str, setup: Setup) -> AbstractContextManager:
    """What kernels may do. The plain way has PyTorch's defaults, TF32 convolutions on CUDA, and lets cuDNN choose."""
    if way != "plain":
        return loop.backends(setup.device, setup.precision)
    if setup.device.type == "cuda":
        return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True)
    return nullcontext()


def resident(setup: Setup) -> Iterator[Batch]:
    """Our batches of the data set in the working folder, without end."""
    data = arrays.load_pairs("d", "train", setup.device, label_set=setup.variant.labels)
    order = BatchOrder(len(data), setup.batch, 0)
    for step in range(1, 1 << 30):
        yield data.batch(order.rows(step))


def through_loader(setup: Setup, jpegs: list[bytes]) -> Iterator[Batch]:
    """The plain way's batches: images from the loader. Its dense maps are moved to the device and left unused, since
    the networks make their own from the joints; labels come from memory.
    """
    height, width = SIZES[setup.dataset]
    joints, valid = skeletons(5, len(jpegs), height, width)
    dense = DensePairs(jpegs, joints, valid, height, width)
    data = arrays.load_pairs("d", "train", setup.device, label_set=setup.variant.labels)
    loader = torch.utils.data.DataLoader(dense, setup.batch, num_workers=2, persistent_workers=True, drop_last=True)
    for _ in repeat(None):
        for number, loaded in enumerate(loader):
            loaded = {name: value.to(setup.device) for name, value in loaded.items()}
            batch = data.batch(torch.arange(number * setup.batch, (number + 1) * setup.batch) % len(data))
            batch.source, batch.target = loaded["source"], loaded["target"]
            yield batch


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device) -> float:
    """What the device has spent: seconds of the clock on CUDA, else of this process and the children it waited for."""
    synchronise(device)
    return time.perf_counter() if device.type == "cuda" else time.process_time() + sum(os.times()[2:4])


def loader_seconds(device: torch.device) -> float:
    """Processor seconds of the living workers; on CUDA they run beside the step, whose clock has them."""
    if device.type == "cuda":
        return 0.0
    stats = [Path(f"/proc/{child.pid}/stat").read_text() for child in multiprocessing.active_children()]
    ticks = [stat.rpartition(")")[2].split()[11:13] for stat in stats]  # user, system
    return sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")


def seconds_a_step(setup: Setup, steps: int, jpegs: list[bytes]) -> dict[str, float]:
    """Median seconds of a step, both ways in turns, and the mean of what the plain way's loader spends on a batch."""
    trainers = {way: setup.trainer(way) for way in WAYS}
    batches = {"ours": resident(setup), "plain": through_loader(setup, jpegs)}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    loading = 0.0
    for step in range(-1, steps):  # the first is not counted: kernels are chosen, workers start
        if step == 0:
            loading = loader_seconds(setup.device)
        for way in WAYS:
            with backends(way, setup):
                start = seconds(setup.device)
                trainers[way].step(step + 2, next(batches[way]))
                if step >= 0:
                    times[way].append(seconds(setup.device) - start)
    found = {way: statistics.median(taken) for way, taken in times.items()}
    found["plain"] += (loader_seconds(setup.device) - loading) / steps
    return found


def peak_memory(options: argparse.Namespace, variant: str, dataset: str, way: str) -> float:
    """MiB that two steps add, in a process of their own."""
    flags = ["--width", str(options.width), "--device", options.device]
    flags += ["--features", options.features] if options.features else []
    command = [sys.executable, "-m", "benchmarks.training", "memory", "--variants", variant, "--datasets", dataset]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([*command, *flags, "--way", way], cwd=root, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def most_resident() -> float:
    """The process's largest resident memory so far, MiB. (getrusage would give the parent's where that was larger.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def measure_memory(setup: Setup, way: str) -> None:
    """Print the MiB that two steps of one way add: of the device on CUDA, of the process on a CPU."""
    before = most_resident()
    trainer, batches = setup.trainer(way), resident(setup)
    for step in (1, 2):
        trainer.step(step, next(batches))
    if setup.device.type == "cuda":
        print(torch.cuda.max_memory_allocated(setup.device) / 2**20)
    else:
        print(most_resident() - before)


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Arithmetic operations a second of the largest matrix product of a few: what a step could reach at best."""
    best = 0.0
    for size in (1024, 2048, 4096) if device.type == "cpu" else (4096, 8192):
        a = torch.randn(size, size, device=device, dtype=dtype)
        for _ in range(4):
            start = seconds(device)
            a @ a
            best = max(best, 2 * size**3 / (seconds(device) - start))
    return best


def operations(setup: Setup) -> float:
    """Floating-point operations of one step (products and sums), forward and backward, as torch counts them."""
    trainer, batches = setup.trainer("plain"), resident(setup)
    with FlopCounterMode(display=False) as counter:
        trainer.step(1, next(batches))
    return counter.get_total_flops()


KINDS = {  # in this order: the first that fits
    "convolution, backward": ("convolution_backward",),
    "convolution, forward": ("convolution", "conv2d", "conv_transpose"),
    "matrix products": ("mm", "bmm", "addmm", "einsum", "linear"),
    "norms": ("norm", "var_mean"),
    "sampling, resizing, pooling": ("grid_sampler", "upsample", "pool", "pad"),
    "optimiser": ("adam",),
    "copies, casts, joins": ("copy_", "cat", "clone", "contiguous", "to_", "stack", "index", "fill_", "zero_"),
}


def shares(setup: Setup) -> dict[str, float]:
    """Where our step's time goes: the share of each kind of operation, by its own time on the device."""
    trainer, batches = setup.trainer("ours"), resident(setup)
    trainer.step(1, next(batches))
    cuda = setup.device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=kinds) as profiler:
        trainer.step(2, next(batches))
        synchronise(setup.device)
    found: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        name = event.key.removeprefix("aten::").lower()
        kind = next(
            (kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "element by element"
        )
        found[kind] += event.self_device_time_total if cuda else event.self_cpu_time_total
    total = sum(found.values())
    return {kind: time / total for kind, time in sorted(found.items(), key=lambda item: -item[1])}


def in_data_set(dataset: str, folder: Path) -> list[bytes]:
    """Make `folder` the working folder, with a random data set of the size's; return its JPEGs."""
    folder.mkdir(parents=True, exist_ok=True)
    jpegs = write_data_set(folder, IMAGES, *SIZES[dataset])
    os.chdir(folder)
    return jpegs


def setups(options: argparse.Namespace, dataset: str) -> Iterator[Setup]:
    for name in options.variants or [name for name, variant in VARIANTS.items() if variant.phase]:
        device = devices.device(options.device)
        yield Setup(VARIANTS[name], dataset, options.width, options.features, device)


def row(*cells: object) -> None:
    """A line of a table, as soon as it is known."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*cells: str) -> None:
    row(*cells)
    print("|" + "---|" * len(cells))


def speed(options: argparse.Namespace, folder: Path) -> None:
    device = devices.device(options.device)
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU thread"
    peak = measured_peak(device, torch.bfloat16)
    say(
        f"{what}, torch {torch.__version__}, {options.width:g} times the published width, "
        f"features {options.features or 'as published'} (seeded). Medians of {options.steps} steps. Peak: "
        f"{peak / 1e12:.2f} T operations/s in bf16, the best of a few large matrix products here."
    )
    profiles = []
    for dataset in options.datasets:
        jpegs = in_data_set(dataset, folder / dataset)
        print(f"### {SIZES[dataset][0]}x{SIZES[dataset][1]}\n")
        header = ("variant", "batch", "ours, pairs/s", "plain, pairs/s", "ratio", "ours, MiB", "plain, MiB")
        head(*header, "G operations a step", "ours, of the peak")
        for setup in setups(options, dataset):
            took = seconds_a_step(setup, options.steps, jpegs)
            flops = operations(setup)
            memory = [peak_memory(options, setup.variant.name, dataset, way) for way in WAYS]
            row(
                f"`{setup.variant.name}`", setup.batch, *(f"{setup.batch / took[way]:.2f}" for way in WAYS),
                ratio(took["plain"], took["ours"]), *(f"{mib:.0f}" for mib in memory),
                f"{flops / 1e9:.0f}", f"{100 * flops / took['ours'] / peak:.0f} %",
            )  # fmt: skip
            if setup.variant.name in options.profile:
                profiles.append((dataset, setup.variant.name, shares(setup)))
        print()
    for dataset, name, found in profiles:
        say(f"Where the time of our step goes, `{name}` at {SIZES[dataset][0]}x{SIZES[dataset][1]}, without loading:")
        table(("kind of operation", "share"), [(kind, f"{100 * share:.0f} %") for kind, share in found.items()])


def compile_costs(setup: Setup, steps: int) -> tuple[str, ...]:
    """Cells of a row: what compiling costs, medians of a step with and without, the losses' difference at step 1."""
    trainers, batches = {way: setup.trainer(way) for way in ("ours", "compiled")}, resident(setup)
    times: dict[str, list[float]] = {way: [] for way in trainers}
    first: dict[str, dict[str, float]] = {}
    for step in range(1, WARM + steps + 1):
        batch = next(batches)
        for way, trainer in trainers.items():
            with loop.backends(setup.device, trainer.run.precision):
                torch.manual_seed(step)
                start = seconds(setup.device)
                terms = trainer.step(step, copy.copy(batch))
                times[way].append(seconds(setup.device) - start)
            first.setdefault(way, terms)
    median = {way: statistics.median(taken[WARM:]) for way, taken in times.items()}
    compiling = sum(times["compiled"][:WARM]) - WARM * median["compiled"]
    apart = max(abs(first["compiled"][term] / value - 1) for term, value in first["ours"].items() if value)
    each = (f"{median['ours']:.2f}", f"{median['compiled']:.2f}", ratio(median["ours"], median["compiled"]))
    return f"{compiling:.0f}", *each, f"{100 * apart:.2f} %"


def compiled(options: argparse.Namespace, folder: Path) -> None:
    """A table of what torch.compile costs and saves; a variant that does not compile is a row with the reason."""
    os.environ |= {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    torch._inductor.config.fallback_random = True  # the same dropout and noise with and without
    for dataset in options.datasets:
        in_data_set(dataset, folder / dataset)
        print(f"### {SIZES[dataset][0]}x{SIZES[dataset][1]}\n")
        head("variant", "batch", "compiling, s", "a step without, s", "with, s", "ratio", "losses apart at step 1")
        for setup in setups(options, dataset):
            torch._dynamo.reset()
            try:
                cells = compile_costs(setup, options.steps)
            except Exception as error:  # of many kinds, all of which are the row's result
                cells = (f"fails: {type(error).__name__}: {str(error).strip().splitlines()[0]}", *[""] * 4)
            row(f"`{setup.variant.name}`", setup.batch, *cells)
        print()


def losses(setup: Setup, way: str, data: PairData, steps: int) -> list[dict[str, float]]:
    """Every loss term of `steps` steps from the same weights on the same batches."""
    trainer, order = setup.trainer(way), BatchOrder(len(data), setup.batch, 0)
    with backends(way, setup):
        return [trainer.step(step, data.batch(order.rows(step))) for step in range(1, steps + 1)]


def smooth(values: list[float], over: int = 20) -> list[float]:
    return [statistics.fmean(values[max(0, at - over + 1) : at + 1]) for at in range(len(values))]


def drawing(curves: dict[str, list[float]], title: str) -> str:
    """One panel of 360x200 as SVG: running means of the curves, ours solid, the plain way's dashed."""
    lines = {way: smooth(values) for way, values in curves.items()}
    low, high = min(map(min, lines.values())), max(map(max, lines.values()))
    drawn = ""
    for way, line in lines.items():
        x = (f"{40 + 310 * at / (len(line) - 1):.1f}" for at in range(len(line)))
        y = (f"{180 - 150 * (value - low) / (high - low or 1):.1f}" for value in line)
        points = " ".join(",".join(point) for point in zip(x, y, strict=True))
        drawn += f'<polyline fill="none" stroke-width="1.5" {STROKES[way]} points="{points}"/>'
    return (
        f'<text x="40" y="16" font-weight="bold">{title}</text>{drawn}'
        f'<text x="4" y="34">{high:.3g}</text><text x="4" y="182">{low:.3g}</text>'
    )


def curves(options: argparse.Namespace) -> None:
    """Both ways' losses over the same batches; the picture goes to --output."""
    output = options.output.resolve()
    os.chdir(options.project)
    device = devices.device(options.device)
    (name,) = options.variants
    setup = Setup(VARIANTS[name], "market1501", options.width, options.features, device)
    data = arrays.load_pairs(options.dataset, "train", device, label_set=setup.variant.labels)
    if (data.height, data.width) != SIZES["market1501"]:
        sys.exit("curves needs a data set of 128x64")
    compare({way: losses(setup, way, data, options.steps) for way in WAYS}, output)


def compare(found: dict[str, list[dict[str, float]]], output: Path) -> None:
    """Print both ways' terms, by step, side by side, and draw them into `output`."""
    series = {term: {way: [step[term] for step in found[way]] for way in WAYS} for term in found["ours"][0]}
    rows = []
    for term, of in series.items():
        last = {way: statistics.fmean(of[way][-50:]) for way in WAYS}
        first = abs(of["ours"][0] / of["plain"][0] - 1)
        rows.append((term, f"{100 * first:.2f} %", *(f"{last[way]:.4g}" for way in WAYS)))
    table(("term", "difference at step 1", "ours, mean of the last 50 steps", "plain"), rows)
    panels = [
        f'<g transform="translate({360 * (at % 2)},{200 * (at // 2)})">{drawing(of, term)}</g>'
        for at, (term, of) in enumerate(series.items())
    ]
    below = 200 * -(-len(panels) // 2)
    legend = f'<text x="40" y="{below + 14}">solid: ours, bf16; dashed: plain, float32; means of 20 steps</text>'
    output.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {below + 24}" font-family="sans-serif"'
        f' font-size="11" fill="#444"><rect width="720" height="{below + 24}" fill="#fff"/>'
        f"{''.join(panels)}{legend}</svg>\n",
        encoding="utf-8",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "curves", "memory", "compile"))
    parser.add_argument(
        "--variants", nargs="*", default=[], help="default: every trained one; with --beside, one a family"
    )
    parser.add_argument("--datasets", nargs="*", default=list(SIZES), choices=SIZES, help="whose batch and size")
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the published channel counts")
    parser.add_argument("--features", choices=feature_nets.NETS, help="default: the published net of each variant")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--profile", nargs="*", default=["spig"], help="variants whose step is taken apart")
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="curves: a project with prepared data")
    parser.add_argument("--dataset", default="synthetic", help="curves: a data set of 128x64 in it")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/training.svg"), help="curves: the picture")
    parser.add_argument("--beside", type=Path, help="speed, curves: a checkout of the commit to compare with")
    parser.add_argument("--batch", type=int, help="with --beside; default: the published one")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"), help="with --beside")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="curves --beside: a run each")
    parser.add_argument("--way", choices=WAYS, help="memory: which")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # two workers on one core are meant
    if options.beside is not None:
        return {"speed": beside.speed, "curves": beside.curves}[options.what](options)
    if options.what == "curves":
        return curves(options)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(os.chdir, Path.cwd())
        if options.what == "speed":
            return speed(options, folder)
        if options.what == "compile":
            return compiled(options, folder)
        (dataset,) = options.datasets
        in_data_set(dataset, folder)
        (setup,) = setups(options, dataset)
        measure_memory(setup, options.way)


if __name__ == "__main__":
    main()
