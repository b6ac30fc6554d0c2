"""torch.compile for the networks of a training run.

Block by block: objectives call parts of a generator as they please, and geometry between the blocks stays eager. A
compiled block keeps its weights' names, so checkpoints are the same.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm  # for isinstance alone

from pipeline.core import console

SHAPES = 64  # instances of one block class differ in width: torch gives up after 8 of them


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The largest modules that are called whole: children of the network, lists of modules opened."""
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from blocks(child)
        elif any(True for _ in child.parameters()):
            yield child


def missing(device: torch.device, backend: str) -> str | None:
    """Why nothing can be compiled for the device, None where it can: found out by trying."""
    try:
        torch.compile(lambda x: 2 * x.sin() + 1, backend=backend)(torch.ones(8, device=device))
    except Exception as error:  # the backend raises many kinds
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def compile_blocks(networks: Iterable[nn.Module], device: torch.device, backend: str = "inductor") -> None:
    """Have every block of the networks compiled at its first call; where there is no compiler, say so and go on."""
    reason = missing(device, backend)
    if reason is not None:
        console.say(f"compile: no working compiler for {device.type}, training goes on without it ({reason})")
        return
    torch._dynamo.config.recompile_limit = SHAPES
    for network in networks:
        for module in network.modules():
            # Its power iteration writes into buffers that Inductor keeps for backward: a second call of the block in
            # one step (a discriminator on real and on generated images) would spoil the first one's gradients.
            if isinstance(module, _SpectralNorm):
                module.forward = torch.compiler.disable(module.forward)
        for block in blocks(network):
            block.compile(backend=backend)
