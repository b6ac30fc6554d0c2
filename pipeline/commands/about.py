"""Say what is known of a data set, variant, component, metric or table: `repose describe NAME` is the same.

It gathers what their own modules, docs/protocols.md and params.yaml say; a wrong name is answered with the likest.

  repose about spgnet
  repose about lpips-alex-v0.1 --json
"""

import argparse
import json as json_text

from pipeline.commands import catalogue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="as `repose list` has it; of a run, its variant is described")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(name: str, json: bool) -> None:
    """Raises UserError, with the likest names, for one that is none."""
    found = catalogue.described(catalogue.find(name, catalogue.entries()))
    if json:
        print(json_text.dumps(found, indent=1, ensure_ascii=False))
        return
    wide = max(map(len, found))
    for key, value in found.items():
        for number, line in enumerate(value if isinstance(value, list) else [value]):
            print(f"{'' if number else key:{wide}}  {line}")
