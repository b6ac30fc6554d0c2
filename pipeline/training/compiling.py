"""torch.compile for the networks of a training run.

Blocks are compiled one by one, since objectives call parts of a generator as they need them; the geometry between the
blocks stays eager. A compiled block keeps the names of its weights, so checkpoints are the same. No function that is
bound to a module may be stored in one: a copy of it, which draws the samples, would call the original's.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from models.layers import spectral
from pipeline.core import console

SHAPES = 64  # instances of one class of blocks differ in width, and torch's limit is 8


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The largest modules that are called as a whole: the network's children, and those of children that only hold
    others, such as lists of modules.
    """
    for child in network.children():
        if type(child).forward is nn.Module.forward:  # it has none of its own
            yield from blocks(child)
        elif any(True for _ in child.parameters()):
            yield child


def missing(device: torch.device, backend: str) -> str | None:
    """Why nothing can be compiled for the device, found out by trying; None if it can."""
    try:
        torch.compile(lambda x: 2 * x.sin() + 1, backend=backend)(torch.ones(8, device=device))
    except Exception as error:  # the backend raises many kinds
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def compile_blocks(networks: Iterable[nn.Module], device: torch.device, backend: str = "inductor") -> None:
    """Compile every block of the networks at its first call; without a compiler, say so and continue."""
    reason = missing(device, backend)
    if reason is not None:
        console.say(f"compile: no working compiler for {device.type}, training goes on without it ({reason})")
        return
    torch._dynamo.config.recompile_limit = SHAPES
    spectral.stay_eager()
    for network in networks:
        for block in blocks(network):
            block.compile(backend=backend)
