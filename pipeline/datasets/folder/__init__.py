"""Your own images: a folder with one sub-folder per person, or any folder with a CSV that says who is on which image.

An image's id is `PERSON__REST`: its path below the folder with `/` written `__`, with the CSV's identity in front where
a CSV names people. The id alone thus says who an image shows.

An 8-bit JPEG, PNG, WebP or BMP of the wanted size goes in as it is. Any other image is decoded, turned as its EXIF tag
says, put on white where it is transparent, and fitted: `pad` scales it to fit and repeats its border pixels over the
rest, `squash` scales each side on its own (Pillow's bicubic filter); it is stored as PNG, without loss. What cannot be
used is left out and listed, with its reason, in data/folder/raw/source.json.

People are put in the test split by the SHA-256 of their names: the first `test_share` of those with two images or more
(at least one of them, not all), unless the CSV has a column `split`. Joints are found by a detector, or
are yours: keypoints.folder.path. Repose does not watch the folder: after a change in it run fetch again (`snakemake
--forcerun fetch`, `dvc repro --force fetch@folder`).
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.core import console, environment, layout
from pipeline.core.errors import UserError
from pipeline.core.settings import SHARE, setting
from pipeline.datasets import SPLITS, About
from pipeline.formats import archive

JUNK = ()  # every image is wanted
ABOUT = About(
    "The user's own photographs, fitted to one size.",
    gaps=("What the photographs show, and whose they are, only those know who brought them.",),
)
READABLE = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
UNREADABLE = (".heic", ".heif", ".avif", ".gif", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raw")
KEPT = ("JPEG", "PNG", "WEBP", "BMP")  # formats whose bytes may stay as they are
_ORIENTATION = 0x0112  # EXIF tag; 1 = upright


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Block `fetch.folder`."""

    path: str | None = setting("the folder of your images", minLength=1)
    identity: Literal["subfolder", "csv"] = setting("who is who: a sub-folder a person, or a list", "subfolder")
    csv: str | None = setting(
        "the list: header name,identity or name,identity,split; name = path below the folder", None, minLength=1
    )
    test_share: float = setting("share of the people that is kept for testing, where the list has no split", **SHARE)
    height: int = setting("that the images are fitted to, in pixels", minimum=64, maximum=512, multipleOf=32)
    width: int = setting("likewise", minimum=32, maximum=512, multipleOf=32)
    fit: Literal["pad", "squash"] = setting("with a margin, or squeezed", "pad")


def person_id(name: str) -> str:
    """`anna__beach__1.jpg` -> `anna`."""
    return name.partition("__")[0]


def fetch(block: Fetch, raw: Path) -> dict:
    """Fit the images into `raw`; return what goes into `source.json`.

    Raises UserError: no folder, nobody in it, a broken CSV, names of people or files that make no id.
    """
    if block.path is None:
        raise UserError(f"folder: say where your images are: fetch.folder.path in {layout.PARAMS}")
    root = environment.path(block.path)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; correct fetch.folder.path in {layout.PARAMS}")
    left_out: dict[str, str] = {}  # path below the folder -> reason
    with archive.reading(root) as content:
        pictures = _pictures(content.names, left_out)
        if block.identity == "csv":
            owners, given = _from_csv(block, pictures, left_out)
        else:
            owners, given = _from_subfolders(pictures, left_out), {}
        files = _ids(owners, prefix=block.identity == "csv")  # image id -> path
        if not files:
            hint = "a sub-folder a person?" if block.identity == "subfolder" else "fetch.folder.csv names none of them"
            raise UserError(f"{root}: no image of anybody: {hint} ({len(left_out)} files left out)")
        splits = _splits(Counter(person_id(image_id) for image_id in files), given, block.test_share)
        counts = _repack(content, files, splits, block, raw / "images.zip", left_out)
    if left_out:
        shown = "; ".join(f"{name} {reason}" for name, reason in sorted(left_out.items())[:3])
        more = "; ..." if len(left_out) > 3 else ""
        console.say(f"folder: {len(left_out)} files left out: {shown}{more}")
    single = sum(number == 1 for people in counts.values() for number in people.values())
    if single:
        console.say(f"folder: {single} people have a single image: no pairs of them")
    return {
        "dataset": "own images",
        "terms": "yours to know",
        "height": block.height,
        "width": block.width,
        "fit": block.fit,
        "images": {split: {"count": sum(people.values()), "people": len(people)} for split, people in counts.items()},
        "people_with_one_image": single,
        "left_out": left_out,
    }


def _pictures(names: list[str], left_out: dict[str, str]) -> list[str]:
    """The image files, sorted. Hidden files and files that are no images are ignored."""
    pictures = []
    for name in sorted(names):
        suffix = Path(name).suffix.lower()
        if any(part.startswith((".", "__MACOSX")) for part in name.split("/")):
            continue
        if suffix in UNREADABLE:
            left_out[name] = f"is {suffix[1:].upper()}, which is not read here; convert it to JPEG or PNG"
        elif suffix in READABLE:
            pictures.append(name)
    return pictures


def _from_subfolders(pictures: list[str], left_out: dict[str, str]) -> dict[str, str]:
    """Path -> person: the first folder on the way to it."""
    owners = {}
    for name in pictures:
        person, slash, _ = name.partition("/")
        if slash:
            owners[name] = person
        else:
            left_out[name] = "is in no sub-folder: whose is it?"
    return owners


