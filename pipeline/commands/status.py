"""Show how far everything is: which stages of each data set and variant are done, the last scores, what to run next.

  repose status
  repose status --json

A stage is
  done        its outputs are there, and by the record of Snakemake or DVC they were made by the present command,
              sources and params.yaml, from inputs that were not replaced since
  stale       there, but one of these changed (which one: below the table), or a stage before it is stale or runs again
  unrecorded  there, and neither engine knows how it was made: run by hand, or taken from elsewhere
  running     a process writes its log now
  damaged     a file of its outputs is gone, too many or of another size than when it was written; the command below
              the table makes it again, which Snakemake does not by itself
  failed      its last run stopped before its end: the reason, from its log, stands below the table
  missing     not there
  unavailable a published network that the stage `weights` looked for and could not have: nothing is left to run, and
              what needs it stops, leaves metrics out or takes random features (missing_weights)

Neither engine is started and no prepared data is read: of large inputs and outputs only times and sizes are compared,
so a byte changed in a shard, its time and size kept, is not seen: `repose verify` reads everything. `snakemake
--dry-run` and `dvc status` are each engine's own, slower answer. Components that nothing in params.yaml needs are not
listed.

Scores are those of the last `score`, on test, at the checkpoint that stands for the variant (tables.choose_by). Where
they were made by another reference than the data set has now (other images, joints, pairs, metrics or networks), which
tables and report leave out, the line says so and names the command that renews them.

With --json the same as one JSON object on standard output:
  jobs    in the order in which they run, each an object
            job     its name, as `stale because of ...` says it, such as "train synthetic spig"
            stage   such as "train"
            dataset, variant, component, net, rule   those of them that the stage is for
            state   one of those above
            why     what stands below the table of it, "" if nothing
  scores  for each data set and variant with scores, an object
            dataset, variant
            step    the checkpoint
            values  column of the tables, such as "LPIPS" -> number
            marks   the same columns -> names of marks (reports/tables/legend.csv says what they stand for)
            error   instead of these three where the scores cannot be read
            renew   the command that renews them where another reference made them, else ""
  next    the one command that goes on from here, or what there is to look at
"""

import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.commands import engines
from pipeline.core import console, layout, needs, params, seals, store
from pipeline.core.errors import UserError
from pipeline.core.graph import FOREGOING, Job, Writers, jobs
from pipeline.tables.inputs import choose, reference, renewal
from pipeline.tables.papers import COLUMNS, MARKS, symbols

STYLES = {
    "done": "green",
    "stale": "yellow",
    "unrecorded": "yellow",
    "running": "cyan",
    "damaged": "bold red",
    "failed": "bold red",
    "missing": "dim",
    "unavailable": "yellow",
}
SCORES = ("FID", "PCKh")  # shown beside the metric that checkpoints are chosen by
FINISHED = ("done", "unavailable")  # nothing is left to do
COLUMNS_READ = ["step", "split", "metric", "value", "higher_is_better", "marks"]
WIDE = 120  # columns where there is no terminal


@dataclass(frozen=True)
class State:
    """What is known of a job: one of STYLES, and why, in a few words."""

    name: str
    why: str = ""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, see above")


# ---- what state a job is in


def _log_lines(job: Job) -> list[str]:
    return job.log.read_text(encoding="utf-8", errors="replace").splitlines() if job.log.exists() else []


def _failure(job: Job) -> str | None:
    """Why the last run of a job did not reach its end, from its log; None if it did, or if its outputs came later."""
    outputs = [Path(output) for output in job.outputs]
    if not job.log.exists():
        return None
    if all(output.exists() and output.stat().st_mtime >= job.log.stat().st_mtime for output in outputs):
        return None
    lines = _log_lines(job)
    if not lines or not lines[-1].startswith("wall "):
        return "stopped without a last word: killed, or the machine went down"
    last = next((line for line in reversed(lines) if line.startswith("failed: ")), None)
    return last and last.removeprefix("failed: ").removeprefix("UserError: ").replace(
        "KeyboardInterrupt: ", "interrupted"
    )


def _running(job: Job) -> str | None:
    """The last line of a running job's log; None if it does not run."""
    if not console.is_written(job.log):
        return None
    return next(reversed(_log_lines(job)), "just started")


