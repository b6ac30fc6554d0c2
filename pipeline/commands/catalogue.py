"""What there is by name: data sets, variants, components, metrics and tables, in the words of their own modules."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import datasets
from pipeline.core import citations, layout, params, seals, store
from pipeline.core.errors import UserError
from pipeline.metrics import METRICS, OF_PARSING, Metric
from pipeline.tables import papers
from pipeline.tables.inputs import VERIFIED, read_published

KINDS = ("dataset", "variant", "component", "metric", "table")
PROTOCOLS = Path("docs/protocols.md")
# Beginnings of metrics' names -> the entry of reports/references.bib; of the others none is known here.
_METRICS = {"ssim": "SSIM", "lpips": "LPIPS", "fid": "FID", "frechet": "FID", "pckh": "PATN"}
_LEARNS = {
    "pairs": "pairs of pictures of a person", "unpaired": "single pictures and other poses, never a target's picture",
    "images": "single pictures", "pseudo_pairs": "pictures and their stand-ins by the paper's rule",
    "balanced_pseudo_pairs": "pictures and their stand-ins by another rule",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """kind: one of KINDS. line: what it is, in one. cites: key in reports/references.bib, if there is one."""

    kind: str
    name: str
    line: str
    cites: str | None = None


def entries() -> list[Entry]:
    """All of them, by kind. Raises UserError outside the project's root folder."""
    return [*_datasets(), *_networks(), *_metrics(), *_tables()]


def find(name: str, known: list[Entry]) -> Entry:
    """By its name, small or large; a run's name is that of its variant. Raises UserError with the likest names."""
    by_name = {entry.name.casefold(): entry for entry in known}
    for asked in (name.casefold(), params.variant_of(name).casefold()):
        if asked in by_name and (asked == name.casefold() or by_name[asked].kind == "variant"):
            return by_name[asked]
    like = difflib.get_close_matches(name.casefold(), by_name, 3, 0.5)
    meant = f"did you mean {' or '.join(by_name[one].name for one in like)}? " if like else ""
    raise UserError(f"nothing is called {name}; {meant}`repose list` has every name")


def described(entry: Entry) -> dict[str, Any]:
    """What is known of it: values are text, numbers, or lists of text."""
    about = {"dataset": _of_dataset, "metric": _of_metric, "table": _of_table}.get(entry.kind, _of_network)(entry)
    head = {"name": entry.name, "kind": entry.kind, "about": entry.line}
    cites = {"cite": f"{entry.cites}: repose cite {entry.name}"} if entry.cites else {}
    return {key: value for key, value in (head | about | cites).items() if value not in (None, "", [])}


# ---- data sets


def _forms() -> list[str]:
    return [name for name in params.load()["fetch"] if params.parent(name) in datasets.NAMES]


def _datasets() -> Iterator[Entry]:
    for name in _forms():
        about = datasets.get(name).ABOUT
        yield Entry("dataset", name, f"{datasets.title(name)}: {about.description}", about.citation)


def _of_dataset(entry: Entry) -> dict[str, Any]:
    about, values = datasets.get(entry.name).ABOUT, params.load()
    pairs = values["pairs"].get(entry.name) or values["pairs"][params.parent(entry.name)]
    listed = pairs["test_pairs"] or "all"
    return {
        "by": f"{', '.join(about.creators)}{f', {about.year}' if about.year else ''}" if about.creators else "",
        "from": about.url,
        "licence": about.licence,
        "form": values["fetch"][entry.name].get("protocol"),
        "test pairs": f"{listed}, {pairs['test_list']} list",
        "known gaps": [*about.gaps],
        "prepared": _prepared(entry.name),
    }


def _prepared(dataset: str) -> list[str]:
    """What is there of it, in numbers."""
    found = []
    source = layout.raw(dataset) / "source.json"
    if source.exists():
        images = seals.read_json(source)["images"]
        found += [f"{about['count']} images for {split}" for split, about in images.items()]
    if layout.pairs(dataset).exists():
        splits = store.read_table(layout.pairs(dataset), columns=["split"])["split"].value_counts().to_pylist()
        found += [f"{one['counts']} pairs for {one['values']}" for one in splits]
    return found or [f"no: repose plan says what it takes; its stages begin with fetch --dataset {dataset}"]


# ---- networks


def _networks() -> Iterator[Entry]:
    listed = params.schema()
    variants = {name for family in listed["properties"]["variants"]["properties"].values() for name in _enum(family)}
    for name, entry in listed["entries"].items():
        if name in variants:
            row = "a floor" if entry["paper"] == "none" else f"{entry['paper']}: {entry['row']}"
            yield Entry("variant", name, row, _known(entry["paper"]))
    for name, entry in listed["entries"].items():
        if name not in variants:
            used = [one for one, needs in listed["needs"].items() if name in needs and one in variants]
            line = f"{entry['paper']}: trained once, for {', '.join(used) or 'scoring'}"
            yield Entry("component", name, line, _known(entry["paper"]))


