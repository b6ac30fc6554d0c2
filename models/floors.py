"""Two results that every method must beat: a copy of the source image, and the mean training image."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.layers.blocks import Batch, Output
from models.layers.schedule import Variant


class CopySource(nn.Module):
    """Returns the source image whatever the target's pose."""

    def forward(self, batch: Batch) -> Output:
        return Output(batch.source)


class MeanImage(nn.Module):
    """Returns the mean of the training images whatever the input."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, height, width))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set `mean` in one pass over image batches (B, 3, H, W) in [-1, 1]. Raises ValueError if there is none."""
        total, count = torch.zeros_like(self.mean, dtype=torch.float64), 0
        for images in batches:
            total += images.double().sum(0)
            count += len(images)
        if count == 0:
            raise ValueError("the mean image needs at least one training image")
        self.mean.copy_(total / count)

    def forward(self, batch: Batch) -> Output:
        return Output(self.mean.to(batch.source.dtype).expand(len(batch.source), -1, -1, -1))


VARIANTS = (
    Variant("copy_source", "none", "floor", lambda height, width, scale: CopySource()),
    Variant("mean_image", "none", "floor", lambda height, width, scale: MeanImage(height, width)),
)
