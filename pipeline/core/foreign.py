"""What others give, taken with care: a file is read up to a size that such a file can have, whatever its own."""

import csv
import re
from pathlib import Path

from pipeline.core.errors import UserError

LIST = 256 << 20  # bytes of a list
PICTURE = 64 << 20  # of one picture, label map or pose
LINE = 1 << 20  # of a line of a list
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet runs
_MARKUP = re.compile(r"[\\`*|~]|](?=[(\[:])|(?<!\w)_|_(?!\w)")

csv.field_size_limit(LINE)


def read(path: Path, most: int = LIST) -> bytes:
    """All bytes of a file. Raises UserError if it has more than `most`, as a device without an end has; OSError."""
    with path.open("rb") as handle:
        data = handle.read(most + 1)
    if len(data) > most:
        raise UserError(f"{path}: is larger than {most >> 20} MiB; is this the right file?")
    return data


def inert(cell: str) -> str:
    """A cell of a CSV as text, also to a spreadsheet: one that begins as a formula does gets an apostrophe before."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def in_markdown(text: str) -> str:
    """Text as Markdown shows it as it is, on one line, also in a table: no HTML, link, code, emphasis or other cell."""
    plain = _MARKUP.sub(r"\\\g<0>", " ".join(text.splitlines()))
    return re.sub(r"&(?=#?\w+;)", "&amp;", plain).replace("<", "&lt;")
