"""Score a folder of generated images against a folder of targets: every metric that can be had, without a data set.

Works in any folder. Pictures are paired by name, whatever their endings, or by --pairs, a CSV with the columns
generated,target (and source, if you like), or with the field's from,to, where a file's name spells out the pair
(`repose score --images . --help` lists the forms). Where names are numbers, the pictures decide what these count, or
the command stops and names what to give as --numbering. All have one size; generated ones are 8-bit RGB.

The masked metrics and PCKh need the targets' joints: --poses gives them as the field's CSV, as OpenPose's folder or zip
of NAME_keypoints.json, or as one JSON object, name -> 18 x [x, y] or null; without it Lightweight OpenPose finds them,
which is marked. The published weights of the metrics' networks are taken from --weights FOLDER (where they lie, or one
like $REPOSE_MIRROR, with a sub-folder weights), from $REPOSE_MIRROR or from data/weights of the current folder; what is
not there is not downloaded: its metrics are left out, which is said, or, with --missing-weights seeded, scored by
random weights and marked. docs/protocols.md defines every metric; the numbers are those of `score`,
masked metrics and PCKh where the joints are the same: `export --what openpose-json` gives a data set's, `--what
keypoints` rounds them to whole pixels.

--as shows what a published number is worth: beside the right numbers it prints those that the released code of a method
would print of the same folders, and says what each of its steps does. It resizes by that method's filter where sizes
differ, and takes the best of several images a pair (--draws) where the method does.

  repose compare generated targets
  repose compare generated targets --metrics ssim psnr --json
  repose compare generated targets --pairs pairs.csv --poses annotation-test.csv --csv scores.csv --html page.html
  repose compare draw-1 targets --as pcdms gfla --draws draw-2 draw-3 draw-4
"""

import argparse
import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core import console
from pipeline.core.atomic import atomic_file
from pipeline.formats import pictures
from pipeline.metrics import METRICS
from pipeline.metrics.pckh import pckh
from pipeline.scoring import failures, image_folder
from pipeline.scoring import recipes as known
from pipeline.scoring.comparison import KEYS, Compared, compare
from pipeline.tables.papers import COLUMNS, MARKS, in_column_order

DECIMALS = {metric: column.decimals for column in COLUMNS.values() for metric in column.metrics}
BY_SSIM = failures.Criterion("ssim", False, "Lowest SSIM")
OTHER_DECIMALS = 3
WIDE = 120  # columns where there is no terminal
TEMPLATE = Path(__file__).with_name("compare.html.j2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("generated", type=Path, metavar="GENERATED", help="the folder of generated images")
    parser.add_argument("targets", type=Path, metavar="TARGETS", help="the folder of target images")
    parser.add_argument("--pairs", type=Path, metavar="CSV", help="which belong together, see above (default: by name)")
    parser.add_argument(
        "--poses", type=Path, metavar="FILE", help="the targets' joints, see above (default: looked for)"
    )
    parser.add_argument("--numbering", help="what numbers in names count: published, from-1, ... (default: looked at)")
    parser.add_argument("--sources", type=Path, metavar="FOLDER", help="source images, for the likeness to them")
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help=f"of {', '.join(METRICS)} (default: the standard ones and identity, as far as they can be had)",
    )
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="published weights of the metrics' networks")
    parser.add_argument("--missing-weights", choices=("skip", "seeded"), default="skip", help="see above")
    add_recipes(parser)
    parser.add_argument("--json", action="store_true", help="print the scores as JSON, in full precision")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the scores as CSV, in full precision")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the scores and the worst pairs")


def add_recipes(parser: argparse.ArgumentParser) -> None:
    """--as and --draws, as score --images has them too."""
    parser.add_argument(
        "--as",
        dest="recipes",
        nargs="+",
        default=[],
        choices=list(known.RECIPES),
        metavar="RECIPE",
        help=f"show beside the scores what others' code makes of the images: {', '.join(known.RECIPES)}",
    )
    parser.add_argument(
        "--draws",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="further images of each pair, for --as pcdms",
    )


