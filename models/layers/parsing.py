"""What networks that generate a parsing share: how many labels, PATN's encoder and decoder, the cross-entropy."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import full_precision
from models.layers.losses import widen

LABELS = 20  # of LIP-20 and of CIHP-20


def conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, norm: Callable[[int], nn.Module] = nn.InstanceNorm2d
) -> nn.Sequential:
    """Convolution and norm; no bias, which the norm would cancel."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), norm(outputs))


def encoder(inputs: int, base: int, norm: Callable[[int], nn.Module] = nn.InstanceNorm2d) -> nn.Sequential:
    """Three convolutions with norm and ReLU, the last two of stride 2: (B, inputs, H, W) -> (B, 4 base,
    H/4, W/4).
    """
    return nn.Sequential(
        *(conv_norm(inputs, base, 7, 1, norm), nn.ReLU()),
        *(conv_norm(base, 2 * base, 3, 2, norm), nn.ReLU()),
        *(conv_norm(2 * base, 4 * base, 3, 2, norm), nn.ReLU()),
    )


def decoder(base: int, outputs: int, norm: Callable[[int], nn.Module] = nn.InstanceNorm2d) -> nn.Sequential:
    """Two deconvolutions with norm and ReLU, a last convolution: (B, 4 base, h, w) -> (B, outputs, 4h, 4w)."""
    up = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "bias": False}
    return nn.Sequential(
        *(nn.ConvTranspose2d(4 * base, 2 * base, **up), norm(2 * base), nn.ReLU()),
        *(nn.ConvTranspose2d(2 * base, base, **up), norm(base), nn.ReLU()),
        nn.Conv2d(base, outputs, 7, padding=3),
    )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over pixels of -log softmax(logits)[label]: logits (B, 20, H, W), labels (B, H, W) uint8."""
    with full_precision(logits):
        return F.cross_entropy(widen(logits), labels.long())
