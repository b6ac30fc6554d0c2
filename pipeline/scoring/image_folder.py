"""Which file of a folder is the generated image of which pair, and its pixels: images that another program made."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core import console, foreign, seals
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.formats.pair_names import MIDDLES, SEVERAL, names_of
from pipeline.scoring import numbering, strips
from pipeline.scoring.judged import Pairs

if TYPE_CHECKING:
    from pipeline.scoring.pairs import Split

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
SAME = 12.0  # grey levels: mean difference up to which a strip's panel shows a stored image (JPEG moves it by about 3)
COPY = 'the pair\'s source as it is: scored; if files are named target first, give --pattern "{to}_{from}"'
COPIED = 4.0  # up to which an image is the pair's source itself


@dataclass(frozen=True)
class Found:
    """One file that gives a pair's image; `panels`: 1, or those of a strip; `copied`: it shows the source as it is."""

    path: Path
    panels: int
    jpeg: bool
    copied: bool


def _stem(path: Path) -> str:
    return path.name[: -len(path.suffix)] if path.suffix else path.name


def match(
    files: Sequence[Path], names: Mapping[str, int], numbered: Mapping[Path, int] | None = None
) -> tuple[dict[int, Path], list[tuple[str, str]], list[Path]]:
    """The file of each pair, by its position; the files left out: (file name, why); and those whose names say nothing.

    numbered: files -> the positions that their numbers stand for.
    """
    claims: dict[int, list[Path]] = defaultdict(list)
    left, unknown = [], []
    for path in files:
        position = names.get(_stem(path), (numbered or {}).get(path))
        if path.suffix.lower() not in ENDINGS:
            left.append((path.name, "not an image file"))
        elif position is None:
            unknown.append(path)
        elif position == SEVERAL:
            left.append((path.name, "ambiguous: its name fits more than one pair; use --pattern"))
        else:
            claims[position].append(path)
    for paths in claims.values():
        if len(paths) > 1:
            left += [(path.name, f"one of {len(paths)} files for one pair") for path in paths]
    return {position: paths[0] for position, paths in claims.items() if len(paths) == 1}, left, unknown


@dataclass(frozen=True)
class Known:
    """What names may mean beside the scored pairs. listing: the whole list. ids: of all images, with the split of each.
    unscored: why a pair of the list is not scored, such as by which limit.
    """

    listing: numbering.Listing
    ids: Mapping[str, str]
    unscored: str


def reasons(scored: Sequence[tuple[str, str]], known: Known, pattern: str | None) -> Callable[[str], str]:
    """A function: a name (without ending) that is no scored pair's -> what it is instead."""
    whole = names_of(known.listing.pairs, pattern)
    turned = names_of([both[::-1] for both in scored], None)
    targets = {form for _, target in scored for form in (target, Path(target).stem)}
    ids = {form: split for name, split in known.ids.items() for form in (name, Path(name).stem)}

    def splits_of(name: str) -> set[str]:
        """Of the two images that it names; none if it does not."""
        name = name.removesuffix("_vis")
        places = ((found.start(), middle) for middle in MIDDLES for found in re.finditer(middle, name))
        both = ({ids.get(name[:start]), ids.get(name[start + len(middle) :])} for start, middle in places)
        return next((one for one in both if None not in one), set())

    def reason(name: str) -> str:
        if name in whole:
            return known.unscored
        if name in turned:
            return 'the target is named first; if it is, give --pattern "{to}_{from}"'
        if name in targets:
            return 'its name is a target alone; if every target is asked for once, give --pattern "{to}"'
        if splits := splits_of(name):
            return OF_TRAINING if "train" in splits else ANOTHER_LIST
        return "extra: its name is no scored pair's"

    return reason


BESIDE_NAMES = "a number, where most files are named by their pair"
OF_TRAINING = "names an image that is trained on: no test pair here"
ANOTHER_LIST = "names two images of the data set that are no test pair: it is of another pair list"


