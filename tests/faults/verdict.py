"""What is asked of a job after every fault, whichever it was.

Each run of it went well, was ended by the fault, or said one line; each output is missing, what it was before, or what
it will be; and the same command, without the fault, ends with the bytes of an undisturbed run, takes no training for
lost, and leaves nothing half-written.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.faults.kinds import LOADER, Try
from tests.faults.project import Ended, held, leftovers

PATH = re.compile(r"[\w.-]*/[\w./-]+|params[\w.]*yaml")


class Wrong(Exception):
    """What a fault must not lead to, in words."""


def outcome(one: Try, ended: Sequence[Ended]) -> str:
    """`undisturbed`, `a line` or `stopped`: what became of the runs under the fault. Raises Wrong."""
    said = [_end(run, one) for run in ended]
    before = {"nothing": {}, "same": one.known.outputs}.get(one.before)
    _check_outputs(one, one.project.other(one.job).outputs if before is None else before, said[-1] == "undisturbed")
    again = one.run()
    if again.status != 0:
        raise Wrong(f"the next run: status {again.status}: {again.said[-600:]}")
    if "set aside" in again.said and one.before != "other":
        raise Wrong(f"a training was not taken up: {again.said[-600:]}")
    found = held(one.job.outputs)
    if found != one.known.outputs:
        raise Wrong(f"other bytes: {sorted(name for name, _ in found.items() ^ one.known.outputs.items())[:4]}")
    if left := leftovers(Path()):
        raise Wrong(f"left behind: {left[:4]}")
    return max(said, key=("undisturbed", "a line", "stopped").index)


def _end(run: Ended, one: Try) -> str:
    lines = [line for line in run.said.splitlines() if line.startswith("repose: ")]
    if "Traceback" in run.said or "a fault of ours" in run.said:
        raise Wrong(f"a traceback: {run.said[-1500:]}")
    if run.status == 0:
        return "undisturbed"
    died = run.status < 0 or run.status == LOADER
    if run.status in one.expected and (died or len(lines) == 1):
        return "stopped" if died else "a line"
    if run.status != 2 or len(lines) != 1:
        raise Wrong(f"status {run.status}: {run.said[-600:]}")
    if one.names_a_file and not PATH.search(lines[0]):
        raise Wrong(f"no file is named: {lines[0]}")
    return "a line"


def _check_outputs(one: Try, before: Mapping[str, str], done: bool) -> None:
    """Both engines take an output that is there for a finished one. Raises Wrong for one that is of no whole run, or is
    not there though the last run is `done`.
    """
    found = held(one.job.outputs)
    runs = [before, one.known.outputs]
    if one.job.name in one.project.others:
        runs.append(one.project.other(one.job).outputs)
    for output in one.job.outputs:

        def of(files: Mapping[str, str], output: str = output) -> dict[str, str]:
            return {name: one for name, one in files.items() if name == output or name.startswith(f"{output}/")}

        if done and not Path(output).exists():
            raise Wrong(f"{output} is gone")
        if Path(output).exists() and of(found) not in [of(files) for files in runs]:
            raise Wrong(f"{output} is of no whole run: {sorted(of(found))[:4]}")
