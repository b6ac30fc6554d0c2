"""Score images that another program made for a data set's test pairs, as a row of their own in tables and report.

Reads   FOLDER (not its sub-folders), data/D/reference, and what else the stage score reads of a data set
Writes  reports/outside/D--NAME/{scores,pairs,samples}.parquet, as the stage score does for a variant, and
          files.csv     every file that was left out or scored with a reservation, and why
          method.json   name, pairs scored and missing, how files were named, the reference they were scored with

An image belongs to the test pair that its file name spells out. With FROM and TO for image ids, with or without .jpg,
and .png, .jpg, .jpeg, .bmp or .webp at the end, these names are known:
  FROM_TO   FROM___TO   FROM_2_TO   FROM_to_TO, and each of these with _vis at the end
  INDEX     the pair's position in the published list, such as 0, 17 or 00017
and your own by --pattern, such as "{from}-{to}_fake" or "pair{index}" (without the ending).
A picture of the target's height and three or five times its width is taken for a strip, source | target | generated or
source | pose | target | pose | generated, if its source and target panels show this pair's images. Nothing is guessed
and nothing is resized: a name that fits no pair or two, two files for one pair, a wrong size and what does not decode
are left out and listed. JPEGs are scored, listed and marked. If pairs are missing, the others are scored, the row says
how many, and FID and KID compare with the targets of those alone.

The tables include every folder in reports/outside/ on their next run; to drop a method, remove its folder.

  repose score --dataset synthetic --images FOLDER --name "My method"
"""

import argparse
import csv
import json
import re
import unicodedata
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.variants import COMPONENTS, VARIANTS
from pipeline.core import console, layout, params
from pipeline.core.atomic import atomic_directory
from pipeline.core.errors import UserError
from pipeline.loading.arrays import PairData
from pipeline.loading.devices import device
from pipeline.scoring import image_folder, judge, real, samples
from pipeline.scoring.checkpoint import Scored
from pipeline.scoring.pairs import open_split
from pipeline.scoring.protocol import open_protocol, summary
from pipeline.stages import score
from pipeline.tables import row

LONGEST = 120  # bytes of a name in a folder's: file systems allow 255, of which a temporary sibling needs some


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, help="a prepared data set, such as market1501")
    parser.add_argument("--images", required=True, type=Path, help="the folder of generated images")
    parser.add_argument("--name", required=True, help="what the method's row is called")
    parser.add_argument("--pattern", help='how files are called, without ending, such as "{from}-{to}_fake"')


def slug(name: str) -> str:
    """A method's name as part of a folder's: its letters and digits, of any script, in small. Raises UserError if none
    is left, too many are, or a row of ours is called so.
    """
    small = unicodedata.normalize("NFC", name.lower())  # as a file system may store it anyway
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else "_" for c in small)  # M: accents, vowel signs
    text = re.sub("_+", "_", "".join(kept)).strip("_")
    if not text:
        raise UserError(f"--name {name!r}: give the method a name with letters or digits")
    if len(text.encode()) > LONGEST:
        raise UserError(f"--name {name!r}: is too long for the name of a folder; shorten it")
    if name in {*VARIANTS, *COMPONENTS, *params.variants()}:
        raise UserError(f"--name {name!r}: a row of ours is called so; a paper's baseline is written as there: PATN")
    return text


def folder_of(dataset: str, name: str) -> Path:
    """Where a method's scores lie: in the folder that it has, or one made of its name. Raises UserError if another
    method has that.
    """
    folder = layout.outside(dataset, slug(name))
    for path in sorted(layout.OUTSIDE.glob(f"{dataset}--*/method.json")):
        try:
            other = json.loads(path.read_text(encoding="utf-8"))["name"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: damaged; remove its folder") from None
        if other == name:
            return path.parent
        if path.parent == folder:
            raise UserError(f"--name {name!r}: {folder} is that of {other!r}; call one of them otherwise")
    return folder


def run(dataset: str, images: Path, name: str, pattern: str | None = None) -> None:
    """Score the folder `images` and write reports/outside/. Raises UserError if not one pair of it can be scored."""
    if dataset not in params.datasets():
        raise UserError(f"unknown dataset {dataset}; {layout.PARAMS} names: {', '.join(params.datasets())}")
    block = params.block(score.Params, "score", dataset)
    where, folder = device(block.device), folder_of(dataset, name)
    protocol = open_protocol(dataset, where)
    whole = open_split(dataset, "test", where, protocol.reference)
    found, listed = image_folder.find(images, whole, pattern)
    missing = sorted(set(range(len(whole.data))) - set(found))
    _say(images, len(whole.data), found, missing, listed, whole.data)
    if len(found) < 2:
        raise UserError(
            f"{images}: {len(found)} of {len(whole.data)} test pairs found; name the files as "
            "`repose score --images . --help` says, or give --pattern"
        )

    split = whole
    if missing:  # FID, KID and the ceilings are those of the targets that are left
        split, made = whole.subset(sorted(found)), protocol.reference
        given = (made.described["metrics"], protocol.networks, protocol.detector.find, block.batch)
        measured = real.measure(split, *given)
        described = made.described | {"ceilings": made.described["ceilings"] | {"test": measured.ceilings}}
        made = replace(made, real={**made.real, **measured.statistics}, described=described)
        protocol = replace(protocol, reference=made)
    batches = image_folder.read_all(whole, found, block.batch)
    values, totals = judge.score_images(split, batches, protocol, block.bootstrap, block.seed)
    marks = (["pairs"] if missing else []) + (["jpeg"] if any(one.jpeg for one in found.values()) else [])
    why = samples.choose(split.data, values, block.samples) if block.samples else {}
    shown = {row: found[row] for row in np.array(sorted(found))[list(why)].tolist()}
    again = (image for _, some in image_folder.read_all(whole, shown, block.batch) for image in some)
    scored = Scored(
        judge.score_rows(totals, protocol.reference, "test", 0, name, marks, block.bootstrap),
        [judge.pair_rows(split, values, 0)],
        samples.rows(dataset, split.data, why, again, 0),
    )
    method = {
        "kind": "outside",
        "name": name,
        "dataset": dataset,
        "pairs": {"scored": len(found), "missing": len(missing)},
        "panels": sorted({one.panels for one in found.values()}),
        "jpeg": sum(one.jpeg for one in found.values()),
        "pattern": pattern,
        "images_sha256": image_folder.digest(found),
        "reference": summary(protocol.reference),
    }
    with atomic_directory(folder) as partial:
        scored.write(partial)
        _write_files(partial / "files.csv", listed, missing, whole.data)
        text = json.dumps(method, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (partial / "method.json").write_text(text, encoding="utf-8")
    for line in row.lines(folder / "scores.parquet"):
        console.say(line)
    console.say(f"{folder}: {len(found)} pairs scored; the next run of tables and report has the row")


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
        writer.writerows(("", "", "", console.readable(name), why) for name, why in listed)
        for row in missing:
            source, target = (data.ids[image] for image in data.pairs[row].tolist())
            writer.writerow((int(data.pair_index[row]), source, target, "", "missing"))
