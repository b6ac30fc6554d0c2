"""List what there is by name, a line each: data sets, variants, components, metrics and tables.

`repose describe NAME` says more of one, `repose cite NAME` what to cite.

  repose list
  repose list metric --json
"""

import argparse
import json as json_text
from dataclasses import asdict

from pipeline.commands import catalogue
from pipeline.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(catalogue.KINDS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print a list of kind, name, line and what to cite")


def run(kinds: list[str], json: bool) -> None:
    """Raises UserError for a kind that is none."""
    for kind in kinds:
        if kind not in catalogue.KINDS:
            raise UserError(f"no kind is called {kind}; give some of {', '.join(catalogue.KINDS)}")
    found = [entry for entry in catalogue.entries() if not kinds or entry.kind in kinds]
    if json:
        print(json_text.dumps([asdict(entry) for entry in found], indent=1, ensure_ascii=False))
        return
    wide = max(len(entry.name) for entry in found)
    for entry in found:
        print(f"{entry.kind:9}  {entry.name:{wide}}  {entry.line}")
