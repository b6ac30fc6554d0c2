"""The tables of a page, from the files of reports/tables.

A row's cells and the columns carry `marks`: entries of the legend. A number that carries RANDOM_WEIGHTS is thin: shown
small, without its interval and place, and a column of such numbers stands last.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pipeline.core import layout
from pipeline.core.errors import UserError
from pipeline.datasets import title as dataset_title
from pipeline.report.words import listed
from pipeline.tables.inputs import VERIFIED
from pipeline.tables.papers import RANDOM_WEIGHTS, in_column_order

# Short forms for the sentence at the top. These marks make a number a demonstration rather than a result.
DEMONSTRATION = {
    RANDOM_WEIGHTS: "metric networks with random weights",
    "weights": "training losses on stand-in features",
    "steps": "short training",
    "width": "narrow networks",
}
LEADERBOARD = "Leaderboard"  # the title that `papers.titles` gives it
PLACES = {"best": "best", "second": "2nd"}
TIED = {
    "mark": "tied",
    "symbol": "≈",
    "text": "best of this run, or not told from it by a paired bootstrap over the test pairs",
}


def read_csv(name: str, folder: Path = layout.TABLES) -> list[dict[str, str]]:
    """Rows of a file of reports/tables. Raises UserError if it is missing or is an empty file."""
    path = folder / name
    if not path.exists():
        raise UserError(f"{path}: not there; run: repose tables")
    with path.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if not reader.fieldnames:
            raise UserError(f"{path}: empty; run: repose tables")
        return list(reader)


def _marked(legend: dict[str, dict], marks: set[str]) -> list[dict]:
    """The entries of the legend, in its order."""
    return [entry for mark, entry in legend.items() if mark in marks]


def _take_common(cells: Iterable[dict]) -> set[str]:
    """The marks that all of the cells carry, taken off them."""
    cells = list(cells)
    common = set.intersection(*(cell["marks"] for cell in cells)) if cells else set()
    for cell in cells:
        cell["marks"] = cell["marks"] - common
    return common


def _laid_out(rows: list[dict], columns: list[dict], legend: dict[str, dict]) -> dict:
    """Rows and columns with each mark said once: what all numbers of a row carry stands on its name, what all of a
    column still do on its head. Before, a cell's marks are a set of names. The columns that are thin come last.
    """
    for column in columns:
        own = [row["cells"][column["name"]] for row in rows if column["name"] in row["cells"]]
        column["thin"] = bool(own) and all(cell["thin"] for cell in own)
    for row in rows:
        row["marks"] = _take_common(row["cells"].values())
    for column in columns:
        column["marks"] = _take_common(row["cells"][column["name"]] for row in rows if column["name"] in row["cells"])
    for one in (*columns, *rows, *(cell for row in rows for cell in row["cells"].values())):
        one["marks"] = _marked(legend, one["marks"])
    return {"rows": rows, "columns": sorted(columns, key=lambda column: column["thin"])}


def shown(name: str, title: str, legend: dict[str, dict], run: list[str], folder: Path = layout.TABLES) -> list[dict]:
    """A table as the template shows it: one part for each data set, those of this run first.

    `ours` has the rows of this run and the published ones among them; `published`, which the page folds, has the rows
    of a part in which nothing of this run stands.
    """
    cells, notes = read_csv(f"{name}.csv", folder), read_csv("notes.csv", folder)
    parts = []
    for dataset in sorted(dict.fromkeys(cell["dataset"] for cell in cells), key=lambda dataset: dataset not in run):
        own = [cell for cell in cells if cell["dataset"] == dataset]
        mixed = any(cell["kind"] != "published" and cell["value"] for cell in own)
        ours, theirs = (own, []) if mixed else ([], [cell for cell in own if cell["value"]])
        parts.append(
            {
                "id": f"{name}-{dataset}",
                "dataset": dataset,
                "paper": title.partition(",")[0],
                "title": f"{title}, {dataset_title(dataset)}",
                "ours": _table(ours, legend),
                "published": _table(theirs, legend),
                "notes": [line["note"] for line in notes if (line["table"], line["dataset"]) == (name, dataset)],
            }
        )
    return parts


def _table(cells: list[dict[str, str]], legend: dict[str, dict]) -> dict:
    table = _laid_out(_rows(cells), _columns(cells), legend)
    each = [cell for row in table["rows"] for cell in row["cells"].values()]
    for cell in each:
        cell["marks"] += [TIED] * cell["tied"]
    return table | {"widest": max((len(cell["marks"]) for cell in each), default=0)}


def _columns(cells: list[dict[str, str]]) -> list[dict]:
    """Name, direction, and our metric where one of the rows has it."""
    found: dict[str, dict] = {}
    for cell in cells:
        higher = cell["higher_is_better"] == "True"
        column = found.setdefault(cell["column"], {"name": cell["column"], "higher": higher, "metric": ""})
        column["metric"] = column["metric"] or cell["metric"]
    return list(found.values())


def _cell(cell: dict[str, str]) -> dict:
    """A cell with its interval and its mean over seeds, as many decimals as the number above them."""
    decimals = len(cell["printed"].partition(".")[2])
    low, high, mean, deviation = (
        f"{float(cell[key]):.{decimals}f}" if cell.get(key) else "" for key in ("low", "high", "mean", "deviation")
    )
    marks = set(cell["marks"].split())
    thin = RANDOM_WEIGHTS in marks
    return cell | {
        "thin": thin,
        "place": "" if thin else PLACES.get(cell["place"].partition(" ")[0], ""),
        "tied": "tied" in cell["place"] and not thin,
        "interval": f"{low} – {high}" if low and high and not thin else "",
        **{key: cell.get(key, "") for key in ("other", "verdict", "reason")},
        "seeds": f"{cell['seeds']} seeds: {mean} ± {deviation}" if cell.get("seeds") else "",
        "marks": marks,
    }


def how_read(marks: Iterable[str]) -> str:
    """Of a published number's marks: verified, second-hand or unverified."""
    return next((mark for mark in VERIFIED.values() if mark and mark in marks), "verified")


