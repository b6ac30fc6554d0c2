"""The files of reports/tables."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.datasets import title as dataset_title
from pipeline.tables.cells import Cell
from pipeline.tables.inputs import Runs, by_variant
from pipeline.tables.notes import marks_in
from pipeline.tables.over_seeds import OverSeeds
from pipeline.tables.paired import Difference
from pipeline.tables.papers import COLUMNS, MARKS, in_column_order, symbols
from pipeline.tables.text import grid, markdown_page, tex_page

SCORE_COLUMNS = (
    "dataset", "variant", "step", "chosen", "split", "metric", "protocol", "value", "low", "high", "n", "excluded",
    "ceiling", "higher_is_better", "marks",
)  # fmt: skip
VERDICTS = [
    "dataset", "table", "row", "kind", "variant", "column", "metric", "published", "value", "low", "high", "seeds",
    "mean", "deviation", "difference", "marks", "verdict", "reason",
]  # fmt: skip
CHOSEN = "chosen = the checkpoint that stands for the variant; low, high = bootstrap 95 % interval over pairs."
SEEDS = (
    "mean, deviation = over the seeds of a variant, each at its chosen checkpoint; deviation is the sample standard "
    "deviation. They stand in the rows of the first seed."
)
PAIRED = (
    "difference = the first method's score minus the second's on the pairs that both have; low, high = its 95 % "
    "interval, paired bootstrap over these pairs; verdict = the better one, or a tie where the interval holds zero. "
    "Each comparison stands for itself: of twenty between equals one is expected to be no tie."
)
WELCH = (
    "Where a method has several seeds, the difference is that of the first ones; over seeds = that of the means over "
    "seeds, with Welch's 95 % interval. A verdict then names a method only where both intervals tell it from the "
    "other; one of a single seed is taken to vary as much as the other."
)


@dataclass(frozen=True)
class Table:
    """A table of methods: its cells and, by data set, the notes below its part ("" if it has no cell).

    `folded` is a table that stands below it in its .md, to be opened; its other files are its own.
    """

    title: str
    cells: list[Cell]
    notes: dict[str, list[str]]
    folded: "Table | None" = None


def _csv(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index=False, lineterminator="\n")


def write(
    folder: Path, tables: dict[str, Table], every: Runs, found: list[Difference], more: dict[str, dict[str, list[str]]]
) -> None:
    """Everything: `tables` by name, all scores of `every` run, differences, notes and the legend of the marks.

    more: notes of other tables, by name and data set.
    """
    runs, scores = by_variant(every), all_scores(every)
    for name, table in tables.items():
        _write_table(folder, name, table, runs)
    _write_all_scores(folder, scores)
    _write_differences(folder, found)
    _write_verdicts(folder, [cell for table in tables.values() for cell in table.cells if cell.verdict])
    every_note = {name: table.notes for name, table in tables.items()} | more
    lines = [
        (name, where, line) for name, notes in every_note.items() for where, said in notes.items() for line in said
    ]
    _csv(folder / "notes.csv", pd.DataFrame(lines, columns=["table", "dataset", "note"]))
    used = set(" ".join(scores["marks"]).split()).union(*(marks_in(table.cells, runs) for table in tables.values()))
    legend = [(name, mark.symbol, mark.text) for name, mark in MARKS.items() if name in used]
    _csv(folder / "legend.csv", pd.DataFrame(legend, columns=["mark", "symbol", "text"]))


def _write_table(folder: Path, name: str, table: Table, runs: Runs) -> None:
    """As csv with a row for each cell; as md and tex with a part for each data set."""
    frame = pd.DataFrame(table.cells, columns=[field.name for field in fields(Cell)])
    _csv(
        folder / f"{name}.csv",
        frame if any(cell.seeds for cell in table.cells) else frame.drop(columns=list(OverSeeds._fields)),
    )
    parts, below = _parts(table, runs), _parts(table.folded, runs) if table.folded else []
    for kind, page in (("md", markdown_page), ("tex", tex_page)):
        text = "\n".join(page(*part) for part in parts)
        if kind == "md" and table.folded:
            folded = "\n".join(page(*part) for part in below)
            text += f"\n<details><summary>{table.folded.title}</summary>\n\n{folded}\n</details>\n"
        (folder / f"{name}.{kind}").write_text(text, encoding="utf-8")


def _write_verdicts(folder: Path, cells: list[Cell]) -> None:
    """Every number of ours beside the published one of the same row, and whether it reproduces that."""
    names = [name for name in VERDICTS if name not in OverSeeds._fields or any(cell.seeds for cell in cells)]
    shown = [[getattr(cell, name) for name in names] for cell in cells]
    _csv(folder / "verdicts.csv", pd.DataFrame(shown, columns=names))


def _parts(table: Table, runs: Runs) -> list[tuple]:
    """Of each data set: title, grid, notes, marks."""
    parts = []
    for dataset, notes in table.notes.items():
        own = [cell for cell in table.cells if cell.dataset == dataset]
        title = f"{table.title}, {dataset_title(dataset)}" if dataset else table.title
        parts.append((title, grid(own), notes, marks_in(own, runs)))
    return parts


def all_scores(runs: Runs) -> pd.DataFrame:
    """Every score of every run, by step, split and metric.

    Where a variant has several seeds, their mean stands beside the first's chosen checkpoint.
    """
    frames, first = [], by_variant(runs)
    several = any(run.others for run in first.values())
    for key, run in runs.items():
        place = {metric: number for number, metric in enumerate(in_column_order(run.scores["metric"]))}
        scores = run.scores.assign(chosen=np.where(run.scores["step"] == run.chosen["step"], "yes", "no"))
        scores = scores.assign(place=scores["metric"].map(place)).sort_values(["step", "split", "place"])
        if several:
            pooled = first[key].over_seeds if key in first else {}
            keys = zip(scores["split"], scores["metric"], scores["chosen"], strict=True)
            over = [pooled.get((split, metric)) if chosen == "yes" else None for split, metric, chosen in keys]
            scores[list(OverSeeds._fields)] = pd.DataFrame([one or (None,) * 3 for one in over], index=scores.index)
        frames.append(scores[[*SCORE_COLUMNS, *(OverSeeds._fields if several else ())]])
    if not frames:
        return pd.DataFrame(columns=[*SCORE_COLUMNS])
    scores = pd.concat(frames, ignore_index=True)
    return scores.astype({"seeds": "Int64", "mean": float, "deviation": float}) if several else scores


def _write_all_scores(folder: Path, scores: pd.DataFrame) -> None:
    _csv(folder / "all_scores.csv", scores)
    used = set(" ".join(scores["marks"]).split())
    printed = scores.drop(columns="marks").astype(object)
    for column in ("value", "low", "high", "ceiling", "mean", "deviation"):
        if column in printed:
            printed[column] = [f"{number:.4f}" if number == number else "–" for number in scores[column]]
    printed["value"] += scores["marks"].map(symbols)
    notes = [CHOSEN, *([SEEDS] if "mean" in printed else [])]
    page = markdown_page("All scores", printed.fillna(""), notes, [mark for mark in MARKS if mark in used])
    (folder / "all_scores.md").write_text(page, encoding="utf-8")


def _write_differences(folder: Path, found: list[Difference]) -> None:
    """All of them as csv; those of the papers' columns as md."""
    several = any(d.seeds for d in found)
    names = [f.name for f in fields(Difference)]
    frame = pd.DataFrame(found, columns=names)
    _csv(folder / "differences.csv", frame[[name for name in names if several or not name.startswith("seeds")]])
    shown = {metric for column in COLUMNS.values() for metric in column.metrics}
    rows = []
    for d in (d for d in found if d.metric in shown):
        row = [d.dataset, d.one, d.other, d.metric, f"{d.difference:+.4f}", f"{d.low:+.4f}", f"{d.high:+.4f}", d.n]
        if several:
            over = [f"{end:+.4f}" if d.seeds else "–" for end in (d.seeds_difference, d.seeds_low, d.seeds_high)]
            row += [d.seeds.replace(" ", ", ") or "–", *over]
        rows.append([*row, d.verdict])
    over = ["seeds", "over seeds", "low over seeds", "high over seeds"] if several else []
    header = ["dataset", "one", "other", "metric", "difference", "low", "high", "pairs", *over, "verdict"]
    notes = [PAIRED, *([WELCH] if several else [])]
    page = markdown_page("Differences between methods of this run", pd.DataFrame(rows, columns=header), notes, [])
    (folder / "differences.md").write_text(page, encoding="utf-8")