def _state(job: Job, writers: Writers, lock: dict, found: dict[str, State]) -> State:
    now = _running(job)
    if now is not None:
        return State("running", now)
    failure = _failure(job)
    if failure is not None:
        return State("failed", failure)
    if not all(Path(output).exists() for output in job.outputs):
        return State("missing")
    for output in map(Path, job.outputs):
        for path, why in seals.listing_faults(output):
            return State("damaged", f"{path}: {why}; run: {job.by_hand}")
    for other in writers.before(job):
        if other.stage not in FOREGOING and found[other.name].name in ("stale", "running", "failed", "damaged"):
            return State("stale", f"{other} is {found[other.name].name}")
    reasons = engines.why_again(job, writers, lock)
    if reasons is None:
        return State("unrecorded")
    if reasons:
        return State("stale", "; ".join(reasons))
    return State("unavailable" if job.stage == "weights" and _is_unavailable(job.axes["net"]) else "done")


def _is_unavailable(net: str) -> bool:
    try:
        record = json.loads((layout.weights(net) / "source.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return record.get("status") == "missing"


def states(everything: list[Job]) -> dict[str, State]:
    """State by name, of jobs in the order of `graph.jobs`."""
    found: dict[str, State] = {}
    writers, lock = Writers(everything), engines.read_lock()
    for job in everything:
        found[job.name] = _state(job, writers, lock, found)
    return found


# ---- what is shown


def last_scores(
    dataset: str, variant: str, choose_by: dict[str, str]
) -> tuple[int, dict[str, float], dict[str, list[str]]] | None:
    """The step that stands for a variant, column -> value of the test pairs, and column -> its marks; None without
    scores.

    Raises UserError for scores that cannot be read.
    """
    path = layout.scores(dataset, variant)
    if not path.exists():
        return None
    try:
        scores = store.read_table(path, COLUMNS_READ).to_pandas()
    except (UserError, KeyError):  # a column is not there
        raise UserError(f"{path} cannot be read") from None
    column = choose_by["metric"].upper()
    chosen = choose(scores, column, choose_by["split"])
    if chosen is None:
        return None
    own = scores[scores["step"] == chosen["step"]]
    rows = {}
    for name in dict.fromkeys([column, *SCORES]):
        row = choose(own, name, "test")
        if row is not None and row["metric"] in COLUMNS[name].metrics:
            rows[name] = row
        elif row is not None and name == column:
            rows["SSIM"] = row  # what is chosen by where that column's network could not be had
    values = {name: float(row["value"]) for name, row in rows.items()}
    marks = {name: [mark for mark in MARKS if mark in row["marks"]] for name, row in rows.items()}
    return (int(chosen["step"]), values, marks) if values else None


def how_to_renew(dataset: str, name: str) -> str:
    """The command for scores by another reference than the present one; "" for others, and where that is not known."""
    try:
        reference(dataset)  # first, since it is small and nothing can be said without it
        return renewal(dataset, name)
    except UserError:  # no reference yet, or scores that cannot be read, which is said in their place
        return ""


def scores_in_words(dataset: str, variant: str, choose_by: dict[str, str]) -> str:
    """ "step 150: LPIPS 0.3712, FID 95.120, PCKh 0.71" of the test pairs, "" without scores."""
    try:
        found = last_scores(dataset, variant, choose_by)
    except UserError as error:
        return str(error)
    if found is None:
        return ""
    return f"step {found[0]}: " + ", ".join(
        f"{name} {value:.{COLUMNS[name].decimals}f}{symbols(' '.join(found[2][name]))}"
        for name, value in found[1].items()
    )


def _stages(shown: Iterable[tuple[str, State]]) -> Text:
    """Names by state, a line each: "done fetch, index", in the order of STYLES."""
    shown = list(shown)
    lines = []
    for name, style in STYLES.items():
        own = [label for label, state in shown if state.name == name]
        if own:
            lines.append(Text.assemble((name, style), f" {', '.join(own)}"))
    return Text("\n").join(lines)


def _rows(everything: list[Job], found: dict[str, State]) -> Iterator[tuple[str, str, Text, str]]:
    """Data set, what of it, its stages, its scores."""
    values = params.load()

    def left_out(dataset: str, name: str) -> str:
        again = how_to_renew(dataset, name)
        return again and f"not in tables: scored by another reference; {again}"

    def stages(own: Iterable[Job], label: str = "") -> Text:
        return _stages((job.axes[label] if label else job.stage, found[job.name]) for job in own)

    yield "", "networks", stages((job for job in everything if job.stage == "weights"), "net"), ""
    for dataset in params.datasets():
        of = [job for job in everything if job.axes.get("dataset") == dataset]
        data = [job for job in of if job.axes.keys() <= {"dataset", "rule", "part"}]
        yield (
            dataset,
            "data",
            _stages((" ".join([job.stage, *[*job.axes.values()][1:]]), found[job.name]) for job in data),
            "",
        )
        wanted = needs.wanted(values, dataset)
        of_components = {job.axes["component"]: None for job in of if "component" in job.axes}
        for component in (name for name in of_components if wanted.get(name, True)):
            own = [job for job in of if job.axes.get("component") == component]
            yield dataset, component, stages(own), left_out(dataset, component)
        for variant in params.variants():
            own = [job for job in of if job.axes.get("variant") == variant]
            said = scores_in_words(dataset, variant, values["tables"]["choose_by"]), left_out(dataset, variant)
            yield dataset, variant, stages(own), "\n".join(filter(None, said))
    yield "", "results", stages(job for job in everything if not job.axes), ""


def table(everything: list[Job], found: dict[str, State]) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("data set", "what", "stages", "last scores"):
        drawn.add_column(column, overflow="fold")
    previous = ""
    for dataset, what, stages, scores in _rows(everything, found):
        if drawn.rows and dataset != previous:
            drawn.add_section()
        drawn.add_row(dataset if dataset != previous else "", what, stages, scores)
        previous = dataset
    return drawn


def remarks(everything: list[Job], found: dict[str, State]) -> list[str]:
    """Why jobs are stale or failed, and where those that run are; of stale ones the first cause only."""
    lines = []
    for job in everything:
        state = found[job.name]
        derived = state.name == "stale" and any(state.why.startswith(f"{other} is ") for other in everything)
        if state.why and not derived:
            lines.append(f"{state.name} {job}: {state.why}")
    nets = [job.axes["net"] for job in everything if found[job.name].name == "unavailable"]
    if nets:
        again = " ".join(str(layout.weights(net)) for net in nets)
        lines.append(f"unavailable {', '.join(nets)}: to look for the published weights again: rm -r {again}")
    return lines


def what_next(everything: list[Job], found: dict[str, State]) -> str:
    """The one command that goes on from here, or what there is to look at."""

    def is_(job: Job, name: str) -> bool:
        return found[job.name].name == name

    writers = Writers(everything)

    def spent(job: Job) -> bool:
        """Gone, but all is made that it was for: Snakemake makes it again only if it is named."""
        readers = [other for other in everything if job in writers.before(other)]
        return is_(job, "missing") and bool(readers) and all(is_(other, "done") for other in readers)

    left = [job for job in everything if found[job.name].name not in FINISHED]
    running = [job for job in left if is_(job, "running")]
    if running:
        return f"wait; to look on: tail -f {running[0].log}"
    damaged = [job for job in left if is_(job, "damaged")]
    if damaged:
        return damaged[0].by_hand
    if not left:
        return f"nothing to run; open {layout.REPORT}"
    if len(left) == len(everything) and all(is_(job, "missing") for job in left) and params.datasets() == ["synthetic"]:
        return "make demo"
    if all(is_(job, "unrecorded") for job in left):
        return ".venv/bin/snakemake --cores all --touch (records what is there as it is)"
    if engines.DVC_LOCK.exists() and not engines.SNAKEMAKE.exists():
        return ".venv/bin/dvc repro"
    targets = [output for job in left for output in job.outputs] if all(map(spent, left)) else []
    return " ".join([".venv/bin/snakemake --cores all", *targets])


def as_json(everything: list[Job], found: dict[str, State]) -> str:
    """What `--json` prints."""
    choose_by, scores = params.load()["tables"]["choose_by"], []
    for dataset, variant in product(params.datasets(), params.variants()):
        try:
            last = last_scores(dataset, variant, choose_by)
        except UserError as error:
            scores.append({"dataset": dataset, "variant": variant, "error": str(error)})
            continue
        if last is not None:
            about = {"dataset": dataset, "variant": variant, "step": last[0], "values": last[1], "marks": last[2]}
            scores.append(about | {"renew": how_to_renew(dataset, variant)})
    jobs_ = [
        {"job": str(job), "stage": job.stage, **job.axes, "state": found[job.name].name, "why": found[job.name].why}
        for job in everything
    ]
    return json.dumps({"jobs": jobs_, "scores": scores, "next": what_next(everything, found)}, indent=1)


def run(json: bool) -> None:
    """Print the table. Raises UserError if params.yaml is missing or wrong."""
    everything = jobs(params.load())
    found = states(everything)
    if json:
        print(as_json(everything, found))
        return
    out = Console(highlight=False, markup=False)
    if not out.is_terminal:
        out = Console(highlight=False, markup=False, width=WIDE)
    out.print(table(everything, found))
    for line in remarks(everything, found):
        out.print(line, soft_wrap=True)
    out.print(f"next: {what_next(everything, found)}", soft_wrap=True)