def read(
    path: Path, source: np.ndarray, target: np.ndarray, any_size: bool = False
) -> tuple[np.ndarray, int, bool] | str:
    """A file's generated image (H, W, 3) uint8 RGB, its number of panels, and whether it is a JPEG; or what is wrong.

    source, target: (H, W, 3) uint8 RGB, the stored images of the pair. any_size: the image may have another size.
    """
    if path.stat().st_size > foreign.PICTURE:
        return f"is larger than {foreign.PICTURE >> 20} MiB: no picture"
    data = path.read_bytes()
    picture, jpeg = pictures.exact(data), data.startswith(b"\xff\xd8\xff")
    if isinstance(picture, str):
        return picture
    height, width = target.shape[:2]
    if picture.shape[:2] == (height, width):
        return picture, 1, jpeg
    if cut := strips.cut(picture, height, width):
        panels = picture.shape[1] // width
        apart = [_apart(one, two) for one, two in zip(cut, (source, target), strict=False)]
        if max(apart) > SAME:
            return (
                f"a strip of {panels} panels that do not show this pair's source and target: {apart[0]:.0f} and "
                f"{apart[1]:.0f} grey levels apart, {SAME:.0f} at most"
            )
        return cut[2], panels, jpeg
    if any_size:
        return picture, 1, jpeg
    return f"wrong size: {picture.shape[0]} x {picture.shape[1]}, the targets are {height} x {width} (height x width)"


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference in grey levels."""
    return float(np.abs(one.astype(np.int16) - other).mean())


def _stored(pairs: Pairs, position: int) -> tuple[np.ndarray, np.ndarray]:
    source, target = pairs.images(pairs.rows[position])
    return source, target


def named(
    folder: Path, pairs: Pairs, known: Known, pattern: str | None = None, counted: str | None = None
) -> tuple[dict[int, Path], list[tuple[str, str]], str | None]:
    """Each pair's file by position, from the names alone; the files that are no pair's: (name, why); and how numbers in
    names were counted, None if there are none. counted: the way to count that the user names.

    Raises UserError if the folder is not there, and what `numbering.decide` raises.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder with the generated images as --images")
    ours = (seals.LIST, ".snakemake_timestamp")  # what lies beside images in an output of a stage
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in ours)
    scored = [(pairs.ids[source], pairs.ids[target]) for source, target in pairs.rows.tolist()]
    names = names_of(scored, pattern)
    way, places = numbered(files, names, known.listing, pattern, counted)
    matched, others, unknown = match(files, names, places)
    reason = reasons(scored, known, pattern) if unknown else None
    of_list = {path for path, position in places.items() if position is None}
    by_number = "{index}" if pattern is None else pattern

    def why(path: Path) -> str:
        if path in of_list:
            return known.unscored
        if numbering.number_of(_stem(path), by_number) is None:
            return reason(_stem(path))
        return f"no pair of the {len(known.listing.pairs)} has its number" if way else BESIDE_NAMES

    return matched, [*others, *((path.name, why(path)) for path in unknown)], way


def find(
    folder: Path, split: "Split", known: Known, pattern: str | None = None, counted: str | None = None
) -> tuple[dict[int, Found], list[tuple[str, str]], str | None]:
    """As `named`, every file read once to check it: also listed is what cannot be scored, or with a reservation."""
    matched, left, way = named(folder, split, known, pattern, counted)
    found, problems = check(split, matched)
    jpegs = [(one.path.name, "JPEG: scored, marked") for one in found.values() if one.jpeg]
    copies = [(one.path.name, COPY) for one in found.values() if one.copied]
    return found, sorted([*left, *((path.name, problem) for path, problem in problems), *jpegs, *copies]), way


def numbered(
    files: Sequence[Path], names: Mapping[str, int], listing: numbering.Listing, pattern: str | None, way: str | None
) -> tuple[str | None, dict[Path, int | None]]:
    """How the numbers count of files that are named by nothing else, and the position of each that has a place, None
    where its pair is not scored.
    """
    by_number: dict[int, list[Path]] = defaultdict(list)
    for path in files if pattern is None or "{index}" in pattern else ():
        number = numbering.number_of(_stem(path), pattern or "{index}")
        if path.suffix.lower() in ENDINGS and number is not None and _stem(path) not in names:
            by_number[number].append(path)
    if len(by_number) <= sum(_stem(path) in names for path in files):
        return None, {}  # none, or a few beside files that are named by their pair
    first = {number: paths[0] for number, paths in by_number.items()}
    if way is None:
        way, places = numbering.decide(first, listing, "--numbering")
    else:
        places = numbering.chosen(first, listing, way, "--numbering")
    positions = {
        path: listing.positions.get(places[number])
        for number, paths in by_number.items()
        for path in paths
        if number in places
    }
    return way, positions


def check(pairs: Pairs, matched: Mapping[int, Path]) -> tuple[dict[int, Found], list[tuple[Path, str]]]:
    """Read each pair's file once, by position -> those that can be scored, and what is wrong with the others."""
    found, problems = {}, []
    with console.progress("reading images", len(matched)) as advance:
        for position, path in sorted(matched.items()):
            source, target = _stored(pairs, position)
            result = read(path, source, target)
            if isinstance(result, str):
                problems.append((path, result))
            else:
                apart = [_apart(result[0], stored) for stored in (source, target)]
                found[position] = Found(path, *result[1:], apart[0] <= COPIED and apart[0] < apart[1])
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