def _enum(family: dict) -> list[str]:
    return family["items"].get("enum") or family["items"]["then"]["enum"]


def _known(key: str) -> str | None:
    return key if key in citations.entries() else None


def _of_network(entry: Entry) -> dict[str, Any]:
    listed, values, name = params.schema(), params.load(), entry.name
    known, needs = listed["entries"][name], listed["needs"].get(name, [])
    starts = [need for need in needs if need in listed["entries"]]
    departs = [papers.MARKS[mark] for mark in known.get("departs", ())]
    stage = "train" if entry.kind == "variant" else "pretrain"
    families = listed["properties"]["variants"]["properties"].items()
    block = next((family for family, names in families if name in _enum(names)), name)
    settings = {dataset: values[stage][dataset].get(block) for dataset in values["datasets"]}
    asked = [run for _, _, run in params.runs(values) if params.variant_of(run) == name]
    parsing = "the source's and the true target's" if known.get("given_target_parsing") else "the source's"
    return {
        "learns from": _LEARNS[known["data"]] if needs or known["paper"] != "none" else "",
        "reads parsing": f"{parsing}, {known['labels']}" if known.get("labels") else "",
        "starts from": starts,
        "published networks": [need for need in needs if need not in (*listed["entries"], "parsing")],
        "differs from its paper": [f"{mark.symbol} {mark.text}" for mark in departs],
        "settings": [
            f"{of}: " + ", ".join(f"{key} {'as published' if value is None else value}" for key, value in one.items())
            for of, one in settings.items()
            if one
        ],
        "in params.yaml": asked,
        "rows": [
            f"{one.name} ({table.name})" for table in papers.TABLES for one in table.rows if one.ours == entry.name
        ],
        "more": "docs/papers.md" if entry.cites else "",
    }


# ---- metrics


def _metrics() -> Iterator[Entry]:
    for name, metric in (METRICS | OF_PARSING).items():
        key = next((key for start, key in _METRICS.items() if name.removeprefix("mask-").startswith(start)), None)
        yield Entry("metric", name, f"{metric.protocol}; {_better(metric)} is better", key)


def _better(metric: Metric) -> str:
    return "higher" if metric.higher_is_better else "lower"


def _of_metric(entry: Entry) -> dict[str, Any]:
    metric = (METRICS | OF_PARSING)[entry.name]
    low, high = (f"{end:g}".replace("inf", "infinity") for end in metric.range)
    return {
        "version": metric.version,
        "range": f"{low} to {high}, {_better(metric)} is better",
        "needs": [*metric.needs],
        "scored": "where reference.D.metrics (LPIPS: reference.D.lpips) names it" if metric.optional else "always",
        "width": f"only images {metric.width} wide" if metric.width else "",
        "marks": [f"{papers.MARKS[mark].symbol} {papers.MARKS[mark].text}" for mark in metric.marks],
        "columns": [name for name, column in papers.COLUMNS.items() if entry.name in column.metrics],
        "definition": definition(entry.name),
    }


def definition(metric: str) -> str:
    """Its row in docs/protocols.md; "" if there is none. Raises UserError if the page is not here."""
    if not PROTOCOLS.exists():
        raise UserError(f"{PROTOCOLS}: not here; run from the project's root folder")
    for line in PROTOCOLS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and f"`{metric}`" in cells[0]:
            return cells[3].replace("\\|", "|")
    return ""


# ---- tables


def _tables() -> Iterator[Entry]:
    for table in papers.TABLES:
        yield Entry("table", table.name, f"{table.paper}, {table.title}", _known(table.paper))


def _of_table(entry: Entry) -> dict[str, Any]:
    table = next(table for table in papers.TABLES if table.name == entry.name)
    read_in = {(table.paper, table.source), *(where for row in table.rows for where in row.read_in)}
    of = [row for row in read_published() if (row["paper"], row["table"]) in read_in]
    of = [row for row in of if not table.of or row["dataset"] == table.of]
    counts = {word: sum(row["verified"] == word and bool(row["value"]) for row in of) for word in VERIFIED}
    return {
        "columns": [f"{name}: {', '.join(columns)}" for name, columns in table.columns.items()],
        "rows": [row.name + (f" (ours: {row.ours})" if row.ours else "") for row in table.rows],
        "published numbers": [f"{count} {_READ[word]}" for word, count in counts.items() if count],
        "sources": [*dict.fromkeys(row["source"] for row in of)],
        "notes": [*table.notes, *(note for notes in table.notes_of.values() for note in notes)],
        "files": f"{layout.TABLES}/{table.name}.csv, .md, .tex",
    }


_READ = {"yes": "read in the paper", "second-hand": "as another paper quotes it", "no": "not checked"}
