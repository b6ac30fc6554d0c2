"""The cells of a paper's table and of a leaderboard: published values, ours beside them, ranks, and what to say below.

Definitions are in `pipeline.tables.papers`, text in `pipeline.tables.text`, files in the stage `tables`.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from pipeline.datasets import title as dataset_title
from pipeline.tables.over_seeds import OverSeeds, over_seeds
from pipeline.tables.paired import Difference
from pipeline.tables.papers import (
    ALTERS_MEASURE,
    COLUMNS,
    EQUAL_PROTOCOLS,
    FLOORS,
    LEADERBOARD,
    MARKS,
    PROTOCOL,
    PaperTable,
    Row,
)


@dataclass(frozen=True)
class Cell:
    """One value of a table, or a place in it that has none (`value` ""). Its fields are the csv's columns."""

    table: str
    dataset: str
    row: str
    kind: str  # published | floor | trained | outside
    variant: str
    column: str
    higher_is_better: bool
    metric: str = ""
    protocol: str = ""
    step: int | str = ""
    split: str = ""
    value: str = ""
    printed: str = ""  # the value as the paper rounds it
    low: str = ""
    high: str = ""
    n: int | str = ""
    excluded: int | str = ""
    marks: str = ""  # names of MARKS, separated by spaces
    difference: str = ""  # ours minus the paper's, between equal protocols only
    source: str = ""
    place: str = ""  # among this run's comparable rows: best, second or nothing, and "tied" if not told from the best
    seeds: int | str = ""  # of training, where there are several; `value` and its interval are the first's
    mean: str = ""  # over the seeds
    deviation: str = ""  # sample standard deviation over the seeds

    @property
    def ranked_by(self) -> float:
        return float(self.mean or self.value)


OVER_SEEDS = ("seeds", "mean", "deviation")


@dataclass(frozen=True)
class Choice:
    """The checkpoint that stands for a variant: the score it was chosen by, among how many.

    An outside method has one set of images, chosen by nobody: `row` is then one of its test scores.
    """

    row: dict
    checkpoints: int
    kind: str = "trained"  # floor | trained | outside
    pairs: Path | None = None  # its values for each pair
    seed: int | None = None  # of training
    given_target_parsing: bool = False  # sees the parsing of the true target when it is scored: shown, not ranked
    others: tuple["Run", ...] = ()  # the same variant from its further seeds, each with a checkpoint chosen for itself


Run = tuple[list[dict], Choice]
Runs = dict[tuple[str, str], Run]  # by data set and variant


