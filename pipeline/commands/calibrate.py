"""Hold a recipe to a published number: score images that the authors published by it, and keep what comes out.

GENERATED holds the images, TARGETS the real ones that they were made for, as `repose compare` takes them; --training
all training images, without which FID is left out. --row names the row of reports/published.csv that was printed for
these images, by words that each are its paper, table, data set, method or variant: as many as single it out.

Where the recipe (`--as`, docs/protocols.md) gives the printed number within its rounding, it is *calibrated* for that
column, and tables say of ours whether they reproduce what the paper measured by it. Whatever comes out is written to
reports/calibrated.csv: versions of recipe and metric, the number, and digests of the pictures; commit it. A row of an
older version counts no more, and is named where it would.

  repose calibrate generated targets --training train --as cfld --row CFLD "DeepFashion 256x176" IMAGPose
"""

import argparse
import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from pipeline import datasets
from pipeline.commands.compare import add_recipes
from pipeline.core import layout
from pipeline.core.atomic import atomic_file
from pipeline.core.console import say
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.loading.prepared import PUBLISHED
from pipeline.metrics import metric
from pipeline.scoring.comparison import by_recipe
from pipeline.scoring.recipes import ByRecipe
from pipeline.tables import verdicts
from pipeline.tables.inputs import read_published

KEY = ("paper", "table", "dataset", "method", "variant")  # of a row of published.csv


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("generated", type=Path, metavar="GENERATED", help="the folder of published images")
    parser.add_argument("targets", type=Path, metavar="TARGETS", help="the folder of target images")
    parser.add_argument("--row", nargs="+", required=True, metavar="WORD", help="which published row, see above")
    parser.add_argument("--training", type=Path, metavar="FOLDER", help="all training images, for FID")
    parser.add_argument("--pairs", type=Path, metavar="CSV", help="which belong together (default: by name)")
    parser.add_argument("--poses", type=Path, metavar="FILE", help="the targets' joints, for masked numbers")
    parser.add_argument("--sources", type=Path, metavar="FOLDER", help="source images, for the pairs' names")
    parser.add_argument("--numbering", help="what numbers in names count: published, from-1, ... (default: looked at)")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="published weights of the metrics' networks")
    add_recipes(parser)


def run(recipes: list[str], row: list[str], **folders: object) -> None:
    """Raises UserError for a row that is none or several, for images that cannot be scored, and where they are not all
    that the published list of pairs asks for.
    """
    if len(recipes) != 1:
        raise UserError("give one recipe, as --as NAME")
    published = row_of(row, read_published())
    made, pairs, left_out = by_recipe(recipes[0], **folders, every=_list_of(published["dataset"]))
    for line in (*left_out, *made.notes):
        say(line)
    digests = _digest(pairs.generated), _digest([pairs.files[row] for row in dict.fromkeys(pairs.rows[:, 1].tolist())])
    found = calibrated(made, published, digests)
    if not found:
        raise UserError(f"{', '.join(filter(None, row))}: {layout.PUBLISHED} has no number of that row that was scored")
    for one in found:
        within = "within its rounding" if one.within == "yes" else "not within its rounding"
        say(f"{one.number} by {one.recipe}: {one.value}; published {one.metric}: {one.published}, {within}")
    _keep(found)
    say(f"{layout.CALIBRATED}: written; tables and README's table (repose reproduced) take it from there")


def row_of(words: Sequence[str], published: list[dict[str, str]]) -> dict[str, dict | str]:
    """KEY of the one row that has every word as one of these, and its numbers by metric. Raises UserError."""
    wanted = {word.casefold() for word in words}
    found: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for line in published:
        key = tuple(line[name] for name in KEY)
        if wanted <= {part.casefold() for part in key} and line["value"]:
            found.setdefault(key, {})[line["metric"]] = line
    if len(found) != 1:
        some = "; ".join(", ".join(filter(None, key)) for key in [*found][:5])
        raise UserError(
            f"--row {' '.join(words)}: "
            + (f"{len(found)} rows: {some}; give more of their words" if found else "no published row has these words")
        )
    ((key, numbers),) = found.items()
    return dict(zip(KEY, key, strict=True)) | {"numbers": numbers}


def _list_of(dataset: str) -> int | None:
    """How many test pairs the field's list of a published data set has; None of one without a list."""
    titles = {datasets.title(name): pairs for name, (_, pairs) in PUBLISHED.items()}
    return titles.get(dataset.partition(" ")[0])


def calibrated(made: ByRecipe, published: dict, digests: tuple[str, str]) -> list[verdicts.Calibration]:
    """A row for each number of the recipe that the paper prints, but those through other weights than the published.

    digests: of the generated pictures and of the targets.
    """
    found = []
    for number in made.numbers:
        column = number["number"].removesuffix("_256")  # which SSIM a paper prints, few texts say: each is tried
        line = published["numbers"].get(column)
        if line is None or number["value"] is None or number["marks"]:
            continue
        within = verdicts.within(number["value"], line["value"])
        found.append(
            verdicts.Calibration(
                recipe=made.recipe,
                recipe_version=str(verdicts.VERSIONS[made.recipe]),
                number=number["number"],
                **{key: published[key] for key in KEY},
                metric=column,
                published=line["value"],
                value=repr(number["value"]),
                within="yes" if within else "no",
                equals=number["equals"],
                metric_version=str(metric(number["equals"] or number["metric"]).version),
                pairs=str(number["pairs"]),
                images_sha256=digests[0],
                targets_sha256=digests[1],
            )
        )
    return found


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 over the files and their names, by name."""
    lines = sorted(f"{sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _keep(found: list[verdicts.Calibration]) -> None:
    """In reports/calibrated.csv, in the place of rows of the same number."""
    kept = {one.key: one for one in (*verdicts.read_calibrated(), *found)}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(verdicts.Calibration._fields)
    writer.writerows(sorted(kept.values()))
    with atomic_file(layout.CALIBRATED) as partial:
        partial.write_text(out.getvalue(), encoding="utf-8")
