"""A pretended CUDA device, for tests on machines without one.

Inside `with FakeCuda() as device:` PyTorch says that there is one GPU. A tensor "on" it is a CPU tensor whose storage
is marked; it says that it is on cuda:0, and its values are those that the CPU computes, to the bit. What is watched:

  mixing      an operation on a marked and an unmarked tensor raises RuntimeError, as CUDA does. Allowed as there: a
              scalar (a tensor without dimensions) on the CPU, indices on the CPU, and copies. `numpy()` of a marked
              tensor raises TypeError.
  waits       `device.waits[why, "file:line"]`: how often the host had to wait for the device. It does for every copy
              between them, unless it is asked not to (`non_blocking`) and the CPU's side is pinned; for numbers and
              lists that are made into a tensor on the device or read from one; for lists and CPU tensors as indices;
              for boolean masks as indices and others whose result has a size that depends on values; for linear
              algebra that checks for errors; and for `synchronize()` of an event or stream.
  operations  `device.operations[name]`: the kernels that ATen operations on marked tensors would start, below autograd
              and backward's among them. One for each call, none for views and for memory that is only reserved
              (NO_KERNEL), more for those that `kernels` names. A fused or foreach operation counts once. They measure
              how much the host has to launch, so they depend on the network's plan, hardly on its sizes.

Autocast is the CPU's, whose lists of operations differ from CUDA's. Modes belong to a thread: what another thread does
is neither watched nor marked.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
COPIES = (Tensor.to, Tensor.cuda, Tensor.cpu)
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}  # operations whose second argument lists indices
LU = {"linalg_inv_ex", "linalg_solve_ex", "_linalg_solve_ex", "linalg_lu_factor_ex", "_linalg_det", "_linalg_slogdet"}
# Operations that read a value on the host, in order to return it, to size their result or to raise an error.
READ_BACK = {
    *("_local_scalar_dense", "is_nonzero", "equal", "_linalg_check_errors"),
    *("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "repeat_interleave"),
}
NO_KERNEL = {
    *("view", "_unsafe_view", "_reshape_alias", "alias", "as_strided", "detach", "expand", "permute", "transpose", "t"),
    *("slice", "select", "split", "split_with_sizes", "unbind", "squeeze", "unsqueeze", "diagonal", "unfold"),
    *("squeeze_", "unsqueeze_", "detach_", "lift_fresh", "set_", "resize_", "is_same_size", "_local_scalar_dense"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_has_compatible_shallow_copy_type"),
}


def _in_another_layout(tensor: Tensor, weight: Tensor) -> bool:
    """Whether cuDNN would have to copy the tensor before it can use the weight's channels_last kernel."""
    last = torch.channels_last
    return weight.is_contiguous(memory_format=last) and not tensor.is_contiguous(memory_format=last)


def kernels(name: str, args: tuple) -> int:
    """How many kernels an operation starts on CUDA, as far as its arguments say it."""
    if name in NO_KERNEL:
        return 0
    if name == "convolution":
        return 1 + (args[2] is not None) + _in_another_layout(args[0], args[1])
    if name == "convolution_backward":
        grad, images, weight, wanted = *args[:3], args[10]
        return sum(wanted) + _in_another_layout(grad, weight) + _in_another_layout(images, weight)
    if name in LU:
        return 6
    if name == "im2col":
        return len(args[0])  # one an image
    return 2 if "batch_norm" in name or name in ("native_layer_norm_backward", "grid_sampler_2d_backward") else 1


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among values and in lists and tuples of them: `tree_leaves`, much quicker."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


class Moment:
    """Stands for torch.cuda's Event and Stream: everything has happened when it is asked for."""

    def __init__(self, *arguments: Any, **options: Any):
        pass

    def record(self, stream: "Moment | None" = None) -> None:
        pass

    wait_event = wait_stream = record

    def record_event(self) -> "Moment":
        return self


