"""Score images that another program made for a data set's test pairs, as a row of their own in tables and report.

Reads   FOLDER (not its sub-folders), data/D/reference, and what else the stage score reads of a data set
Writes  reports/outside/D--NAME/{scores,pairs,samples}.parquet, as the stage score does for a variant, and
          files.csv     every file that was left out or scored with a reservation, and why
          method.json   name, pairs scored and missing, how files were named, the reference they were scored with; with
                        --method its commit, licence, weights and what it saw
          as-RECIPE.json  with --as: what another method's code makes of these images, in no table

An image belongs to the test pair that its file name spells out. With FROM and TO for image ids, with or without .jpg,
and .png, .jpg, .jpeg, .bmp or .webp at the end, these names are known:
  FROM_TO   FROM___TO   FROM_2_TO   FROM_to_TO, and each of these with _vis at the end (PATN and ADGAN: ___, PISE: _,
            GFLA, NTED, PIDM, PoCoLD and MCLD: _2_, PCDMs: _to_)
  NUMBER    the pair's place in the list of test pairs, such as 0, 17 or 00017
and your own by --pattern, such as "{from}-{to}_fake", "pair{index}", however it is padded, or "{to}" where every target
is asked for once (without the ending).

A number does not say whether it counts from 0 or 1, nor in which order: a sample of the images is held against the
pairs that each way of counting gives it. What the pictures say plainly is done and said; where they contradict the
numbers, or do not tell, the command stops and names what to give as --numbering: a way to count, such as from-1, or
a CSV of from,to, the list that your program read.

A picture of the target's height and three or five times its width is taken for a strip, source | target | generated or
source | pose | target | pose | generated, if its source and target panels show this pair's images; one of 10 or 11
widths for a row as PIDM and PCDMs publish them: pose | source | target, earlier methods, the method's own. Nothing is
guessed and nothing is resized: a name that fits no pair or two, two files for one pair, a wrong size and what does not
decode are left out and listed. JPEGs are scored, listed and marked. If pairs are missing, the others are scored, the
row says how many, and FID and KID compare with the targets of those alone.

--method scores what a method of methods/ drew (runs/D/METHOD/images, docs/methods.md), under its title; the engines do
so for every one that params.yaml names.

The tables include every folder in reports/outside/ on their next run; to drop a method, remove its folder.

--as prints, and keeps beside the scores, what the released code of another method would make of the same images, and
what each of its steps does (docs/protocols.md); images of another size: repose compare.

  repose score --dataset synthetic --images FOLDER --name "My method"
"""

import argparse
import csv
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.variants import COMPONENTS, VARIANTS
from pipeline import datasets
from pipeline.commands.compare import add_recipes
from pipeline.core import console, foreign, layout, params, seals, store
from pipeline.core.atomic import atomic_directory
from pipeline.core.errors import UserError
from pipeline.formats import annotations, pictures
from pipeline.loading.arrays import PairData
from pipeline.loading.devices import device
from pipeline.methods import manifest
from pipeline.scoring import image_folder, judge, real, samples
from pipeline.scoring.checkpoint import Scored
from pipeline.scoring.image_folder import Known
from pipeline.scoring.numbering import Listing, in_words
from pipeline.scoring.pairs import Split, open_split
from pipeline.scoring.protocol import open_protocol, summary
from pipeline.scoring.recipes import ByRecipe, check_asked, score_by, with_draws
from pipeline.stages import score
from pipeline.tables import row

LONGEST = 120  # bytes of a name in a folder's: file systems allow 255, of which a temporary sibling needs some


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, help="a prepared data set, such as market1501")
    parser.add_argument("--images", type=Path, help="the folder of generated images")
    parser.add_argument("--name", help="what the method's row is called")
    parser.add_argument("--method", help="a folder of methods/, instead of --images and --name")
    parser.add_argument("--pattern", help='how files are called, without ending, such as "{from}-{to}_fake"')
    parser.add_argument("--numbering", help="what numbers in names count: published, from-1, ..., or a CSV of from,to")
    add_recipes(parser)


