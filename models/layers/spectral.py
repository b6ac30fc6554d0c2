"""Spectral norm (Miyato et al., 2018): convolutions' weights divided by their largest singular values, which a step of
power iteration a call follows, for all convolutions of a network at once.

The values and gradients of torch's own parametrization in a few kernels a network instead of some a convolution, and in
float32: CUDA's autocast would round the singular values to bfloat16's 8 bits.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NormedConv2d(nn.Conv2d):
    """A convolution that is given the weight to use, which a `SpectralNorm` makes of its own."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._conv_forward(x, weight, self.bias)


def as_weight(line: Tensor, weight: Tensor) -> Tensor:
    """Numbers in the order of channels_last -> of the weight's shape and memory layout."""
    outputs, inputs, height, width = weight.shape
    last = weight.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return line.view(outputs, height, width, inputs).permute(0, 3, 1, 2).contiguous(memory_format=layout)


class Divide(torch.autograd.Function):
    """Each weight / sigma, sigma = u^T weight v with u and v fixed."""

    @staticmethod
    def forward(
        ctx: Any, norm: "SpectralNorm", matrices: Tensor, u: Tensor, v: Tensor, sigma: Tensor, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        sigma = sigma.view(-1, 1, 1)
        normed = matrices / sigma
        ctx.norm = norm
        ctx.save_for_backward(normed, u, v, sigma)
        return norm.unstacked(normed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normed, u, v, sigma = ctx.saved_tensors
        gradient = ctx.norm.stacked(gradients)
        share = (gradient * normed).sum((1, 2), keepdim=True)
        gradient = torch.baddbmm(gradient, share * u.unsqueeze(2), v.unsqueeze(1), alpha=-1) / sigma
        return None, None, None, None, None, *ctx.norm.unstacked(gradient)


class SpectralNorm(nn.Module):
    """forward: -> the convolutions' weights, each of largest singular value 1. In train mode each call takes a step.

    Matrices (outputs, height * width * inputs), the order of channels_last, are stacked with zeros to the largest,
    which change no singular value. The convolutions stay the network's: here are only the vectors.
    """

    def __init__(self, convolutions: Sequence[NormedConv2d]):
        super().__init__()
        self.convolutions = tuple(convolutions)
        weights = [convolution.weight for convolution in convolutions]
        shapes = [(len(weight), weight[0].numel()) for weight in weights]
        rows, columns = map(max, zip(*shapes, strict=True))
        self.sizes = [weight.numel() for weight in weights]
        # Where the stack has its numbers from, of the weights one after the other and a zero, and the other way round.
        stack = torch.full((len(weights), rows, columns), sum(self.sizes), dtype=torch.int32)
        cells, first = torch.arange(stack.numel(), dtype=torch.int32).view_as(stack), 0
        for at, (height, width) in enumerate(shapes):
            own = torch.arange(first, first + height * width, dtype=torch.int32)
            stack[at, :height, :width] = own.view(height, width)
            first += height * width
        inside = [cells[at, :height, :width].flatten() for at, (height, width) in enumerate(shapes)]
        self.shape = stack.shape
        self.register_buffer("to_stack", stack.flatten(), persistent=False)
        self.register_buffer("from_stack", torch.cat(inside), persistent=False)
        self.register_buffer("zero", torch.zeros(1), persistent=False)

        matrices = self.stacked([weight.detach() for weight in weights])
        u, v = (F.normalize(torch.randn_like(line), dim=1) for line in (matrices[:, :, 0], matrices[:, 0]))
        self.register_buffer("u", u)
        self.register_buffer("v", v)
        for _ in range(15):
            self.step(matrices)

    def stacked(self, weights: Sequence[Tensor]) -> Tensor:
        """Weights -> (convolutions, rows, columns)."""
        lines = [weight.permute(0, 2, 3, 1).reshape(-1) for weight in weights]
        return torch.cat([*lines, self.zero]).index_select(0, self.to_stack).view(self.shape)

    def unstacked(self, matrices: Tensor) -> tuple[Tensor, ...]:
        """The inverse, each in its weight's memory layout."""
        lines = matrices.flatten().index_select(0, self.from_stack).split(self.sizes)
        return tuple(as_weight(line, each.weight) for line, each in zip(lines, self.convolutions, strict=True))

    @torch.no_grad()
    def step(self, matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of power iteration; returns u, v, sigma = u^T matrix v."""
        u = torch.bmm(matrices, self.v.unsqueeze(2)).squeeze(2)
        u = u / torch.linalg.vector_norm(u, dim=1, keepdim=True)
        v = torch.bmm(u.unsqueeze(1), matrices).squeeze(1)
        sigma = torch.linalg.vector_norm(v, dim=1, keepdim=True)
        v = v / sigma
        torch._foreach_copy_([self.u, self.v], [u, v])
        return u, v, sigma

    def forward(self) -> tuple[Tensor, ...]:
        weights = [convolution.weight for convolution in self.convolutions]
        with torch.autocast("cpu" if self.u.is_meta else self.u.device.type, enabled=False):  # meta has no autocast
            matrices = self.stacked([weight.detach() for weight in weights])
            if self.training:
                return Divide.apply(self, matrices, *self.step(matrices), *weights)
            sigma = torch.bmm(torch.bmm(self.u.unsqueeze(1), matrices), self.v.unsqueeze(2))
            return Divide.apply(self, matrices, self.u, self.v, sigma, *weights)


@cache
def stay_eager() -> None:
    """Leave spectral norms out of compiled blocks: a block would keep the vectors for its backward, and the next call
    changes them. Not a decorator of `forward`, which would load the compiler, seconds of it, for every scoring.
    """
    SpectralNorm.forward = torch.compiler.disable(SpectralNorm.forward)
