"""What to cite: reports/references.bib, whose keys are the names that Repose has for papers, data sets and metrics."""

import re
from functools import cache

from pipeline.core import layout, params
from pipeline.core.errors import UserError


@cache
def entries() -> dict[str, str]:
    """Key -> its BibTeX entry, as the file has it. Raises UserError if the file is missing."""
    try:
        text = layout.REFERENCES.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{layout.REFERENCES}: not here; run from the project's root folder") from None
    return {found[1]: found[0] for found in re.finditer(r"^@\w+\{([^,\s]+),\n.*?^\}", text, re.MULTILINE | re.DOTALL)}


def bibtex(key: str) -> str:
    """Raises UserError if there is no entry of that key."""
    if key not in entries():
        raise UserError(f"{layout.REFERENCES} has no entry {key}; it has {', '.join(entries())}")
    return entries()[key]


def of_variant(name: str) -> str | None:
    """The entry of the paper that a variant or component stands for, seeds and own settings or not; None of a floor and
    of our own detector, which have no paper. Raises UserError for a name that is none.
    """
    known = params.schema()["entries"]
    if params.variant_of(name) not in known:
        raise UserError(f"unknown variant {name}; known: {', '.join(known)}")
    return entries().get(known[params.variant_of(name)]["paper"])
