"""One of one's own pictures, fitted to the size that is wanted: whatever its format, turn, colours or damage."""

import re
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from pipeline.formats import pictures

if TYPE_CHECKING:
    from PIL import Image

KEPT = ("JPEG", "PNG", "WEBP", "BMP")  # formats whose bytes may stay as they are
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")  # Pillow's of 8 bits or less
RAW = ("dng", "nef", "cr2", "cr3", "arw", "pef", "srw", "orf", "rw2", "raf", "raw")
HEAD = 64  # bytes that tell what a file is
COLOURS = 32  # a label map has at most so many, a photograph more
_ORIENTATION = 0x0112  # EXIF tag; 1 = upright
_SCAN_ENDS = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # in a JPEG: the first marker that is not part of picture data

Box = tuple[int, int, int, int]


def no_picture(head: bytes, name: str = "") -> str:
    """Why a file that begins with these bytes (HEAD, if it has them) is not read as a picture; "" if it is. `name`
    tells a camera's raw picture, in which there is a TIFF of a thumbnail.
    """
    ending = name.lower().rpartition(".")[2]
    if ending in RAW:
        return f"is {ending.upper()}, a camera's raw picture; convert it to JPEG or PNG"
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*")):
        return ""
    if (head[:2] == b"BM" and head[6:10] == bytes(4)) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return ""
    starts = {b"GIF8": "GIF", b"8BPS": "PSD", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL"}
    kind = next((kind for start, kind in starts.items() if head.startswith(start)), None)
    if head[4:8] == b"ftyp":
        kind = {b"avi": "AVIF", b"hei": "HEIC", b"hev": "HEIC", b"mif": "HEIC"}.get(head[8:11])  # else a film
    if kind:
        return f"is {kind}, which is not read here; convert it to JPEG or PNG"
    if not head.strip(b"\0"):
        return "is filled with zeros" if head else "is empty"
    return "is no picture"


def box(size: tuple[int, int], height: int, width: int, fit: str) -> Box:
    """Where a picture of `size` (H, W) comes to lie in one of height x width: top, left, height, width."""
    if fit == "squash":
        return 0, 0, height, width
    scale = min(width / size[1], height / size[0])
    inner = [max(1, round(side * scale)) for side in size]
    return (height - inner[0]) // 2, (width - inner[1]) // 2, *inner


def fitted(data: bytes, height: int, width: int, fit: str) -> tuple[bytes | None, str, Box | None]:
    """(an image's file as height x width, "", where the picture lies on it), or (None, why it cannot be used, None)."""
    from PIL import Image, ImageCms

    if reason := no_picture(data[:HEAD]) or pictures.refused(data):
        return None, reason, None
    try:
        with Image.open(BytesIO(data)) as image:
            reason = _fault(image, data)
            if reason:
                return None, reason, None
            picture, changed = _plain(image)
            kept = image.format in KEPT and not changed and image.size == (width, height)
    except ImageCms.PyCMSError:
        return None, "has a colour profile that does not fit it; save it again as sRGB", None
    except Exception as error:  # a damaged file can make Pillow raise anything
        return None, f"does not decode ({str(error).splitlines()[0] if str(error) else type(error).__name__})", None
    place = box(picture.size[::-1], height, width, fit)
    if kept:
        return data, "", place
    top, left, *inner = place
    pixels = np.asarray(picture.resize(inner[::-1], Image.Resampling.BICUBIC))
    bands = ((top, height - inner[0] - top), (left, width - inner[1] - left), (0, 0))
    buffer = BytesIO()
    Image.fromarray(np.pad(pixels, bands, "edge")).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue(), "", place


def _fault(image: "Image.Image", data: bytes) -> str:
    """Why an opened image cannot be used; "" if it can. Raises what Pillow raises for one that does not decode."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera's JPEG with a small or second view behind it
        return f"holds {frames} pictures; keep one"
    if image.mode not in MODES:
        return f"has pixels of kind {image.mode}, not 8 bits a channel"
    if image.format in ("JPEG", "MPO") and _cut_short(data):
        return "ends before its picture does: cut short, or filled up with zeros"
    image.load()
    pixels = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if (colours := pixels.getcolors(COLOURS)) is not None:
        return f"has {len(colours)} colours: a label map or a blank, not a photograph"
    return ""


def _plain(image: "Image.Image") -> tuple["Image.Image", bool]:
    """The image upright, opaque and in sRGB, as RGB; and whether its file is anything else."""
    from PIL import Image

    picture, turn = image, _turn(image)
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_90"}
    changed = turn in turns or image.mode not in ("RGB", "L") or image.has_transparency_data
    if turn in turns:
        picture = picture.transpose(Image.Transpose[turns[turn]])
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    profile = image.info.get("icc_profile")
    if profile and (converted := _in_srgb(picture, profile)) is not None:
        return converted, True
    return picture.convert("RGB"), changed


def _turn(image: "Image.Image") -> int:
    """Its EXIF tag of orientation, 1 to 8; 1, upright, where it has none, or EXIF data that cannot be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises many kinds; viewers, too, show such a picture as it is stored
        return 1


def upright_size(data: bytes) -> tuple[int, int]:
    """(H, W) of an image's file, turned as its EXIF tag says. For a file that `fitted` takes."""
    from PIL import Image

    with Image.open(BytesIO(data)) as image:
        return image.size if _turn(image) >= 5 else image.size[::-1]  # by a quarter


def _in_srgb(picture: "Image.Image", profile: bytes) -> "Image.Image | None":
    """The picture brought from its colour profile to sRGB; None if that is what it is in. Raises PyCMSError."""
    from PIL import ImageCms

    try:
        found = ImageCms.ImageCmsProfile(BytesIO(profile))
    except OSError as error:
        raise ImageCms.PyCMSError(error) from None
    if "srgb" in ImageCms.getProfileDescription(found).lower():
        return None
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(found.profile.xcolor_space.strip())
    if mode is None or (mode == "CMYK") != (picture.mode == "CMYK"):
        raise ImageCms.PyCMSError("a profile of another kind of picture")
    return ImageCms.profileToProfile(picture.convert(mode), found, ImageCms.createProfile("sRGB"), outputMode="RGB")


def _cut_short(data: bytes) -> bool:
    """Whether a JPEG has no end marker: it was cut, or filled up with zeros, and a decoder makes up the rest."""
    at = 2  # where a marker is expected
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] == 0xFF:  # filling between markers
            at += 1
            continue
        marker = data[at + 1]
        if marker == 0xD9:
            return False
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == 0xDA:  # picture data follow, of no stated length
            end = _SCAN_ENDS.search(data, at)
            at = len(data) if end is None else end.start()
    return data[at : at + 2] != b"\xff\xd9"
