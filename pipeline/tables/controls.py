"""What the metrics notice: each control against the true target; methods that score outside the controls; and what this
run has no number of, and why.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core import params
from pipeline.datasets import title as dataset_title
from pipeline.tables.agreement import Agreement, of_studies
from pipeline.tables.inputs import Run, Runs, not_scored, outdated, read_controls
from pipeline.tables.paired import Difference, differences
from pipeline.tables.papers import MARKS, in_column_order, symbols
from pipeline.tables.studies import Study
from pipeline.tables.text import markdown_page, tex_page

NAME = "controls"  # of the files
TRUE, WORST = "true-target", "shuffled"  # what no method should score better than, and none worse
YES, NO, REVERSED = "yes", "no", "reversed"
KINDS = ("metric", "control", "method", "score")
ROUNDING = 1e-6  # of a value: up to this a difference is one of the order in which numbers were added
READ = (
    "Differences are those to the true target on the same pairs, with their 95 % interval, paired bootstrap over these "
    "pairs. yes: the metric noticed, the interval leaves zero on the worse side; no: the interval holds zero; "
    "reversed: it leaves zero on the better side, so by this metric the control beats the target."
)


@dataclass(frozen=True)
class Noticed:
    """One metric of one control. noticed: YES, NO or REVERSED, "" of the true target and where nothing can be said:
    `why` then says why.
    """

    dataset: str
    control: str
    title: str
    metric: str
    higher_is_better: bool
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    excluded: int | None = None
    protocol: str = ""
    marks: str = ""
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    noticed: str = ""
    why: str = ""


@dataclass(frozen=True)
class Outside:
    """A method's score that lies outside the controls, on the pairs that both have."""

    dataset: str
    method: str
    metric: str
    higher_is_better: bool
    value: float
    control: str
    of_control: float
    difference: float
    difference_low: float
    difference_high: float
    n: int
    what: str


@dataclass(frozen=True)
class Missing:
    """What there is no number of. kind: of KINDS; score: a method's by one metric."""

    dataset: str
    kind: str
    name: str
    why: str


@dataclass(frozen=True)
class Controls:
    noticed: list[Noticed]
    agreement: list[Agreement]
    outside: list[Outside]
    missing: list[Missing]
    notes: dict[str, list[str]]  # by data set


def _side(found: Difference, value: float, higher_is_better: bool) -> str:
    """Whether `found.one` is "better" or "worse" than `found.other` by more than chance; "" if neither."""
    rounded = abs(found.difference) <= ROUNDING * max(1.0, abs(value))
    if rounded or found.low <= 0 <= found.high:
        return ""
    return "better" if (found.low > 0) == higher_is_better else "worse"


def noticed(dataset: str, about: Mapping[str, Any], controls: Runs, resamples: int, seed: int) -> list[Noticed]:
    """A row for each control and metric, in the order of `about` and of the papers' columns.

    about: controls.json. controls: those that were scored.
    """
    true = controls.get((dataset, TRUE))
    if true is None:
        return []
    apart = differences([(run, true) for run in controls.values() if run is not true], resamples, seed)
    of = {(one.one, one.metric): one for one in apart}
    higher = dict(zip(true.scores["metric"], true.scores["higher_is_better"].tolist(), strict=True))
    rows = []
    for entry in about["controls"]:
        run = controls.get((dataset, entry["name"]))
        for metric in in_column_order(higher):
            known = {"title": entry["title"], "metric": metric, "higher_is_better": higher[metric]}
            known |= _score(run, metric) if run else {"why": entry["why"]}
            if run is not None and run is not true and not known.get("why"):
                known |= _against(of.get((run.name, metric)), known["value"], higher[metric])
            rows.append(Noticed(dataset, entry["name"], **known))
    return rows


def _score(run: Run, metric: str) -> dict[str, Any]:
    score = run.test.get(metric)
    if score is None:
        return {"why": "no pair has a value"}
    known = {key: score[key] for key in ("value", "low", "high", "protocol", "marks")}
    return known | {"n": int(score["n"]), "excluded": int(score["excluded"])}


