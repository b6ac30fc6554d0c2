"""Which file of a folder is the generated image of which pair, and its pixels: images that another program made."""

import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipeline.core import console
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.scoring.judged import Pairs

if TYPE_CHECKING:
    from pipeline.loading.arrays import PairData
    from pipeline.scoring.pairs import Split

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
PATTERNS = tuple(f"{{from}}{middle}{{to}}{end}" for middle in ("_", "___", "_2_", "_to_") for end in ("", "_vis"))
SEVERAL = -1  # a name's position if it stands for more than one pair
STRIPS = {3: (0, 1, 2), 5: (0, 2, 4)}  # panels -> which of them are source, target, generated
SAME = 12.0  # grey levels: mean difference up to which a strip's panel shows a stored image (JPEG moves it by about 3)


@dataclass(frozen=True)
class Found:
    """One file that gives a pair's image; `panels`: 1, or those of a strip."""

    path: Path
    panels: int
    jpeg: bool


def names_of(data: "PairData", pattern: str | None) -> dict[str, int]:
    """Every file name (without ending) that stands for a pair -> its position in `data.pairs`, or SEVERAL.

    Raises UserError for a pattern with other fields than {from} and {to}, or {index}.
    """
    fields = set(re.findall(r"{(\w*)}", pattern or ""))
    if pattern is not None and fields not in ({"from", "to"}, {"index"}):
        raise UserError(
            f'--pattern {pattern!r}: it needs {{from}} and {{to}}, or {{index}}, as in "{{from}}-{{to}}_fake"'
        )
    names: dict[str, int] = {}
    pairs, indices = data.pairs.tolist(), data.pair_index.tolist()
    for position, ((source, target), index) in enumerate(zip(pairs, indices, strict=True)):
        ends = [{data.ids[row], Path(data.ids[row]).stem} for row in (source, target)]
        for one, other in itertools.product(*ends):
            for form in (*PATTERNS, "{index}") if pattern is None else (pattern,):
                name = form.replace("{from}", one).replace("{to}", other).replace("{index}", str(index))
                names[name] = position if names.get(name, position) == position else SEVERAL
    return names


def _without_ending(name: str) -> str:
    stem = name[: -len(Path(name).suffix)]
    return str(int(stem)) if stem.isascii() and stem.isdigit() else stem


def match(files: Sequence[Path], names: dict[str, int]) -> tuple[dict[int, Path], list[tuple[str, str]]]:
    """The file of each pair, by its position, and the files left out: (file name, why)."""
    claims: dict[int, list[Path]] = defaultdict(list)
    left = []
    for path in files:
        position = names.get(_without_ending(path.name))
        if path.suffix.lower() not in ENDINGS:
            left.append((path.name, "not an image file"))
        elif position is None:
            left.append((path.name, "extra: its name is no scored pair's"))
        elif position == SEVERAL:
            left.append((path.name, "ambiguous: its name fits more than one pair; use --pattern"))
        else:
            claims[position].append(path)
    for paths in claims.values():
        if len(paths) > 1:
            left += [(path.name, f"one of {len(paths)} files for one pair") for path in paths]
    return {position: paths[0] for position, paths in claims.items() if len(paths) == 1}, left


def read(path: Path, source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, int, bool] | str:
    """A file's generated image (H, W, 3) uint8 RGB, its number of panels, and whether it is a JPEG; or what is wrong.

    source, target: (H, W, 3) uint8 RGB, the stored images of the pair.
    """
    content = np.fromfile(path, np.uint8)
    if reason := pictures.oversized(content):
        return reason
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(content, flags) if len(content) else None
    if picture is None:
        return "does not decode as a picture"
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        return f"not 8-bit RGB ({picture.dtype}, {1 if picture.ndim == 2 else picture.shape[2]} channels)"
    picture, jpeg = picture[..., ::-1], content[:3].tobytes() == b"\xff\xd8\xff"
    height, width = target.shape[:2]
    if picture.shape[:2] == (height, width):
        return picture, 1, jpeg
    for panels, (first, second, third) in STRIPS.items():
        if picture.shape[:2] == (height, panels * width):
            cut = [picture[:, place * width : (place + 1) * width] for place in (first, second, third)]
            apart = [np.abs(one.astype(np.int16) - two).mean() for one, two in zip(cut, (source, target), strict=False)]
            if max(apart) > SAME:
                return f"a strip of {panels} panels that do not show this pair's source and target"
            return cut[2], panels, jpeg
    return f"wrong size: {picture.shape[0]} x {picture.shape[1]}, the targets are {height} x {width} (height x width)"


def _stored(pairs: Pairs, position: int) -> tuple[np.ndarray, np.ndarray]:
    source, target = pairs.images(pairs.rows[position])
    return source, target


def find(folder: Path, split: "Split", pattern: str | None) -> tuple[dict[int, Found], list[tuple[str, str]]]:
    """Each pair's file by position, read once to check it, and the files left out or scored with a reservation: (name,
    why).

    Raises UserError if the folder is not there.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder with the generated images as --images")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    matched, left = match(files, names_of(split.data, pattern))
    found, problems = check(split, matched)
    jpegs = [(one.path.name, "JPEG: scored, marked") for one in found.values() if one.jpeg]
    return found, sorted([*left, *((path.name, why) for path, why in problems), *jpegs])


def check(pairs: Pairs, matched: Mapping[int, Path]) -> tuple[dict[int, Found], list[tuple[Path, str]]]:
    """Read each pair's file once, by position -> those that can be scored, and what is wrong with the others."""
    found, problems = {}, []
    with console.progress("reading images", len(matched)) as advance:
        for position, path in sorted(matched.items()):
            result = read(path, *_stored(pairs, position))
            if isinstance(result, str):
                problems.append((path, result))
            else:
                found[position] = Found(path, *result[1:])
            advance()
    return found, problems


def read_all(pairs: Pairs, found: Mapping[int, Found], batch: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Pair ids and images (n, H, W, 3) uint8 RGB, `batch` at a time."""
    positions, ids = sorted(found), pairs.pair_ids
    for start in range(0, len(positions), batch):
        rows = positions[start : start + batch]
        pictures = [read(found[row].path, *_stored(pairs, row))[0] for row in rows]
        yield [ids[row] for row in rows], np.stack(pictures)


def digest(found: Mapping[int, Found]) -> str:
    """SHA-256 over the files and their names, in the order of the pairs."""
    lines = "".join(f"{sha256(found[row].path)}  {found[row].path.name}\n" for row in sorted(found))
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()
