"""Write the papers' tables: published numbers, and this run's beside them.

reads   reports/scores/D/V/scores.parquet of every data set and variant in params.yaml, reports/published.csv
writes  reports/tables/: three tables, each as .csv (one value a row), .md and .tex, and notes.csv and legend.csv
          spig_table1   comparison on each data set, in the paper's columns
          spig_table3   ablation
          all_scores    every checkpoint, split and metric

One checkpoint stands for a variant: the best by `tables.choose_by` on the val split, never on test; each table
says which. A number that differs from the paper's set-up carries a mark, explained under its table. A difference
to a published value is printed only where both protocols are known to be equal (EQUAL_PROTOCOLS).

To see your own published numbers here, add rows to reports/published.csv: with their source, and verified = yes
only if you read the value in the paper.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from pathlib import Path

from pipeline import layout, params, schema, store
from pipeline.atomic import atomic_directory
from pipeline.console import say
from pipeline.datasets import title as dataset_title
from pipeline.errors import UserError


@dataclass(frozen=True)
class Params:
    choose_by: dict[str, str]  # metric: lpips | ssim | psnr; split: val


@dataclass(frozen=True)
class Mark:
    symbol: str
    tex: str
    text: str


# How a number differs from the paper's set-up. The names are those of `schema.SCORES`, and one of our own: unverified.
MARKS = {
    "metric-weights": Mark(
        "†",
        r"\textdagger",
        "the metric's own feature network has random weights from a fixed seed, not the published ones",
    ),
    "steps": Mark("‡", r"\textdaggerdbl", "trained for fewer steps than the paper's or the assumed full schedule"),
    "weights": Mark(
        "§",
        r"\textsection",
        "training losses used other feature weights than the paper's VGG19 (another net, or seeded)",
    ),
    "settings": Mark("∗", r"\textasteriskcentered", "another batch size or learning rate than the paper's"),
    "width": Mark("¶", r"\textparagraph", "narrower network than the paper's"),
    "data": Mark(
        "※", r"\textreferencemark", "not the paper's data set, a part of it, or joints other than the published"
    ),
    "pairs": Mark("‖", r"\textbardbl", "scored on fewer test pairs than the published list has"),
    "unverified": Mark("?", "?", "published number not checked against the paper"),
}

ROWS = {
    "copy_source": "Copy of the source",
    "mean_image": "Mean training image",
    "spig": "SPIG, this run",
    "spgnet": "SPGNet, this run",
}


@dataclass(frozen=True)
class Column:
    """A column of the papers: our metrics that may fill it, the published one first, and its printed decimals."""

    metrics: tuple[str, ...]
    decimals: int


COLUMNS = {
    "FID": Column(("fid",), 3),
    "LPIPS": Column(("lpips-alex-v0.1", "lpips-squeeze-v0.1"), 4),
    "Mask-LPIPS": Column(("mask-lpips-alex-v0.1", "mask-lpips-squeeze-v0.1"), 4),
    "SSIM": Column(("ssim",), 3),
    "Mask-SSIM": Column(("mask-ssim",), 3),
    "PSNR": Column(("psnr",), 3),
    "Mask-PSNR": Column(("mask-psnr",), 3),
}
UNMASKED = ("FID", "LPIPS", "SSIM", "PSNR")
LOWER_IS_BETTER = {"FID", "LPIPS", "Mask-LPIPS"}

# Variant -> its row of the paper.
TABLE1_ROWS = {"spig": "SPIG (the paper's)"}
TABLE3_ROWS = {
    "spig_no_part": "w/o Part",
    "spig_no_pnb": "w/o PNB",
    "spig_no_hdcb": "w/o HDCB",
    "spig": "Full",
}

# Our metric -> the (paper, column) pairs whose protocol is known to be equal, from released scoring code. SPIG
# released none. The script it most likely used is GFLA's, which differs: SSIM in a uniform 51 x 51 window, FID by
# torchvision's Inception against all training images, LPIPS without the last partial batch.
EQUAL_PROTOCOLS: dict[str, set[tuple[str, str]]] = {}

# A metric with these marks measures something else than its protocol says.
ALTERS_MEASURE = {"metric-weights", "data"}

PUBLISHED_COLUMNS = (
    "paper", "table", "dataset", "method", "variant", "metric", "value", "higher_is_better", "source", "verified"
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One value of a paper's table, or a place in it that has none (`value` ""). Its fields are the csv's columns."""

    table: str
    dataset: str
    row: str
    kind: str  # published | floor | trained
    variant: str
    column: str
    higher_is_better: bool
    metric: str
    protocol: str
    step: int | str
    split: str
    value: str
    printed: str  # the value as the paper rounds it
    low: str
    high: str
    n: int | str
    excluded: int | str
    marks: str  # names of MARKS, separated by spaces
    difference: str  # ours minus the paper's, between equal protocols only
    source: str


