"""What must be said below a table: where its numbers come from, and what they may be compared with."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pipeline.core import layout, needs, params
from pipeline.tables import studies
from pipeline.tables.cells import Cell
from pipeline.tables.inputs import Run, Runs, not_scored, outdated
from pipeline.tables.papers import MARKS, PROTOCOL, PaperTable, symbols
from pipeline.tables.studies import Study
from pipeline.tables.verdicts import NOT_COMPARABLE


def marks_in(cells: Iterable[Cell], runs: Runs) -> list[str]:
    """Names of the marks on values, and on the scores that checkpoints were chosen by, in the order of MARKS."""
    used = set()
    for cell in cells:
        if cell.value:
            used |= set(cell.marks.split())
        if cell.value and cell.kind == "trained":
            used |= set(runs[cell.dataset, cell.variant].chosen["marks"].split())
    return [name for name in MARKS if name in used]


def _about_training(run: Run) -> list[str]:
    """Which checkpoint stands for the run and, of several seeds, which runs these are."""
    chosen, best = run.chosen, "highest" if run.chosen["higher_is_better"] else "lowest"
    lines = [
        f"{run.name}: step {chosen['step']}, of {run.checkpoints} checkpoints the one with the {best} "
        f"{chosen['metric']} on {chosen['split']} ({chosen['value']:.4f}{symbols(chosen['marks'])}); test had no say."
    ]
    if run.starts:
        lines.append(f"{run.name}: not trained from random weights, but on from {'; '.join(run.starts)}.")
    if run.others:
        every = [run, *run.others]
        seeds = ", ".join(str(each.seed) for each in every)
        steps = ", ".join(str(each.chosen["step"]) for each in every)
        lines.append(
            f"{run.name}: trained from {len(every)} seeds ({seeds}); each run's checkpoint was chosen for itself "
            f"(steps {steps}). The number and its interval over pairs are those of seed {run.seed}."
        )
    return lines


def about_ours(ours: list[Cell], runs: Runs) -> list[str]:
    """Checkpoints, protocols, intervals, ties, and methods from elsewhere of which only some images were given."""
    lines = []
    for key in dict.fromkeys((cell.dataset, cell.variant) for cell in ours if cell.kind == "trained"):
        lines += _about_training(runs[key])
    for key in dict.fromkeys((cell.dataset, cell.variant) for cell in ours if cell.kind == "component"):
        lines.append(f"{runs[key].name}: step {runs[key].chosen['step']}, its last, from which variants start.")
    if any(cell.kind in ("trained", "component") for cell in ours):
        lines.append(
            "People in validation pairs, on whom a checkpoint is chosen, are in nothing that a network of this run was "
            "trained on; the papers train on all. A row without a mark follows its paper in all that the paper or its "
            "code states, but for details that docs/papers.md lists, with our choices where they leave something open."
        )
    protocols = dict.fromkeys((cell.column, cell.metric, cell.protocol) for cell in ours)
    listed = "; ".join(f"{column} = {metric} ({protocol})" for column, metric, protocol in sorted(protocols))
    if protocols:
        lines.append(f"Protocols of this run, defined in docs/protocols.md: {listed}.")
    if any(cell.low for cell in ours):
        lines.append(
            "Intervals: 95 %, bootstrap over the test pairs; those of FID and IS by the first-order influence of each "
            "pair, so they say nothing about the bias that these have on few images."
        )
    by_resamples = defaultdict(list)
    for key in dict.fromkeys((cell.dataset, cell.variant) for cell in ours):
        by_resamples[int(runs[key].chosen["resamples"])].append(key[1])
    if len(by_resamples) > 1:
        listed = "; ".join(f"{count} of {', '.join(names)}" for count, names in sorted(by_resamples.items()))
        lines.append(f"The intervals come from different numbers of resamples: {listed}. Score again for one number.")
    if any("tied" in cell.place for cell in ours):
        lines.append(
            "≈: the best of this run's rows and those that a paired bootstrap over the test pairs does not "
            "tell from it at 95 %, one comparison at a time."
        )
    if any(cell.seeds for cell in ours):
        lines.append(
            "seeds: mean ± sample standard deviation over runs from different seeds of training. These rank by their "
            "mean, and ≈ also says that Welch's 95 % interval over seeds does not tell two methods apart."
        )
    partial = {
        (cell.row, cell.n) for cell in ours if cell.kind in ("outside", "record") and "pairs" in cell.marks.split()
    }
    most = max((cell.n for cell in ours), default=0)
    for row, n in sorted({(row, max(m for r, m in partial if r == row)) for row, _ in partial}):
        if n == most and any(cell.n == most and cell.row != row for cell in ours):
            continue  # the reference itself has but these pairs
        lines.append(f"{row}: images for only {n} test pairs were given; its row is about those, and has no rank.")
    return lines


def _elsewhere(cells: Iterable[Cell]) -> list[str]:
    """Of published cells: where another value of theirs stands."""
    found = dict.fromkeys((cell.other, cell.other_source) for cell in cells if cell.other)
    listed = "; ".join(f"{value} in {source}" for value, source in found)
    return [f"Elsewhere, what another paper prints for the same cell: {listed}."] if found else []


def _about_studies(table: PaperTable, asked: Sequence[Study]) -> list[str]:
    """What was asked and, of what the table has no column for, what was answered."""
    lines = [line for study in asked for line in studies.notes(study.about)]
    for study in asked:
        found = [f"{name} {float(rate['value']):.2f}" for (name, what), rate in study.rates.items() if what == "r2g"]
        if found and "R2G (%)" not in table.columns_of(study.dataset):
            lines.append(f"R2G in study {study.name}: {', '.join(found)}.")
    if any(row["verdict"] == "tie" for study in asked for row in study.apart):
        lines.append("≈: the best of a study, and those that its raters and pairs do not tell from it at 95 %.")
    return list(dict.fromkeys(lines))


def _about_verdicts(ours: list[Cell]) -> list[str]:
    """What the words mean, and of each number that compares with no published one, why."""
    lines, why = [], defaultdict(list)
    if any(cell.verdict and cell.verdict != NOT_COMPARABLE for cell in ours):
        lines.append(
            "reproduced, better, worse: whether the intervals over pairs and over seeds tell ours from the published "
            "number, measured by a recipe that is calibrated (docs/protocols.md, Verdicts). "
            + "; ".join(
                f"{cell.column} of {cell.variant}: {cell.verdict}, {cell.reason}"
                for cell in ours
                if cell.verdict and cell.verdict != NOT_COMPARABLE
            )
            + "."
        )
    for cell in ours:
        if cell.verdict == NOT_COMPARABLE:
            why[cell.reason].append(f"{cell.column} of {cell.variant}")
    return [*lines, *(f"Not comparable, {', '.join(cells)}: {reason}." for reason, cells in why.items())]


def _by_dataset(cells: list[Cell]) -> dict[str, list[Cell]]:
    parts = defaultdict(list)
    for cell in cells:
        parts[cell.dataset].append(cell)
    return parts


def notes(table: PaperTable, cells: list[Cell], runs: Runs, asked: Sequence[Study] = ()) -> dict[str, list[str]]:
    """Data set -> what must be said under its part of a paper's table, except the marks; "" if it has no part."""
    if not cells:
        return {"": [*table.notes, f"Not in this run: {', '.join(row.ours for row in table.rows if row.ours)}."]}
    result = {}
    for dataset, own in _by_dataset(cells).items():
        ours = [cell for cell in own if cell.kind not in ("published", "study") and cell.value]
        theirs = [cell for cell in own if cell.kind == "published"]
        measured = any(table.metrics_of(column) for column in table.columns_of(dataset))
        scored = {params.variant_of(run.name) for run in runs.values() if run.dataset == dataset}
        lacking = [row.ours for row in table.rows if row.ours and row.ours not in scored]
        lines = []
        if theirs:
            lines.append(f"Published rows: {'; '.join(dict.fromkeys(c.source for c in theirs if c.value))}.")
        lines += _elsewhere(theirs)
        if any(not cell.value for cell in theirs):
            lines.append("A dash in a published row: the paper gives no number, or it is not known here.")
        if measured and not scored:
            lines.append("This run did not score this data set.")
        elif measured and lacking:
            where = "components" if {*lacking} <= {*needs.components(params.load())} else "variants"
            lines.append(f"Not in this run: {', '.join(lacking)} ({where} in params.yaml).")
        lines += [*table.notes, *table.notes_of.get(dataset, ())]
        lines += about_ours(ours, runs)
        shown = {cell.metric for cell in own if cell.kind == "study"}
        lines += _about_studies(table, [study for study in asked if shown & study.metrics])
        lines += _about_verdicts(ours)
        if theirs and ours and not table.of and not all(cell.difference for cell in ours if cell.kind == "trained"):
            lines.append(
                f"A difference to the paper is printed only between equal protocols. {PROTOCOL[table.paper]}: where no "
                "difference stands, the two numbers do not measure the same thing."
            )
        result[dataset] = lines
    return result


