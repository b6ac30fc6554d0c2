"""Inject faults into a small project, some of every kind, and count what becomes of them.

    python -m tests.faults [--seed 0] [--tries N] [--only WORD ...]        all of it: `make faults`

Prints a table, a row for each kind, and what went wrong, if anything did: exit status 1 then. kinds.py has the faults
of single jobs, the stages in turn, engines.py those of whole runs of an engine; what is asked afterwards is in
verdict.py. A fault is told by its kind, its number and the seed; when a clock strikes is left to the machine.

  undisturbed  the fault met nothing, or the job came through it
  a line       the job ended with one line that says what to do
  stopped      the process was killed, or died by a library's hand
  wrong        other bytes, a traceback, an output of no whole run, a state that needs a hand
"""

import argparse
import gc
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "REPOSE_OFFLINE": "1"}
os.environ.pop("REPOSE_MIRROR", None)

from pipeline.core import graph
from tests.faults import engines
from tests.faults import project as projects
from tests.faults.kinds import KINDS, Kind, Try, two_different
from tests.faults.project import Project, Unavailable, other_setting
from tests.faults.verdict import Wrong, outcome

OUTCOMES = ("undisturbed", "a line", "stopped", "wrong")


@contextmanager
def built() -> Iterator[Project]:
    """A finished small project in a folder for a while, with all libraries at hand."""
    projects.import_everything()
    gc.freeze()  # what is never collected stays shared with the forks
    with tempfile.TemporaryDirectory() as scratch:
        project = Project(Path(scratch))
        try:
            yield project
        finally:
            project.close()


def jobs_of(project: Project, function: Kind) -> list[list[graph.Job]]:
    """The jobs that a kind of fault is tried on, by stage."""
    stages: dict[str, list[graph.Job]] = {}
    for job in project.jobs:
        if function is not two_different or other_setting(job):
            stages.setdefault(job.stage, []).append(job)
    return list(stages.values())


def trial(project: Project, name: str, number: int, seed: int, verbose: bool = False) -> str:
    """One fault of a kind, the stages in turn; return the outcome."""
    function, _ = KINDS[name]
    chance = random.Random(f"{seed} {name} {number}")
    stages = jobs_of(project, function)
    job = chance.choice(stages[number % len(stages)])
    before = chance.choice(["nothing", "same", *["other"] * bool(other_setting(job))])
    if before == "other":
        project.put_other(job)
    else:
        project.restore(job)
        if before == "nothing":
            projects.remove(projects.left_by(job))
    one = Try(project, job, chance, before)
    try:
        ended = function(one)
        found = outcome(one, ended)
    except Wrong as error:
        print(f"WRONG: {name}, number {number}, seed {seed}: {job} after {before}: {error}", flush=True)
        project.renew()
        return "wrong"
    if verbose:
        lines = [line for run in ended for line in run.said.splitlines() if line.startswith("repose: ")]
        print(f"{name}, number {number}: {job} after {before}: {found}", *lines, sep="\n    ", flush=True)
    return found


def row(name: str, numbers: range, one: Callable[[int], str]) -> Counter[str]:
    """Print what became of some tries, and return it."""
    began = time.monotonic()
    try:
        found = Counter(map(one, numbers))
    except Unavailable as why:
        print(f"| {name} | skipped: {why} |")
        return Counter()
    print(f"| {name} | {found.total()} | {' | '.join(str(found[one]) for one in OUTCOMES)} |", flush=True)
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tries", type=int, help="of each kind; without it as many as kinds.py says")
    parser.add_argument("--only", nargs="+", default=[""], help="kinds whose name holds one of these words")
    parser.add_argument("--verbose", action="store_true", help="print what became of each try")
    given = parser.parse_args()
    seed, total = given.seed, Counter()
    print(f"| fault | tried | {' | '.join(OUTCOMES)} |\n|---|{'---:|' * 5}", flush=True)
    with built() as project:
        for name, (_, tries) in KINDS.items():
            if any(word in name for word in given.only):
                numbers = range(given.tries or tries)
                total += row(name, numbers, lambda number, name=name: trial(project, name, number, seed, given.verbose))
        wanted = [name for name in engines.ENGINES if any(word in f"{name} killed" for word in given.only)]
        if wanted:
            with engines.built(project.scratch, project.jobs) as runs:
                for name in wanted:
                    numbers = range(given.tries or engines.TRIES)
                    total += row(
                        f"{name} killed, with all it started", numbers, lambda k, name=name: runs.kill(name, k, seed)
                    )
    print(f"| all | {total.total()} | {' | '.join(str(total[one]) for one in OUTCOMES)} |")
    return int(total["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