def _against(apart: Difference | None, value: float, higher_is_better: bool) -> dict[str, Any]:
    if apart is None:
        return {"why": "fewer than two pairs have a value by both"}
    side = _side(apart, value, higher_is_better)
    return {
        "difference": apart.difference,
        "difference_low": apart.low,
        "difference_high": apart.high,
        "noticed": {"worse": YES, "better": REVERSED, "": NO}[side],
    }


def outside(
    dataset: str, runs: Runs, controls: Runs, found: Iterable[Noticed], resamples: int, seed: int
) -> tuple[list[Outside], list[str]]:
    """Methods better than the true target, or worse than shuffled targets where the metric notices a shuffle; and the
    metrics by which no method could be held against the controls, since they scored other pairs.
    """
    methods = [run for run in runs.values() if run.dataset == dataset and run.kind != "component"]
    notices = {row.metric for row in found if row.control == WORST and row.noticed == YES}
    rows, compared = [], set()
    for name, side in ((TRUE, "better"), (WORST, "worse")):
        bound = controls.get((dataset, name))
        held = differences([(run, bound) for run in methods], resamples, seed) if bound else []
        for one in held:
            compared.add(one.metric)
            score, of_control = runs[dataset, one.one].test[one.metric], bound.test[one.metric]
            higher = score["higher_is_better"]
            if _side(one, of_control["value"], higher) != side or (side == "worse" and one.metric not in notices):
                continue
            apart = (one.difference, one.low, one.high, one.n)
            what = f"{side} than {'the true target' if name == TRUE else 'shuffled targets'}"
            known = (one.metric, higher, score["value"], name, of_control["value"])
            rows.append(Outside(dataset, one.one, *known, *apart, what))
    both = {metric for run in methods for metric in run.test} & {row.metric for row in found if row.value is not None}
    return rows, in_column_order(both - compared)


def missing(dataset: str, about: Mapping[str, Any], runs: Runs) -> list[Missing]:
    """Controls, metrics, methods and single scores that there are none of, each with its reason."""
    rows = [Missing(dataset, "control", one["title"], one["why"]) for one in about.get("controls", []) if one["why"]]
    if not about:
        rows.append(Missing(dataset, "control", "all", f"not scored; run: repose reference --dataset {dataset}"))
    elif not about["pairs"]:
        rows.append(Missing(dataset, "control", "all", f"reference.{dataset}.controls is 0"))
    rows += [Missing(dataset, "metric", name, why) for name, why in about.get("unscored", {}).items()]
    for where, name in not_scored():
        if where == dataset:
            rows.append(Missing(dataset, "method", name, f"not scored yet; {_how(dataset, name)}"))
    for (where, name), renew in outdated().items():
        if where == dataset:
            rows.append(Missing(dataset, "method", name, f"scored by another reference than the present one; {renew}"))
    for run in runs.values():
        scores = run.scores[(run.scores["step"] == run.chosen["step"]) & (run.scores["split"] == "test")]
        for row in scores[scores["value"].isna()].itertuples() if run.dataset == dataset else ():
            why = f"no value: {row.excluded} of {row.n + row.excluded} pairs have none"
            rows.append(Missing(dataset, "score", f"{run.name}, {row.metric}", why))
    return rows


def _how(dataset: str, variant: str) -> str:
    return f"run: repose score --dataset {dataset} --variant {variant}"


def made(runs: Runs, studies: Iterable[Study], resamples: int, seed: int) -> Controls:
    """Everything, of all data sets of params.yaml. runs: the methods that were scored; studies: what raters said."""
    whole = Controls([], of_studies(studies, runs, resamples, seed), [], [], {})
    for dataset in params.datasets():
        about, controls = read_controls(dataset)
        rows = noticed(dataset, about, controls, resamples, seed)
        beyond, uncompared = outside(dataset, runs, controls, rows, resamples, seed)
        whole.noticed.extend(rows)
        whole.outside.extend(beyond)
        whole.missing.extend(missing(dataset, about, runs))
        whole.notes[dataset] = _notes(about, uncompared) if rows else []
    return whole


