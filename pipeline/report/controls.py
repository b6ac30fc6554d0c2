"""The section on controls: what each metric notices, which scores lie outside them, and what is missing and why."""

from collections import defaultdict
from typing import Any

from pipeline.datasets import title as dataset_title
from pipeline.report.tables import read_csv
from pipeline.report.words import counted
from pipeline.tables import controls
from pipeline.tables.papers import RANDOM_WEIGHTS
from pipeline.tables.row import DECIMALS


def of_dataset(dataset: str, legend: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What the page shows of a data set. `tables`: those metrics that have a column in the papers' tables, and the
    others, which the page folds; each with a row for each metric, whose cells stand in the order of `titles`.
    """
    rows = [row for row in read_csv("controls.csv") if row["dataset"] == dataset]
    by_metric: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_metric[row["metric"]].append(row)
    laid_out = [_metric(metric, cells, legend) for metric, cells in by_metric.items()]
    notes = [
        line["note"] for line in read_csv("notes.csv") if (line["table"], line["dataset"]) == ("controls", dataset)
    ]
    return {
        "name": dataset,
        "title": dataset_title(dataset),
        "titles": list(dict.fromkeys(row["title"] for row in rows)),
        "tables": [[one for one in laid_out if (one["metric"] in DECIMALS) == shown] for shown in (True, False)],
        "notes": notes,
        "outside": [_outside(row) for row in read_csv("outside_controls.csv") if row["dataset"] == dataset],
        "agreement": [_agreement(row) for row in read_csv("agreement.csv") if row["dataset"] == dataset],
        "missing": controls.grouped(
            controls.Missing(**row) for row in read_csv("missing.csv") if row["dataset"] == dataset
        ),
    }


def _metric(metric: str, cells: list[dict[str, str]], legend: dict[str, dict[str, str]]) -> dict[str, Any]:
    marks = {mark for cell in cells for mark in cell["marks"].split()}
    return {
        "metric": metric,
        "higher": cells[0]["higher_is_better"] == "True",
        "marks": [legend[mark] for mark in legend if mark in marks and mark == RANDOM_WEIGHTS],
        "cells": [cell | _printed(cell) for cell in cells],
    }


def _printed(cell: dict[str, str]) -> dict[str, str]:
    """`shown`: the difference, or the true target's own value; `interval`; `pairs`."""

    def as_text(key: str, sign: str = "") -> str:
        return controls.number(float(cell[key]), sign).replace("-", "−") if cell[key] else ""

    ends = [as_text(key, "+") for key in ("difference_low", "difference_high")]
    return {
        "shown": as_text("difference", "+") or as_text("value"),
        "absolute": as_text("value"),
        "interval": " to ".join(ends) if all(ends) else "",
        "pairs": counted(int(cell["n"]), "pair") if cell["n"] else "",
    }


def _outside(row: dict[str, str]) -> dict[str, str]:
    return row | {
        key: controls.number(float(row[key]), "+" if key.startswith("difference") else "")
        for key in ("value", "of_control", "difference", "difference_low", "difference_high")
    }


def _agreement(row: dict[str, str]) -> dict[str, str]:
    return row | {key: f"{float(row[key]):+.2f}" for key in ("tau", "low", "high")}
