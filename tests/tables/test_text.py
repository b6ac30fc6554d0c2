"""Text of others' in tables: Markdown and LaTeX show it as it is."""

import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tables.papers import MARKS
from pipeline.tables.text import _TEX, markdown, markdown_page, tex_escape, tex_page

HOSTILE = (
    *("<script>alert(1)</script>", "[x](javascript:alert(1))", "![](http://h/x)", "`code`", "*x* _y_", r"a\|b", "a|b"),
    *("&lt;b&gt;", "a\nb", "a\rb", "<!--", "[x][y]", "\\input{x}", "$x$", "^^5c", "%", "\u2028", "**x** best", "=1+1"),
)
names = st.lists(st.sampled_from((*HOSTILE, "x", " ", "1")), min_size=1, max_size=4).map("".join)


def cells_of(row: str) -> list[str]:
    """As GitHub divides a row: at each `|` without a backslash of its own before it."""
    return re.findall(r"((?:\\.|[^\\|])*)\|", row)[1:]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(names)
def test_a_name_is_one_cell_of_text(name):
    table = pd.DataFrame([[name, "1.0", name]], columns=["Method", "SSIM ↑", "one"])
    *_, row = lines = markdown(table).splitlines()
    assert len(lines) == 3
    assert len(cells_of(row)) == 3
    page = markdown_page(name, table, [name], [])
    assert "<" not in page
    assert not re.search(r"(?<!\\)](?=[(\[:])", page)  # no link, no picture
    assert not re.search(r"(?<!\\)(\\\\)*`", page)
    assert "&lt;b" not in page.replace("&amp;lt;b", "")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(names)
def test_a_name_is_text_in_latex(name):
    """Nothing is left but text, and the commands that text is escaped by."""
    allowed = {*_TEX.values(), *(f"{mark.tex}{{}}" for mark in MARKS.values())}
    rest = tex_escape(name)
    for one in sorted(allowed, key=len, reverse=True):
        rest = rest.replace(one, "")
    assert not re.search(r"[\\{}$&#%^_~\[\]\n\r]", rest)
    page = tex_page(name, pd.DataFrame([[name, "1.0"]], columns=["Method", "SSIM ↑"]), [name], [])
    assert page.isascii()
    assert page.count("{") - page.count(r"\{") == page.count("}") - page.count(r"\}")


@pytest.mark.parametrize(("cell", "shown"), [("**1.0†** best\n[0, 2]", "**1.0†** best [0, 2]"), ("*2* 2nd", "*2* 2nd")])
def test_what_is_best_and_second_keeps_its_weight(cell, shown):
    table = pd.DataFrame([["x", cell]], columns=["Method", "SSIM ↑"])
    assert markdown(table).endswith(f"| x | {shown} |")