def leaderboard_notes(dataset: str, cells: list[Cell], runs: Runs) -> dict[str, list[str]]:
    """What must be said under the leaderboard of a data set, except the marks."""
    lines = ["Nothing is scored on this data set yet."]
    if cells:
        lines = [
            f"Every method that was scored here, by our protocols, sorted by {cells[0].column}. Best and 2nd compare "
            "rows with one metric, network and set of pairs."
        ]
    shown = dict.fromkeys(cell.variant for cell in cells)
    if told := [name for name in shown if runs[dataset, name].given_target_parsing]:
        lines.append(f"Given the parsing of the true target when scored, and so not ranked: {', '.join(told)}.")
    if missing := [variant for where, variant in not_scored() if where == dataset]:
        lines.append(f"Not scored yet, and so not here: {', '.join(missing)}.")
    lines += [
        f"Scored by another reference than this data set has now, and so not here: {name}; {renew}."
        for (where, name), renew in outdated().items()
        if where == dataset
    ]
    return {dataset: lines + about_ours([cell for cell in cells if cell.value], runs)}


def published_notes(dataset: str, cells: list[Cell]) -> dict[str, list[str]]:
    """What must be said under the published numbers on a data set, except the marks."""
    if not cells:
        return {dataset: [f"{layout.PUBLISHED} has no number on this data set."]}
    return {
        dataset: [
            "Copied from where each row says, and neither ranked nor compared: papers measure one metric in different "
            "ways (docs/protocols.md). In brackets: which paper prints the row, in which table and, if it says so, for "
            "pictures of which size.",
            f"{len({cell.row for cell in cells})} rows of {layout.PUBLISHED}, where their sources stand, and more "
            "metrics.",
            *_elsewhere(cells),
        ]
    }
