"""The device that a stage computes on, and what lies in its memory."""

import torch

from pipeline.core import console, layout
from pipeline.core.errors import UserError
from pipeline.loading import parallel

SHARE_OF_MEMORY = 0.5  # of the device's free memory that pictures may take; networks need the rest


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
