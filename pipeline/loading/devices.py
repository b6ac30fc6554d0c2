"""The device that a stage computes on, and what lies in its memory."""

import ctypes
import sys

import torch

from pipeline.core import console, layout
from pipeline.core.errors import UserError
from pipeline.loading import parallel

SHARE_OF_MEMORY = 0.5  # of the device's free memory that pictures may take; networks need the rest
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Let glibc hold what this process frees for what it makes next. By default large blocks go back to the system at
    once, and the next tensor is zeroed page by page before it is written: up to a third of a step on a CPU, for which
    the process is at most an eighth larger (benchmarks/training.md). Does nothing where there is no glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def device(name: str) -> torch.device:
    """The device a block of `params.yaml` asks for: `auto` takes CUDA where there is one; of several processes on this
    machine each takes its own. Raises UserError.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UserError(f"{layout.PARAMS}: no device {name}; use auto, cpu, cuda or cuda:N") from None
    if chosen == torch.device("cuda") and parallel.local_processes() > 1:
        chosen = torch.device("cuda", parallel.local_rank())
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"{layout.PARAMS}: device {name} is not on this machine; use auto or cpu")
    if chosen.type == "cpu":
        keep_freed_memory()
    return chosen


def place(images: torch.Tensor, where: torch.device) -> torch.Tensor:
    """Move uint8 images (or label ids) to the device if they fit, else leave them in main memory."""
    if where.type != "cuda":
        return images.to(where)
    free, _ = torch.cuda.mem_get_info(where)
    if images.numel() <= SHARE_OF_MEMORY * free:
        return images.to(where)
    console.say(f"images ({images.numel() >> 20} MiB) stay in main memory: the device has {free >> 20} MiB free")
    return images


def send(tensor: torch.Tensor, where: torch.device) -> torch.Tensor:
    """`tensor` on the device, for which the host does not wait: from main memory it goes through pinned memory."""
    if where.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(where)
    return tensor.pin_memory().to(where, non_blocking=True)
