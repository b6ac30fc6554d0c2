"""The cells of a paper's table and of a leaderboard: published values, ours beside them, and how ours rank."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from pipeline.core import params
from pipeline.datasets import title as dataset_title
from pipeline.tables.inputs import VERIFIED, Run, Runs, altered
from pipeline.tables.over_seeds import OverSeeds
from pipeline.tables.paired import Difference
from pipeline.tables.papers import (
    ALTERS_MEASURE,
    COLUMNS,
    EQUAL_PROTOCOLS,
    FLOORS,
    LEADERBOARD,
    MARKS,
    OTHER_PICTURES,
    RANDOM_WEIGHTS,
    SAME,
    TABLES,
    PaperTable,
    Row,
    recipe_of,
)
from pipeline.tables.papers import published as published_name
from pipeline.tables.studies import MEASURES, Study
from pipeline.tables.verdicts import NOT_COMPARABLE, Calibration, Ours, incomparable, verdict


@dataclass(frozen=True)
class Cell:
    """One value of a table, or a place in it that has none (`value` ""). Its fields are the csv's columns."""

    table: str
    dataset: str
    row: str
    kind: str  # published | floor | trained | component | outside | study | record
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
    published: str = ""  # the paper's number for the same row, which ours is held against
    difference: str = ""  # ours minus that, between equal protocols only
    verdict: str = ""  # one of verdicts.WORDS, where a published number stands
    reason: str = ""
    source: str = ""
    other: str = ""  # what another paper prints for a published number's cell
    other_source: str = ""
    row_protocol: str = ""  # how the numbers of its row were measured, where a table's rows differ in that
    place: str = ""  # among comparable rows: best, second or nothing, and "tied" if not told from the best
    seeds: int | str = ""  # of training, where there are several; `value` and its interval are the first's
    mean: str = ""  # over the seeds
    deviation: str = ""  # sample standard deviation over the seeds

    @property
    def pairs(self) -> int:
        """How many test pairs it was scored on, those included that its metric leaves out."""
        return int(self.n or 0) + int(self.excluded or 0)

    @property
    def badness(self) -> float:
        """What it is ranked by, the lowest first: its mean over seeds if it has one, else its value."""
        value = float(self.mean or self.value)
        return -value if self.higher_is_better else value


def exact(value: float | None) -> str:
    """All digits of a number; nothing for None and NaN."""
    return "" if value is None or value != value else repr(float(value))


def _published_row(published: list[dict], table: PaperTable, dataset: str, row: Row) -> list[Cell]:
    """A cell for each column; [] if published.csv does not have the row."""
    of, found = table.of or dataset_title(dataset), {}
    for paper, source in row.read_in or ((table.paper, table.source),):
        key = (paper, source, of, row.method, row.variant)
        for p in published:
            if (p["paper"], p["table"], p["dataset"], p["method"], p["variant"]) == key:
                found.setdefault(p["metric"], p)
    cells = []
    for column in table.columns_of(dataset) if found and row.method else ():
        higher = COLUMNS[column].higher_is_better
        cell = Cell(table.name, dataset, row.name, "published", "", column, higher, row_protocol=row.protocol)
        if column in found:
            cell = _with_published(cell, found[column])
            if row.protocol == SAME and set(cell.marks.split()) <= {"second-hand"}:  # what of ours it is equal to
                cell = replace(cell, metric=table.metrics_of(column)[0])
        cells.append(cell)
    return cells


def _with_published(cell: Cell, row: dict) -> Cell:
    """The cell with the number of a row of published.csv, its marks, and the value that another paper has for it."""
    marks = f"{VERIFIED[row['verified']]} {row['marks']}".strip()
    other = {"other": row["other_value"], "other_source": row["other_source"]}
    return replace(cell, value=row["value"], printed=row["value"], marks=marks, source=row["source"], **other)


