"""Tables as text: Markdown, and LaTeX that needs no package."""

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest

import pandas as pd

from pipeline.core import foreign
from pipeline.tables.cells import Cell
from pipeline.tables.papers import COLUMNS, MARKS, symbols
from pipeline.tables.verdicts import BETTER, REPRODUCED, WORSE

WORDS = ("Method", "Metric", "Protocol")  # columns that are no numbers


def _shared_marks(cells: list[Cell]) -> dict[str, set[str]]:
    """Row of ours -> the marks that all of its values carry: they stand on its name."""
    shared: dict[str, set[str]] = {}
    for cell in cells:
        if cell.value and cell.kind != "published":
            marks = set(cell.marks.split())
            shared[cell.row] = shared.get(cell.row, marks) & marks
    return shared


def _symbols(marks: Iterable[str]) -> str:
    return symbols(" ".join(mark for mark in MARKS if mark in marks))


def cell_text(cell: Cell, of_row: Collection[str] = ()) -> str:
    """The value with its marks but those `of_row`, bold if best, italic if second; interval, seeds, what stands for it
    elsewhere, and difference on lines of their own.
    """
    if not cell.value:
        return "–"
    text = cell.printed + _symbols(set(cell.marks.split()).difference(of_row)) + ("≈" if "tied" in cell.place else "")
    if cell.place.startswith("best"):
        text = f"**{text}** best"
    elif cell.place.startswith("second"):
        text = f"*{text}* 2nd"
    decimals = COLUMNS[cell.column].decimals
    if cell.low and cell.high:
        text += f"\n[{float(cell.low):.{decimals}f}, {float(cell.high):.{decimals}f}]"
    if cell.seeds:
        text += f"\n{cell.seeds} seeds: {float(cell.mean):.{decimals}f} ± {float(cell.deviation):.{decimals}f}"
    text += f"\n(elsewhere {cell.other})" if cell.other else ""
    said = f", {cell.verdict}" if cell.verdict in (REPRODUCED, BETTER, WORSE) else ""
    return text + (f"\n(Δ {cell.difference}{said})" if cell.difference else "")


def _pairs_text(counts: Iterable[int | str]) -> str:
    """The number of pairs behind a row: "96", or "90–96" where metrics left some out; a dash if unknown."""
    known = sorted({int(count) for count in counts if count != ""})
    return "–".join(str(count) for count in dict.fromkeys([known[0], known[-1]])) if known else "–"


def grid(cells: list[Cell]) -> pd.DataFrame:
    """The cells of one data set as text, laid out as in the paper: a row for each method, a column for each metric. Of
    rows that were measured in different ways, the way stands beside the name.
    """
    if not cells:
        return pd.DataFrame(columns=["Method", "Pairs"])
    columns, shared = list(dict.fromkeys(cell.column for cell in cells)), _shared_marks(cells)
    rows: dict[str, dict[str, str]] = {}
    counts: dict[str, list[int | str]] = {}
    for cell in cells:
        rows.setdefault(cell.row, {})[cell.column] = cell_text(cell, shared.get(cell.row, ()))
        counts.setdefault(cell.row, []).append(cell.n)
    laid_out = pd.DataFrame(list(rows.values()), columns=columns).fillna("–")
    laid_out.insert(0, "Method", list(rows))
    laid_out["Pairs"] = [_pairs_text(own) for own in counts.values()]
    if protocols := {cell.row: cell.row_protocol for cell in cells if cell.row_protocol}:
        laid_out.insert(1, "Protocol", [protocols.get(name, "–") for name in laid_out["Method"]])
    laid_out["Method"] = [name + _symbols(shared.get(name, ())) for name in laid_out["Method"]]
    arrows = {name: f"{name} {'↑' if COLUMNS[name].higher_is_better else '↓'}" for name in columns}
    return laid_out.rename(columns=arrows)


_WEIGHTS = ((re.compile(r"^\*\*(.+)\*\* (best)$"), r"\textbf"), (re.compile(r"^\*(.+)\* (2nd)$"), r"\textit"))


def _markdown_cell(text: str) -> str:
    """Escaped; the best and second of `cell_text` in their weight."""
    for pattern, stars in zip((pattern for pattern, _ in _WEIGHTS), ("**", "*"), strict=True):
        if found := pattern.match(text):
            return f"{stars}{foreign.in_markdown(found[1])}{stars} {found[2]}"
    return foreign.in_markdown(text)


def markdown(table: pd.DataFrame) -> str:
    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(texts) + " |"

    rules = ["---" if name in WORDS else "---:" for name in table]
    rows = [tuple(table.columns), *table.itertuples(index=False, name=None)]
    cells = [[" ".join(map(_markdown_cell, str(text).split("\n"))) for text in row] for row in rows]
    return "\n".join(map(line, (cells[0], rules, *cells[1:])))


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": "{[}", "]": "{]}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--",
    "Δ": r"$\Delta$", "≈": r"$\approx$", "±": r"$\pm$", "×": r"$\times$", "σ": r"$\sigma$", "λ": r"$\lambda$",
} | {mark.symbol: mark.tex + "{}" for mark in MARKS.values() if mark.symbol != "?"}  # fmt: skip


def tex_escape(text: str) -> str:
    """Text as LaTeX sets it without any package; a character that it may not know becomes its code point.

    Brackets are put in braces: after a line break LaTeX would take them for an argument.
    """
    return "".join(_TEX.get(c, c if " " <= c <= "~" else f"U+{ord(c):04X}") for c in text)


def _tex_cell(text: str) -> str:
    """Escaped; the best and second of `cell_text` in their weight."""
    for pattern, command in _WEIGHTS:
        if found := pattern.match(text):
            return f"{command}{{{tex_escape(found[1])}}} {found[2]}"
    return tex_escape(text)


def tabular(table: pd.DataFrame) -> str:
    lines = []
    for row in [tuple(table.columns), *table.itertuples(index=False, name=None)]:
        stacked = zip_longest(*(text.split("\n") for text in row), fillvalue="")  # each line of a cell becomes a row
        lines.append("\n".join(" & ".join(map(_tex_cell, line)) + r" \\" for line in stacked))
    columns = "".join("l" if name in WORDS else "r" for name in table)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\hline", lines[0], r"\hline", *lines[1:], r"\hline", r"\end{tabular}"]
    )


def _listed(notes: Sequence[str], marks: Iterable[str]) -> list[str]:
    legend = [f"{MARKS[mark].symbol} {MARKS[mark].text}" for mark in marks]
    return [*notes, *(["A mark on a row's name holds for all of its numbers:"] if legend else []), *legend]


def markdown_page(title: str, table: pd.DataFrame, notes: Sequence[str], marks: Iterable[str]) -> str:
    """A table with its notes and the legend of its marks."""
    text = "".join(f"- {foreign.in_markdown(line)}\n" for line in _listed(notes, marks))
    return f"## {foreign.in_markdown(title)}\n\n{markdown(table)}\n\n{text}"


def tex_page(title: str, table: pd.DataFrame, notes: Sequence[str], marks: Iterable[str]) -> str:
    """The same in LaTeX."""
    small = "".join(f"\\par {tex_escape(line)}\n" for line in _listed(notes, marks))
    return (
        f"\\begin{{table}}\n\\caption{{{tex_escape(title)}}}\n"
        f"{{\\scriptsize\\setlength{{\\tabcolsep}}{{3pt}}\n{tabular(table)}\\par}}\n"
        f"{{\\footnotesize\n{small}}}\n\\end{{table}}\n"
    )