def _notes(about: Mapping[str, Any], uncompared: list[str]) -> list[str]:
    lines = [f"On {about['pairs']:,} of {about['of']:,} test pairs. {READ}"]
    lines += [f"{one['title']}: {one['text']}." for one in about["controls"]]
    if uncompared:
        names = ", ".join(uncompared)
        lines.append(
            f"Methods are not held against the controls by {names}: measured otherwise, or no means over pairs where "
            "the methods were scored on other pairs."
        )
    return lines


def grouped(rows: Iterable[Missing]) -> list[tuple[str, list[str], str]]:
    """Kind, names and reason: what is missing for one reason stands together, in the order of KINDS."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        groups[row.kind, row.why].append(row.name)
    order = sorted(groups, key=lambda group: KINDS.index(group[0]))
    return [(kind, groups[kind, why], why) for kind, why in order]


def number(value: float, sign: str = "") -> str:
    """The smaller, the more decimals, up to five: what a metric notices may be far smaller than its values."""
    steps = ((10, 1), (1, 2), (0.01, 3), (0.001, 4), (5e-6, 5))
    decimals = next((places for least, places in steps if abs(value) >= least), None)
    return f"{0.0:{sign}.3f}" if decimals is None else f"{value:{sign}.{decimals}f}"


def grid(rows: Sequence[Noticed]) -> pd.DataFrame:
    """One data set's, as text: a row for each metric, with its marks, and a column for each control."""
    table: dict[str, dict[str, str]] = {}
    marks = {row.metric: symbols(row.marks) for row in rows if row.marks}
    for row in rows:
        name = f"{row.metric}{marks.get(row.metric, '')} {'↑' if row.higher_is_better else '↓'}"
        cell = f"– ({row.why})"
        if row.difference is not None:
            cell = f"{row.noticed} {number(row.difference, '+')}"
            cell += f"\n[{number(row.difference_low, '+')}, {number(row.difference_high, '+')}]"
        elif row.value is not None and not row.why:
            cell = number(row.value)
        table.setdefault(name, {"Metric": name})[row.title] = cell
    return pd.DataFrame(list(table.values()))


def write(folder: Path, found: Controls) -> None:
    """controls.csv, .md and .tex; outside_controls.csv, agreement.csv and missing.csv."""
    kinds = (("controls", Noticed, found.noticed), ("outside_controls", Outside, found.outside))
    kinds += (("agreement", Agreement, found.agreement), ("missing", Missing, found.missing))
    for name, kind, rows in kinds:
        frame = pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(kind)])
        counts = [name for name in ("n", "excluded") if name in frame]
        frame[counts] = frame[counts].astype("Int64")  # also where one is missing
        frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    for kind, page in (("md", markdown_page), ("tex", tex_page)):
        parts = []
        for dataset, notes in found.notes.items():
            own = [row for row in found.noticed if row.dataset == dataset]
            beyond = [
                f"{row.method}, {row.metric}: {row.what} ({number(row.difference, '+')} on {row.n} pairs)."
                for row in found.outside
                if row.dataset == dataset
            ]
            beyond += [
                f"Agreement with the raters of study {row.study}, {row.measure}: {row.metric}, Kendall's tau "
                f"{row.tau:.2f} [{row.low:.2f}, {row.high:.2f}] over {row.methods} methods, {row.pairs} pairs and "
                f"{row.raters} raters."
                for row in found.agreement
                if row.dataset == dataset
            ]
            missing = grouped(row for row in found.missing if row.dataset == dataset)
            lacking = [f"No {kind}: {', '.join(names)}; {why}." for kind, names, why in missing]
            marks = [mark for mark in MARKS if any(mark in row.marks.split() for row in own)]
            title = f"What the metrics notice, {dataset_title(dataset)}"
            parts.append(page(title, grid(own), [*notes, *beyond, *lacking], marks))
        (folder / f"{NAME}.{kind}").write_text("\n".join(parts), encoding="utf-8")
