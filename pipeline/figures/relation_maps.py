"""Where the pyramid non-local block looks from a target patch: SPIG's Figure 7.

`Output.relation_maps[s][b, i]` are the weights, of sum 1, with which patch i of the pooled s x s features gathers all
patches. The features are those of the target, before decoding, so the maps are drawn over the generated image.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from torch import Tensor

from pipeline import drawing
from pipeline.anatomy import pose
from pipeline.core.errors import UserError
from pipeline.figures import subject
from pipeline.loading import runs
from pipeline.loading.runs import Person, Pose, Trained

_OPACITY = 0.5
_RED = (255, 40, 40)
LEGS = (8, 9, 11, 12)  # hips, knees

Spot = tuple[str, float, float]  # name, row and column as shares of the height and width


def default_spots(at: Pose, height: int, width: int, size: int) -> list[Spot]:
    """Torso and legs, where the joints place them, and the patch of a size x size grid farthest from all joints."""
    share = (at.joints[:, ::-1] + 0.5) / (height, width)
    spots = []
    for name, joints in (("torso", pose.SHOULDERS_AND_HIPS), ("legs", LEGS)):
        known = [joint for joint in joints if at.valid[joint]]
        if known:
            spots.append((name, *share[known].mean(axis=0).clip(0, 1 - 1e-6).tolist()))
    centres = (np.indices((size, size)).reshape(2, -1).T + 0.5) / size
    away = [
        np.linalg.norm((centre - share[at.valid]) * (height, width), axis=1).min(initial=np.inf) for centre in centres
    ]
    return [*spots, ("background", *centres[int(np.argmax(away))].tolist())]


def asked_spots(patches: Sequence[Sequence[int]], size: int) -> list[Spot]:
    """Patches (row, column) of the size x size grid, counted from 0. Raises UserError for one outside it."""
    for row, column in patches:
        if not (0 <= row < size and 0 <= column < size):
            raise UserError(f"--patch {row} {column}: the map is {size} x {size}; rows and columns are 0 to {size - 1}")
    return [("asked for", (row + 0.5) / size, (column + 0.5) / size) for row, column in patches]


def heat(values: np.ndarray) -> np.ndarray:
    """Shares of the largest value, (...) in [0, 1] -> (..., 3) uint8: black, violet, orange, yellow."""
    grey = np.rint(255 * np.atleast_2d(values).clip(0, 1)).astype(np.uint8)
    return cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]


def overlay(picture: np.ndarray, weights: np.ndarray, largest: float, cell: tuple[int, int]) -> np.ndarray:
    """A panel: the weights (s, s), as shares of `largest`, over the picture in grey, the target patch `cell` framed."""
    panel = subject.enlarged(picture)
    height, width = panel.shape[:2]
    size = len(weights)
    rows, columns = np.arange(height) * size // height, np.arange(width) * size // width
    grey = 64 + 0.75 * panel.mean(axis=2, keepdims=True)  # no darker than the colours of small weights
    drawn = _OPACITY * heat(weights / largest)[rows][:, columns] + (1 - _OPACITY) * grey
    drawn = np.ascontiguousarray(np.rint(drawn).astype(np.uint8))
    top, bottom = (
        -(-edge * height // size) for edge in (cell[0], cell[0] + 1)
    )  # the first pixel of a cell: rounded up
    left, right = (-(-edge * width // size) for edge in (cell[1], cell[1] + 1))
    cv2.rectangle(drawn, (left + 1, top + 1), (right - 2, bottom - 2), _RED, 2)
    return drawn


def scale_bar(largest: float, uniform: float, height: int) -> np.ndarray:
    """The colours from `largest` at the top to 0, with their values; `uniform`: each weight if all were equal."""
    words = [subject.text(line) for line in (f"{largest:.3f}", f"{uniform:.3f}: all equal", "0")]
    line = words[0].shape[0]
    bar = np.full((height, 22 + max(word.shape[1] for word in words), 3), drawing.PAPER, np.uint8)
    bar[:, :14] = heat(np.linspace(1, 0, height)[:, None])
    middle = round((1 - uniform / largest) * (height - 1))
    bar[middle, 14:19] = drawing.INK
    tops = (0, min(max(middle - line // 2, line), height - 2 * line), height - line)
    for word, top in zip(words, tops, strict=True):
        bar[top : top + line, 22 : 22 + word.shape[1]] = word
    return bar


def draw(
    trained: Trained,
    source: Person,
    target: Person,
    patches: Sequence[Sequence[int]] = (),
    over: str = "generated",
) -> np.ndarray:
    """The figure. patches: of the largest map; torso, legs and background if none are given. over: generated | target.

    Raises UserError if the variant has no such block, or a patch lies outside.
    """
    output = runs.look(trained, source, target)
    if not output.relation_maps:
        raise UserError(f"{trained.variant} has no relation maps: no pyramid non-local block; spig has one")
    generated = runs.as_picture(output.image)
    under = {"generated": generated, "target": target.picture}[over]
    largest_size = max(output.relation_maps)
    spots = asked_spots(patches, largest_size) or default_spots(target, trained.height, trained.width, largest_size)
    rows = [
        drawing.beside(
            [
                drawing.titled(subject.enlarged(source.picture), "source"),
                drawing.titled(subject.skeleton(target, trained.height, trained.width), "target pose"),
                drawing.titled(subject.enlarged(target.picture), "target (not seen)"),
                drawing.titled(subject.enlarged(generated), "generated"),
            ]
        )
    ]
    for size in sorted(output.relation_maps, reverse=True):
        rows.append(_maps(output.relation_maps[size][0], size, spots, under))
    return subject.framed(
        drawing.below(rows),
        f"relation maps: {trained.title}",
        f"{source.image_id} to {target.image_id}",
        f"red: the target patch; heat: what it gathers, over the {over} image",
    )


def _maps(relation: Tensor, size: int, spots: Sequence[Spot], under: np.ndarray) -> np.ndarray:
    """One row of the figure: relation (size^2, size^2), a panel for each spot, one colour scale for all."""
    weights = relation.float().cpu().numpy().reshape(size, size, size, size)  # target row, column, source row, column
    cells = [(int(row * size), int(column * size)) for _, row, column in spots]
    largest = max(weights[cell].max() for cell in cells)
    panels = [
        drawing.titled(
            overlay(under, weights[cell], largest, cell), f"{size} x {size}: {name}", f"patch {cell[0]} {cell[1]}"
        )
        for (name, _, _), cell in zip(spots, cells, strict=True)
    ]
    height = subject.enlarged(under).shape[0]
    return drawing.beside([*panels, drawing.titled(scale_bar(largest, 1 / size**2, height), "weight", "")])
