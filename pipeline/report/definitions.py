"""What each metric is, as docs/protocols.md defines it: for the page's list of definitions."""

import html
import re
from pathlib import Path

from markupsafe import Markup

from pipeline.core.errors import UserError

_ROW = re.compile(r"^\| (`[^|]*`) \| (\w+) \| (.*) \|$")


def marked_up(text: str) -> Markup:
    """The inline Markdown of the project's pages as HTML: `code`, **bold**, *emphasis*, escaped bars. Links become
    their text.
    """
    safe = html.escape(text.replace(r"\|", "|"), quote=False)
    safe = re.sub(r"`([^`]*)`", r"<code>\1</code>", safe)
    safe = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", safe)
    safe = re.sub(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])", r"<em>\1</em>", safe)
    return Markup(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", safe))


def read(path: Path) -> dict[str, dict]:
    """Metric -> {"better": "higher" or "lower", "text": HTML}, in the page's order. A row that defines several metrics
    counts for each. Raises UserError if the file is not there or defines none.
    """
    if not path.exists():
        raise UserError(f"{path}: not there; restore it (git checkout {path})")
    section = path.read_text(encoding="utf-8").partition("\n## The metrics\n")[2].partition("\n## ")[0]
    found = {}
    for line in section.splitlines():
        if row := _ROW.match(line):
            for name in re.findall(r"`([^`]+)`", row[1]):
                found[name] = {"better": row[2], "text": marked_up(row[3])}
    if not found:
        raise UserError(f"{path}: no metric is defined under its heading The metrics; restore it (git checkout {path})")
    return found
