"""Tables and a page from many authors' records: no image and no data set is read.

Records of one data set stand on one board if nothing tells their lists of pairs and their pictures apart; else each
kind has its own. A metric is compared by its version here and through the same networks; the author's word for a
protocol is not taken, only the digests.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from pipeline.core import layout, params, schema, store
from pipeline.core.atomic import atomic_directory
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.datasets import title as dataset_title
from pipeline.metrics import metric
from pipeline.records import form
from pipeline.records.again import TOLERANCE
from pipeline.records.made import used_by
from pipeline.report import definitions, page, tables
from pipeline.report.words import counted
from pipeline.tables import files, notes, papers
from pipeline.tables.cells import leaderboard, published_numbers, with_places
from pipeline.tables.inputs import Run, Runs, read_published, read_scores
from pipeline.tables.paired import compared

LISTED = "records.csv"
SAID = (
    "Every row is its author's word, made by the version of the code in brackets (+: with edits that were not "
    "committed). Checked: somebody scored some of its pictures again and found what it says; without that, nothing "
    "here tells a score from an invention (docs/records.md)."
)
RESULT = ("dataset", "method", "author", "scores", "columns", "pairs", "images")  # what makes two records one result


@dataclass
class Board:
    """Records whose pairs and pictures go together, by the names of their rows."""

    dataset: str
    key: str  # what its files are called by
    records: dict[str, form.File] = field(default_factory=dict)
    ends: dict[int, list[str]] = field(default_factory=dict)  # pair -> its source and target
    images: dict[str, str] = field(default_factory=dict)

    def unlike(self, record: form.File) -> str | None:
        """The first thing that tells a record's pairs or pictures from those here."""
        for index, *ends in (row[:3] for row in record["pairs"]):
            if self.ends.get(index, ends) != ends:
                return f"pair {index} is {' -> '.join(ends)}, not {' -> '.join(self.ends[index])}"
        for name, digest in record["images"].items():
            if self.images.get(name, digest) != digest:
                return f"image {name} has other bytes"
        return None

    def add(self, name: str, record: form.File) -> None:
        self.records[name] = record
        self.ends |= {row[0]: row[1:3] for row in record["pairs"]}
        self.images |= record["images"]


def write(output: Path, given: Sequence[form.File], resamples: int, seed: int) -> None:
    """Write the folder `output` from records and checks. resamples, seed: of the comparison of every two methods.

    Raises UserError if there is no record, and for a folder that holds something else.
    """
    if output.exists() and not (output / LISTED).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output}: holds something else, which would be replaced; name another folder")
    problems: list[str] = []
    records = list(_once([file for file in given if file["format"] == form.RECORD], problems))
    if not records:
        raise UserError("no record among the files; `repose record make` writes one")
    known = {record.sha256: [] for record in records}
    for file in given:
        if file["format"] == form.CHECK:
            if file["record"] in known:
                known[file["record"]].append(file)
            else:
                problems.append(f"{file.path}: checks the record {file['record'][:12]}, which is not among the files")
    boards = _boards(records, problems)
    for board in boards:
        problems += _at_odds(board)
        problems += [
            f"{name}: a check found that {check['differs']}"
            for name, record in board.records.items()
            for check in known[record.sha256]
            if check["differs"]
        ]
    with atomic_directory(output) as folder:
        _write_all(folder, boards, known, problems, resamples, seed)
    for line in problems:
        say(line)
    say(f"{output / 'index.html'}: {counted(len(records), 'record')} on {counted(len(boards), 'board')}")


def _once(records: list[form.File], problems: list[str]) -> Iterator[form.File]:
    """Each record once; of two that differ only beside the result, the first."""
    seen: dict[str, form.File] = {}
    for record in records:
        result = form.sha256([record[key] for key in RESULT])
        first = seen.setdefault(result, record)
        if first is record:
            yield record
        elif first.sha256 == record.sha256:
            problems.append(f"{record.path}: the same as {first.path}; counted once")
        else:
            apart = [key for key in record.content if record[key] != first[key] and key != "digests"]
            problems.append(f"{record.path}: the result of {first.path}, with another {', '.join(apart)}; left out")