def run(
    generated: Path,
    targets: Path,
    pairs: Path | None,
    poses: Path | None,
    sources: Path | None,
    numbering: str | None,
    metrics: list[str] | None,
    weights: Path | None,
    missing_weights: str,
    recipes: list[str],
    draws: list[Path],
    json: bool,
    csv: Path | None,
    html: Path | None,
) -> None:
    """Print the scores and write the files that are asked for. Raises UserError for what cannot be compared."""
    found = compare(
        generated, targets, pairs=pairs, poses=poses, sources=sources, numbering=numbering, metrics=metrics,
        weights=weights, missing_weights=missing_weights, recipes=recipes, draws=draws,
    )  # fmt: skip
    for line in _shortened(found.left_out):
        console.say(line)
    if json:
        print(as_json(found))
    else:
        out = Console(highlight=False, markup=False)
        wide = out if out.is_terminal else Console(highlight=False, markup=False, width=WIDE)
        if found.scores:
            wide.print(table(found))
        for one in found.by_recipe:
            wide.print(recipe_table(one))
            for note in one.notes:
                out.print(f"  {note}", soft_wrap=True)
        for mark in _marks(found):
            out.print(f"{MARKS[mark].symbol} {MARKS[mark].text}", soft_wrap=True)
    files = [(csv, as_csv(found)), (html, page(found) if html else "")]
    if csv is not None:
        files += [(csv.with_stem(f"{csv.stem}-as-{one.recipe}"), known.as_csv(one)) for one in found.by_recipe]
    for path, text in files:
        if path is not None:
            with atomic_file(path) as partial:
                partial.write_text(text, encoding="utf-8")
            console.say(f"{path}: written")


def _shortened(left_out: list[str]) -> list[str]:
    """The first five lines, and how many more there are."""
    more = len(left_out) - 5
    return [*left_out[:5], *([f"and {more} more lines like these (--json has all)"] if more > 0 else [])]


def _marks(found: Compared) -> list[str]:
    """Those of any score, once each."""
    rows = [*found.scores, *(row for one in found.by_recipe for row in one.numbers)]
    return list(dict.fromkeys(mark for row in rows for mark in row["marks"]))


def _rows(found: Compared) -> list[dict]:
    """The scores in the order of the papers' columns."""
    order = in_column_order(row["metric"] for row in found.scores)
    return sorted(found.scores, key=lambda row: order.index(row["metric"]))


def _number(row: dict, key: str) -> str:
    return "–" if row[key] is None else f"{row[key]:.{DECIMALS.get(row['metric'], OTHER_DECIMALS)}f}"


def _interval(row: dict) -> str:
    return "" if row["low"] is None else f"{_number(row, 'low')} to {_number(row, 'high')}"


def _better(row: dict) -> str:
    return "higher" if row["higher_is_better"] else "lower"


def _pairs(row: dict) -> str:
    return f"{row['n']} of {row['n'] + row['excluded']}" if row["excluded"] else str(row["n"])


def table(found: Compared) -> Table:
    """A row for each metric; a mark's symbol stands beside the value."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("metric", no_wrap=True)
    for name in ("value", "95 % interval", "pairs", "real targets"):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("better", no_wrap=True)
    drawn.add_column("protocol", overflow="fold")
    for row in _rows(found):
        value = _number(row, "value") + "".join(MARKS[mark].symbol for mark in row["marks"])
        ceiling = "" if row["ceiling"] is None else _number(row, "ceiling")
        drawn.add_row(
            row["metric"], Text(value, "bold"), _interval(row), _pairs(row), ceiling, _better(row), row["protocol"]
        )
    return drawn


def recipe_table(one: known.ByRecipe) -> Table:
    """A row for each number that the method's script prints, beside ours."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=one.title, title_justify="left", title_style="bold")
    drawn.add_column(f"as {one.recipe}", no_wrap=True)
    for name in ("value", "right", "pairs"):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("by", no_wrap=True)
    drawn.add_column("what the recipe does", overflow="fold")
    for row in one.numbers:
        value = _number(row, "value") + "".join(MARKS[mark].symbol for mark in row["marks"])
        drawn.add_row(
            row["number"], Text(value, "bold"), _number(row, "right"), str(row["pairs"]), row["metric"], row["does"]
        )
    return drawn