def read_published(path: Path = layout.PUBLISHED) -> list[dict[str, str]]:
    """Rows of published.csv. Raises UserError if it is missing or a row is not well formed."""
    if not path.exists():
        raise UserError(f"{path}: not there; restore it (git checkout {path})")
    with path.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != PUBLISHED_COLUMNS:
            raise UserError(f"{path}: its columns must be {', '.join(PUBLISHED_COLUMNS)}")
        rows = list(reader)
    for row in rows:
        try:
            assert None not in row  # surplus cells
            assert None not in row.values()  # missing cells
            assert row["verified"] in ("yes", "no")
            assert row["higher_is_better"] in ("yes", "no")
            assert row["value"] == "" or math.isfinite(float(row["value"]))
        except (AssertionError, ValueError):
            name = ", ".join(str(row[key]) for key in ("paper", "table", "dataset", "method", "metric"))
            raise UserError(
                f"{path}: malformed row ({name}): it needs {len(PUBLISHED_COLUMNS)} cells, a number or nothing as "
                "value, yes or no as higher_is_better and verified"
            ) from None
    return rows


def read_scores(dataset: str, variant: str) -> list[dict]:
    """Rows of one score file, NaN as None. Raises UserError if it is missing, empty, or of other columns."""
    path = layout.scores(dataset, variant)
    table = store.read_table(path)
    if set(table.column_names) != set(schema.SCORES.names):
        wrong = sorted(set(table.column_names) ^ set(schema.SCORES.names))
        raise UserError(f"{path}: unexpected or missing columns {', '.join(wrong)}; run score again")
    if table.num_rows == 0:
        raise UserError(f"{path}: holds no scores; check that the variant has checkpoints, then run score again")
    rows = table.to_pylist()
    for row in rows:
        for key in ("value", "low", "high", "ceiling"):
            if row[key] is not None and math.isnan(row[key]):
                row[key] = None
        unknown = set(row["marks"] or ()) - set(MARKS)
        if unknown:
            raise UserError(f"{path}: unknown mark {sorted(unknown)[0]}; known: {', '.join(MARKS)}")
        row["marks"] = [mark for mark in MARKS if mark in (row["marks"] or ())]
    return rows


@dataclass(frozen=True)
class Choice:
    """The checkpoint that stands for a variant: the score it was chosen by, among how many."""

    row: dict
    checkpoints: int


Runs = dict[tuple[str, str], tuple[list[dict], Choice]]  # by data set and variant


def choose(scores: list[dict], metric: str, split: str) -> Choice | None:
    """The best row of `metric` (a lower-case column of COLUMNS) on `split`; the earliest step wins a tie.

    None if there is no such score. Rows of other splits cannot influence the choice.
    """
    for name in COLUMNS[metric.upper()].metrics:
        rows = [r for r in scores if r["metric"] == name and r["split"] == split and r["value"] is not None]
        if rows:
            best = min(rows, key=lambda r: (-r["value"] if r["higher_is_better"] else r["value"], r["step"]))
            return Choice(best, len({r["step"] for r in rows}))
    return None


def _empty(table: str, dataset: str, row: str, kind: str, variant: str, column: str) -> Cell:
    blank = {field.name: "" for field in fields(Cell)}
    own = {"table": table, "dataset": dataset, "row": row, "kind": kind, "variant": variant, "column": column}
    return Cell(**(blank | own | {"higher_is_better": column not in LOWER_IS_BETTER}))


