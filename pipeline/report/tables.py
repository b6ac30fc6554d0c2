"""The tables of a page, from the files of reports/tables."""

import csv

from pipeline.core import layout
from pipeline.core.errors import UserError
from pipeline.datasets import title as dataset_title
from pipeline.tables.papers import COLUMNS

# Short forms for the sentence at the top. These marks make a number a demonstration rather than a result.
DEMONSTRATION = {
    "metric-weights": "metric networks with random weights",
    "weights": "training losses on stand-in features",
    "steps": "short training",
    "width": "narrow networks",
}
PLACES = {"best": "best", "second": "2nd"}
TIED = {"symbol": "≈", "text": "best of this run, or not told from it by a paired bootstrap over the test pairs"}


def read_csv(name: str) -> list[dict[str, str]]:
    """Rows of a file of reports/tables. Raises UserError if it is missing or is an empty file."""
    path = layout.TABLES / name
    if not path.exists():
        raise UserError(f"{path}: not there; run: python -m pipeline tables")
    with path.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if not reader.fieldnames:
            raise UserError(f"{path}: empty; run: python -m pipeline tables")
        return list(reader)


def _rounded_like(printed: str, value: str) -> str:
    decimals = len(printed.partition(".")[2])
    return f"{float(value):.{decimals}f}"


def shown(name: str, title: str, legend: dict[str, dict], run: list[str]) -> list[dict]:
    """A table as the template shows it: one part for each data set of this run that it has.

    Marks that all numbers of a row carry stand on its name, once. What the table has beyond this run, numbers published
    on other data sets, is named in the notes of the last part.
    """
    cells, said = read_csv(f"{name}.csv"), read_csv("notes.csv")
    datasets = list(dict.fromkeys(cell["dataset"] for cell in cells))
    parts = []
    for dataset in [dataset for dataset in datasets if dataset in run]:
        own = [cell for cell in cells if cell["dataset"] == dataset]
        used = {mark for cell in own if cell["value"] for mark in cell["marks"].split()}
        rows = _rows(own, legend)
        parts.append(
            {
                "id": f"{name}-{dataset}",
                "name": name,
                "dataset": dataset,
                "paper": title.partition(",")[0],
                "title": f"{title}, {dataset_title(dataset)}",
                "columns": _columns(own),
                "rows": rows,
                "widest": max((len(cell["marks"]) for row in rows for cell in row["cells"].values()), default=0),
                "notes": [line["note"] for line in said if (line["table"], line["dataset"]) == (name, dataset)],
                "legend": [mark for key, mark in legend.items() if key in used]
                + ([TIED] if any("tied" in cell["place"] for cell in own) else []),
            }
        )
    elsewhere = [dataset_title(dataset) for dataset in datasets if dataset not in run]
    if parts and elsewhere:
        listed = " and ".join(elsewhere)
        parts[-1]["notes"].append(f"Published numbers on {listed}: {name}.csv, under Downloads.")
    return parts


def _columns(cells: list[dict[str, str]]) -> list[dict]:
    """Name, direction, and our metric where one of the rows has it."""
    found: dict[str, dict] = {}
    for cell in cells:
        column = found.setdefault(
            cell["column"], {"name": cell["column"], "higher": cell["higher_is_better"] == "True", "metric": ""}
        )
        column["metric"] = column["metric"] or cell["metric"]
    return list(found.values())


