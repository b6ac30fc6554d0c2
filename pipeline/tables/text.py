"""Tables as text: Markdown, LaTeX without packages, csv."""

import csv
import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from pipeline.tables.cells import Cell
from pipeline.tables.papers import COLUMNS, MARKS


def symbols(marks: str | Iterable[str]) -> str:
    names = marks.split() if isinstance(marks, str) else marks
    return "".join(MARKS[mark].symbol for mark in names)


def cell_text(cell: Cell | None) -> str:
    """The value with its marks, bold if best, italic if second; interval, seeds, difference on lines of their own."""
    if cell is None or not cell.value:
        return "–"
    text = cell.printed + symbols(cell.marks) + ("≈" if "tied" in cell.place else "")
    if cell.place.startswith("best"):
        text = f"**{text}** best"
    elif cell.place.startswith("second"):
        text = f"*{text}* 2nd"
    if cell.low and cell.high:
        decimals = COLUMNS[cell.column].decimals
        text += f"\n[{float(cell.low):.{decimals}f}, {float(cell.high):.{decimals}f}]"
    if cell.seeds:
        decimals = COLUMNS[cell.column].decimals
        text += f"\n{cell.seeds} seeds: {float(cell.mean):.{decimals}f} ± {float(cell.deviation):.{decimals}f}"
    return text + (f"\n(Δ {cell.difference})" if cell.difference else "")


def pairs_text(cells: Iterable[Cell]) -> str:
    """The number of pairs behind a row: "96", or "90–96" where metrics left some out; a dash if unknown."""
    counts = sorted({int(cell.n) for cell in cells if cell.n != ""})
    return "–" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def grid(cells: list[Cell]) -> tuple[list[str], list[list[str]]]:
    """The cells of one data set as header and rows of text."""
    columns = list(dict.fromkeys(cell.column for cell in cells))
    rows: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.row, {})[cell.column] = cell
    header = ["Method", *(f"{name} {'↑' if COLUMNS[name].higher_is_better else '↓'}" for name in columns), "Pairs"]
    return header, [
        [row, *(cell_text(values.get(column)) for column in columns), pairs_text(values.values())]
        for row, values in rows.items()
    ]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(texts: Iterable[str]) -> str:
        clean = (str(text).replace("|", r"\|").replace("<", "&lt;").replace("\n", " ") for text in texts)
        return "| " + " | ".join(clean) + " |"

    return "\n".join([line(header), line(["---", *["---:"] * (len(header) - 1)]), *map(line, rows)])


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": "{[}", "]": "{]}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--",
    "Δ": r"$\Delta$", "≈": r"$\approx$", "±": r"$\pm$", "×": r"$\times$", "σ": r"$\sigma$", "λ": r"$\lambda$",
} | {mark.symbol: mark.tex + "{}" for mark in MARKS.values() if mark.symbol != "?"}  # fmt: skip


def tex_escape(text: str) -> str:
    """Text that LaTeX sets as it stands, with no package; a character it may not know becomes its code point.

    Brackets are braced: after a line break LaTeX would take them for an argument.
    """
    return "".join(_TEX.get(c, c if " " <= c <= "~" else f"U+{ord(c):04X}") for c in text)


_WEIGHTS = ((re.compile(r"^\*\*(.+)\*\* (best)$"), r"\textbf"), (re.compile(r"^\*(.+)\* (2nd)$"), r"\textit"))


def _tex_cell(text: str) -> str:
    """Escaped; the best and second of `cell_text` in their weight."""
    for pattern, command in _WEIGHTS:
        if found := pattern.match(text):
            return f"{command}{{{tex_escape(found[1])}}} {found[2]}"
    return tex_escape(text)


def tabular(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = []
    for row in [header, *rows]:
        stacked = zip_longest(*(str(text).split("\n") for text in row), fillvalue="")  # a text's lines become rows
        lines.append("\n".join(" & ".join(map(_tex_cell, line)) + r" \\" for line in stacked))
    columns = "l" + "r" * (len(header) - 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\hline", lines[0], r"\hline", *lines[1:], r"\hline", r"\end{tabular}"]
    )


def markdown_page(
    title: str, header: Sequence[str], rows: list[Sequence[str]], lines: Sequence[str], marks: Iterable[str]
) -> str:
    """One table with its notes and the legend of its marks."""
    listed = [*lines, *(f"{MARKS[mark].symbol} {MARKS[mark].text}" for mark in marks)]
    text = "".join(f"- {line}\n".replace("<", "&lt;") for line in listed)
    return f"## {title}\n\n{markdown(header, rows)}\n\n{text}"


def titled(
    title: str, header: Sequence[str], rows: list[Sequence[str]], lines: Sequence[str], marks: Iterable[str]
) -> dict[str, str]:
    """One table with its notes and the legend of its marks, as md and tex."""
    listed = [*lines, *(f"{MARKS[mark].symbol} {MARKS[mark].text}" for mark in marks)]
    small = "".join(f"\\par {tex_escape(line)}\n" for line in listed)
    return {
        "md": markdown_page(title, header, rows, lines, marks),
        "tex": f"\\begin{{table}}\n\\caption{{{tex_escape(title)}}}\n"
        f"{{\\scriptsize\\setlength{{\\tabcolsep}}{{3pt}}\n{tabular(header, rows)}\\par}}\n"
        f"{{\\footnotesize\n{small}}}\n\\end{{table}}\n",
    }


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_parts(folder: Path, name: str, parts: list[dict[str, str]]) -> None:
    """The parts that `titled` made, one below the other, as name.md and name.tex."""
    for kind in ("md", "tex"):
        (folder / f"{name}.{kind}").write_text("\n".join(part[kind] for part in parts), encoding="utf-8")
