"""Label maps that others made: a folder or zip with one PNG per image, in any set of `pipeline.anatomy.labels`."""

import io

import numpy as np

from pipeline.anatomy import labels
from pipeline.core.errors import UserError, is_shortage

SETS = (*labels.NAMES, *labels.COLOUR_CODED)

_DEPTH_AND_COLOUR = slice(24, 26)  # of a PNG: bits per sample, colour type
_GREY, _PALETTE = 0, 3


def read(data: bytes, label_set: str, height: int, width: int, where: str) -> np.ndarray:
    """The ids in a PNG, (height, width) uint8, in `label_set` (of SETS; a colour-coded one gives the ids it codes).

    8-bit grey values and palette indices are ids; the palette's colours do not matter, unless the set is colour-coded.
    Raises UserError if it is no such picture, of another size, or holds an id or a colour that the set does not have.
    """
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        if picture.size != (width, height):
            found = picture.size[::-1]
            raise UserError(
                f"{where}: {found[0]}x{found[1]} (height x width), its image is {height}x{width};"
                f" {how_to_fit(found, (height, width))}"
            )
        picture.load()
    except UserError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise anything
        if is_shortage(error):
            raise
        why = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{where}: not a readable PNG ({why}); get it again") from None
    if label_set in labels.COLOUR_CODED:
        if picture.mode not in ("RGB", "RGBA", "P"):
            raise UserError(f"{where}: not in colour (mode {picture.mode}), but the label set is {label_set}")
        try:
            return labels.from_colours(np.asarray(picture.convert("RGB")), labels.COLOUR_CODED[label_set][1])
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    depth, kind = data[_DEPTH_AND_COLOUR]
    if kind != _PALETTE and (kind, depth) != (_GREY, 8):
        raise UserError(
            f"{where}: neither 8-bit grey nor palette (mode {picture.mode}, {depth} bits), as {label_set} wants it"
            f"{'; colour-coded? then name such a set' if picture.mode == 'RGB' else ''}"
        )
    ids = np.array(picture, dtype=np.uint8)
    top = len(labels.NAMES[label_set]) - 1
    if ids.max() > top:
        fits = [name for name, names in labels.NAMES.items() if ids.max() < len(names)]
        hint = f"is it {' or '.join(fits)}?" if fits else "no set has it: ids for the eye, or a photograph in grey?"
        raise UserError(f"{where}: label {ids.max()}, {label_set} ends at {top}; {hint}")
    return ids


def how_to_fit(found: tuple[int, int], wanted: tuple[int, int]) -> str:
    """What brings a label map of one size (H, W) to that of its image, in words: what was done to the image."""
    scale = min(want / have for want, have in zip(wanted, found, strict=True))
    inner = [max(1, round(side * scale)) for side in found]
    if max(want - side for want, side in zip(wanted, inner, strict=True)) <= 1:
        return "scale it by nearest neighbour"
    if found == wanted[::-1]:
        return "it lies on its side; turn it as its image was"
    apart = [want - have for want, have in zip(wanted, found, strict=True)]
    if 0 in apart:
        name, by = ("columns", apart[1]) if apart[1] else ("rows", apart[0])
        what = f"add {by} {name} of background" if by > 0 else f"cut {-by} {name}"
        return f"{what}, half of them on each side, as its image has it"
    padded = f"scale it by nearest neighbour to {inner[0]}x{inner[1]} and put background around it (fit: pad)"
    return f"{padded}, or squeeze it to {wanted[0]}x{wanted[1]} (fit: squash): as its image was"


def base(label_set: str) -> str:
    """The set of the ids that `read` gives: the set itself, or the one that a colour-coded set codes."""
    return labels.COLOUR_CODED[label_set][0] if label_set in labels.COLOUR_CODED else label_set