def _recipe_row(row: dict) -> dict:
    """For the page."""
    shown = {key: _number(row, key) for key in ("value", "right")}
    return row | shown | {"marks": [MARKS[mark] for mark in row["marks"]]}


def as_json(found: Compared) -> str:
    """Keys: pairs, height, width, scores (a dict of comparison.KEYS for each metric), left_out (lines); and, where
    recipes were asked for, by_recipe: recipe, title, numbers (a dict of recipes.KEYS each) and notes of each.
    """
    height, width = found.pairs.size
    content = {"pairs": len(found.pairs), "height": height, "width": width}
    content |= {"scores": _rows(found), "left_out": found.left_out}
    if found.by_recipe:
        content["by_recipe"] = [one.as_dict() for one in found.by_recipe]
    return json.dumps(content, indent=1, ensure_ascii=False)


def as_csv(found: Compared) -> str:
    """A row for each metric: comparison.KEYS, marks separated by spaces, nothing where there is no number."""
    out = io.StringIO()
    writer = csv.DictWriter(out, KEYS, lineterminator="\n")
    writer.writeheader()
    for row in _rows(found):
        writer.writerow(row | {"marks": " ".join(row["marks"])})
    return out.getvalue()


# ---- the page


def worst(found: Compared) -> list[tuple[str, str, list[int]]]:
    """(Title, metric, pairs), the worst pair first, by the report's criteria and SSIM; where no metric has one, by the
    first that has a value for each pair.
    """
    criteria = (*failures.CRITERIA, BY_SSIM)
    values = {name: one for name, one in found.values.items() if not name.startswith("ssim-")}
    if not any(failures.of_metric(name, criteria) for name in values):
        name = next((name for name in found.values if ":" not in name), None)
        if name is None:
            return []
        lowest = METRICS[name].higher_is_better
        criteria, values = (
            (failures.Criterion(name, not lowest, f"{'Lowest' if lowest else 'Highest'} {name}"),),
            found.values,
        )
    targets = found.pairs.joints(found.pairs.rows[:, 1])
    hopeless = () if targets is None else pckh(targets, targets).degenerate
    chosen = failures.worst(values, hopeless=hopeless, criteria=criteria)
    return [(failures.of_metric(name, criteria).title, name, places) for name, places in chosen.items() if places]


def _picture(image: np.ndarray) -> str:
    return "data:image/webp;base64," + base64.b64encode(pictures.encode_webp(image)).decode()


def _shown(found: Compared, position: int) -> dict:
    """One pair for the page: its files, pictures and values."""
    source, target = found.pairs.images(found.pairs.rows[position])
    generated = image_folder.read(found.pairs.generated[position], source, target)[0]
    named = {row["metric"]: row for row in _rows(found) if row["metric"] in found.values}
    values = [(name, found.values[name][position], DECIMALS.get(name, OTHER_DECIMALS)) for name in named]
    return {
        "name": found.pairs.generated[position].name,
        "pictures": [
            *([("source", _picture(source))] if found.pairs.has_sources else []),
            ("target", _picture(target)),
            ("generated", _picture(generated)),
        ],
        "values": [(name, f"{value:.{decimals}f}") for name, value, decimals in values if np.isfinite(value)],
    }


def page(found: Compared) -> str:
    """A page that needs no other file."""
    from jinja2 import Environment, StrictUndefined

    rows = [
        {
            "metric": row["metric"],
            "value": _number(row, "value"),
            "marks": [MARKS[mark] for mark in row["marks"]],
            "interval": _interval(row),
            "pairs": _pairs(row),
            "ceiling": "" if row["ceiling"] is None else _number(row, "ceiling"),
            "better": _better(row),
            "protocol": row["protocol"],
        }
        for row in _rows(found)
    ]
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return template.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        generated=found.pairs.generated[0].parent,
        targets=found.pairs.files[found.pairs.rows[0, 1]].parent,
        count=len(found.pairs),
        size=found.pairs.size,
        rows=rows,
        marks=[MARKS[mark] for mark in _marks(found)],
        left_out=found.left_out,
        recipes=[(one, [_recipe_row(row) for row in one.numbers]) for one in found.by_recipe],
        worst=[(title, [_shown(found, place) for place in places]) for title, _, places in worst(found)],
    )