def slug(name: str) -> str:
    """`layout.slug` of a method's name. Raises UserError if it is no line of text, begins as a formula does, is
    empty or too long, or a row of ours is called so.
    """
    text = layout.slug(name)
    if not name.isprintable() or name.startswith(foreign.FORMULA):
        raise UserError(f"--name {name!r}: give one line of text that does not begin with =, +, - or @")
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
            other = seals.read_json(path)["name"]
        except (UserError, KeyError, TypeError):
            raise UserError(f"{path}: damaged; remove its folder") from None
        if other == name:
            return path.parent
        if path.parent == folder:
            raise UserError(f"--name {name!r}: {folder} is that of {other!r}; call one of them otherwise")
    return folder


def known_names(dataset: str, whole: Split, limit: int | None, counted: str | None) -> tuple[Known, str | None]:
    """What file names may mean, and the way to count that `counted` names, if it is not the file of a list."""
    table = store.read_table(layout.pairs(dataset), filters=[("split", "=", "test")]).sort_by("pair_index")
    listed = list(zip(table["source_id"].to_pylist(), table["target_id"].to_pylist(), strict=True))
    numbers = table["pair_index"].to_pylist()
    position = {index: row for row, index in enumerate(whole.pair_ids)}
    positions = {place: position[index] for place, index in enumerate(numbers) if index in position}
    if counted is not None and Path(counted).is_file():
        by_name = {pair: positions[place] for place, pair in enumerate(listed) if place in positions}
        listed = annotations.read_pairs(Path(counted))
        positions = {place: by_name[pair] for place, pair in enumerate(listed) if pair in by_name}
        numbers, counted = range(len(listed)), None
    reader = store.RandomReader(layout.images(dataset), ["image"])

    def picture(image_id: str) -> np.ndarray | None:
        try:
            return pictures.decode(reader[image_id]["image"]["bytes"])
        except KeyError:  # of a pair that was dropped
            return None

    unscored = (
        f"its pair is not scored: reference.{dataset}.test_pairs is {limit}, of {len(table)} pairs"
        if limit is not None and limit < len(table)
        else f"its pair was dropped: an image was rejected or has no joints ({layout.rejects(dataset)})"
    )
    listing = Listing(listed, numbers, positions, lambda place: tuple(map(picture, listed[place])), whole.size)
    images = store.read_table(layout.images(dataset), columns=["image_id", "split"])
    ids = dict(zip(images["image_id"].to_pylist(), images["split"].to_pylist(), strict=True))
    return Known(listing, ids, unscored), counted


def advice(images: Path, dataset: str, whole: Split, found: int, listed: list[tuple[str, str]]) -> str:
    """What was expected, the nearest that is there, and what to do."""
    source, target = (Path(whole.ids[row]).stem for row in whole.rows[0])
    text = f"{images}: {found} of {len(whole)} test pairs found; wanted: names such as {source}_{target}.png"
    if not listed:
        return f"{text}, and there is no file"
    reasons = Counter(why for _, why in listed if not why.startswith("not an image file")) or Counter(listed[0][1:])
    why, count = reasons.most_common(1)[0]
    nearest = next(name for name, own in listed if own == why)
    text += f"; there: {nearest}: {why}" + (f" ({count} files)" if count > 1 else "")
    if why == image_folder.OF_TRAINING:
        moved = hasattr(datasets.get(dataset).Fetch, "train_share")
        return text + (f"; fetch.{dataset}.train_share moved a part of the test images there" if moved else "")
    if why == image_folder.ANOTHER_LIST:
        give = f"pairs.{dataset}.path in {layout.PARAMS} takes yours, with test_list: official"
        return f"{text}; the list here is in {layout.pairs(dataset)}: {give}"
    if why.startswith("wrong size"):
        return f"{text}; `repose compare --as RECIPE` resizes as a method's own code does"
    return text if "--pattern" in why or "reference." in why else f"{text}; or say with --pattern how they are called"


