"""The flow and the visibility by which a variant warps its source, part by part.

Colours are those of optical flow (Baker et al., 2011): hue is the direction in which a target pixel's source lies,
saturation its distance; white does not move. The last panels warp the source picture itself, whereas the networks warp
its features.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.blocks import Output, warp
from models.layers.pose_maps import PARTS
from pipeline import drawing
from pipeline.core.errors import UserError
from pipeline.figures import subject
from pipeline.loading import runs
from pipeline.loading.runs import Person, Trained

_HIDDEN = 0.25  # what is left of an invisible pixel's contrast to paper


def full_size(output: Output, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The finest flows, as (P, 2, H, W) float32 in pixels of the image, and visibilities (P, 1, H, W) in [0, 1]."""
    stride = min(output.flows)
    size = {"size": (height, width), "mode": "bilinear", "align_corners": False}
    flows, visibilities = (every[stride][0].float().cpu() for every in (output.flows, output.visibilities))
    if stride == 1:
        return flows, visibilities
    return stride * F.interpolate(flows, **size), F.interpolate(visibilities, **size)


def clipped(flows: Tensor) -> tuple[Tensor, float]:
    """Flows (P, 2, H, W) no longer than their 99th percentile, at least 1 pixel, and the longest that is left."""
    length = flows.norm(dim=1, keepdim=True)
    limit = max(1.0, float(np.quantile(length.numpy(), 0.99)))
    flows = flows * (limit / length.clamp(min=limit))
    return flows, float(flows.norm(dim=1).max())


def coloured(flows: Tensor) -> np.ndarray:
    """Flows (P, 2, H, W) -> (P, H, W, 3) uint8; the longest of them all has full colour."""
    from torchvision.utils import flow_to_image

    return flow_to_image(flows.float()).permute(0, 2, 3, 1).numpy()


def wheel(size: int) -> np.ndarray:
    """(size, size, 3): the colour of the flow from the middle to each place; white outside the circle."""
    x, y = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="xy")
    inside = x.square() + y.square() <= 1
    return coloured(torch.where(inside, torch.stack([x, y]), 0.0)[None])[0]


def part_names(count: int) -> list[str]:
    return list(PARTS) if count == len(PARTS) else ["whole body"] if count == 1 else [f"part {i}" for i in range(count)]


def draw(trained: Trained, source: Person, target: Person) -> np.ndarray:
    """The figure, a row for each part. Raises UserError if the variant has no flow."""
    output = runs.look(trained, source, target)
    if not output.flows:
        raise UserError(f"{trained.variant} has no flow, it warps nothing; spig and spgnet do")
    flows, visibilities = full_size(output, trained.height, trained.width)
    picture = torch.tensor(source.picture).permute(2, 0, 1)[None].float()
    warped = warp(picture.expand(len(flows), -1, -1, -1), flows)
    shown = visibilities * warped + (1 - visibilities) * (_HIDDEN * warped + (1 - _HIDDEN) * drawing.PAPER)
    drawn, longest = clipped(flows)

    def pixels(images: Tensor) -> np.ndarray:  # (P, C, H, W) in [0, 255] -> (P, H, W, 3)
        return images.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()

    rows = [
        drawing.beside(
            [
                drawing.titled(subject.enlarged(source.picture), "source"),
                drawing.titled(subject.skeleton(target, trained.height, trained.width), "target pose"),
                drawing.titled(subject.enlarged(target.picture), "target (not seen)"),
                drawing.titled(subject.enlarged(runs.as_picture(output.image)), "generated"),
                drawing.titled(wheel(96), "towards the source", f"full colour: {longest:.1f} px"),
            ]
        )
    ]
    for name, *panels in zip(
        part_names(len(flows)), coloured(drawn), pixels(255 * visibilities), pixels(warped), pixels(shown), strict=True
    ):
        titles = (f"{name}: flow", "visibility", "source, warped", "and visible")
        rows.append(
            drawing.beside(
                [drawing.titled(subject.enlarged(one), title) for one, title in zip(panels, titles, strict=True)]
            )
        )
    return subject.framed(
        drawing.below(rows),
        f"flow: {trained.title}",
        f"{source.image_id} to {target.image_id}; the finest flow: stride {min(output.flows)}",
    )