def _published_cells(published: list[dict], table: str, paper_table: str, dataset: str, name: str) -> list[Cell]:
    """Cells of SPIG's `paper_table` for a data set; the row is called by the key `name` of published.csv.

    Whom the paper calls ours is not us: such a row is called the paper's.
    """
    cells = []
    for row in published:
        if (row["paper"], row["table"], row["dataset"]) != ("SPIG", paper_table, dataset_title(dataset)):
            continue
        cell = _empty(table, dataset, row[name].replace("(Ours)", "(the paper's)"), "published", "", row["metric"])
        marks = "" if row["verified"] == "yes" else "unverified"
        given = {"value": row["value"], "printed": row["value"], "marks": marks, "source": row["source"]}
        cells.append(Cell(**(asdict(cell) | given | {"higher_is_better": row["higher_is_better"] == "yes"})))
    return cells


def _our_cells(
    table: str, dataset: str, variant: str, label: str, columns: Iterable[str], scores: list[dict], choice: Choice
) -> list[Cell]:
    """One cell a column: the test score of the chosen checkpoint, blank where it was not scored."""
    kind = "floor" if params.family(variant) == "reference" else "trained"
    step = choice.row["step"]
    test = {r["metric"]: r for r in scores if r["split"] == "test" and r["step"] == step and r["value"] is not None}
    cells = []
    for title in columns:
        column = COLUMNS[title]
        row = next((test[name] for name in column.metrics if name in test), None)
        cell = _empty(table, dataset, label, kind, variant, title)
        if row is not None:
            known = {key: row[key] for key in ("metric", "protocol", "step", "split", "n", "excluded")}
            known |= {key: _exact(row[key]) for key in ("value", "low", "high")}
            known |= {"printed": f"{row['value']:.{column.decimals}f}", "marks": " ".join(row["marks"])}
            cell = Cell(**(asdict(cell) | known | {"higher_is_better": row["higher_is_better"]}))
        cells.append(cell)
    return cells


def with_differences(cells: list[Cell], rows: dict[str, str], paper: str = "SPIG") -> list[Cell]:
    """Fill `difference` of our cells where the protocol equals that of the published row `rows[variant]`."""
    published = {(c.dataset, c.row, c.column): c.value for c in cells if c.kind == "published" and c.value}
    result = []
    for cell in cells:
        theirs = published.get((cell.dataset, rows.get(cell.variant), cell.column))
        equal = (paper, cell.column) in EQUAL_PROTOCOLS.get(cell.metric, ())
        if cell.value and theirs and equal and not ALTERS_MEASURE & set(cell.marks.split()):
            decimals = COLUMNS[cell.column].decimals
            cell = Cell(**(asdict(cell) | {"difference": f"{float(cell.value) - float(theirs):+.{decimals}f}"}))
        result.append(cell)
    return result


