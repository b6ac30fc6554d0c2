"""How fast is GFLA's local attention in plain torch, and what does it hold?

    taskset -c 1 env OMP_NUM_THREADS=1 python -m benchmarks.local_attention > benchmarks/local_attention.md

Prints the markdown of that file. Both attentions of the published network at 256x256, one image, float32, random
features, flows of 3 cells' deviation. Times: processor time, the median of several runs (one of the loop). Kept: what
autograd holds for the gradient, beside the operands; it grows with the images of a batch.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from models.gfla import LocalAttention, attend
from models.layers.blocks import warp

RUNS = 5
ATTENTIONS = ((8, 256, 32, 3), (4, 128, 64, 5))  # stride, channels, cells a side, patch side


def positions(flow: Tensor) -> tuple[Tensor, Tensor]:
    height, width = flow.shape[-2:]
    return flow[:, 0] + torch.arange(width), flow[:, 1] + torch.arange(height).unsqueeze(-1)


def loop(source: Tensor, kernel: Tensor, flow: Tensor) -> Tensor:
    """The definition, a position at a time: take the whole cells around it, blend, weigh."""
    count, channels, height, width = source.shape
    size = int(kernel.shape[1] ** 0.5)
    offset = torch.arange(size + 1) - size // 2
    xs, ys = positions(flow)
    out = torch.empty(count, channels, height, width)
    for b, i, j in product(range(count), range(height), range(width)):
        x, y = xs[b, i, j], ys[b, i, j]
        columns = (x.floor().long() + offset).clamp(0, width - 1)
        rows = (y.floor().long() + offset).clamp(0, height - 1)
        right, below = x - x.floor(), y - y.floor()
        cells = source[b][:, rows][:, :, columns]  # (C, n + 1, n + 1)
        cells = (1 - right) * cells[..., :-1] + right * cells[..., 1:]
        cells = (1 - below) * cells[:, :-1] + below * cells[:, 1:]
        out[b, :, i, j] = (cells * kernel[b, :, i, j].view(size, size)).sum((1, 2))
    return out


def patches(source: Tensor, flow: Tensor, size: int) -> Tensor:
    """Every patch extracted, as the released code's CUDA extension does: (B, C, n^2, H, W), one grid_sample."""
    height, width = source.shape[-2:]
    x, y = positions(flow)
    offset = torch.arange(size) - size // 2
    shape = (-1, size, size, height, width)
    x = (x[:, None, None] + offset.view(1, -1, 1, 1)).expand(shape)
    y = (y[:, None, None] + offset.view(-1, 1, 1, 1)).expand(shape)
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1).flatten(1, 3)
    found = F.grid_sample(source, grid, "bilinear", padding_mode="border", align_corners=True)
    return found.unflatten(2, (size**2, height))


def extracted(source: Tensor, kernel: Tensor, flow: Tensor) -> Tensor:
    return (patches(source, flow, int(kernel.shape[1] ** 0.5)) * kernel.unsqueeze(1)).sum(2)


def published_block(block: LocalAttention, source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """The whole block as in the released code: extract both patches, one layer on both, weigh the source's."""
    size = 2 * block.radius + 1
    by_source = patches(source, flow, size)
    both = torch.cat([patches(target, torch.zeros_like(flow), size), by_source], dim=1)  # (B, 2C, n^2, H, W)
    weight = torch.cat([block.target.weight, block.source.weight], dim=1).flatten(1)
    hidden = F.conv2d(both.flatten(1, 2), weight[..., None, None], block.target.bias)
    kernel = torch.softmax(block.predict(hidden), dim=1)
    return (by_source * kernel.unsqueeze(1)).mean(2)


def kept(run: Callable[[], Tensor], operands: list[Tensor]) -> float:
    """MB of distinct storages that the graph of `run` keeps, without those of the operands."""
    found = {}

    def pack(x: Tensor) -> Tensor:
        found[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = run()
    own = {x.untyped_storage().data_ptr() for x in operands}
    del result
    return sum(storage.nbytes() for at, storage in found.items() if at not in own) / 1e6


def measure(run: Callable[[], Tensor], operands: list[Tensor], runs: int = RUNS) -> tuple[float, float, float]:
    """Milliseconds forward, forward and backward; MB kept."""
    forward, both = [], []
    for _ in range(runs):
        start = time.process_time()
        result = run()
        middle = time.process_time()
        torch.autograd.grad(result.sum(), [x for x in operands if x.requires_grad], allow_unused=True)
        forward.append(1e3 * (middle - start))
        both.append(1e3 * (time.process_time() - start))
    return median(forward), median(both), kept(run, operands)


def row(name: str, measured: tuple[float, float, float], difference: float | None) -> str:
    shown = "" if difference is None else f"{difference:.0e}"
    return f"| {name} | {measured[0]:,.1f} | {measured[1]:,.1f} | {measured[2]:,.1f} | {shown} |"


def main() -> None:
    torch.manual_seed(0)
    processor = next(
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    )
    print("# Local attention in plain torch\n")
    print(
        "Made by `taskset -c 1 env OMP_NUM_THREADS=1 python -m benchmarks.local_attention`.\n"
        + __doc__.split("of that file. ")[1]
    )
    print(f"{processor}, {torch.get_num_threads()} thread; Python {sys.version.split()[0]}, torch {torch.__version__}.")
    for stride, channels, cells, size in ATTENTIONS:
        source, target = (torch.randn(1, channels, cells, cells, requires_grad=True) for _ in range(2))
        flow = (3 * torch.randn(1, 2, cells, cells)).requires_grad_()
        kernel = torch.softmax(torch.randn(1, size**2, cells, cells), dim=1).requires_grad_()
        operands = [source, kernel, flow]
        print(f"\n## Stride {stride}: {channels} channels at {cells}x{cells}, patches of {size}x{size}\n")
        print("The weighted sum, the kernel given:\n")
        print("| | forward, ms | and backward, ms | kept, MB | largest difference to the loop |")
        print("|---|---|---|---|---|")
        truth = loop(*operands).detach()
        print(row("a loop over positions", measure(partial(loop, *operands), operands, 1), None))
        for name, function in (("patches extracted, then weighed", extracted), ("`gfla.attend`", attend)):
            difference = (function(*operands) - truth).abs().max().item()
            print(row(name, measure(partial(function, *operands), operands), difference))
        print(row("SPIG's plain warp, for scale", measure(partial(warp, source, flow), [source, flow]), None))
        block = LocalAttention(channels, 128, size)
        inputs = [source, target, flow]
        operands = [*inputs, *block.parameters()]
        truth = published_block(block, *inputs).detach()
        difference = (block(*inputs) - truth).abs().max().item()
        print("\nThe whole block, the kernel predicted by 128 hidden channels:\n")
        print("| | forward, ms | and backward, ms | kept, MB | largest difference |\n|---|---|---|---|---|")
        released = measure(partial(published_block, block, *inputs), operands)
        print(row("as released, both patches extracted", released, None))
        print(row("`gfla.LocalAttention`", measure(partial(block, *inputs), operands), difference))


if __name__ == "__main__":
    main()