def _boards(records: list[form.File], problems: list[str]) -> list[Board]:
    """In the order of the files. Rows that would be called alike are told apart by their digests."""
    called = [one["method"] + (f", by {one['author']}" if one["author"] else "") for one in records]
    times = Counter((one["dataset"], name) for one, name in zip(records, called, strict=True))
    boards: list[Board] = []
    for record, name in zip(records, called, strict=True):
        dataset = record["dataset"]
        if times[dataset, name] > 1:
            problems.append(f"{record.path}: one of {times[dataset, name]} results of {name}; all stand")
            name += f", {record.sha256[:6]}"
        alike = [board for board in boards if board.dataset == dataset]
        fitting = next((board for board in alike if board.unlike(record) is None), None)
        if fitting is None:
            if alike:
                problems.append(f"{record.path}: on a board of its own: {alike[0].unlike(record)}")
            fitting = Board(dataset, f"{dataset}-{len(alike) + 1}" if alike else dataset)
            boards.append(fitting)
        fitting.add(name, record)
    return boards


def _at_odds(board: Board) -> Iterator[str]:
    """Where two records have one picture of one pair, and another value of one metric for it: the first such pair."""
    for (one, first), (other, second) in combinations(board.records.items(), 2):
        shared = [name for name in first.metrics if name in second.metrics and not name.endswith(schema.INFLUENCE)]
        shared = [name for name in shared if _measured(first, name) == _measured(second, name) is not None]
        theirs = second.by_pair
        for pair, (digest, values) in first.by_pair.items():
            also, others = theirs.get(pair, (None, {}))
            apart = next(
                (n for n in shared if also == digest and not form.close(values[n], others[n], TOLERANCE)), None
            )
            if apart:
                index, source, target = pair
                yield (
                    f"{one} and {other} have one picture of pair {index} ({source} -> {target}), and {apart} of it is "
                    f"{values[apart]} and {others[apart]}: one of them is wrong"
                )
                break


def _measured(record: form.File, name: str) -> tuple[int, dict[str, str]] | None:
    """By which version of a metric, and through which networks; None of one that is unknown here."""
    try:
        return record.tested[name]["version"], used_by(name, record["reference"]["instruments"])
    except UserError:
        return None


# ---- rows


def _row(record: form.File, checks: Sequence[form.File]) -> str:
    """What stands in brackets behind its name."""
    code = record["code"]
    edits = "" if code["clean"] else "+"
    revision = f"{code['revision'][:8]}{edits}" if code["revision"] else f"version {code['version']}"
    return f"record at {revision}, {_checked(checks)}"


def _checked(checks: Sequence[form.File]) -> str:
    """What checks say of a record: one that found a difference counts before any other."""
    if not checks:
        return "not checked"
    check = max(checks, key=lambda one: (one["differs"] is not None, one["pairs"]))
    by = f" by {check['by']}" if check["by"] else ""
    return f"{'check failed' if check['differs'] else 'checked'}{by} on {check['pairs']} of {check['of']} pairs"


def _run(folder: Path, board: str, name: str, record: form.File, label: str, problems: list[str]) -> Run | None:
    """A record as the tables take it; None, which is said, if none of its metrics is known here."""
    protocols, left_out = {}, defaultdict(list)
    for one in record.tested:
        here = _version(one)
        if here != record.tested[one]["version"]:
            left_out[f"version {record.tested[one]['version']} there, {here or 'none'} here"].append(one)
            continue
        used = used_by(one, record["reference"]["instruments"])
        protocols[one] = metric(one).protocol + "".join(f", {need} {digest[:8]}" for need, digest in used.items())
    for why, names in left_out.items():
        problems.append(f"{name}: {', '.join(names)} left out: {why}; its author's `repose score` renews it")
    if unknown := {mark for row in record["scores"] for mark in row["marks"]} - papers.MARKS.keys():
        raise UserError(f"{record.path}: carries the mark {min(unknown)}, which is unknown here: its Repose is newer")
    rows = [
        {
            **row,
            "dataset": board,
            "variant": name,
            "protocol": protocols[row["metric"]],
            "reference": record["reference"]["sha256"],
            "higher_is_better": metric(row["metric"]).higher_is_better,
        }
        for row in record["scores"]
        if row["metric"] in protocols and row["version"] == _version(row["metric"])
    ]
    if not rows:
        return None
    store.write_table(folder / "scores.parquet", rows, schema.SCORES)
    kept = [n for n in record.metrics if n.removesuffix(schema.INFLUENCE) in protocols]
    fields = [*schema.PAIR_SCORE_KEYS, *((n, pa.float64()) for n in kept)]
    values = [
        {"step": record["step"], "split": "test", **dict(zip(record["columns"], row, strict=True))}
        for row in record["pairs"]
    ]
    columns = pa.schema(fields)
    store.write_table(folder / "pairs.parquet", pa.Table.from_pylist(values, schema=columns), columns)
    scores = read_scores(folder / "scores.parquet")
    chosen = scores[(scores["step"] == record["step"]) & (scores["split"] == "test")].iloc[0]
    given = bool(record["saw"]["target_parsing"])
    return Run(board, name, "record", scores, chosen, folder / "pairs.parquet", None, given, label=label)


