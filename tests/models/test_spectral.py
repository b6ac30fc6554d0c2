"""Spectral norm against torch's own parametrization, and in autocast."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from models.layers.spectral import spectral_norm


def both(outputs: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The same convolution under ours and under torch's spectral norm, with the same vectors."""
    torch.manual_seed(0)
    ours, other = nn.Conv2d(6, outputs, 3), nn.Conv2d(6, outputs, 3)
    other.load_state_dict(ours.state_dict())
    ours, other = spectral_norm(ours), parametrizations.spectral_norm(other)
    ours.load_state_dict(other.state_dict())  # the names are the same
    return ours, other


@pytest.mark.parametrize("outputs", [4, 80])
def test_values_gradients_and_vectors_are_torchs(outputs):
    """Two calls before one backward, as a discriminator's on real and generated images, then one in eval mode."""
    nets = both(outputs)
    assert type(nets[0].parametrizations.weight[0]) is not type(nets[1].parametrizations.weight[0])
    for _ in range(3):
        found = []
        for net in nets:
            x = torch.randn(2, 2, 6, 7, 7, generator=torch.Generator().manual_seed(1))
            net.zero_grad()
            loss = net(x[0]).square().sum() + net(x[1]).sin().sum()
            loss.backward()
            found.append([loss, net.parametrizations.weight.original.grad, *net.buffers()])
            with torch.no_grad():
                net.parametrizations.weight.original.sub_(0.01 * net.parametrizations.weight.original.grad)
        for ours, torchs in zip(*found, strict=True):
            torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-5)
    for net in nets:
        net.eval()
    torch.testing.assert_close(nets[0].weight, nets[1].weight, rtol=1e-5, atol=1e-6)


def test_a_call_in_eval_mode_changes_nothing():
    net = both(4)[0].eval()
    before = [value.clone() for value in net.buffers()]
    assert torch.equal(net.weight, net.weight)
    assert all(torch.equal(a, b) for a, b in zip(before, net.buffers(), strict=True))


def test_the_gradient_is_that_of_the_quotient():
    """Of weight / (u^T weight v) with u and v fixed, by finite differences."""
    net = both(4)[0].double().eval()
    weight = net.parametrizations.weight.original.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(net.parametrizations.weight[0], weight)


def test_autocast_rounds_nothing():
    net = both(4)[0].eval()
    exact = net.weight
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.weight, exact)
