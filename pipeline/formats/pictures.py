"""Encoded pictures and label maps: decoded, encoded, and read from the shards.

A picture in memory is (H, W, 3) uint8 RGB everywhere: OpenCV's BGR does not leave this module.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from warnings import catch_warnings

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.anatomy import labels
from pipeline.core import store
from pipeline.core.errors import UserError, is_shortage

# Why a picture is not read is for a line of ours to say, which names the file.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
MAX_PIXELS = 128 << 20  # of a picture; a file of a few kilobytes can claim any number
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000")


def refused(data: bytes) -> str:
    """Why a picture of the user's is not decoded, by its header, which takes no memory: it is too large, or in none of
    FORMATS. "" if it may be decoded.
    """
    from PIL import Image

    with catch_warnings(action="ignore"):
        try:
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
        except Image.DecompressionBombError:
            return f"has more than {MAX_PIXELS >> 20} million pixels"
        except Exception as error:  # a damaged file can make Pillow raise anything
            if is_shortage(error):
                raise
            return "does not decode as a picture"
    if width * height > MAX_PIXELS:
        return f"has {width * height / 1e6:.0f} million pixels ({height} x {width}), more than {MAX_PIXELS >> 20}"
    return ""


def decode(data: bytes, kind: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB, or OpenCV's other kinds; None if `data` is no whole picture. EXIF turns are ignored: joints
    belong to the stored pixels. Raises MemoryError, of which OpenCV makes no picture.
    """
    picture = None
    with suppress(cv2.error):  # no bytes at all, or dimensions beyond reason
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), kind | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None and not refused(data):
        with suppress(OSError, SyntaxError, ValueError), catch_warnings(action="ignore"):
            from PIL import Image

            with Image.open(BytesIO(data)) as image:
                np.empty((image.height, image.width, 12), np.uint8)  # what decoding it may take
    return picture


def exact(data: bytes) -> np.ndarray | str:
    """As `decode`, of a picture that is stored as 8-bit RGB; of any other, and of what is none, why it is not."""
    if reason := refused(data):
        return reason
    picture = decode(data, cv2.IMREAD_UNCHANGED)
    if picture is None:
        return "does not decode as a picture"
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        return f"not 8-bit RGB ({picture.dtype}, {1 if picture.ndim == 2 else picture.shape[2]} channels)"
    return picture[..., ::-1]


def decode_foreign(data: bytes) -> np.ndarray | None:
    """`decode` of what others made: None also for what is `refused`."""
    return None if refused(data) else decode(data)


def decode_given(data: bytes, where: object) -> np.ndarray:
    """A picture of the user's, as `decode` gives it. Raises UserError, which begins with `where`."""
    reason = refused(data)
    picture = None if reason else decode(data)
    if picture is None:
        raise UserError(f"{where}: {reason or 'does not decode as a picture'}; replace it, or take it out")
    return picture


def decode_stored(data: bytes, image_id: str) -> np.ndarray:
    """A picture that is in the shards, as `decode` gives it. Raises UserError."""
    picture = decode(data)
    if picture is None:
        raise UserError(f"image {image_id} does not decode though `index` took it; delete its shards and run again")
    return picture


def decode_labels(
    data: bytes,
    what: str,
    size: tuple[int, int] | None = None,
    remedy: str = "run parsing again",
    label_set: str = "lip-20",
) -> np.ndarray:
    """(H, W) uint8 ids of `label_set`. Raises UserError, naming `what`, if `data` holds anything else or not `size`."""
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if found is None or found.dtype != np.uint8 or found.ndim != 2 or (size is not None and found.shape != size):
        wanted = f" of {size[0]} x {size[1]}" if size else ""
        raise UserError(f"{what} is no 8-bit label map{wanted}; {remedy}")
    last = len(labels.NAMES[label_set]) - 1
    if found.max() > last:
        raise UserError(f"{what} holds label {found.max()}, {label_set.upper()} ends at {last}; {remedy}")
    return found


def label_decoder(folder: Path, wanted: str) -> Callable[..., np.ndarray]:
    """For the label maps in the shards `folder`: a function (PNG, what it is, perhaps its size (H, W)) -> (H, W) uint8
    ids of `wanted`, one of `labels.STORED`. It raises UserError as `decode_labels` does. Shards that do not say their
    set hold LIP-20.
    """
    stored = (pq.read_schema(store.parts(folder)[0]).metadata or {}).get(b"label_set", b"lip-20").decode()
    table = labels.exchange(stored, wanted)

    def label_map(data: bytes, what: str, size: tuple[int, int] | None = None) -> np.ndarray:
        found = decode_labels(data, what, size, label_set=stored)
        return found if stored == wanted else labels.relabel(found, table)

    return label_map


def _encode(suffix: str, picture: np.ndarray, *settings: int) -> bytes:
    return cv2.imencode(suffix, picture[:, :, ::-1] if picture.ndim == 3 else picture, settings)[1].tobytes()


def encode_png(picture: np.ndarray) -> bytes:
    """PNG of a picture, or of (H, W) uint8: equal arrays give equal bytes."""
    return _encode(".png", picture)


def encode_labels(label_map: np.ndarray) -> bytes:
    """PNG of a label map (H, W) uint8. Runs suit labels: within 17 % of the smallest size that zlib reaches, in a tenth
    of its time.
    """
    return _encode(".png", label_map, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)


def encode_webp(picture: np.ndarray) -> bytes:
    """Lossless WebP of a picture: two thirds of a PNG, and every browser shows it."""
    return _encode(".webp", picture, cv2.IMWRITE_WEBP_QUALITY, 101)


def bicubic(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture resized by Pillow's bicubic filter, a = -1/2, which widens as the picture shrinks: antialiased.
    torchvision's, too.
    """
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def encoded(folder: Path, wanted: pa.Array, column: str = "image") -> Iterator[tuple[list[str], list[bytes]]]:
    """Ids and bytes of the rows of a shard folder in `wanted` (ids), in stored order, at most a row group at a time.

    column: the picture, `image` or `parsing`. Shards are sorted by id, so the footers tell which row groups can hold a
    wanted one; no other is read.
    """
    if not len(wanted):
        return
    ends = pc.min_max(wanted).as_py()
    for path in store.parts(folder):
        with store.opened(path) as file:
            for group in range(file.num_row_groups):
                held = file.metadata.row_group(group).column(0).statistics  # of image_id
                if held.max < ends["min"] or held.min > ends["max"]:
                    continue
                table = file.read_row_group(group, columns=["image_id"])
                here = pc.is_in(table["image_id"], wanted)
                if pc.any(here).as_py():
                    data = file.read_row_group(group, columns=[column]).filter(here)[column]
                    yield table["image_id"].filter(here).to_pylist(), pc.struct_field(data, "bytes").to_pylist()


def read(images: Path, wanted: list[str]) -> list[np.ndarray]:
    """The images `wanted` (ids, sorted), decoded, in that order. Raises UserError if one is missing."""
    found = {}
    for names, data in encoded(images, pa.array(wanted, pa.string())):
        found |= {name: decode_stored(one, name) for name, one in zip(names, data, strict=True)}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(f"{images}: no image {missing[0]}; run index again")
    return [found[name] for name in wanted]
