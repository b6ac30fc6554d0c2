"""The two forms of a batch of pictures: 8-bit RGB as stored, saved and scored; floats in [-1, 1] as networks see it."""

import torch


def as_floats(images: torch.Tensor) -> torch.Tensor:
    """uint8 in [0, 255] -> float32 in [-1, 1], any shape: what every network here takes."""
    return images.div(127.5).sub_(1.0)


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) float in [-1, 1] -> (B, H, W, 3) uint8: the picture that is saved and scored. Clips."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