def _our_row(table: str, row: str, run: Run, columns: dict[str, tuple[str, ...]], row_protocol: str = "") -> list[Cell]:
    """A cell for each column (`columns`: its metrics): the chosen checkpoint's test score, empty if there is none."""
    cells = []
    for title, metrics in columns.items():
        column = COLUMNS[title]
        cell = Cell(table, run.dataset, row, run.kind, run.name, title, column.higher_is_better)
        cell = replace(cell, row_protocol=row_protocol)
        score = next((run.test[metric] for metric in metrics if metric in run.test), None)
        if score is not None:
            known = {key: score[key] for key in ("metric", "protocol", "step", "split", "n", "excluded", "marks")}
            known |= {key: exact(score[key]) for key in ("value", "low", "high")}
            cell = replace(cell, **known, printed=f"{score['value']:.{column.decimals}f}")
            if several := run.over_seeds.get(("test", score["metric"])):
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


def _our_rows(table: PaperTable, row: Row, dataset: str, runs: Runs) -> list[Cell]:
    """This run's row of the same method, and that of images from elsewhere which go by the row's name."""
    columns = {column: table.metrics_of(column) for column in table.columns_of(dataset)}
    cells = []
    for run in runs.values():
        if run.dataset != dataset or not any(columns.values()) or not _is_of(row, run):
            continue
        name = _label(run)
        if run.kind != "outside":
            name = row.name.removesuffix(" (the paper's)") + ", this run" + _in_brackets(params.named(run.name))
        cells += _our_row(table.name, name, run, columns, _protocol_of(table, dataset))
    return cells


def _is_of(row: Row, run: Run) -> bool:
    """Whether a run is of the row's method."""
    if run.kind == "outside":
        return row.is_called(run.name)
    return bool(row.ours) and params.variant_of(run.name) == row.ours


def _protocol_of(table: PaperTable, dataset: str) -> str:
    """What stands as protocol beside our rows, in a table whose rows differ in that."""
    return "" if not table.of else SAME if _form(dataset) == table.form else f"this run's, {_form(dataset)}"


def _form(dataset: str) -> str:
    """In which form a data set's images are, where it has several."""
    return params.load()["fetch"][dataset].get("protocol", "")


def _is_in(dataset: str, form: str) -> bool:
    """Whether its images are in the form, by whatever filter: resize176, resize176-cv2-cubic."""
    return _form(dataset).partition("-")[0] == form


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _label(run: Run) -> str:
    """What a leaderboard calls a run: spig (fast), Copy of the source, My method (outside)."""
    if run.kind == "record":
        return run.label
    if run.kind == "outside":
        return run.name + _in_brackets("outside")
    if run.kind == "trained":
        return params.variant_of(run.name) + _in_brackets(params.named(run.name))
    return FLOORS.get(run.name, run.name)


def _further_rows(table: PaperTable, rows: list[Row], dataset: str, runs: Runs) -> list[Cell]:
    """Outside methods that go by no row's name, of which the table has a column that was measured; where it compares
    whatever was scored in its form, every other method of this run, too.
    """
    columns = {column: table.metrics_of(column) for column in table.columns_of(dataset)}
    cells = []
    for run in runs.values():
        fits = run.kind == "outside" or (table.of and run.kind != "component")
        if run.dataset == dataset and fits and not any(_is_of(row, run) for row in rows):
            name = _label(run) + ("" if run.kind == "outside" else ", this run")
            found = _our_row(table.name, name, run, columns, _protocol_of(table, dataset))
            cells += found if any(cell.value for cell in found) else []
    return cells


def _datasets(table: PaperTable, runs: Runs, studies: Sequence[Study]) -> list[str]:
    """Those of the table and of this run; of a table of one form, this run's in that form or, without one, its own."""
    of_run = dict.fromkeys([*(dataset for dataset, _ in runs), *(study.dataset for study in studies)])
    if not table.of:
        return [*dict.fromkeys([*table.columns, *of_run])]
    return [name for name in of_run if _is_in(name, table.form)] or [*table.columns]