def _rows(cells: list[dict[str, str]], legend: dict[str, dict]) -> list[dict]:
    rows: dict[str, dict] = {}
    for cell in cells:
        row = rows.setdefault(cell["row"], {"name": cell["row"], "kind": cell["kind"], "cells": {}, "n": set()})
        if not cell["value"]:
            continue
        interval = [_rounded_like(cell["printed"], cell[end]) for end in ("low", "high") if cell[end]]
        over = [_rounded_like(cell["printed"], cell[key]) for key in ("mean", "deviation") if cell.get("seeds")]
        row["cells"][cell["column"]] = cell | {
            "place": PLACES.get(cell["place"].partition(" ")[0], ""),
            "tied": "tied" in cell["place"],
            "interval": f"{interval[0]} – {interval[1]}" if len(interval) == 2 else "",
            "seeds": f"{cell['seeds']} seeds: {over[0]} ± {over[1]}" if over else "",
            "marks": set(cell["marks"].split()),
        }
        row["n"] |= {int(cell["n"])} if cell["n"] else set()
    for row in rows.values():
        _hoist(row, legend)
        for cell in row["cells"].values():
            cell["marks"] += [TIED] if cell["tied"] else []
    return list(rows.values())


def _hoist(row: dict, legend: dict[str, dict]) -> None:
    """Move the marks that all numbers of a row carry to the row. Afterwards both hold entries of the legend."""
    common = set.intersection(*(cell["marks"] for cell in row["cells"].values())) if row["cells"] else set()
    row["marks"] = [mark for key, mark in legend.items() if key in common]
    for cell in row["cells"].values():
        cell["marks"] = [mark for key, mark in legend.items() if key in cell["marks"] - common]


def overview(scores: list[dict[str, str]], legend: dict[str, dict]) -> list[dict]:
    """One row for each data set and variant: checkpoints, the one that stands for it, pairs, marks."""
    rows = {}
    for score in scores:
        key = (score["dataset"], score["variant"])
        row = rows.setdefault(
            key,
            {
                "key": key,
                "dataset": dataset_title(key[0]),
                "variant": key[1],
                "steps": set(),
                "pairs": {},
                "marks": set(),
            },
        )
        row["steps"].add(int(score["step"]))
        row["marks"] |= set(score["marks"].split())
        seen = int(score["n"] or 0) + int(score["excluded"] or 0)
        row["pairs"][score["split"]] = max(seen, row["pairs"].get(score["split"], 0))
        if score["chosen"] == "yes":
            row["chosen"] = int(score["step"])
    for row in rows.values():
        row["marks"] = [mark for key, mark in legend.items() if key in row["marks"]]
    return list(rows.values())


def warning(scores: list[dict[str, str]]) -> dict | None:
    """What stands above everything when numbers are a demonstration, not a result; None when they are not."""
    found = {}
    for row in scores:
        reasons = [text for mark, text in DEMONSTRATION.items() if mark in row["marks"].split()]
        found.setdefault(row["dataset"], {}).update(dict.fromkeys(reasons))
    reasons = [text for text in DEMONSTRATION.values() if any(text in own for own in found.values())]
    if not reasons:
        return None
    listed = reasons[0] if len(reasons) == 1 else ", ".join(reasons[:-1]) + " and " + reasons[-1]
    return {"datasets": [dataset_title(dataset) for dataset, own in found.items() if own], "reasons": listed}


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
    """All scores, a table for each data set: a row a checkpoint and split, a column a metric."""
    grids = []
    for dataset in dict.fromkeys(score["dataset"] for score in scores):
        own = [score for score in scores if score["dataset"] == dataset]
        order = [metric for column in COLUMNS.values() for metric in column.metrics]
        here = dict.fromkeys(score["metric"] for score in own)
        metrics = [*(name for name in order if name in here), *(name for name in here if name not in order)]
        columns, rows = {}, {}
        for score in own:
            key = (score["variant"], int(score["step"]), score["split"])
            row = rows.setdefault(
                key,
                dict(zip(("variant", "step", "split"), key, strict=True)) | {"chosen": score["chosen"], "cells": {}},
            )
            row["cells"][score["metric"]] = score | {"marks": set(score["marks"].split())}
            columns.setdefault(score["metric"], score)
        for row in rows.values():
            _hoist(row, legend)
        grids.append(
            {
                "name": dataset,
                "title": dataset_title(dataset),
                "columns": [{"name": name, "higher": columns[name]["higher_is_better"] == "True"} for name in metrics],
                "rows": list(rows.values()),
            }
        )
    return grids
