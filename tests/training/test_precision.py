"""What bf16 may not touch, in the step of everything that is trained: its 8 bits are half a pixel at 128, and a tanh in
it has no gradient from 3.5 on.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from models.layers import affine_flow, features, pose_maps
from models.layers.blocks import warp
from pipeline.training import loop
from tests.training.entries import BATCH, CASES, ENTRIES, Casts, cases, made

pytestmark = pytest.mark.usefixtures("thin_features")

# Of one coordinate and others: still a coordinate. Not so its exponential, a comparison, a convolution, a sample.
MOVES = {
    *(
        "add",
        "sub",
        "rsub",
        "mul",
        "div",
        "neg",
        "abs",
        "pow",
        "sqrt",
        "add_",
        "sub_",
        "mul_",
        "div_",
        "clamp",
        "floor",
    ),
    *("where", "masked_fill", "stack", "cat", "clone", "copy_", "index", "gather", "repeat", "_to_copy", "clamp_min"),
    *("sum", "mean", "amin", "amax", "minimum", "maximum", "mm", "bmm", "addmm", "baddbmm", "upsample_bilinear2d"),
    *("linalg_inv_ex", "_linalg_solve_ex", "linalg_solve_ex", "_linalg_det", "linalg_qr", "linalg_vector_norm"),
}
FULL = {"tanh", "tanh_backward", "grid_sampler_2d", "grid_sampler_2d_backward", "linalg_inv_ex", "_linalg_solve_ex"}


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


class Watch(TorchDispatchMode):
    """Collects in `faults` what is computed in bf16 and must not be: the operations in FULL, forward and backward, and
    in forward whatever is computed from coordinates, which begin as `joints`, an `arange` or a `linspace`, until a map,
    a mask or a sample is made of them. A flow that a network predicts becomes a coordinate where it is added to one.
    """

    def __init__(self, *joints: Tensor):
        super().__init__()
        self.faults: set[str] = set()
        self._places: dict[int, StorageWeakRef] = {}  # storages with coordinates
        self._rough: dict[int, StorageWeakRef] = {}  # float32 that was bf16
        for tensor in joints:
            self._add(self._places, tensor)

    @staticmethod
    def _add(known: dict[int, StorageWeakRef], tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        known[storage._cdata] = StorageWeakRef(storage)

    @staticmethod
    def _in(known: dict[int, StorageWeakRef], tensor: Tensor) -> bool:
        reference = known.get(tensor.untyped_storage()._cdata)
        return reference is not None and not reference.expired()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, given = func.overloadpacket.__name__, list(tensors((*args, *(kwargs or {}).values())))
        out = func(*args, **kwargs or {})
        made = [one for one in tensors((out,)) if one.is_floating_point()]
        if name in FULL and any(one.dtype == torch.bfloat16 for one in given):
            self.faults.add(name)
        if torch._C._current_graph_task_id() != -1:  # in backward: gradients are no coordinates
            return out
        placed = name in ("arange", "linspace") or (name in MOVES and any(self._in(self._places, one) for one in given))
        rough = [one for one in given if self._in(self._rough, one)]
        if placed:
            if any(one.dtype == torch.bfloat16 for one in (*given, *made) if one.is_floating_point()):
                self.faults.add(f"coordinates in {name}")
            if rough and name in ("add", "sub"):
                self.faults.add("a flow in bf16")
        for one in made:
            if one.untyped_storage()._cdata in {other.untyped_storage()._cdata for other in given}:
                continue  # a view is what its storage is
            if placed:
                self._add(self._places, one)
            if (name == "_to_copy" and args[0].dtype == torch.bfloat16) or (rough and name in MOVES - {"mean", "sum"}):
                self._add(self._rough, one)
        return out


def faults_of(function: Any, *joints: Tensor) -> set[str]:
    with Watch(*joints) as watch, torch.autocast("cpu", torch.bfloat16):
        function()
    return watch.faults


@pytest.mark.parametrize("name", cases())
def test_coordinates_samples_and_tanh_are_computed_in_full_precision(name):
    trainer, data = made(CASES[name], torch.device("cpu"))
    batch = data.batch(torch.arange(BATCH))
    with Watch(batch.source_joints, batch.target_joints) as watch:
        trainer.step(CASES[name].steps[0], batch)
    assert not watch.faults


@pytest.mark.parametrize("name", cases(lambda case: ENTRIES[case.entry].phase.frozen))
def test_frozen_submodules_are_rounded_once(name, monkeypatch):
    """No step rounds a weight that it does not train, and the values are those that rounding gives, to the bit. Between
    steps a submodule has the float32 that a checkpoint holds.
    """
    case, found = CASES[name], []
    for keep in (True, False):
        if not keep:
            monkeypatch.setattr(loop, "put", lambda values: None)
        trainer, data = made(case, torch.device("cpu"))
        network = trainer.generator
        losses = [trainer.step(case.steps[0], data.batch(torch.arange(BATCH)))]
        frozen = [weight for weight in network.parameters() if not weight.requires_grad]
        before = [weight.clone() for weight in frozen]
        with Casts(frozen) as casts:
            losses.append(trainer.step(case.steps[1], data.batch(torch.arange(BATCH))))
        assert all(torch.equal(*pair) for pair in zip(frozen, before, strict=True))
        assert all(value.dtype != torch.bfloat16 for value in network.state_dict().values())
        found.append((losses, network.state_dict(), casts.count))
    (ours, weights, none), (theirs, expected, _) = found
    assert (ours, none) == (theirs, 0)
    assert all(torch.equal(value, expected[key]) for key, value in weights.items())


def test_the_matcher_takes_vgg16_as_it_is_published():
    """Not rounded to bf16: it computes in float32."""
    trainer, data = made(CASES["sgw_matcher_vgg16"], torch.device("cpu"))
    trainer.step(1, data.batch(torch.arange(BATCH)))
    wanted = features.build("vgg16").state_dict()
    taken = trainer.generator.features.layers.state_dict()
    assert len(taken) == 20
    assert all(torch.equal(value, wanted[f"features.{key}"]) for key, value in taken.items())


def test_planted_faults_are_found():
    joints, valid = torch.rand(2, 18, 2) * 60, torch.ones(2, 18, dtype=torch.bool)
    features, flow = torch.randn(2, 3, 8, 8), torch.randn(2, 2, 8, 8).bfloat16()
    rectangles, _ = affine_flow.rectangles(joints, valid)

    def rough_tanh():
        torch.tanh(torch.conv2d(features, torch.randn(3, 3, 1, 1)))

    def rough_gradient():
        image = torch.conv2d(features, torch.randn(3, 3, 1, 1, requires_grad=True))
        torch.tanh(image).sum().backward()

    def rough_place():
        points = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="xy"))
        torch.einsum("...ij,jhw->...ihw", rectangles[..., :2], points)

    assert faults_of(rough_tanh) == {"tanh"}
    assert faults_of(rough_gradient) == {"tanh", "tanh_backward"}
    assert "coordinates in _to_copy" in faults_of(rough_place, joints)
    assert faults_of(lambda: warp(features, flow.float())) == {"a flow in bf16"}
    assert faults_of(lambda: joints.bfloat16() + 1, joints) == {"coordinates in _to_copy", "coordinates in add"}


def test_maps_of_coordinates_may_be_bf16():
    joints, valid = torch.rand(2, 18, 2) * 60, torch.ones(2, 18, dtype=torch.bool)
    weight = torch.randn(3, 18, 3, 3)

    def harmless():
        torch.conv2d(pose_maps.heatmaps(joints, valid, 64, 32), weight)
        torch.conv2d(pose_maps.disks(joints, valid, 64, 32, 3.0), weight)
        warp(torch.randn(2, 3, 8, 8), torch.randn(2, 2, 8, 8))

    assert faults_of(harmless, joints) == set()