def _asked(table: PaperTable, study: Study, method: str, row: Row | None = None) -> list[Cell]:
    """What people said of a method, a cell for each column."""
    over = f" over {study.rival(method)}" if row and row.over else ""
    label, cells = f"{method}{over} (study {study.name})", []
    for title in table.columns_of(study.dataset):
        column, measure = COLUMNS[title], MEASURES[title]
        cell = Cell(table.name, study.dataset, label, "study", method, title, column.higher_is_better)
        if rate := study.rates.get((method, measure)):
            known = {key: "" if rate[key] == "nan" else rate[key] for key in ("value", "low", "high")}
            printed = f"{float(rate['value']):.{column.decimals}f}"
            about = {"metric": study.metric(measure), "protocol": study.protocol, "marks": "raters"}
            cell = replace(cell, printed=printed, **known, **about)
        cells.append(cell)
    return cells


def paper_table(
    table: PaperTable,
    published: list[dict],
    runs: Runs,
    studies: Sequence[Study] = (),
    calibrated: Sequence[Calibration] = (),
) -> list[Cell]:
    """A paper's table on its own data sets and those of this run: each published row, and ours below it, or what people
    said of the same method here; methods from elsewhere at its end.

    A data set without a published value or one of ours has no part.
    """
    rows = [*table.rows, *([] if table.part else _other_rows(published, table))]
    cells = []
    for dataset in _datasets(table, runs, studies):
        part, asked = [], [study for study in studies if study.fills(table, dataset)]
        for row in rows:
            part += _published_row(published, table, dataset, row) + _our_rows(table, row, dataset, runs)
            part += [cell for study in asked for method in study.of(row) for cell in _asked(table, study, method, row)]
        part += _further_rows(table, rows, dataset, runs) if part else []
        for study in asked:
            known = {method for row in rows for method in study.of(row)}
            others = [method for method in study.methods if method not in known and not any(row.over for row in rows)]
            part += [cell for method in others for cell in _asked(table, study, method)]
        if any(cell.kind == "published" and cell.value for cell in part):
            cells += _with_verdicts(table, rows, part, runs, calibrated)
        else:  # no number of this data set was published: the published rows would be empty
            cells += [cell for cell in part if cell.kind != "published"]
    return cells


def _with_verdicts(
    table: PaperTable, rows: list[Row], cells: list[Cell], runs: Runs, calibrated: Sequence[Calibration]
) -> list[Cell]:
    """Of our cells in a column that has published numbers: what the paper prints for the same row, `difference` to it
    and whether it is reproduced; the mark "protocol" where it is not known to be measured as the column is.
    """
    columns = {cell.column for cell in cells if cell.kind == "published" and cell.value}
    published = {(cell.row, cell.column): cell for cell in cells if cell.kind == "published" and cell.value}
    result = []
    for cell in cells:
        if cell.kind in ("published", "study") or not cell.value or cell.column not in columns:
            result.append(cell)
            continue
        row = next((row for row in rows if _is_of(row, runs[cell.dataset, cell.variant])), None)
        theirs = published.get((row.name, cell.column)) if row else None
        equal = (table.paper, cell.column) in EQUAL_PROTOCOLS.get(cell.metric, ()) and cell.row_protocol in ("", SAME)
        altered_by = [mark for mark in cell.marks.split() if mark in ALTERS_MEASURE | OTHER_PICTURES]
        if theirs:
            word, reason = _verdict(table, row, cell, theirs, runs, calibrated)
            cell = replace(cell, published=theirs.value, verdict=word, reason=reason)
            compared = word != NOT_COMPARABLE
            equal = equal or compared
            if compared or (equal and not altered_by and not theirs.marks and cell.kind == "trained"):
                apart = float(cell.value) - float(theirs.value)
                cell = replace(cell, difference=f"{apart:+.{COLUMNS[cell.column].decimals}f}")
        result.append(cell if equal else replace(cell, marks=f"{cell.marks} protocol".strip()))
    return result


