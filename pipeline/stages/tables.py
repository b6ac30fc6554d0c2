"""Write the papers' tables: published numbers, and this run's beside them.

reads   reports/scores/D/V/{scores,pairs}.parquet of every data set and variant in params.yaml, reports/outside/
        (methods from elsewhere), reports/published.csv
writes  reports/tables/: four tables, each as .csv (one value a row), .md and .tex, and notes.csv and legend.csv
          spig_table1   comparison on each data set, in the paper's columns
          spig_table3   ablation
          all_scores    every checkpoint, split and metric
          differences   every two methods of this run on the same test pairs: paired bootstrap, and which are ties

One checkpoint stands for a variant: the best by `tables.choose_by` on the val split, never on test; each table
says which. Two numbers that a paired bootstrap over the test pairs (`tables.bootstrap` resamples) does not tell apart
are a tie: the best of this run's rows and those tied with it carry ≈. A number that differs from the paper's set-up
carries a mark, explained under its table. A difference to a published value is printed only where both protocols are
known to be equal (EQUAL_PROTOCOLS).

To see your own published numbers here, add rows to reports/published.csv: with their source, and verified = yes
only if you read the value in the paper.
"""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from pipeline import layout, params, schema, store
from pipeline.atomic import atomic_directory
from pipeline.console import say
from pipeline.datasets import title as dataset_title
from pipeline.errors import UserError
from pipeline.metrics.paired import Difference, Scored, differences


@dataclass(frozen=True)
class Params:
    choose_by: dict[str, str]  # metric: lpips | ssim | psnr; split: val
    bootstrap: int  # resamples of the paired comparison
    seed: int


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
    "jpeg": Mark("♯", r"\sharp", "images of an outside method that came as JPEGs"),
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
    kind: str  # published | floor | trained | outside
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
    place: str  # among this run's comparable rows: best | tie (not told from the best) | best tied | nothing


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
    """Rows of a variant's score file, as `read_score_file`."""
    return read_score_file(layout.scores(dataset, variant))


def read_score_file(path: Path) -> list[dict]:
    """Rows of one score file, NaN as None. Raises UserError if it is missing, empty, or of other columns."""
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
    """The checkpoint that stands for a variant: the score it was chosen by, among how many.

    An outside method has one set of images, chosen by nobody: `row` is then one of its test scores.
    """

    row: dict
    checkpoints: int
    kind: str = "trained"  # floor | trained | outside
    pairs: Path | None = None  # its values for each pair


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
    step = choice.row["step"]
    test = {r["metric"]: r for r in scores if r["split"] == "test" and r["step"] == step and r["value"] is not None}
    cells = []
    for title in columns:
        column = COLUMNS[title]
        row = next((test[name] for name in column.metrics if name in test), None)
        cell = _empty(table, dataset, label, choice.kind, variant, title)
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
                label = (
                    f"{variant} (outside)" if choice.kind == "outside" else ROWS.get(variant, f"{variant}, this run")
                )
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


# ---- differences between methods


def scored(scores: list[dict], choice: Choice) -> Scored:
    step = choice.row["step"]
    table = store.read_table(choice.pairs, filters=[("step", "=", step), ("split", "=", "test")])
    keys = list(zip(*(table[name].to_pylist() for name in ("pair_index", "source_id", "target_id")), strict=True))
    rows = {r["metric"]: r for r in scores if (r["step"], r["split"]) == (step, "test") and r["value"] is not None}
    values, pooled = {}, {name for name in rows if name + schema.INFLUENCE in table.column_names}
    for name, row in rows.items():
        if name in pooled:
            values[name] = row["value"] + np.array(table[name + schema.INFLUENCE].to_pylist(), dtype=np.float64)
        elif name in table.column_names:
            values[name] = np.array(table[name].to_pylist(), dtype=np.float64)
    return Scored(keys, rows, values, pooled)


def compared(runs: Runs, block: Params) -> list[Difference]:
    """Every two methods of a data set, in the order of `runs` and of the papers' columns."""
    methods = {}
    for key, (scores, choice) in runs.items():
        if choice.pairs is not None and choice.pairs.exists():
            methods[key] = scored(scores, choice)
        else:
            say(f"{'/'.join(key)}: no values for each pair; not compared with other methods")
    found = differences(methods, block.bootstrap, block.seed, ALTERS_MEASURE)
    metrics, order = _in_column_order(one.metric for one in found), list(runs)

    def place(one: Difference) -> tuple[int, int, int]:
        first, second = ((one.dataset, name) for name in (one.one, one.other))
        return order.index(first), order.index(second), metrics.index(one.metric)

    return sorted(found, key=place)


def with_places(cells: list[Cell], found: list[Difference]) -> list[Cell]:
    """Fill `place` of our cells: the best of those in a column that were compared with each other, and who is tied."""
    verdicts = {(d.dataset, d.metric, frozenset((d.one, d.other))): d.verdict for d in found}
    result = list(cells)
    groups = defaultdict(list)
    for index, cell in enumerate(cells):
        if cell.value and cell.kind != "published":
            groups[cell.table, cell.dataset, cell.column, cell.metric, cell.protocol].append(index)
    for (_, dataset, _, metric, _), members in groups.items():
        sign = -1 if cells[members[0]].higher_is_better else 1
        best = min(members, key=lambda index: sign * float(cells[index].value))
        pairs = {
            i: verdicts.get((dataset, metric, frozenset((cells[best].variant, cells[i].variant)))) for i in members
        }
        if not any(pairs.values()):
            continue
        tied = [index for index, verdict in pairs.items() if verdict == "tie"]
        for index in tied:
            result[index] = replace(cells[index], place="tie")
        result[best] = replace(cells[best], place="best tied" if tied else "best")
    return result


