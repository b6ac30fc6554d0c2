"""Score images that another program made for a data set's test pairs, as a row of their own in tables and report.

Reads   FOLDER (not its sub-folders), data/D/reference, and what else the stage score reads of a data set
Writes  reports/outside/D--NAME/{scores,pairs,samples}.parquet, as the stage score does for a variant, and
          files.csv     every file that was not scored, or not without reservation, and why
          method.json   name, pairs scored and missing, how files were named, the reference they were scored with

An image belongs to the test pair that its file name spells out. Known names, FROM and TO being image ids with or
without .jpg, and .png, .jpg, .jpeg, .bmp or .webp at the end:
  FROM_TO   FROM___TO   FROM_2_TO   FROM_to_TO, and each of these with _vis at the end
  INDEX     the pair's position in the published list, such as 0, 17 or 00017
and your own by --pattern, such as "{from}-{to}_fake" or "pair{index}" (without the ending).
A picture of the target's height and three or five times its width is taken for a strip, source | target | generated or
source | pose | target | pose | generated, if its source and target panels show this pair's images. Nothing is guessed
and nothing is resized: a name that fits no pair or two, two files for one pair, a wrong size and what does not decode
are left out and listed. JPEGs are scored, listed and marked. If pairs are missing, the others are scored, the row says
how many, and FID and KID compare with the targets of those alone.

The tables take up every folder in reports/outside/ on their next run; to drop a method, remove its folder.

  python -m pipeline score --dataset synthetic --images FOLDER --name "My method"
"""

import argparse
import csv
import hashlib
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from models.variants import VARIANTS
from pipeline.core import console, layout, params, schema, store
from pipeline.core.atomic import atomic_directory
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.loading.arrays import PairData
from pipeline.loading.devices import device
from pipeline.stages import reference, score
from pipeline.stages.reference import images_of

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
PATTERNS = tuple(f"{{from}}{middle}{{to}}{end}" for middle in ("_", "___", "_2_", "_to_") for end in ("", "_vis"))
SEVERAL = -1
STRIPS = {3: (0, 1, 2), 5: (0, 2, 4)}  # panels -> which of them are source, target, generated
SAME = 12.0  # grey levels: mean difference up to which a strip's panel shows a stored image (JPEG moves it by about 3)


@dataclass(frozen=True)
class Found:
    """One file that gives a pair's image. `panels`: 1, or of a strip."""

    path: Path
    panels: int
    jpeg: bool


def slug(name: str) -> str:
    """A method's name as part of a folder's. Raises UserError if nothing is left or a variant is called so."""
    text = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not text or params.variant_of(name) in VARIANTS or text in VARIANTS:
        raise UserError(f"--name {name!r}: give the method a name with letters or digits that no variant has")
    return text


def names_of(data: PairData, pattern: str | None) -> dict[str, int]:
    """Every file name (without ending) that stands for a pair -> its position in `data.pairs`, SEVERAL for a name that
    stands for more than one.

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
    """Files -> position of a pair -> its file, and what was left out: (file name, why)."""
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
    """A file's generated image (H, W, 3) uint8 RGB, its number of panels, whether it is a JPEG; or what is wrong.

    source, target: (H, W, 3) uint8 RGB, the stored images of the pair.
    """
    content = np.fromfile(path, np.uint8)
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


def _stored(data: PairData, position: int) -> tuple[np.ndarray, np.ndarray]:
    source, target = images_of(data, data.pairs[position])
    return source, target


def find(folder: Path, data: PairData, pattern: str | None) -> tuple[dict[int, Found], list[tuple[str, str]]]:
    """Every pair's file by position, each read once, and the files left out or scored with a reservation: (name, why).

    Raises UserError if the folder is not there.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder with the generated images as --images")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    matched, listed = match(files, names_of(data, pattern))
    found = {}
    with console.progress("reading images", len(matched)) as advance:
        for position, path in sorted(matched.items()):
            result = read(path, *_stored(data, position))
            if isinstance(result, str):
                listed.append((path.name, result))
            else:
                found[position] = Found(path, *result[1:])
                if result[2]:
                    listed.append((path.name, "JPEG: scored, marked"))
            advance()
    return found, sorted(listed)


