"""Spectral norm of several convolutions at once against torch's own parametrization of each, and in autocast."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from models.layers.spectral import Divide, NormedConv2d, SpectralNorm

# Inputs, outputs, side: among them a row, a column of 1x1, and both more and fewer rows than columns.
SHAPES = [(6, 4, 3), (6, 80, 3), (6, 1, 1), (6, 20, 1), (6, 8, 4)]


def both() -> tuple[SpectralNorm, list[nn.Conv2d]]:
    """The same convolutions under ours and under torch's spectral norms, with the same vectors."""
    torch.manual_seed(0)
    norm = SpectralNorm([NormedConv2d(*shape) for shape in SHAPES])
    others = [nn.Conv2d(*shape) for shape in SHAPES]
    for k, (ours, other) in enumerate(zip(norm.convolutions, others, strict=True)):
        other.load_state_dict(ours.state_dict())
        vectors = parametrizations.spectral_norm(other).parametrizations.weight[0]
        norm.u[k] = padded(vectors._u, norm.u[k])
        norm.v[k] = padded(vectors._v.view(ours.weight.shape[1:]).permute(1, 2, 0).flatten(), norm.v[k])
    return norm, others


def padded(vector: Tensor, like: Tensor) -> Tensor:
    return torch.cat([vector, torch.zeros(len(like) - len(vector))])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_weights_gradients_and_vectors_are_torchs(layout):
    """Two calls before one backward, as a discriminator's on real and generated images, then one in eval mode."""
    norm, others = both()
    for convolution in norm.convolutions:
        convolution.to(memory_format=layout)
    for _ in range(3):
        x = torch.randn(2, 2, 6, 7, 7, generator=torch.Generator().manual_seed(1))
        loss, wanted = torch.zeros(()), torch.zeros(())
        for image, act in zip(x, (torch.square, torch.sin), strict=True):
            for one, weight, other in zip(norm.convolutions, norm(), others, strict=True):
                torch.testing.assert_close(weight, used := other.weight, rtol=1e-6, atol=1e-6)
                assert weight.is_contiguous(memory_format=layout)
                loss = loss + act(one(image, weight)).mean()
                wanted = wanted + act(torch.conv2d(image, used, other.bias)).mean()
        torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=1e-6)
        loss.backward()
        wanted.backward()
        for k, (one, other) in enumerate(zip(norm.convolutions, others, strict=True)):
            original, vectors = other.parametrizations.weight.original, other.parametrizations.weight[0]
            torch.testing.assert_close(one.weight.grad, original.grad, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(norm.u[k], padded(vectors._u, norm.u[k]), rtol=1e-5, atol=1e-6)
            with torch.no_grad():
                one.weight.sub_(one.weight.grad)
                original.sub_(original.grad)
            one.weight.grad = original.grad = None
    for weight, other in zip(norm.eval()(), others, strict=True):
        torch.testing.assert_close(weight, other.eval().weight, rtol=1e-6, atol=1e-6)


def test_a_call_in_eval_mode_changes_nothing():
    norm = both()[0].eval()
    before = [value.clone() for value in norm.buffers()]
    assert all(map(torch.equal, norm(), norm()))
    assert all(map(torch.equal, before, norm.buffers()))


def test_the_gradient_is_that_of_the_quotient():
    """Of weight / (u^T weight v) with u and v fixed, by finite differences."""
    norm = SpectralNorm([NormedConv2d(2, 3, 2), NormedConv2d(2, 2, 1)]).double()
    u, v = norm.u, norm.v

    def quotients(*weights: Tensor) -> tuple[Tensor, ...]:
        matrices = norm.stacked([weight.detach() for weight in weights])
        return Divide.apply(norm, matrices, u, v, torch.einsum("kr,krc,kc->k", u, matrices, v), *weights)

    weights = [each.weight.detach().double().requires_grad_() for each in norm.convolutions]
    assert torch.autograd.gradcheck(quotients, weights)


def test_autocast_rounds_nothing():
    norm = both()[0].eval()
    exact = norm()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, norm(), exact))
