"""The cost model counts what closed forms and torch's own counter say."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cost
from models.layers import features
from models.variants import COMPONENTS, VARIANTS
from pipeline.training import loop

BATCH, INPUTS, OUTPUTS, HEIGHT, WIDTH = 2, 3, 5, 16, 8
IMAGE, MAPS = BATCH * INPUTS * HEIGHT * WIDTH, BATCH * OUTPUTS * HEIGHT * WIDTH  # elements
WEIGHT = OUTPUTS * INPUTS * 9
MACHINE = cost.Machine(bf16=1e6, other=1e5, bandwidth=1e6, kernel=1e-3, launch=1e-3)


@pytest.mark.parametrize(("dtype", "rate"), [(torch.float32, MACHINE.other), (torch.bfloat16, MACHINE.bf16)])
def test_a_convolution_costs_its_closed_form(dtype, rate):
    with FakeTensorMode(), cost.Counting(MACHINE) as counted:
        image = torch.empty(BATCH, INPUTS, HEIGHT, WIDTH, dtype=dtype, requires_grad=True)
        layer = nn.Conv2d(INPUTS, OUTPUTS, 3, padding=1, dtype=dtype)
        counted.clear()
        assert counted.peak == (IMAGE + WEIGHT + OUTPUTS) * dtype.itemsize
        maps = layer(image)
        name, operations = str(dtype).removeprefix("torch."), 2 * MAPS * INPUTS * 9
        moved = (IMAGE + WEIGHT + OUTPUTS + MAPS) * dtype.itemsize
        assert counted.operations == {name: operations}
        assert (counted.bytes, counted.kernels, counted.peak) == (moved, 2, moved)  # the bias is a kernel of its own
        assert counted.seconds == pytest.approx(max(operations / rate, moved / MACHINE.bandwidth, 2e-3))

        gradient = torch.empty_like(maps)
        counted.clear()
        maps.backward(gradient)
        assert counted.operations == {name: 2 * operations}  # by the image and by the weights
        assert counted.kernels == 3
        assert counted.bytes == (MAPS + 2 * IMAGE + 2 * WEIGHT + OUTPUTS) * dtype.itemsize
        assert counted.peak == moved + (MAPS + IMAGE + WEIGHT + OUTPUTS) * dtype.itemsize
        before = counted.live
        del maps, gradient
        assert counted.live == before - 2 * MAPS * dtype.itemsize


def test_views_are_free_and_a_broadcast_is_read_once():
    with FakeTensorMode(), cost.Counting(MACHINE) as counted:
        few, many = torch.empty(4, 1), torch.empty(4, 100)
        counted.clear()
        few.expand(4, 100).view(2, 2, 100)[0].transpose(0, 1)
        assert (counted.kernels, counted.bytes) == (0, 0)
        few.expand(4, 100) * many
        assert (counted.kernels, counted.bytes) == (1, 4 * (4 + 400 + 400))


def test_an_entrys_operations_are_those_that_torch_counts_with_values(one_thread):
    entry, size = COMPONENTS["gfla_flow"], (64, 32, 0.1)
    found = cost.cost(entry, "market1501", *size)
    torch.manual_seed(0)
    objective = entry.objective(entry.build(*size), *size, entry.phase.weights)
    batch = cost.batch_of(entry, entry.phase.batch["market1501"], *size[:2])
    for name in ("source", "target", "source_joints", "target_joints"):
        setattr(batch, name, torch.rand(getattr(batch, name).shape))
    run = loop.Run(
        title="",
        phase=entry.phase,
        steps=10,
        checkpoint_every=10,
        batch=len(batch.source),
        seed=0,
        precision="bf16",
        device=torch.device("cpu"),
        work=Path("unused"),
        metrics=Path("unused"),
        settings={},
    )
    trainer = loop.Trainer(run, objective, features.build(entry.features))
    with FlopCounterMode(display=False) as counter:
        trainer.step(5, batch)
    assert sum(found.operations.values()) == counter.get_total_flops()
    assert found.parameters == sum(one.numel() for one in objective.networks()["flow"].parameters())
    assert found.peak > 16 * found.parameters  # float32: weights, gradients, Adam's two moments
    assert (found.batch, found.steps) == (8, 50_000)
    assert found.hours == max(found.device, found.host) * 50_000 / 3600


def test_what_only_the_first_step_does_is_not_counted(monkeypatch):
    """Soft-Gated Warping-GAN's parser is frozen: its 25 weights are rounded to bf16 once in a training."""
    steady = cost.cost(VARIANTS["sgw"], "market1501", 128, 64, 0.05).kernels
    monkeypatch.setattr(cost.Valueless, "begin_at", lambda *of: None)
    assert cost.cost(VARIANTS["sgw"], "market1501", 128, 64, 0.05).kernels == steady + 25