def run(
    dataset: str,
    images: Path | None = None,
    name: str | None = None,
    pattern: str | None = None,
    numbering: str | None = None,
    recipes: Sequence[str] = (),
    draws: Sequence[Path] = (),
    method: str | None = None,
) -> None:
    """Score the folder `images` and write reports/outside/. Raises UserError if not one pair of it can be scored."""
    if (images is None or name is None) if method is None else (images or name):
        raise UserError("score: give --images FOLDER and --name NAME, or --method alone")
    program = {}
    if method is not None:
        of = manifest.read(method)
        images, name, program = layout.method_images(dataset, method), of.title, {"program": of.described}
        seals.check_all(images)
    check_asked(recipes, draws)
    if dataset not in params.datasets():
        raise UserError(f"unknown dataset {dataset}; {layout.PARAMS} names: {', '.join(params.datasets())}")
    block = params.block(score.Params, "score", dataset)
    where, folder = device(block.device), folder_of(dataset, name)
    protocol = open_protocol(dataset, where)
    whole = open_split(dataset, "test", where, protocol.reference)
    known, counted = known_names(dataset, whole, protocol.reference.described["pairs"]["test"]["limit"], numbering)
    found, listed, way = image_folder.find(images, whole, known, pattern, counted)
    missing = sorted(set(range(len(whole.data))) - set(found))
    _say(images, len(whole.data), found, missing, listed, whole.data)
    if way:
        console.say(f"  numbers in names: {in_words(way)}")
    if len(found) < 2:
        raise UserError(advice(images, dataset, whole, len(found), listed))
    files = with_draws({position: one.path for position, one in found.items()}, draws)

    split = whole
    if missing:
        split = whole.subset(sorted(found))
        protocol = real.restricted(protocol, split, block.batch)
    digests: dict[int, str] = {}
    batches = judge.noting(image_folder.read_all(whole, found, block.batch), digests)
    values, totals = judge.score_images(split, batches, protocol, block.bootstrap, block.seed)
    of_images = {
        "pairs": bool(missing),
        "jpeg": any(one.jpeg for one in found.values()),
        "source": 2 * sum(one.copied for one in found.values()) > len(found),
    }
    marks = [mark for mark, holds in of_images.items() if holds]
    why = samples.choose(split.data, values, block.samples) if block.samples else {}
    shown = {row: found[row] for row in np.array(sorted(found))[list(why)].tolist()}
    again = (image for _, some in image_folder.read_all(whole, shown, block.batch) for image in some)
    scored = Scored(
        judge.score_rows(totals, protocol.reference, "test", 0, name, marks, block.bootstrap),
        [judge.pair_rows(split, values, 0, digests)],
        samples.rows(dataset, split.data, why, again, 0),
    )
    record = {
        "kind": "outside",
        "name": name,
        "dataset": dataset,
        "pairs": {"scored": len(found), "missing": len(missing)},
        "panels": sorted({one.panels for one in found.values()}),
        "jpeg": sum(one.jpeg for one in found.values()),
        "pattern": pattern,
        "numbering": way,
        "images_sha256": image_folder.digest(found),
        "reference": summary(protocol.reference),
        **program,
    }
    right = {score_row["metric"]: score_row["value"] for score_row in scored.scores}
    given = (protocol.networks, protocol.reference.real, right)
    others = [score_by(recipe, whole, files, *given) for recipe in recipes]
    with atomic_directory(folder) as partial:
        scored.write(partial)
        for one in others:
            (partial / f"as-{one.recipe}.json").write_text(_of_recipe(one), encoding="utf-8")
        _write_files(partial / "files.csv", listed, missing, whole.data)
        text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (partial / "method.json").write_text(text, encoding="utf-8")
    for line in row.lines(folder / "scores.parquet"):
        console.say(line)
    for one in others:
        console.say(one.title)
        for line in one.lines():
            console.say(f"  {line}")
    console.say(f"{folder}: {len(found)} pairs scored; the next run of tables and report has the row")


def _of_recipe(one: ByRecipe) -> str:
    return json.dumps(one.as_dict(), indent=1, ensure_ascii=False) + "\n"


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
        writer.writerows(("", "", "", foreign.inert(console.readable(name)), why) for name, why in listed)
        for row in missing:
            source, target = (data.ids[image] for image in data.pairs[row].tolist())
            writer.writerow((int(data.pair_index[row]), *map(foreign.inert, (source, target)), "", "missing"))