def _in_column_order(metrics: Iterable[str]) -> list[str]:
    """Each metric once: those of the papers' columns, then the others by name."""
    order = [metric for column in COLUMNS.values() for metric in column.metrics]
    return [*order, *sorted(set(metrics) - set(order))]


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
                lines.append(
                    "Intervals: 95 %, bootstrap over the test pairs; FID's by the first-order influence of each pair, "
                    "so it says nothing about FID's bias on few images."
                )
            if any("tie" in cell.place for cell in ours):
                lines.append(
                    "≈: the best of this run's rows and those that a paired bootstrap over the test pairs does not "
                    "tell from it at 95 %, one comparison at a time."
                )
        partial = {(cell.row, cell.n) for cell in ours if cell.kind == "outside" and "pairs" in cell.marks.split()}
        for row, n in sorted({(row, max(m for r, m in partial if r == row)) for row, _ in partial}):
            lines.append(f"{row}: images for only {n} test pairs were given; its row is about those, no other row is.")
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
    text = cell.printed + _symbols(cell.marks) + ("≈" if "tie" in cell.place else "")
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
    "Δ": r"$\Delta$", "≈": r"$\approx$", "×": r"$\times$", "σ": r"$\sigma$", "λ": r"$\lambda$",
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
    "differences": "Differences between methods of this run",
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
    rows = []
    for scores, choice in runs.values():
        names = _in_column_order(row["metric"] for row in scores)
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


DIFFERENCE_COLUMNS = tuple(field.name for field in fields(Difference))


def _write_differences(folder: Path, found: list[Difference]) -> None:
    """All of them as csv; those of the papers' columns and PCKh as md and tex."""
    _write_csv(folder / "differences.csv", DIFFERENCE_COLUMNS, (tuple(asdict(one).values()) for one in found))
    shown = {metric for column in COLUMNS.values() for metric in column.metrics} | {"pckh@0.5"}
    text = [
        [
            d.dataset,
            d.one,
            d.other,
            d.metric,
            *(f"{v:+.4f}" for v in (d.difference, d.low, d.high)),
            str(d.n),
            d.verdict,
        ]
        for d in found
        if d.metric in shown
    ]
    lines = [
        "difference = the first method's score minus the second's on the pairs that both have; low, high = its 95 % "
        "interval, paired bootstrap over these pairs; verdict = the better one, or a tie where the interval holds "
        "zero. Each comparison stands for itself: of twenty between equals one is expected to be no tie."
    ]
    title = TABLE_TITLES["differences"]
    header = ["dataset", "one", "other", "metric", "difference", "low", "high", "pairs", "verdict"]
    pages = [text[start : start + TEX_ROWS] for start in range(0, len(text), TEX_ROWS)] or [[]]
    parts = [
        _titled(f"{title}, {number} of {len(pages)}", header, page, lines, [])["tex"]
        for number, page in enumerate(pages, start=1)
    ]
    (folder / "differences.md").write_text(_titled(title, header, text, lines, [])["md"], encoding="utf-8")
    (folder / "differences.tex").write_text("\n".join(parts), encoding="utf-8")


def _outside() -> Runs:
    """Methods from elsewhere: what `python -m pipeline score --images` put into reports/outside/ for our data sets."""
    runs = {}
    for path in sorted(layout.OUTSIDE.glob("*/method.json")):
        try:
            method = json.loads(path.read_text(encoding="utf-8"))
            dataset, name = method["dataset"], method["name"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: damaged; score the images again or remove the folder") from None
        if dataset not in params.datasets():
            continue
        scores = read_score_file(path.with_name("scores.parquet"))
        if (dataset, name) in runs or name in params.variants():
            raise UserError(f"{path}: {name} names two methods of {dataset}; remove one folder of {layout.OUTSIDE}")
        runs[dataset, name] = (scores, Choice(scores[0], 1, "outside", path.with_name("pairs.parquet")))
    return runs


def read_runs(choose_by: dict[str, str]) -> Runs:
    """(data set, variant or outside method) -> its scores and its chosen checkpoint. Raises UserError if a file of a
    variant is missing.
    """
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
            kind = "floor" if params.family(variant) == "reference" else "trained"
            choice = replace(choice, kind=kind, pairs=layout.pair_scores(dataset, variant))
            runs[dataset, variant] = (scores, choice)
    return runs | _outside()


def run() -> None:
    block = params.block(Params, "tables")
    published = read_published()
    runs = read_runs(block.choose_by)
    found = compared(runs, block)
    tables = [with_places(cells, found) for cells in (comparison(published, runs), ablation(published, runs))]
    rows = all_scores(runs)
    said = {cells[0].table: notes(cells, runs) for cells in tables}
    marks = {mark for row in rows for mark in row[-1].split()}
    marks |= {mark for cells in tables for mark in _marks_in(cells, runs)}
    with atomic_directory(layout.TABLES) as folder:
        for cells in tables:
            _write_paper_table(folder, cells, said[cells[0].table], runs)
        _write_all_scores(folder, rows)
        _write_differences(folder, found)
        lines = [(name, where, line) for name, part in said.items() for where, text in part.items() for line in text]
        _write_csv(folder / "notes.csv", ("table", "dataset", "note"), lines)
        legend = [(name, mark.symbol, mark.text) for name, mark in MARKS.items() if name in marks]
        _write_csv(folder / "legend.csv", ("mark", "symbol", "text"), legend)
    for (dataset, variant), (_, choice) in runs.items():
        say(f"{dataset}/{variant}: step {choice.row['step']} of {choice.checkpoints} checkpoints")
    say(f"{layout.TABLES}: {', '.join(TABLE_TITLES)}")