def exact(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def chosen_score(run: Run, metric: str, split: str = "test") -> dict | None:
    """The row of a run's chosen checkpoint."""
    scores, choice = run
    wanted = (choice.row["step"], split, metric)
    rows = (r for r in scores if (r["step"], r["split"], r["metric"]) == wanted and r["value"] is not None)
    return next(rows, None)


def spread(run: Run, metric: str, split: str = "test") -> OverSeeds | None:
    """A metric over the seeds of a variant, each at its chosen checkpoint.

    None for one seed, and where a seed lacks the score or has it by another protocol or network.
    """
    rows = [chosen_score(each, metric, split) for each in (run, *run[1].others)]
    if None in rows or len({(row["protocol"], frozenset(row["marks"]) & ALTERS_MEASURE) for row in rows}) > 1:
        return None
    return over_seeds([row["value"] for row in rows])


def _published_row(published: list[dict], table: PaperTable, dataset: str, row: Row) -> list[Cell]:
    """One cell a column; [] if published.csv does not have the row."""
    key = (table.paper, table.source, dataset_title(dataset), row.method, row.variant)
    found = {
        p["metric"]: p for p in published if (p["paper"], p["table"], p["dataset"], p["method"], p["variant"]) == key
    }
    cells = []
    for column in table.columns_of(dataset) if found and row.method else ():
        higher = COLUMNS[column].higher_is_better
        cell = Cell(table.name, dataset, row.name, "published", "", column, higher)
        if column in found:
            value, marks = found[column]["value"], "" if found[column]["verified"] == "yes" else "unverified"
            cell = replace(cell, value=value, printed=value, marks=marks, source=found[column]["source"])
        cells.append(cell)
    return cells


def _our_row(
    name: str, dataset: str, row: str, variant: str, run: Run, columns: dict[str, tuple[str, ...]]
) -> list[Cell]:
    """One cell a column (`columns`: its metrics): the chosen checkpoint's test score, blank where it was not scored."""
    scores, choice = run
    step = choice.row["step"]
    test = {r["metric"]: r for r in scores if r["split"] == "test" and r["step"] == step and r["value"] is not None}
    cells = []
    for title, metrics in columns.items():
        column = COLUMNS[title]
        cell = Cell(name, dataset, row, choice.kind, variant, title, column.higher_is_better)
        score = next((test[metric] for metric in metrics if metric in test), None)
        if score is not None:
            known = {key: score[key] for key in ("metric", "protocol", "step", "split", "n", "excluded")}
            known |= {key: exact(score[key]) for key in ("value", "low", "high")}
            printed = f"{score['value']:.{column.decimals}f}"
            cell = replace(cell, **known, printed=printed, marks=" ".join(score["marks"]))
            if several := spread(run, score["metric"]):
                over = {"mean": exact(several.mean), "deviation": exact(several.deviation)}
                cell = replace(cell, seeds=several.seeds, **over)
        cells.append(cell)
    return cells


def _other_rows(published: list[dict], table: PaperTable) -> list[Row]:
    """Rows that published.csv has of the table beyond its definition: somebody's own additions."""
    known = {(row.method, row.variant) for row in table.rows}
    found = dict.fromkeys(
        (p["method"], p["variant"]) for p in published if (p["paper"], p["table"]) == (table.paper, table.source)
    )
    return [Row(" ".join(filter(None, key)), *key) for key in found if key not in known]


def paper_table(table: PaperTable, published: list[dict], runs: Runs) -> list[Cell]:
    """A paper's table on its own data sets and those of this run: each published row, and below it ours.

    Another program's images of the row's name stand there too. A data set with no value at all has no part.
    """
    rows = [*table.rows, *([] if table.part else _other_rows(published, table))]
    cells = []
    for dataset in dict.fromkeys([*table.columns, *(dataset for dataset, _ in runs)]):
        columns = {column: table.metrics_of(column) for column in table.columns_of(dataset)}
        measured = any(columns.values())
        part, theirs = [], False
        for row in rows:
            found = _published_row(published, table, dataset, row)
            theirs |= any(cell.value for cell in found)
            part += found
            names = {name.casefold() for name in (row.name, *row.aliases)}
            for (where, variant), run in runs.items():
                if where != dataset or not measured:
                    continue
                label = row.name.removesuffix(" (the paper's)")
                if variant == row.ours and run[1].kind != "outside":
                    part += _our_row(table.name, dataset, f"{label}, this run", variant, run, columns)
                elif run[1].kind == "outside" and variant.casefold() in names:
                    part += _our_row(table.name, dataset, f"{variant} (outside)", variant, run, columns)
        # Published rows without a single value, of a data set of which no number is known, say nothing.
        cells += _with_differences(table, part) if theirs else [cell for cell in part if cell.kind != "published"]
    return cells


def _with_differences(table: PaperTable, cells: list[Cell]) -> list[Cell]:
    """Fill `difference` of our cells where the protocol equals that of the same row's published, verified value."""
    labels = {row.ours: row.name for row in table.rows if row.ours}
    known = {(c.row, c.column): c.value for c in cells if c.kind == "published" and c.value and not c.marks}
    result = []
    for cell in cells:
        theirs = known.get((labels.get(cell.variant), cell.column)) if cell.kind == "trained" else None
        equal = (table.paper, cell.column) in EQUAL_PROTOCOLS.get(cell.metric, ())
        if cell.value and theirs and equal and not ALTERS_MEASURE & set(cell.marks.split()):
            apart = float(cell.value) - float(theirs)
            cell = replace(cell, difference=f"{apart:+.{COLUMNS[cell.column].decimals}f}")
        result.append(cell)
    return result


def leaderboard(dataset: str, runs: Runs) -> list[Cell]:
    """Every method of this run on a data set under our protocol, sorted by the first column, best first."""
    name = f"leaderboard_{dataset}"
    columns = {column: COLUMNS[column].metrics for column in LEADERBOARD}
    rows = []
    for (where, variant), run in runs.items():
        if where == dataset:
            label = f"{variant} (outside)" if run[1].kind == "outside" else FLOORS.get(variant, variant)
            rows.append(_our_row(name, dataset, label, variant, run, columns))
    sign = -1 if COLUMNS[LEADERBOARD[0]].higher_is_better else 1
    rows.sort(key=lambda row: sign * row[0].ranked_by if row[0].value else float("inf"))
    filled = {cell.column for row in rows for cell in row if cell.value}
    return [cell for row in rows for cell in row if cell.column in filled]


def with_places(cells: list[Cell], found: list[Difference], unranked: Collection[str] = ()) -> list[Cell]:
    """Fill `place` of our cells: the best and second of those in a column that can be compared, and who is tied.

    Comparable are one metric and protocol, by the same network, on the same number of pairs or by a paired difference.
    The variants in `unranked` get no place.
    """
    verdicts = {(d.dataset, d.metric, frozenset((d.one, d.other))): d.verdict for d in found}
    result = list(cells)
    groups = defaultdict(list)
    for index, cell in enumerate(cells):
        if cell.value and cell.kind != "published" and cell.variant not in unranked:
            altered = frozenset(cell.marks.split()) & ALTERS_MEASURE
            groups[cell.table, cell.dataset, cell.column, cell.metric, cell.protocol, altered].append(index)
    for (_, dataset, _, metric, _, _), members in groups.items():
        sign = -1 if cells[members[0]].higher_is_better else 1
        order = sorted(members, key=lambda index: sign * cells[index].ranked_by)
        for best in order:
            verdict = {
                i: verdicts.get((dataset, metric, frozenset((cells[best].variant, cells[i].variant)))) for i in order
            }
            others = [i for i in order if i != best and (verdict[i] or cells[i].n == cells[best].n)]
            if others:
                break
        else:
            continue
        tied = [i for i in others if verdict[i] == "tie"]
        for i in tied:
            result[i] = replace(cells[i], place="tied")
        places = {i: "best" for i in [best, *others] if cells[i].ranked_by == cells[best].ranked_by}
        rest = [i for i in others if i not in places]
        if len(others) > 1 and rest:
            places |= {i: "second" for i in rest if cells[i].ranked_by == cells[rest[0]].ranked_by}
        for i, place in places.items():
            also = i in tied or (i == best and tied)
            result[i] = replace(cells[i], place=f"{place} tied" if also else place)
    return result


# ---- what is said below a table


def marks_in(cells: Iterable[Cell], runs: Runs) -> list[str]:
    """Names of the marks on values, and on the scores that checkpoints were chosen by, in the order of MARKS."""
    used = set()
    for cell in cells:
        if cell.value:
            used |= set(cell.marks.split())
        if cell.value and cell.kind == "trained":
            used |= set(runs[cell.dataset, cell.variant][1].row["marks"])
    return [name for name in MARKS if name in used]


def _about_ours(ours: list[Cell], runs: Runs) -> list[str]:
    """Checkpoints, protocols, intervals, ties, and outside methods of which only some images came."""
    lines = []
    for dataset, variant in dict.fromkeys((c.dataset, c.variant) for c in ours if c.kind == "trained"):
        choice = runs[dataset, variant][1]
        chosen, best = choice.row, "highest" if choice.row["higher_is_better"] else "lowest"
        symbols = "".join(MARKS[mark].symbol for mark in chosen["marks"])
        lines.append(
            f"{variant}: step {chosen['step']}, of {choice.checkpoints} checkpoints the one with the {best} "
            f"{chosen['metric']} on {chosen['split']} ({chosen['value']:.4f}{symbols}); test had no say."
        )
        if choice.others:
            every = [choice, *(other for _, other in choice.others)]
            seeds = ", ".join(str(each.seed) for each in every)
            steps = ", ".join(str(each.row["step"]) for each in every)
            lines.append(
                f"{variant}: trained from {len(every)} seeds ({seeds}); each run's checkpoint was chosen for itself "
                f"(steps {steps}). The number and its interval over pairs are those of seed {choice.seed}."
            )
    protocols = dict.fromkeys((cell.column, cell.metric, cell.protocol) for cell in ours)
    listed = "; ".join(f"{column} = {metric} ({protocol})" for column, metric, protocol in sorted(protocols))
    if protocols:
        lines.append(f"Protocols of this run, defined in docs/protocols.md: {listed}.")
    if any(cell.low for cell in ours):
        lines.append(
            "Intervals: 95 %, bootstrap over the test pairs; those of FID and IS by the first-order influence of each "
            "pair, so they say nothing about the bias that these have on few images."
        )
    if any("tied" in cell.place for cell in ours):
        lines.append(
            "≈: the best of this run's rows and those that a paired bootstrap over the test pairs does not "
            "tell from it at 95 %, one comparison at a time."
        )
    if any(cell.seeds for cell in ours):
        lines.append(
            "seeds: mean ± sample standard deviation over runs from different seeds of training. These rank by their "
            "mean, and ≈ also says that Welch's 95 % interval over seeds does not tell two methods apart."
        )
    partial = {(cell.row, cell.n) for cell in ours if cell.kind == "outside" and "pairs" in cell.marks.split()}
    for row, n in sorted({(row, max(m for r, m in partial if r == row)) for row, _ in partial}):
        lines.append(f"{row}: images for only {n} test pairs were given; its row is about those, no other row is.")
    return lines


def _by_dataset(cells: list[Cell]) -> dict[str, list[Cell]]:
    parts = defaultdict(list)
    for cell in cells:
        parts[cell.dataset].append(cell)
    return parts


def notes(table: PaperTable, cells: list[Cell], runs: Runs) -> dict[str, list[str]]:
    """Data set -> what must be said under its part of a paper's table, except the marks; "" if it has no part."""
    if not cells:
        return {"": [*table.notes, f"Not in this run: {', '.join(row.ours for row in table.rows if row.ours)}."]}
    result = {}
    for dataset, own in _by_dataset(cells).items():
        ours = [cell for cell in own if cell.kind != "published" and cell.value]
        theirs = [cell for cell in own if cell.kind == "published"]
        measured = any(table.metrics_of(column) for column in table.columns_of(dataset))
        scored = {variant for where, variant in runs if where == dataset}
        lacking = [row.ours for row in table.rows if row.ours and row.ours not in scored]
        lines = []
        if theirs:
            lines.append(f"Published rows: {'; '.join(dict.fromkeys(c.source for c in theirs if c.value))}.")
        if any(not cell.value for cell in theirs):
            lines.append("A dash in a published row: the paper gives no number, or it is not known here.")
        if measured and not scored:
            lines.append("This run did not score this data set.")
        elif lacking:
            lines.append(f"Not in this run: {', '.join(lacking)} (variants in params.yaml).")
        lines += [*table.notes, *table.notes_of.get(dataset, ())]
        lines += _about_ours(ours, runs)
        if theirs and ours and not all(cell.difference for cell in ours if cell.kind == "trained"):
            lines.append(
                f"A difference to the paper is printed only between equal protocols. {PROTOCOL[table.paper]}: where no "
                "difference stands, the two numbers do not measure the same thing."
            )
        result[dataset] = lines
    return result


def leaderboard_notes(cells: list[Cell], runs: Runs) -> dict[str, list[str]]:
    """Data set -> what must be said under its leaderboard, except the marks."""
    result = {}
    for dataset, own in _by_dataset(cells).items():
        lines = [
            f"Every method of this run under one protocol, sorted by {LEADERBOARD[0]}. Best and 2nd compare rows with "
            "one metric, network and set of pairs."
        ]
        shown = dict.fromkeys(cell.variant for cell in own)
        if told := [name for name in shown if runs[dataset, name][1].given_target_parsing]:
            lines.append(f"Given the parsing of the true target when scored, and so not ranked: {', '.join(told)}.")
        result[dataset] = lines + _about_ours([cell for cell in own if cell.value], runs)
    return result


def csv_columns(cells: Iterable[Cell]) -> list[str]:
    """Those of a table; what is about several seeds only where a cell has several."""
    names = [field.name for field in fields(Cell)]
    return names if any(cell.seeds for cell in cells) else [name for name in names if name not in OVER_SEEDS]


def as_row(cell: Cell, columns: Iterable[str]) -> tuple:
    return tuple(getattr(cell, name) for name in columns)
