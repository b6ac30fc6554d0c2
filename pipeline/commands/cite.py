"""Print the BibTeX entries of what was used: data sets, variants, components, metrics, tables, or papers by their name.

They stand in reports/references.bib. Each is printed once, however many of the names it belongs to.

  repose cite spgnet market1501 fid
  repose cite SPIG --json
"""

import argparse
import json as json_text

from pipeline.commands import catalogue
from pipeline.core import citations, layout
from pipeline.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"as `repose list` or {layout.REFERENCES} has it")
    parser.add_argument("--json", action="store_true", help="print an object, key -> entry")


def run(names: list[str], json: bool) -> None:
    """Raises UserError for a name that is none, or of which no reference is known here."""
    known, keys = catalogue.entries(), []
    for name in names:
        key = name if name in citations.entries() else catalogue.find(name, known).cites
        if key is None:
            raise UserError(f"{name}: no reference is known here; `repose describe {name}` says what it is")
        keys.append(key)
    found = {key: citations.bibtex(key) for key in keys}
    print(json_text.dumps(found, indent=1, ensure_ascii=False) if json else "\n\n".join(found.values()))
