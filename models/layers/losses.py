"""Loss terms. Every norm is a mean over elements, so that a weight means the same at any image size.

Numbers in brackets are SPIG's equations. All terms are computed in float32 at least, whatever autocast says.
"""

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

    Depends on the pair alone: all parts share it. Memory is B * (H W)^2 floats (0.4 GB for 6 pairs at 64x64).
    """
    with full_precision(source), torch.no_grad():
        size = target.shape[-2:]
        source, target = (F.normalize(widen(x).flatten(2), dim=1) for x in (source, target))  # (B, C, HW)
        return (source.transpose(1, 2) @ target).amax(1).unflatten(1, size)


def sampling_correctness(
    source: Tensor, target: Tensor, flow: Tensor, mask: Tensor | None = None, best: Tensor | None = None
) -> Tensor:
    """Sampling correctness (Ren et al. 2019, 2020; one part's term of [9]): exp(-cos / max cos) - exp(-1),
    averaged over each image, then over images.

    source, target: fixed features (B, C, H, W); flow (B, 2, H, W) in cells of that grid; cos compares the warped source
    with the target, max cos is `best_cosine(source, target)`, passed in as `best` when several flows share it. With
    `mask` (B, H, W), an image's mean is over its own weight; an image without any weight counts with 0, so that a
    batch's loss is the mean of its parts', each weighted by its share of the images. Zero where the flow finds the best
    match.
    """
    if best is None:
        best = best_cosine(source, target)
    with full_precision(flow):
        cosine = F.cosine_similarity(warp(source, widen(flow)), widen(target), dim=1)  # (B, H, W)
        error = torch.exp(-cosine / best.clamp(min=1e-6)) - torch.exp(-torch.ones_like(cosine))
        if mask is None:
            return error.mean()
        return ((error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1e-6)).mean()


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