def _from_csv(block: Fetch, pictures: list[str], left_out: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Path -> person, and person -> split if the CSV has that column. Raises UserError, naming the line."""
    if block.csv is None:
        raise UserError(f"folder: identity is csv, but fetch.folder.csv in {layout.PARAMS} names no file")
    path = environment.path(block.csv)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); correct fetch.folder.csv") from None
    rows = csv.reader(lines)
    header = next(rows, [])
    if header not in (["name", "identity"], ["name", "identity", "split"]):
        raise UserError(f"{path}: line 1 is {','.join(header)!r}, not the header name,identity or name,identity,split")
    known = set(pictures) | set(left_out)
    owners: dict[str, str] = {}
    given: dict[str, str] = {}
    for row in rows:
        if not row:
            continue
        where = f"{path}: line {rows.line_num}"
        if len(row) != len(header) or not all(row):
            raise UserError(f"{where} has not the columns {','.join(header)}; correct it")
        name, person = row[0].removeprefix("./"), row[1]
        if name not in known:
            raise UserError(f"{where}: no image {name} in {block.path}; correct the name or remove the line")
        if owners.setdefault(name, person) != person:
            raise UserError(f"{where}: {name} is {owners[name]} in a line before, {person} here")
        if len(row) == 3 and (row[2] not in SPLITS or given.setdefault(person, row[2]) != row[2]):
            raise UserError(
                f"{where}: a person's split is train or test, the same in every line; {person} has {row[2]}"
            )
    left_out |= {name: "is not in the CSV" for name in pictures if name not in owners}
    return {name: person for name, person in owners.items() if name not in left_out}, given


def _ids(owners: Mapping[str, str], prefix: bool) -> dict[str, str]:
    """Image id -> path. Raises UserError for a name that makes no id, and for two that make the same."""
    files: dict[str, str] = {}
    for path, person in owners.items():
        image_id = path.replace("/", "__")
        if prefix:
            image_id = f"{person}__{image_id}"
        if person_id(image_id) != person:
            raise UserError(f"folder: rename the person {person!r}: no '__' in it, no '_' at its end")
        if not image_id.isprintable() or set(image_id) & set('/\\,"'):
            raise UserError(
                f"folder: rename {path!r}: no comma, quote, slash or unprintable character in people and files"
            )
        if image_id in files:
            raise UserError(f"folder: {files[image_id]} and {path} both make the id {image_id}; rename one")
        files[image_id] = path
    return files


def _splits(images: Counter, given: Mapping[str, str], share: float) -> dict[str, str]:
    """Person -> split. Raises UserError where one of the splits has nobody."""
    if given:
        splits = dict(given)
    else:
        able = [person for person, number in images.items() if number > 1]
        ranked = sorted(able, key=lambda person: hashlib.sha256(person.encode()).digest())
        test = set(ranked[: max(1, min(round(share * len(ranked)), len(ranked) - 1))])
        splits = {person: "test" if person in test else "train" for person in images}
    lacking = [split for split in SPLITS if split not in {splits[person] for person in images}]
    if lacking:
        raise UserError(
            f"folder: {len(images)} people with {images.total()} images give nobody for the {lacking[0]} split; three"
            " people with two images or more are the least: to train on, to choose by, to test on"
        )
    return splits


def _repack(content, files: dict[str, str], splits: Mapping[str, str], block: Fetch, target: Path, left_out: dict):
    """Write the images in sorted order to the zip `target`; return {split: {person: images}}."""
    splits = {image_id: splits[person_id(image_id)] for image_id in files}
    ordered = sorted(files, key=lambda image_id: f"{splits[image_id]}/{image_id}".encode())
    counts: dict[str, Counter] = {split: Counter() for split in SPLITS}

    def images(advance) -> Iterator[tuple[str, bytes]]:
        paths = [files[image_id] for image_id in ordered]
        converted = archive.converted(content, paths, lambda d: fitted(d, block.height, block.width, block.fit))
        for image_id, (_, (data, reason)) in zip(ordered, converted, strict=True):
            if data is None:
                left_out[files[image_id]] = reason
            else:
                counts[splits[image_id]][person_id(image_id)] += 1
                yield f"{splits[image_id]}/{image_id}", data
            advance()

    with console.progress("images", len(ordered)) as advance:
        archive.write(target, images(advance))
    return counts


def box(size: tuple[int, int], height: int, width: int, fit: str) -> tuple[int, int, int, int]:
    """Where a picture of `size` (H, W) comes to lie in one of height x width: top, left, height, width."""
    if fit == "squash":
        return 0, 0, height, width
    scale = min(width / size[1], height / size[0])
    inner = [max(1, round(side * scale)) for side in size]
    return (height - inner[0]) // 2, (width - inner[1]) // 2, *inner


def upright_size(data: bytes) -> tuple[int, int]:
    """(H, W) of an image's file, turned as its EXIF tag says. For a file that `fitted` takes."""
    from PIL import Image

    with Image.open(BytesIO(data)) as image:
        turned = image.getexif().get(_ORIENTATION, 1) >= 5  # by a quarter
        return image.size if turned else image.size[::-1]


def fitted(data: bytes, height: int, width: int, fit: str) -> tuple[bytes | None, str]:
    """(an image's file as height x width, ""), or (None, why it cannot be used)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            upright = image.getexif().get(_ORIENTATION, 1) == 1
            plain = image.mode in ("RGB", "L") and "transparency" not in image.info
            if image.format in KEPT and upright and plain and image.size == (width, height):
                return data, ""
            if image.mode == "F" or image.mode.startswith("I"):
                return None, f"has pixels of kind {image.mode}, not 8 bits a channel"
            picture = ImageOps.exif_transpose(image)
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None, "does not decode"
    top, left, *inner = box(picture.size[::-1], height, width, fit)
    pixels = np.asarray(picture.resize(inner[::-1], Image.Resampling.BICUBIC))
    bands = ((top, height - inner[0] - top), (left, width - inner[1] - left), (0, 0))
    picture = Image.fromarray(np.pad(pixels, bands, "edge"))
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue(), ""
