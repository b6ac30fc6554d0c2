"""Spectral norm (Miyato et al., 2018): a convolution's weight divided by its largest singular value, which one step of
power iteration a call follows.

The values and gradients of torch's own parametrization in fewer operations, each a kernel to launch, and in float32:
CUDA's autocast would round the singular value to bfloat16's 8 bits.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Divide(torch.autograd.Function):
    """weight / sigma, sigma = u^T weight v with u and v fixed."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        normed = weight / sigma
        ctx.save_for_backward(normed, u, v, sigma)
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        normed, u, v, sigma = ctx.saved_tensors
        share = (gradient * normed).sum()
        return torch.addr(gradient.flatten(1), share * u, v, alpha=-1).view_as(normed) / sigma, None, None, None


class SpectralNorm(nn.Module):
    """forward: weight (outputs, ...) -> the same shape, of largest singular value 1. In train mode each call takes a
    step.
    """

    def __init__(self, weight: Tensor):
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.register_buffer("_u", F.normalize(torch.randn_like(matrix[:, 0]), dim=0))
        self.register_buffer("_v", F.normalize(torch.randn_like(matrix[0]), dim=0))
        for _ in range(15):
            self.step(matrix)

    @torch.no_grad()
    def step(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of power iteration; returns u, v, sigma = u^T matrix v."""
        u = matrix @ self._v
        u = u / torch.linalg.vector_norm(u)
        v = u @ matrix
        sigma = torch.linalg.vector_norm(v)
        v = v / sigma
        torch._foreach_copy_([self._u, self._v], [u, v])
        return u, v, sigma

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast("cpu" if weight.is_meta else weight.device.type, enabled=False):  # meta has no autocast
            matrix = weight.detach().flatten(1)
            if self.training:
                return Divide.apply(weight, *self.step(matrix))
            return Divide.apply(weight, self._u, self._v, self._u @ matrix @ self._v)


@cache
def stay_eager() -> None:
    """Leave spectral norms out of compiled blocks: a block would keep the vectors for its backward, and the next call
    changes them. Not a decorator of `forward`, which would load the compiler, seconds of it, for every scoring.
    """
    SpectralNorm.forward = torch.compiler.disable(SpectralNorm.forward)


def spectral_norm(convolution: nn.Conv2d) -> nn.Conv2d:
    parametrize.register_parametrization(convolution, "weight", SpectralNorm(convolution.weight))
    return convolution
