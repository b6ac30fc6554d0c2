"""What `dvc metrics` and `dvc plots` show of the scores: small files that DVC reads by itself."""

import json
from pathlib import Path

import pandas as pd

from pipeline.core.atomic import atomic_directory
from pipeline.tables.inputs import Run, Runs
from pipeline.tables.papers import COLUMNS, MARKS

SHOWN = tuple(metric for column in COLUMNS.values() for metric in column.metrics)


def metrics_of(run: Run) -> dict[str, int | float | str]:
    """The chosen checkpoint's step, its test scores of the tables' columns under the names of docs/protocols.md, and
    the names of all their marks.
    """
    scores = {metric: run.test[metric] for metric in SHOWN if metric in run.test}
    marked = {mark for score in scores.values() for mark in score["marks"].split()}
    values = {metric: score["value"] for metric, score in scores.items()}
    return {
        "step": int(run.chosen["step"]), **values, "marks": " ".join(mark for mark in MARKS if mark in marked)
    }  # fmt: skip


def write_metrics(path: Path, every: Runs) -> None:
    """D/RUN.json for every run, further seeds and methods from elsewhere included: named as its folder of scores."""
    with atomic_directory(path, listed=False) as folder:
        for run in every.values():
            file = folder / run.dataset / f"{run.pairs.parent.name}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(metrics_of(run), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_curves(path: Path, every: Runs) -> None:
    """D/SPLIT/METRIC.csv, `step,name,value`: that score of every checkpoint of every run."""
    with atomic_directory(path, listed=False) as folder:
        if not every:
            return
        scores = pd.concat([run.scores for run in every.values()])
        scores = scores[scores["metric"].isin(SHOWN) & scores["value"].notna()]
        for (dataset, split, metric), rows in scores.groupby(["dataset", "split", "metric"]):
            file = folder / dataset / split / f"{metric}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = rows.rename(columns={"variant": "name"}).sort_values(["name", "step"])
            rows[["step", "name", "value"]].to_csv(file, index=False, lineterminator="\n")
