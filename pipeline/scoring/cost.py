"""What a generator costs: parameters, multiply-accumulates of one picture, bytes of a checkpoint, time and memory.

No output of a stage holds the last two, which differ from run to run: a record does.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.variants import VARIANTS, Batch
from pipeline.core import console, params, schema
from pipeline.loading import checkpoints


def blank(height: int, width: int, parsing: bool, target_parsing: bool, device: torch.device) -> Batch:
    """One blank pair with all joints known: only the shapes matter."""
    joints = torch.full((1, schema.JOINTS, 2), min(height, width) / 2, device=device)
    valid = torch.ones(1, schema.JOINTS, dtype=torch.bool, device=device)
    labels = torch.zeros(1, height, width, dtype=torch.uint8, device=device)
    return Batch(
        source=torch.zeros(1, 3, height, width, device=device),
        target=None,
        source_joints=joints,
        source_valid=valid,
        target_joints=joints,
        target_valid=valid,
        source_labels=labels if parsing else None,
        target_labels=labels if target_parsing else None,
    )


@torch.no_grad()
def macs(generator: nn.Module, batch: Batch) -> int:
    """Multiply-accumulates of one picture: those of convolutions and matrix products, one multiplication and one
    addition counted together. Norms, activations and warps are not counted.

    batch: of one pair.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        generator(batch)
    return counter.get_total_flops() // 2


def described(folder: Path, step: int, variant: str, device: torch.device) -> dict[str, Any]:
    """What `score` writes as network.json: the cost of a checkpoint's generator at its data set's image size, whether
    it is given the parsing of the true target, and under `trained` the meta.json of the checkpoints.
    """
    generator, meta = checkpoints.load(folder, step)
    entry = VARIANTS[params.variant_of(variant)]
    batch = blank(meta["height"], meta["width"], entry.needs_parsing, entry.given_target_parsing, device)
    return {
        "parameters": sum(parameter.numel() for parameter in generator.parameters()),
        "macs": macs(generator.to(device), batch),
        "checkpoint_bytes": checkpoints.path(folder, step).stat().st_size,
        "given_target_parsing": entry.given_target_parsing,
        "trained": meta,
    }


@torch.inference_mode()
def timed(generator: nn.Module, batch: Batch, passes: int = 10) -> tuple[float, int]:
    """Seconds a picture, drawn one at a time: the median of `passes` after two to warm up. And the peak memory in
    bytes: what was allocated on a GPU, on a CPU all of this process's.

    batch: of one pair, on the generator's device.
    """
    device, taken = batch.source.device, []
    for _ in range(2 + passes):
        begin = time.perf_counter()
        generator(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - begin)
    of_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) if of_gpu else round(console.peak_memory() * 2**20)
    return statistics.median(taken[2:]), peak