def _version(name: str) -> int | None:
    try:
        return metric(name).version
    except UserError:
        return None


# ---- files


def _write_all(
    folder: Path,
    boards: list[Board],
    known: dict[str, list[form.File]],
    problems: list[str],
    resamples: int,
    seed: int,
) -> None:
    with TemporaryDirectory() as scratch:
        runs: Runs = {}
        for place, board in enumerate(boards):
            for number, (name, record) in enumerate(board.records.items()):
                where, label = Path(scratch) / f"{place}-{number}", f"{name} ({_row(record, known[record.sha256])})"
                if made := _run(where, board.key, name, record, label, problems):
                    runs[board.key, name] = made
        found = compared(runs, resamples, seed)
        unranked = {key for key, run in runs.items() if run.given_target_parsing} | {
            (board.key, name)
            for board in boards
            for name, record in board.records.items()
            if any(check["differs"] for check in known[record.sha256])
        }
        shown = {}
        for board in boards:
            cells = with_places(leaderboard(board.key, runs), found, runs, unranked)
            theirs = _published(board.key)
            folded = files.Table("Published numbers", theirs, notes.published_notes(board.key, theirs))
            said = [SAID, *notes.about_ours([cell for cell in cells if cell.value], runs)]
            shown[f"leaderboard_{board.key}"] = files.Table(
                "Leaderboard", cells, {board.key: said}, folded if theirs else None
            )
        files.write(folder, shown, runs, found, {})
    listed = [_listed(board.key, name, record, known) for board in boards for name, record in board.records.items()]
    _write_csv(folder / LISTED, listed, list(listed[0]))
    _write_csv(folder / "problems.csv", [{"what": line} for line in problems], ["what"])
    (folder / "index.html").write_text(_page(folder, boards, listed, problems), encoding="utf-8")


def _published(board: str) -> list:
    """The published numbers on a data set that params.yaml knows, none of another."""
    return published_numbers(board, read_published()) if board in params.load()["fetch"] else []


def _write_csv(path: Path, rows: list[dict], names: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _listed(board: str, name: str, record: form.File, known: dict[str, list[form.File]]) -> dict[str, Any]:
    """A record's row of records.csv: what is known of it beside its scores."""
    code, machine, cost, saw = (record[key] for key in ("code", "machine", "cost", "saw"))
    told = {True: "yes", False: "no", None: "not said"}
    return {
        "board": board,
        "row": name,
        "kind": record["kind"],
        "step": record["step"],
        "record": record.sha256,
        "pairs": len(record["pairs"]),
        "checked": _checked(known[record.sha256]),
        "code": f"{code['version']} {code['revision'] or ''}".strip(),
        "tree_clean": told[code["clean"]],
        "scoring": code["scoring"],
        "lock": code["lock"] or "",
        "own_code": code["method"],
        "machine": "; ".join([machine["processor"], f"{machine['cores']} cores", *machine["gpus"], machine["system"]]),
        "seconds": "" if cost["seconds"] is None else cost["seconds"],
        "peak_memory": "" if cost["peak_memory"] is None else cost["peak_memory"],
        "device": cost["device"] or "",
        "parameters": "" if cost["parameters"] is None else cost["parameters"],
        "training_set": saw["training_set"] or "not said",
        "pretraining": "; ".join(saw["pretraining"]),
        "target_parsing": told[saw["target_parsing"]],
        "samples": saw["samples"],
        "licence": record["licence"] or "not said",
        "checkpoint": record["checkpoints"].get("generator", ""),
        "pair_list": record["pair_list"],
    }


def _page(folder: Path, boards: list[Board], listed: list[dict], problems: list[str]) -> str:
    """The merged page as HTML."""
    legend = {row["mark"]: row for row in tables.read_csv("legend.csv", folder)}
    used = {row["metric"] for row in tables.read_csv("all_scores.csv", folder)}
    cited = {name: record["bibtex"] for board in boards for name, record in board.records.items() if record["bibtex"]}
    return (
        page.environment()
        .get_template(f"{layout.REPORT_PARTS}/records.html.j2")
        .render(
            boards=[
                part
                for board in boards
                for part in tables.shown(f"leaderboard_{board.key}", tables.LEADERBOARD, legend, [board.key], folder)
            ],
            titles={board.key: dataset_title(board.key) for board in boards},
            records=listed,
            problems=problems,
            bibtex=cited,
            legend=[*legend.values(), tables.TIED],
            defined={name: about for name, about in definitions.read(layout.PROTOCOLS).items() if name in used},
            counted=counted,
        )
    )