def generated(data: PairData, found: dict[int, Found], batch: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Pair ids and images (n, H, W, 3) uint8 RGB, `batch` at a time."""
    positions = sorted(found)
    for start in range(0, len(positions), batch):
        rows = positions[start : start + batch]
        pictures = [read(found[row].path, *_stored(data, row))[0] for row in rows]
        yield data.pair_index[rows].tolist(), np.stack(pictures)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, help=f"one of: {', '.join(params.datasets())}")
    parser.add_argument("--images", required=True, type=Path, help="the folder of generated images")
    parser.add_argument("--name", required=True, help="what the method's row is called")
    parser.add_argument("--pattern", help='how files are called, without ending, such as "{from}-{to}_fake"')


def _digest(found: dict[int, Found]) -> str:
    lines = "".join(f"{sha256(found[row].path)}  {found[row].path.name}\n" for row in sorted(found))
    return hashlib.sha256(lines.encode()).hexdigest()


def run(dataset: str, images: Path, name: str, pattern: str | None = None) -> None:
    """Score the folder `images` and write reports/outside/. Raises UserError if not one pair of it can be scored."""
    if dataset not in params.datasets():
        raise UserError(f"unknown dataset {dataset}; {layout.PARAMS} names: {', '.join(params.datasets())}")
    block = params.block(score.Params, "score", dataset)
    where, folder = device(block.device), layout.outside(dataset, slug(name))
    protocol = score.open_protocol(dataset, where)
    whole = score.open_split(dataset, "test", where, protocol.reference)
    found, listed = find(images, whole.data, pattern)
    missing = sorted(set(range(len(whole.data))) - set(found))
    _say(images, len(whole.data), found, missing, listed, whole.data)
    if len(found) < 2:
        raise UserError(
            f"{images}: {len(found)} of {len(whole.data)} test pairs found; name the files as "
            "`python -m pipeline score --images . --help` says, or give --pattern"
        )

    split, real, described = whole, dict(protocol.reference.real), protocol.reference.described
    if missing:
        split = replace(whole, data=score.subset(whole.data, sorted(found)))
        arguments = (described["metrics"], protocol.networks, protocol.detector.find, whole.labels, block.batch)
        measured = reference.measure(split.data, "test", *arguments)
        real |= measured.real
        described = described | {"ceilings": described["ceilings"] | {"test": measured.ceilings}}
    protocol = replace(protocol, reference=replace(protocol.reference, real=real, described=described))
    batches = generated(whole.data, found, block.batch)
    values, totals = score.score_images(split, batches, protocol, block.bootstrap, block.seed)
    marks = (["pairs"] if missing else []) + (["jpeg"] if any(one.jpeg for one in found.values()) else [])
    rows = score.score_rows(totals, protocol, "test", 0, name, marks)
    rows = [row | {"marks": list(dict.fromkeys(row["marks"]))} for row in rows]
    pairs = score.pair_rows(split, values, 0)
    method = {
        "kind": "outside",
        "name": name,
        "dataset": dataset,
        "pairs": {"scored": len(found), "missing": len(missing)},
        "panels": sorted({one.panels for one in found.values()}),
        "jpeg": sum(one.jpeg for one in found.values()),
        "pattern": pattern,
        "images_sha256": _digest(found),
        "reference_sha256": protocol.reference.digest,
    }
    with atomic_directory(folder) as partial:
        store.write_table(partial / "scores.parquet", rows, schema.SCORES)
        store.write_table(partial / "pairs.parquet", pairs, pairs.schema.remove_metadata())
        why = score.shown(split.data, values, block.samples) if block.samples else {}
        rows_shown = np.array(sorted(found))[list(why)].tolist()
        again = generated(whole.data, {row: found[row] for row in rows_shown}, block.batch)
        samples = score.sample_rows(dataset, split.data, why, (image for _, some in again for image in some), 0)
        store.write_table(partial / "samples.parquet", samples, schema.SAMPLES)
        _write_files(partial / "files.csv", listed, missing, whole.data)
        text = json.dumps(method, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (partial / "method.json").write_text(text, encoding="utf-8")
    console.say(f"{folder}: {len(found)} pairs scored; run the tables and the report again to see the row")


def _say(folder: Path, total: int, found: dict, missing: list[int], listed: list, data: PairData) -> None:
    console.say(f"{folder}: {len(found)} of {total} test pairs found")
    if missing:
        first = [data.ids[row] for row in data.pairs[missing[0]].tolist()]
        console.say(f"  missing: {len(missing)} pairs, the first {first[0]} -> {first[1]}; the others are scored")
    by_reason = defaultdict(list)
    for name, why in listed:
        by_reason[why].append(name)
    for why, names in by_reason.items():
        console.say(f"  {why}: {len(names)} files, the first {names[0]}")


def _write_files(path: Path, listed: list[tuple[str, str]], missing: list[int], data: PairData) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("pair_index", "source_id", "target_id", "file", "what"))
        writer.writerows(("", "", "", name, why) for name, why in listed)
        for row in missing:
            source, target = (data.ids[image] for image in data.pairs[row].tolist())
            writer.writerow((int(data.pair_index[row]), source, target, "", "missing"))