def _verdict(
    table: PaperTable, row: Row, cell: Cell, theirs: Cell, runs: Runs, calibrated: Sequence[Calibration]
) -> tuple[str, str]:
    """Of our cell and the published one of the same row: one of verdicts.WORDS, and why."""
    dataset = table.of or dataset_title(cell.dataset)
    if by := [mark for mark in cell.marks.split() if mark in ALTERS_MEASURE | OTHER_PICTURES]:
        return NOT_COMPARABLE, MARKS[by[0]].text
    recipe = recipe_of(table, row)
    if recipe is None:
        how = f"its protocol is {row.protocol}" if row.protocol else f"{table.paper} does not say by which code"
        return NOT_COMPARABLE, f"no recipe is known to measure as the published number was: {how}"
    held = {(one.dataset, one.method, one.metric, one.published) for one in calibrated if one.within == "yes"}
    if theirs.marks and (dataset, row.method, cell.column, theirs.value) not in held:
        return NOT_COMPARABLE, MARKS[theirs.marks.split()[0]].text
    test = runs[cell.dataset, cell.variant].test[cell.metric]
    version = test.get("version")
    ours = Ours(
        low=float(cell.low) if cell.low else None,
        high=float(cell.high) if cell.high else None,
        higher_is_better=cell.higher_is_better,
        metric=cell.metric,
        version=1 if version is None or version != version else int(version),
        seeds=OverSeeds(int(cell.seeds), float(cell.mean), float(cell.deviation)) if cell.seeds else None,
    )
    why = incomparable(ours, recipe, dataset, cell.column, calibrated)
    return (NOT_COMPARABLE, why) if why else verdict(ours, theirs.value)


def leaderboard(dataset: str, runs: Runs) -> list[Cell]:
    """Every method of this run on a data set under our protocol, sorted by the first column, best first; after them
    those that were scored on a part of the pairs.

    Columns in LEADERBOARD's order, but those last whose every number comes from random weights: they rank nothing.
    """
    columns = {column: COLUMNS[column].metrics for column in LEADERBOARD}
    rows = []
    for run in runs.values():
        if run.dataset == dataset and run.kind != "component":
            rows.append(_our_row(f"leaderboard_{dataset}", _label(run), run, columns))
    filled = [[cell for cell in column if cell.value] for column in zip(*rows, strict=True)]
    random = [all(RANDOM_WEIGHTS in cell.marks.split() for cell in column) for column in filled]
    order = sorted((place for place, column in enumerate(filled) if column), key=lambda place: random[place])
    rows = [[row[place] for place in order] for row in rows]
    most = max((row[0].pairs for row in rows if row), default=0)
    return [cell for row in sorted(rows, key=lambda row: _first(row, most)) for cell in row]


def published_numbers(dataset: str, published: list[dict]) -> list[Cell]:
    """Every published number on a data set that has a column of ours, a row a method of a table of published.csv; those
    on its pictures at a size of their own with that.
    """
    title = next((table.of for table in TABLES if table.of and _is_in(dataset, table.form)), dataset_title(dataset))
    of = [p for p in published if p["value"] and (p["dataset"] == title or p["dataset"].startswith(f"{title} "))]
    known = {p["metric"] for p in of}
    columns = [name for name in dict.fromkeys([*LEADERBOARD, *COLUMNS]) if name in known and COLUMNS[name].metrics]
    rows: dict[str, dict[str, dict]] = defaultdict(dict)
    for p in of:
        if p["metric"] in columns:
            name = " ".join(filter(None, (p["method"], p["variant"])))
            where = p["paper"].removesuffix(" (context)"), p["table"], p["dataset"].removeprefix(title).strip()
            rows[f"{name} ({', '.join(filter(None, where))})"][p["metric"]] = p
    cells = []
    for name, found in rows.items():
        for column in columns:
            higher = COLUMNS[column].higher_is_better
            cell = Cell(published_name(dataset), dataset, name, "published", "", column, higher)
            cells.append(_with_published(cell, found[column]) if column in found else cell)
    return cells