def _exact(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def comparison(published: list[dict], runs: Runs) -> list[Cell]:
    """SPIG's Table 1: the published rows of both data sets, and the rows of `runs` ((data set, variant) keys)."""
    cells = []
    for dataset in _in_paper_order(runs):
        columns = UNMASKED if dataset == "deepfashion" else tuple(COLUMNS)
        cells += _published_cells(published, "spig_table1", "Table 1", dataset, "method")
        for (where, variant), (scores, choice) in runs.items():
            if where == dataset and variant not in set(TABLE3_ROWS) - set(TABLE1_ROWS):
                label = ROWS.get(variant, f"{variant}, this run")
                cells += _our_cells("spig_table1", dataset, variant, label, columns, scores, choice)
    return with_differences(cells, TABLE1_ROWS)


def ablation(published: list[dict], runs: Runs) -> list[Cell]:
    """SPIG's Table 3: each published row, and ours below it, blank where it was not trained."""
    cells = []
    for dataset in _in_paper_order(runs):
        theirs = _published_cells(published, "spig_table3", "Table 3 (ablation)", dataset, "variant")
        if not theirs and not any(where == dataset for where, _ in runs):
            continue
        for variant, row in TABLE3_ROWS.items():
            cells += [cell for cell in theirs if cell.row == row]
            label = f"{row}, this run"
            if (dataset, variant) in runs:
                cells += _our_cells("spig_table3", dataset, variant, label, UNMASKED, *runs[dataset, variant])
            else:
                cells += [_empty("spig_table3", dataset, label, "trained", variant, column) for column in UNMASKED]
    return with_differences(cells, TABLE3_ROWS)


def _in_paper_order(runs: Iterable[tuple[str, str]]) -> list[str]:
    """The paper's two data sets, then what else was run."""
    return list(dict.fromkeys(["market1501", "deepfashion", *(dataset for dataset, _ in runs)]))


def notes(cells: list[Cell], runs: Runs) -> dict[str, list[str]]:
    """Data set -> what must be said under its part of a table, except the marks."""
    result = {}
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        own = [cell for cell in cells if cell.dataset == dataset]
        ours = [cell for cell in own if cell.kind != "published" and cell.value]
        theirs = [cell for cell in own if cell.kind == "published" and cell.value]
        lines = []
        if theirs:
            lines.append(f"Published rows: {'; '.join(dict.fromkeys(cell.source for cell in theirs))}.")
        if theirs and not ours:
            lines.append("This run did not score this data set.")
        for variant in dict.fromkeys(cell.variant for cell in ours if cell.kind == "trained"):
            choice = runs[dataset, variant][1]
            chosen, best = choice.row, "highest" if choice.row["higher_is_better"] else "lowest"
            symbols = "".join(MARKS[mark].symbol for mark in chosen["marks"])
            lines.append(
                f"{variant}: step {chosen['step']}, of {choice.checkpoints} checkpoints the one with the {best} "
                f"{chosen['metric']} on {chosen['split']} ({chosen['value']:.4f}{symbols}); test had no say."
            )
        protocols = dict.fromkeys((cell.column, cell.metric, cell.protocol) for cell in ours)
        if protocols:
            listed = "; ".join(f"{column} = {metric} ({protocol})" for column, metric, protocol in sorted(protocols))
            lines.append(f"Protocols of this run, defined in docs/protocols.md: {listed}.")
            if any(cell.low for cell in ours):
                lines.append("Intervals: 95 %, bootstrap over pairs; none for FID, which has no value per pair.")
        if theirs and ours and not all(cell.difference for cell in ours if cell.kind == "trained"):
            lines.append(
                "A difference to the paper is printed only between equal protocols. SPIG released no scoring code, "
                "and the script it builds on (GFLA's) takes SSIM in a 51 x 51 window, FID by another Inception "
                "against the training images, and LPIPS without the last partial batch: where no difference "
                "stands, the two numbers do not measure the same thing."
            )
        if dataset == "deepfashion" and own[0].table == "spig_table1":
            lines.append(
                "The published SSIM and PSNR appear to mix pictures with a white border (VU-Net, Def-GAN) and "
                "without (PATN, DIST, SPIG): do not rank across the two."
            )
        result[dataset] = lines
    return result


# ---- rendering


def _marks_in(cells: Iterable[Cell], runs: Runs) -> list[str]:
    """Names of the marks on values, and on the scores that checkpoints were chosen by, in the order of MARKS."""
    used = set()
    for cell in cells:
        if cell.value:
            used |= set(cell.marks.split())
        if cell.value and cell.kind == "trained":
            used |= set(runs[cell.dataset, cell.variant][1].row["marks"])
    return [name for name in MARKS if name in used]


def _symbols(marks: str) -> str:
    return "".join(MARKS[mark].symbol for mark in marks.split())


def _cell_text(cell: Cell | None) -> str:
    """The value with its marks; the interval, and the difference, each on a line of its own."""
    if cell is None or not cell.value:
        return "–"
    text = cell.printed + _symbols(cell.marks)
    if cell.low and cell.high:
        decimals = COLUMNS[cell.column].decimals
        text += f"\n[{float(cell.low):.{decimals}f}, {float(cell.high):.{decimals}f}]"
    return text + (f"\n(Δ {cell.difference})" if cell.difference else "")


def pairs_text(cells: Iterable[Cell]) -> str:
    """The number of pairs behind a row: "96", or "90–96" where metrics left some out; a dash if unknown."""
    counts = sorted({int(cell.n) for cell in cells if cell.n != ""})
    return "–" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def _grid(cells: list[Cell]) -> tuple[list[str], list[list[str]]]:
    """The cells of one data set as header and rows of text."""
    columns = list(dict.fromkeys(cell.column for cell in cells))
    arrow = {cell.column: "↑" if cell.higher_is_better else "↓" for cell in cells}
    rows: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.row, {})[cell.column] = cell
    header = ["Method", *(f"{column} {arrow[column]}" for column in columns), "Pairs"]
    return header, [
        [row, *(_cell_text(values.get(column)) for column in columns), pairs_text(values.values())]
        for row, values in rows.items()
    ]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(texts: Iterable[str]) -> str:
        return (
            "| " + " | ".join(str(t).replace("|", r"\|").replace("<", "&lt;").replace("\n", " ") for t in texts) + " |"
        )

    return "\n".join([line(header), line(["---", *["---:"] * (len(header) - 1)]), *map(line, rows)])


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": "{[}", "]": "{]}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--",
    "Δ": r"$\Delta$", "×": r"$\times$", "σ": r"$\sigma$", "λ": r"$\lambda$",
} | {mark.symbol: mark.tex + "{}" for mark in MARKS.values() if mark.symbol != "?"}  # fmt: skip


