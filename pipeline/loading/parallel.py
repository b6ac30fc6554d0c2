"""The processes of one job: `torchrun --nproc-per-node N -m pipeline train ...`, which launch.py starts for `gpus`.

Every process holds all networks and its share of the global batch. Losses and gradients are summed over processes, so
each takes the same step; only the first writes. Alternating updates and several networks need no wrapper that way: the
gradients of one update travel as one flat tensor.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.core import environment
from pipeline.core.environment import rank
from pipeline.core.errors import UserError


def local_rank() -> int:
    """This process's number among those on this machine."""
    return environment.number("LOCAL_RANK", 0)


def local_processes() -> int:
    """The number of the run's processes on this machine."""
    return environment.number("LOCAL_WORLD_SIZE", 1)


@dataclass(frozen=True)
class Group:
    """Process `rank` of `size`. Every process must make the same calls in the same order.

    Raises UserError where another process is gone; that process's own message says why.
    """

    rank: int
    size: int
    device: torch.device

    def _together(self, collective: Callable[..., Any], *arguments: Any) -> None:
        try:
            collective(*arguments)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"process {self.rank} of {self.size} lost another, whose own line says why ({reason})"
            ) from None

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` on `device`, summed over the processes in place."""
        if self.size > 1:
            self._together(dist.all_reduce, tensor)
        return tensor

    def any(self, *flags: bool) -> list[bool]:
        """Each flag: whether it is true in any process."""
        if self.size == 1:
            return list(flags)
        return (self.sum(torch.tensor(flags, dtype=torch.float32, device=self.device)) > 0).tolist()

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in order."""
        found = [value] * self.size
        if self.size > 1:
            self._together(dist.all_gather_object, found, value)
        return found

    def collect(self, value: Any) -> list[Any]:
        """The value of every process, in order, for the first of them; nothing for the others."""
        found = [value] * self.size if self.rank == 0 else None
        if self.size > 1:
            self._together(dist.gather_object, value, found)
        return found or []

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = total.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(
            gradients, [part.view(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]
        )

    def average_statistics(self, networks: Iterable[nn.Module]) -> None:
        """Replace batch norms' running statistics, which each process takes from its part of the batch, by the mean."""
        norms = (module for net in networks for module in net.modules() if isinstance(module, nn.BatchNorm2d))
        own = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
        if self.size == 1 or not own:
            return
        total = self.sum(torch.cat(own)).div_(self.size)
        torch._foreach_copy_(own, total.split([len(value) for value in own]))

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            self._together(dist.barrier)


def alone(device: torch.device) -> Group:
    return Group(0, 1, device)


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """The group of this process: of all that torchrun started, else of itself alone.

    A process that fails leaves without waiting for the others, which then stop with an error. Raises UserError where
    the others do not come.
    """
    size = environment.processes()
    if size == 1:
        yield alone(device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"process {rank()} of {size} (WORLD_SIZE) cannot join the others ({reason}); start it with torchrun, or"
            " unset WORLD_SIZE for one process"
        ) from None
    group = Group(rank(), size, device)
    yield group
    group.wait()
    dist.destroy_process_group()