class FakeCuda(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.operations: Counter[str] = Counter()
        self.making = False  # whether a tensor that comes from no other is made on the device
        self._marked: dict[int, StorageWeakRef] = {}  # by address, which is not used again while a reference is kept
        self._pinned: dict[int, StorageWeakRef] = {}
        self._open = contextlib.ExitStack()

    def on_device(self, tensor: Tensor) -> bool:
        return self._in(self._marked, tensor)

    def clear(self) -> None:
        """Count from here on."""
        self.waits.clear()
        self.operations.clear()

    def where(self) -> str:
        """The waits, one line each."""
        return "\n".join(f"{count:4d}  {why}  {line}" for (why, line), count in self.waits.most_common())

    def wait(self, why: str) -> None:
        """Count a wait for the line of the project, models/ or pipeline/, that is running."""
        frame = sys._getframe(1)
        while frame and not any(part in frame.f_code.co_filename for part in ("/models/", "/pipeline/")):
            frame = frame.f_back
        self.waits[why, f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "elsewhere"] += 1

    def mark(self, tensor: Tensor) -> Tensor:
        return self._add(self._marked, tensor)

    @staticmethod
    def _in(known: dict[int, StorageWeakRef], tensor: Tensor) -> bool:
        with torch._C.DisableTorchFunction():
            reference = known.get(tensor.untyped_storage()._cdata)
        return reference is not None and not reference.expired()

    @staticmethod
    def _add(known: dict[int, StorageWeakRef], tensor: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
            known[storage._cdata] = StorageWeakRef(storage)
        return tensor

    def _patches(self) -> list[tuple[Any, str, Any]]:
        """What PyTorch is made to say while the device is there."""
        autocast, enabled, dtype = torch.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype

        class Waited(Moment):
            def synchronize(_) -> None:
                self.wait("synchronize")

        return [
            (torch.cuda, "is_available", lambda: True),
            (torch.cuda, "device_count", lambda: 1),
            (torch.cuda, "current_device", lambda: 0),
            (torch.cuda, "mem_get_info", lambda device=None: (1 << 36, 1 << 36)),
            (torch.cuda, "get_rng_state", lambda device=None: torch.zeros(16, dtype=torch.uint8)),
            (torch.cuda, "set_rng_state", lambda state, device=None: None),
            (torch.cuda, "synchronize", lambda device=None: self.wait("synchronize")),
            (torch.cuda, "Event", Waited),
            (torch.cuda, "Stream", Waited),
            (torch.cuda, "current_stream", Waited),
            (torch.cuda, "stream", lambda stream: contextlib.nullcontext()),
            (Tensor, "record_stream", lambda tensor, stream: None),
            (torch, "autocast", lambda device, *rest, **options: autocast("cpu", *rest, **options)),
            (torch, "is_autocast_enabled", lambda device: enabled("cpu")),
            (torch, "get_autocast_dtype", lambda device: dtype("cpu")),
            # Optimisers ask whether a graph is being captured: one name in torch 2.11, the other in 2.15.
            (torch.optim.Optimizer, "_cuda_graph_capture_health_check", lambda optimiser: None),
            (torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda optimiser: None),
        ]

    def __enter__(self) -> "FakeCuda":
        for owner, name, fake in self._patches():
            self._open.enter_context(mock.patch.object(owner, name, fake, create=True))
        super().__enter__()
        self._open.enter_context(_Operations(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()
        super().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        here = first is not None and self.on_device(first)
        if here and func == Tensor.device.__get__:
            return CUDA
        if here and func == Tensor.is_cuda.__get__:
            return True
        if here and name in ("numpy", "__array__"):
            raise TypeError("can't convert a cuda:0 tensor to numpy")
        if func in COPIES:
            return self._copied(func, args, kwargs)
        if name == "pin_memory":
            return self._add(self._pinned, first.clone())
        if name == "is_pinned":
            return self._in(self._pinned, first)

        device = kwargs.get("device")
        asked = None if device is None else torch.device(device).type == "cuda"
        if asked:
            kwargs["device"] = "cpu"
        if (asked and name in ("tensor", "as_tensor")) or (here and name == "new_tensor"):
            self.wait(f"{name} of numbers")  # goes to the device by a blocking copy
        if here and name == "tolist":
            self.wait(name)
        before, self.making = self.making, self._any_marked(args, kwargs) if asked is None else asked
        try:
            made = func(*args, **kwargs)
        finally:
            self.making = before
        if asked or (here and name in ("new_tensor", "__deepcopy__")):
            for tensor in _tensors((made,)):
                self.mark(tensor)
        return made

    def _any_marked(self, args: tuple, kwargs: dict) -> bool:
        return any(self.on_device(tensor) for values in (args, kwargs.values()) for tensor in _tensors(values))

    def _copied(self, func: Any, args: tuple, kwargs: dict) -> Tensor:
        """`to`, `cuda`, `cpu`: a marked or unmarked copy, or the tensor itself where it is what is asked for."""
        tensor, here = args[0], self.on_device(args[0])
        given = [*args[1:], *(kwargs.get(key) for key in ("device", "other", "dtype"))]
        device = {Tensor.cuda: "cuda", Tensor.cpu: "cpu"}.get(func)
        dtype, there = tensor.dtype, here if device is None else device == "cuda"
        for value in given:
            if isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, str | torch.device):
                there = torch.device(value).type == "cuda"
            elif isinstance(value, Tensor):
                dtype, there = value.dtype, self.on_device(value)
        layout = kwargs.get("memory_format") or torch.preserve_format
        made = Tensor.to(tensor, dtype, memory_format=layout, copy=kwargs.get("copy", False))
        if there == here:
            return made
        made = made.clone()  # its own storage, which is marked or not
        blocking = not (kwargs.get("non_blocking") or any(value is True for value in args[1:]))
        if there:
            self.mark(made)
            if blocking or not self._in(self._pinned, tensor):
                self.wait("copy to the device")
            return made
        self._marked.pop(made.untyped_storage()._cdata, None)
        if blocking:
            self.wait("copy to the host")
        else:  # PyTorch pins what it copies to; the host must wait before it reads that
            self._add(self._pinned, made)
        return made


class _Operations(TorchDispatchMode):
    """Sees every operation below autograd: carries marks on, counts, and finds what mixes devices."""

    def __init__(self, device: FakeCuda):
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        device, name = self.device, func.overloadpacket.__name__
        tensors = list(_tensors(args)) + list(_tensors((kwargs or {}).values()))
        marked = [device.on_device(tensor) for tensor in tensors]
        here = any(marked) if tensors else device.making
        if any(marked):
            self._check(name, args, kwargs or {}, [t for t, on in zip(tensors, marked, strict=True) if not on])
        if here and func.namespace == "aten":
            device.operations[name] += kernels(name, args)
        out = func(*args, **kwargs or {})
        if here:
            known = {tensor.untyped_storage()._cdata for tensor in tensors}
            for tensor in _tensors((out,)):
                if tensor.untyped_storage()._cdata not in known:
                    device.mark(tensor)
        return out

    def _check(self, name: str, args: tuple, kwargs: dict, elsewhere: list[Tensor]) -> None:
        """Of an operation that sees a marked tensor, and the tensors `elsewhere`: what it waits for, or an error."""
        device = self.device
        if name in READ_BACK:
            device.wait(name)
        if name == "copy_":
            if any(tensor.dim() for tensor in elsewhere):
                blocking = not (kwargs.get("non_blocking") or args[2:] == (True,))
                if blocking or not all(device._in(device._pinned, tensor) for tensor in elsewhere):
                    device.wait("copy_ between host and device")
            return
        if name in INDEXED or name == "index_fill_":
            indices = args[2:3] if name == "index_fill_" else [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                device.wait("mask as an index")
            if device.on_device(args[0]):
                if any(not device.on_device(index) for index in indices):
                    device.wait("index from the host")
                elsewhere = [tensor for tensor in elsewhere if not any(tensor is index for index in indices)]
        if any(tensor.dim() for tensor in elsewhere):
            shapes = [tuple(tensor.shape) for tensor in elsewhere]
            raise RuntimeError(f"{name}: tensors on cuda:0 and on the cpu, the latter of shape {shapes}")
