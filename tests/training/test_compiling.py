"""torch.compile with and without a compiler. `aot_eager` traces as the real one does, and saves the minutes of C++."""

import copy

import pytest
import torch
from torch import nn

from models.layers.spectral import NormedConv2d, SpectralNorm
from pipeline.loading import checkpoints
from pipeline.training import compiling

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.levels = nn.ModuleList(nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2)) for _ in range(2))
        self.pad = nn.ReflectionPad2d(1)
        self.inner = nn.Module()  # holds others and is not called itself, as SPT's generators are
        self.inner.last = nn.Conv2d(4, 4, 1)

    def render(self, x):  # objectives need not go through forward
        x = self.enter(x)
        for level in self.levels:
            for conv in level:
                x = conv(x).tanh()
        return self.pad(self.inner.last(x))


def test_blocks_are_the_parts_called_whole():
    net = Net()
    assert list(compiling.blocks(net)) == [net.enter, *net.levels[0], *net.levels[1], net.inner.last]


def test_compiled_blocks_compute_and_save_the_same(tmp_path):
    plain, net = Net(), Net()
    compiling.compile_blocks([net], CPU, "aot_eager")
    x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    for module in (plain, net):
        module.render(x).square().sum().backward()
    assert all(block._compiled_call_impl is not None for block in compiling.blocks(net))
    torch.testing.assert_close(net.render(x), plain.render(x))
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    saved = [checkpoints.save(tmp_path / kind, 1, module).read_bytes() for kind, module in (("a", plain), ("b", net))]
    assert saved[0] == saved[1]


class Normed(Net):
    def __init__(self):
        super().__init__()
        self.first = NormedConv2d(3, 3, 1)
        self.norm = SpectralNorm([self.first])

    def render(self, x):
        return super().render(self.first(x, *self.norm()))


@pytest.mark.parametrize("training", [True, False])
def test_a_copy_of_compiled_blocks_leaves_the_original_alone(training):
    """Samples are drawn by a copy in the middle of training: neither its spectral norms nor its weights are shared."""
    net, plain, x = Normed(), Normed(), torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    compiling.compile_blocks([net], CPU, "aot_eager")
    torch.testing.assert_close(net.render(x), plain.render(x))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    twin = copy.deepcopy(net).train(training)
    wanted = plain.train(training).render(x)
    torch.testing.assert_close(twin.render(x), wanted)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for value in twin.state_dict().values():
        value.zero_()
    twin.render(x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_without_a_compiler_training_goes_on_with_a_line(monkeypatch, capfd):
    def fail(function, backend):
        def broken(*arguments):
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler\nlong story")

        return broken

    monkeypatch.setattr(torch, "compile", fail)
    net = Net()
    compiling.compile_blocks([net], CPU)
    line = "compile: no working compiler for cpu, training goes on without it (RuntimeError: InvalidCxxCompiler: no"
    error = capfd.readouterr().err
    assert line in error
    assert "long story" not in error
    assert not any(block._compiled_call_impl for block in net.modules())


@pytest.mark.slow
def test_a_spectrally_normed_block_may_be_called_twice():
    """By the real compiler: `aot_eager` has not the fault that this is about."""
    reason = compiling.missing(CPU, "inductor")
    if reason is not None:
        pytest.skip(f"no compiler: {reason}")

    def two_calls(compile_it: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = Normed()
        if compile_it:
            compiling.compile_blocks([net], CPU)
        real, fake = torch.randn(2, 2, 3, 8, 8)
        for _ in range(2):
            (net.render(real).square().mean() - net.render(fake).square().mean()).backward()
        return [parameter.grad for parameter in net.parameters()]

    for ours, theirs in zip(two_calls(True), two_calls(False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
