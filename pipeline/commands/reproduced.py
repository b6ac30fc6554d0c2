"""Write README's table of what is reproduced: each variant, what it stands for, and how it compares with its paper.

A variant compares with its paper's numbers where a recipe that measures as the paper did is calibrated (`repose
calibrate`, reports/calibrated.csv). --keep takes the verdicts of this run's tables, but for what does not compare, into
reports/reproduced.csv, in the place of those of the same data set and variant; commit that with the README.

  repose reproduced
  repose reproduced --keep
"""

import argparse
import csv
import io
from pathlib import Path

from pipeline.core import layout, params
from pipeline.core.atomic import atomic_file
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.datasets import title
from pipeline.tables import papers, verdicts

README = Path("README.md")
START, END = (
    "<!-- what is reproduced: `repose reproduced` writes this; a test fails when it is stale -->",
    "<!-- end -->",
)
HEAD = "| variant | stands for | starts from | reads parsing | beside the paper's numbers |"
KEPT = (
    "dataset", "variant", "table", "column", "metric", "published", "value", "low", "high", "seeds", "mean", "marks",
    "verdict", "reason",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="take the verdicts of this run's tables along")


def run(keep: bool) -> None:
    """Raises UserError where README or, with `keep`, the tables are not there."""
    if keep:
        _keep()
    if not README.exists():
        raise UserError(f"{README}: not here; run from the project's root folder")
    written = text(README.read_text(encoding="utf-8"))
    with atomic_file(README) as partial:
        partial.write_text(written, encoding="utf-8")
    say(f"{README}: written")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def kept() -> list[dict[str, str]]:
    """reports/reproduced.csv, nothing if it is not there."""
    return _rows(layout.REPRODUCED) if layout.REPRODUCED.exists() else []


def _keep() -> None:
    path = layout.TABLES / "verdicts.csv"
    if not path.exists():
        raise UserError(f"{path}: not there; run: repose tables")
    found = [row for row in _rows(path) if row["verdict"] != verdicts.NOT_COMPARABLE and row["kind"] == "trained"]
    again = {(row["dataset"], row["variant"]) for row in found}
    rows = [row for row in kept() if (row["dataset"], row["variant"]) not in again] + found
    out = io.StringIO()
    writer = csv.DictWriter(out, KEPT, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: [row.get(key, "") for key in KEPT]))
    with atomic_file(layout.REPRODUCED) as partial:
        partial.write_text(out.getvalue(), encoding="utf-8")
    say(f"{layout.REPRODUCED}: {len(rows)} verdicts, {len(found)} of them of this run")


def text(readme: str) -> str:
    """README with its table as it is now. Raises UserError if the place for it is not marked."""
    if readme.count(START) != 1 or END not in readme.partition(START)[2]:
        raise UserError(f"{README}: the lines {START} and {END} are gone; restore them (git checkout {README})")
    before, _, after = readme.partition(START)
    return f"{before}{START}\n\n{table()}\n\n{END}{after.partition(END)[2]}"


def table() -> str:
    """A row for each variant."""
    listed = params.schema()
    families = listed["properties"]["variants"]["properties"].values()
    names = [name for family in families for name in family["items"].get("enum") or family["items"]["then"]["enum"]]
    rows = [HEAD, "|---|---|---|---|---|"]
    calibrated, verdicts_of = verdicts.read_calibrated(), kept()
    for name in names:
        entry, needs = listed["entries"][name], listed["needs"].get(name, [])
        floor = entry["paper"] == "none"
        starts = ", ".join(f"`{need}`" for need in needs if need in listed["entries"]) or "–"
        parsing = "and the target's" if entry.get("given_target_parsing") else "yes" if "parsing" in needs else "no"
        stands = "a floor" if floor else f"{entry['paper']}: {entry['row']}".replace("|", "\\|")
        beside = "–" if floor else _beside(name, calibrated, verdicts_of)
        rows.append(f"| `{name}` | {stands} | {starts} | {parsing} | {beside} |")
    return "\n".join(rows)


def _beside(variant: str, calibrated: list[verdicts.Calibration], verdicts_of: list[dict[str, str]]) -> str:
    """What is known of a variant beside its paper's numbers; without a verdict, why there is none."""
    own = [row for row in verdicts_of if params.variant_of(row["variant"]) == variant]
    if own:
        found = dict.fromkeys(f"{row['column']} {row['verdict']} ({title(row['dataset'])})" for row in own)
        return ", ".join(found)
    rows = [(table, row) for table in papers.TABLES for row in table.rows if row.ours == variant and row.method]
    if not rows:
        return "no published number"
    known = [recipe for recipe in dict.fromkeys(papers.recipe_of(*one) for one in rows) if recipe]
    if not known:
        return "not comparable: how its numbers were measured is not public"
    old = verdicts.outdated(calibrated)
    good = [one for one in calibrated if one.recipe in known and one.within == "yes" and one not in old]
    if good:
        columns = ", ".join(dict.fromkeys(one.metric for one in good))
        return f"no full run yet; calibrated: {columns} by `{'`, `'.join(known)}`"
    return f"not comparable: `{'`, `'.join(known)}` not calibrated"