def _first(row: list[Cell], most: int) -> tuple[int, bool, float]:
    """What a row of a leaderboard is sorted by: its first cell's badness, after those of the column's own metric if it
    is of a stand-in, such as another network's, and after those of `most` pairs; without a value the last.
    """
    if not row or not row[0].value:
        return len(COLUMNS), False, 0.0
    return COLUMNS[row[0].column].metrics.index(row[0].metric), row[0].pairs < most, row[0].badness


# ---- ranks


def with_places(
    cells: list[Cell], found: list[Difference], runs: Runs, unranked: Collection[tuple[str, str]] = ()
) -> list[Cell]:
    """Fill `place` of our cells: best and second of those in a column that can be compared, and who is tied.

    Comparable are values of one metric and protocol by the same kind of network on the same pairs, of which a metric
    may leave out others for each method if a paired difference is known; a published one of which it is known what of
    ours it equals, with ours on all pairs. unranked: the data set and name of methods that get no place.
    """
    verdicts = {(d.dataset, d.metric, frozenset((d.one, d.other))): d.verdict for d in found}
    groups = defaultdict(list)
    for index, cell in enumerate(cells):
        ranked = cell.kind != "published" or (cell.row_protocol and cell.metric)
        if cell.value and ranked and (cell.dataset, cell.variant) not in unranked:
            protocol = cell.row_protocol or cell.protocol
            key = (cell.table, cell.dataset, cell.column, cell.metric, protocol, altered(cell.marks))
            groups[key].append(index)

    def verdict(one: Cell, other: Cell) -> str | None:
        """The paired one; "" for two of the same pairs without one; None for two that cannot be compared."""
        if "published" in (one.kind, other.kind):
            return None if "pairs" in f"{one.marks} {other.marks}".split() else ""
        sets = {runs[key].pair_set for cell in (one, other) if (key := (cell.dataset, cell.variant)) in runs} - {""}
        if one.pairs != other.pairs or len(sets) > 1:  # of easier pairs the mean is better, whoever drew them
            return None
        paired = verdicts.get((one.dataset, one.metric, frozenset((one.variant, other.variant))))
        return paired or ("" if one.n == other.n else None)

    def has_published(members: list[int]) -> bool:
        return any(cells[index].kind == "published" for index in members)

    result, taken = list(cells), set()  # taken: columns whose ranks are among published numbers, too
    for members in sorted(groups.values(), key=has_published, reverse=True):
        members.sort(key=lambda index: cells[index].badness)
        column = cells[members[0]].table, cells[members[0]].dataset, cells[members[0]].column
        if column in taken:  # a best of rows that compare with none of those would read as theirs
            continue
        for index, place in zip(members, _places([cells[index] for index in members], verdict), strict=True):
            result[index] = replace(cells[index], place=place)
        if has_published(members) and any(result[index].place for index in members):
            taken.add(column)
    return result


def _places(cells: list[Cell], verdict: Callable[[Cell, Cell], str | None]) -> list[str]:
    """The place of each of the cells, which are sorted, the best first: "best", "second" or "", and "tied".

    The best is the first that can be compared with any other; places are among those that can be compared with it.
    """
    for best in cells:
        others = [cell for cell in cells if cell is not best and verdict(best, cell) is not None]
        if others:
            break
    else:
        return [""] * len(cells)
    tied = [cell for cell in others if verdict(best, cell) == "tie"]
    tied += [best] if tied else []
    first = [cell for cell in [best, *others] if cell.badness == best.badness]
    rest = [cell for cell in others if cell not in first]
    second = [cell for cell in rest if len(others) > 1 and cell.badness == rest[0].badness]
    places = []
    for cell in cells:
        place = "best" if cell in first else "second" if cell in second else ""
        places.append(" ".join(filter(None, (place, "tied" if cell in tied else ""))))
    return places
