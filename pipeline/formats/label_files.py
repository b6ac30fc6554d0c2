"""Label maps that others made: a folder or zip with one PNG per image, in any set of `pipeline.anatomy.labels`."""

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from pipeline.anatomy import labels
from pipeline.core.errors import UserError

SETS = (*labels.NAMES, *labels.COLOUR_CODED)

_DEPTH_AND_COLOUR = slice(24, 26)  # of a PNG: bits per sample, colour type
_GREY, _PALETTE = 0, 3


def find(names: Iterable[str], images: Sequence[Mapping], where: str) -> tuple[dict[str, str], int]:
    """The file of `names` (`/`-separated paths) that holds each image's label map; the number of PNGs left over.

    images: mappings with image_id and split. `NAME.png` belongs to NAME.jpg (or whatever its suffix), in a folder
    train/ or test/, wherever that lies, if the image's split has such a file, else in any folder.
    Raises UserError if an image has none (their number and the first) or more than one.
    """
    by_stem = defaultdict(list)
    count = 0
    for name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() == ".png" and not path.name.startswith("."):
            by_stem[path.stem].append(f"/{path.with_suffix('')}")
            count += 1
    suffix = {f"/{PurePosixPath(name).with_suffix('')}": name for name in names}
    found, missing = {}, []
    for image in images:
        key = PurePosixPath(image["image_id"]).with_suffix("")
        candidates = [name for name in by_stem[key.name] if name.endswith(f"/{key}")]
        of_split = [name for name in candidates if name.endswith(f"/{image['split']}/{key}")]
        candidates = of_split or candidates
        if len(candidates) > 1:
            both = " and ".join(suffix[name] for name in candidates[:2])
            raise UserError(f"{where}: {both} are both named as the image {image['image_id']}; keep one")
        if candidates:
            found[image["image_id"]] = suffix[candidates[0]]
        else:
            missing.append(image)
    if missing:
        first = missing[0]
        raise UserError(
            f"{where}: no label map for {len(missing)} of {len(images)} images, the first {first['split']}/"
            f"{first['image_id']}; want a PNG of the same name, in train/ and test/ or in one folder"
        )
    return found, count - len(set(found.values()))


def read(data: bytes, label_set: str, height: int, width: int, where: str) -> np.ndarray:
    """The ids in a PNG, (height, width) uint8, in `label_set` (of SETS; a colour-coded one gives the ids it codes).

    8-bit grey values and palette indices are ids; the palette's colours do not matter, unless the set is colour-coded.
    Raises UserError if it is no such picture, of another size, or holds an id or a colour that the set does not have.
    """
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        if picture.size != (width, height):
            raise UserError(
                f"{where}: {picture.size[1]}x{picture.size[0]} (height x width), its image is {height}x{width};"
                " scale label maps by nearest neighbour"
            )
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{where}: not a readable PNG ({str(error).splitlines()[0]}); get it again") from None
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
        raise UserError(f"{where}: label {ids.max()}, {label_set} ends at {top}; name the set that it is in")
    return ids


def base(label_set: str) -> str:
    """The set of the ids that `read` gives: the set itself, or the one that a colour-coded set codes."""
    return labels.COLOUR_CODED[label_set][0] if label_set in labels.COLOUR_CODED else label_set