def _rows(cells: list[dict[str, str]]) -> list[dict]:
    """Rows by name. `tag`: what kind a row is, if it was not trained here, and whether a published one was checked."""
    rows: dict[str, dict] = {}
    for cell in cells:
        about = {"name": cell["row"], "kind": cell["kind"], "protocol": cell.get("row_protocol", "")}
        row = rows.setdefault(cell["row"], about | {"cells": {}, "n": set()})
        if cell["value"]:
            row["cells"][cell["column"]] = _cell(cell)
            row["n"] |= {int(cell["n"])} if cell["n"] else set()
    for row in rows.values():
        row["tag"] = "" if row["kind"] == "trained" else row["kind"]
        read = {how_read(cell["marks"]) for cell in row["cells"].values()}
        if row["kind"] == "published" and read:
            best = min(read, key=("verified", *VERIFIED.values()).index)
            row["tag"] += f", {'in part ' if len(read) > 1 else ''}{best}"
    return list(rows.values())


def pairs_of(row: dict[str, str]) -> int:
    """On how many pairs a score or a cell is, those included that its metric had to leave out."""
    return int(row["n"] or 0) + int(row["excluded"] or 0)


def pairs_seen(scores: list[dict[str, str]]) -> dict[str, int]:
    """How many pairs of each split were scored, those included that a metric had to leave out."""
    pairs: dict[str, int] = {}
    for row in scores:
        pairs[row["split"]] = max(pairs_of(row), pairs.get(row["split"], 0))
    return pairs


def overview(scores: list[dict[str, str]], legend: dict[str, dict]) -> list[dict]:
    """One row for each data set and variant: checkpoints, the one that stands for it, pairs, marks."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for score in scores:
        groups[score["dataset"], score["variant"]].append(score)
    return [
        {
            "key": key,
            "dataset": dataset_title(key[0]),
            "variant": key[1],
            "steps": {int(row["step"]) for row in own},
            "chosen": next((int(row["step"]) for row in own if row["chosen"] == "yes"), None),
            "pairs": pairs_seen(own),
            "marks": _marked(legend, {mark for row in own for mark in row["marks"].split()}),
        }
        for key, own in groups.items()
    ]


def warning(scores: list[dict[str, str]]) -> dict | None:
    """The warning at the top of the page if numbers are a demonstration, not a result; None if they are not."""
    found = {row["dataset"]: set(row["marks"].split()) & DEMONSTRATION.keys() for row in scores}
    for row in scores:
        found[row["dataset"]] |= set(row["marks"].split()) & DEMONSTRATION.keys()
    reasons = [text for mark, text in DEMONSTRATION.items() if any(mark in own for own in found.values())]
    datasets = [dataset_title(dataset) for dataset, own in found.items() if own]
    return {"datasets": datasets, "reasons": listed(reasons)} if reasons else None


def pckh(scores: list[dict[str, str]]) -> list[dict]:
    """The chosen checkpoints' PCKh on test, with what the real target images reach under the same detector."""
    rows = []
    for row in scores:
        if row["metric"].startswith("pckh") and row["split"] == "test" and row["chosen"] == "yes" and row["value"]:
            numbers = {key: float(row[key]) if row[key] else None for key in ("value", "low", "high", "ceiling")}
            share = numbers["value"] / numbers["ceiling"] if numbers["ceiling"] else None
            rows.append(row | numbers | {"dataset": dataset_title(row["dataset"]), "share": share})
    return rows


def score_grids(scores: list[dict[str, str]], legend: dict[str, dict]) -> list[dict]:
    """All scores, a table for each data set: a row for each checkpoint and split, a column for each metric."""
    grids = []
    for dataset in dict.fromkeys(score["dataset"] for score in scores):
        own = [score for score in scores if score["dataset"] == dataset]
        higher = {score["metric"]: score["higher_is_better"] == "True" for score in own}
        rows: dict[tuple, dict] = {}
        for score in own:
            about = {key: score[key] for key in ("variant", "step", "split", "chosen")}
            row = rows.setdefault(tuple(about.values()), about | {"cells": {}})
            marks = set(score["marks"].split())
            if score["value"]:
                row["cells"][score["metric"]] = score | {"marks": marks, "thin": RANDOM_WEIGHTS in marks}
        columns = [{"name": name, "higher": higher[name]} for name in in_column_order(higher)]
        grids.append(
            {"name": dataset, "title": dataset_title(dataset)} | _laid_out(list(rows.values()), columns, legend)
        )
    return grids
