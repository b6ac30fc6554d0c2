"""What the feature networks share: seeded weights, loading with a clear error, fixed-size batches."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pipeline.core.errors import UserError

BATCH = 16  # the fastest on a CPU (50 is slower), and part of every network's value: see `in_batches`

DRAWS = (nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_, torch.Tensor.uniform_, torch.Tensor.normal_)


class Undrawn(TorchFunctionMode):
    """A context in which new layers keep whatever their memory holds: for networks that are filled afterwards, whose
    random weights would take longer than all else, and come from the caller's random state.
    """

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function in DRAWS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def seed_weights(network: nn.Module, seed: int) -> None:
    """Fill every convolution from a generator on the CPU: the same weights on every machine and device.

    Scaled weight standardisation (Brock et al. 2021): each filter has zero mean, which keeps the images'
    features from collapsing onto one direction with depth, and the gain that keeps a unit variance through
    ReLU. The first layer sees pixels instead, where a zero mean would hide brightness: plain He there. Batch
    norms stay the identity.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        weight = torch.randn(module.weight.shape, generator=generator)
        if module.in_channels == 3:
            weight *= math.sqrt(2)
        else:
            weight -= weight.mean(dim=(1, 2, 3), keepdim=True)
            weight *= math.sqrt(2 / (1 - 1 / math.pi))
        with torch.no_grad():
            module.weight.copy_(weight / math.sqrt(weight[0].numel()))
            if module.bias is not None:
                module.bias.zero_()


def load_weights(network: nn.Module, state: Mapping[str, torch.Tensor], what: str) -> None:
    """`load_state_dict` that names the first tensor that does not fit, in one line. Raises UserError."""
    own = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    given = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    for key in sorted(own.keys() ^ given.keys()):
        problem = "lacks" if key in own else "has an unknown"
        raise UserError(f"{what}: the weights file {problem} tensor {key}: it belongs to another network")
    for key, value in own.items():
        if given[key].shape != value.shape:
            shapes = f"{tuple(given[key].shape)} instead of {tuple(value.shape)}"
            raise UserError(f"{what}: tensor {key} has shape {shapes}: the weights file belongs to another network")
    network.load_state_dict(given, strict=False)


def in_batches(
    function: Callable[..., torch.Tensor], device: torch.device, *arrays: np.ndarray, most: int = BATCH
) -> torch.Tensor:
    """Call `function` on 16 rows at a time (or `most`, if fewer) of each array (N, ...), on `device`; results (N, ...)
    there.

    The last batch is filled up with zero rows, whose results are dropped. Convolution libraries choose their
    algorithm by batch size, so a network's result for one image differs in the last bits between batch sizes,
    but not between positions in a batch: with one batch size the values do not depend on how the caller
    groups the images.
    """
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    results, size = [], min(BATCH, most)
    with torch.inference_mode(), exact:
        for start in range(0, len(arrays[0]), size):
            rows = [torch.as_tensor(array[start : start + size]).to(device) for array in arrays]
            count = len(rows[0])
            if count < size:
                rows = [torch.cat([row, row.new_zeros(size - count, *row.shape[1:])]) for row in rows]
            results.append(function(*rows)[:count])
    return torch.cat(results)
