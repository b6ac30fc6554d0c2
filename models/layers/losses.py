"""Loss terms. Every norm is a mean over elements, so that a weight means the same at any image size.

Numbers in brackets are SPIG's equations. All terms are computed in float32 at least, whatever autocast says.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.blocks import full_precision, warp


@dataclass(frozen=True)
class LossWeights:
    """The lambdas of SPIG's equation 10. The paper does not print them: these are GFLA's, whose losses SPIG
    takes over.
    """

    sampling: float = 5.0
    l1: float = 5.0
    adversarial: float = 2.0
    perceptual: float = 0.5
    style: float = 500.0


def widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def best_cosine(source: Tensor, target: Tensor) -> Tensor:
    """Largest cosine between each target position and any source position: features (B, C, H, W) -> (B, H,
    W).

    Memory is B * (H W)^2 floats (0.4 GB for 6 pairs at 64x64).
    """
    with full_precision(source), torch.no_grad():
        size = target.shape[-2:]
        source, target = (F.normalize(widen(x).flatten(2), dim=1) for x in (source, target))  # (B, C, HW)
        return (source.transpose(1, 2) @ target).amax(1).unflatten(1, size)


def sampling_correctness(source: Tensor, target: Tensor, flows: Tensor, masks: Tensor | None = None) -> Tensor:
    """Sampling correctness (Ren et al. 2019, 2020; one stride's terms of [9]): exp(-cos / max cos) - exp(-1), averaged
    over each image, then over images, summed over the parts.

    source, target: fixed features (B, C, H, W); flows (B, P, 2, H, W) in cells of that grid; cos compares the source
    warped by a part's flow with the target, max cos is the best of any source position. With `masks` (B, P, H, W), an
    image's mean is over a part's own weight; an image without any weight counts with 0, so that a batch's loss is the
    mean of its halves', each weighted by its share of the images. Zero where the flow finds the best match.
    """
    with full_precision(flows):
        target = F.normalize(widen(target), dim=1)
        warped = warp(widen(source), widen(flows))  # (B, C, P, H, W)
        length = torch.linalg.vector_norm(warped, dim=1).clamp(min=1e-8)
        cosine = (warped * target.unsqueeze(2)).sum(1) / length  # (B, P, H, W)
        best = best_cosine(source, target).clamp(min=1e-6).unsqueeze(1)
        error = torch.exp(-cosine / best) - math.exp(-1)
        if masks is None:
            return error.mean((0, 2, 3)).sum()
        return ((error * masks).sum((2, 3)) / masks.sum((2, 3)).clamp(min=1e-6)).mean(0).sum()


def l1(generated: Tensor, target: Tensor) -> Tensor:
    """Reconstruction [11]: mean absolute difference of two images (B, 3, H, W)."""
    return (widen(generated) - widen(target)).abs().mean()


def adversarial_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-[12] on logits of any shape: -E log D(real) - E log(1 - D(fake))."""
    return F.softplus(-widen(real)).mean() + F.softplus(widen(fake)).mean()


def adversarial_generator(fake: Tensor) -> Tensor:
    """The generator's side of [12] in its non-saturating form, -E log D(fake): log(1 - D) has no gradient
    where D wins.
    """
    return F.softplus(-widen(fake)).mean()


def least_squares(scores: Tensor, wanted: float) -> Tensor:
    """LSGAN: a discriminator's scores (B, C, h, w) -> (B,), each image's mean squared distance from `wanted`."""
    return (widen(scores) - wanted).square().mean((1, 2, 3))


def perceptual(generated: dict[str, Tensor], target: dict[str, Tensor], layers: tuple[str, ...]) -> Tensor:
    """Perceptual L1 [13]: sum over layers of the mean absolute difference of features."""
    return sum(l1(generated[layer], target[layer]) for layer in layers)


def gram(features: Tensor) -> Tensor:
    """Gram matrix over C H W: features (B, C, H, W) -> (B, C, C)."""
    with full_precision(features):
        flat = widen(features).flatten(2)
        return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def style(generated: dict[str, Tensor], target: dict[str, Tensor], layers: tuple[str, ...]) -> Tensor:
    """Style L1 [14]: sum over layers of the mean absolute difference of Gram matrices."""
    return sum((gram(generated[layer]) - gram(target[layer])).abs().mean() for layer in layers)