def tex_escape(text: str) -> str:
    """Text that LaTeX sets as it stands, with no package; a character it may not know becomes its code point.

    Brackets are braced: after a line break LaTeX would take them for an argument.
    """
    return "".join(_TEX.get(c, c if " " <= c <= "~" else f"U+{ord(c):04X}") for c in text)


def tabular(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = []
    for row in [header, *rows]:
        stacked = zip_longest(*(str(text).split("\n") for text in row), fillvalue="")  # a text's lines become rows
        lines.append("\n".join(" & ".join(map(tex_escape, line)) + r" \\" for line in stacked))
    columns = "l" + "r" * (len(header) - 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\hline", lines[0], r"\hline", *lines[1:], r"\hline", r"\end{tabular}"]
    )


def _titled(title: str, header: list[str], rows: list[list[str]], lines: list[str], marks: list[str]) -> dict[str, str]:
    """One table with its notes and the legend of its marks, as md and tex."""
    legend = [f"{MARKS[mark].symbol} {MARKS[mark].text}" for mark in marks]
    listed = "".join(f"- {line}\n".replace("<", "&lt;") for line in [*lines, *legend])
    small = "".join(f"\\par {tex_escape(line)}\n" for line in [*lines, *legend])
    return {
        "md": f"## {title}\n\n{markdown(header, rows)}\n\n{listed}",
        "tex": f"\\begin{{table}}\n\\caption{{{tex_escape(title)}}}\n"
        f"{{\\scriptsize\\setlength{{\\tabcolsep}}{{3pt}}\n{tabular(header, rows)}\\par}}\n"
        f"{{\\footnotesize\n{small}}}\n\\end{{table}}\n",
    }


TABLE_TITLES = {
    "spig_table1": "SPIG, Table 1: comparison",
    "spig_table3": "SPIG, Table 3: ablation",
    "all_scores": "All scores",
}


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_text(folder: Path, name: str, parts: list[dict[str, str]]) -> None:
    for kind in ("md", "tex"):
        (folder / f"{name}.{kind}").write_text("\n".join(part[kind] for part in parts), encoding="utf-8")


def _write_paper_table(folder: Path, cells: list[Cell], said: dict[str, list[str]], runs: Runs) -> None:
    name = cells[0].table
    _write_csv(folder / f"{name}.csv", [f.name for f in fields(Cell)], (asdict(cell).values() for cell in cells))
    parts = []
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        own = [cell for cell in cells if cell.dataset == dataset]
        title = f"{TABLE_TITLES[name]}, {dataset_title(dataset)}"
        parts.append(_titled(title, *_grid(own), said[dataset], _marks_in(own, runs)))
    _write_text(folder, name, parts)


SCORE_COLUMNS = (
    "dataset", "variant", "step", "chosen", "split", "metric", "protocol", "value", "low", "high", "n", "excluded",
    "ceiling", "higher_is_better", "marks",
)  # fmt: skip


def all_scores(runs: Runs) -> list[tuple]:
    """Every score as a tuple of SCORE_COLUMNS, sorted by data set and variant then step, split, metric."""
    order = [metric for column in COLUMNS.values() for metric in column.metrics]
    rows = []
    for scores, choice in runs.values():
        names = [*order, *sorted({row["metric"] for row in scores} - set(order))]
        for row in sorted(scores, key=lambda r: (r["step"], r["split"], names.index(r["metric"]))):
            chosen = "yes" if row["step"] == choice.row["step"] else "no"
            text = row | {key: _exact(row[key]) for key in ("value", "low", "high", "ceiling")}
            text |= {"chosen": chosen, "marks": " ".join(row["marks"])}
            rows.append(tuple("" if text[column] is None else text[column] for column in SCORE_COLUMNS))
    return rows


TEX_ROWS = 40  # a LaTeX table does not break across pages


def _write_all_scores(folder: Path, rows: list[tuple]) -> None:
    _write_csv(folder / "all_scores.csv", SCORE_COLUMNS, rows)
    at = {column: index for index, column in enumerate(SCORE_COLUMNS)}
    text = []
    for row in rows:
        printed = list(row)
        for column in ("value", "low", "high", "ceiling"):
            printed[at[column]] = f"{float(row[at[column]]):.4f}" if row[at[column]] else "–"
        printed[at["value"]] += _symbols(row[at["marks"]])
        text.append(printed[:-1])  # the marks stand on the value
    used = {mark for row in rows for mark in row[at["marks"]].split()}
    lines = ["chosen = the checkpoint that stands for the variant; low, high = bootstrap 95 % interval over pairs."]
    marks = [mark for mark in MARKS if mark in used]
    title, header = TABLE_TITLES["all_scores"], list(SCORE_COLUMNS[:-1])
    pages = [text[start : start + TEX_ROWS] for start in range(0, len(text), TEX_ROWS)]
    parts = [
        _titled(f"{title}, {number} of {len(pages)}", header, page, lines, marks)["tex"]
        for number, page in enumerate(pages, start=1)
    ]
    (folder / "all_scores.md").write_text(_titled(title, header, text, lines, marks)["md"], encoding="utf-8")
    (folder / "all_scores.tex").write_text("\n".join(parts), encoding="utf-8")


def read_runs(choose_by: dict[str, str]) -> Runs:
    """(data set, variant) -> its scores and its chosen checkpoint. Raises UserError if one is missing."""
    runs = {}
    for dataset in params.datasets():
        for variant in params.variants():
            scores = read_scores(dataset, variant)
            choice = choose(scores, **choose_by)
            if choice is None:
                raise UserError(
                    f"{layout.scores(dataset, variant)}: no {choose_by['metric']} on {choose_by['split']} to choose a "
                    "checkpoint by; score that split or change tables.choose_by in params.yaml"
                )
            runs[dataset, variant] = (scores, choice)
    return runs


def run() -> None:
    block = params.block(Params, "tables")
    published = read_published()
    runs = read_runs(block.choose_by)
    tables = [comparison(published, runs), ablation(published, runs)]
    rows = all_scores(runs)
    said = {cells[0].table: notes(cells, runs) for cells in tables}
    marks = {mark for row in rows for mark in row[-1].split()}
    marks |= {mark for cells in tables for mark in _marks_in(cells, runs)}
    with atomic_directory(layout.TABLES) as folder:
        for cells in tables:
            _write_paper_table(folder, cells, said[cells[0].table], runs)
        _write_all_scores(folder, rows)
        lines = [(name, where, line) for name, part in said.items() for where, text in part.items() for line in text]
        _write_csv(folder / "notes.csv", ("table", "dataset", "note"), lines)
        legend = [(name, mark.symbol, mark.text) for name, mark in MARKS.items() if name in marks]
        _write_csv(folder / "legend.csv", ("mark", "symbol", "text"), legend)
    for (dataset, variant), (_, choice) in runs.items():
        say(f"{dataset}/{variant}: step {choice.row['step']} of {choice.checkpoints} checkpoints")
    say(f"{layout.TABLES}: {', '.join(TABLE_TITLES)}")
