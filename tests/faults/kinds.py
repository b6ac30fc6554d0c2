"""The kinds of faults, a function each.

A function takes a `Try`, runs its job once or twice under the fault, and returns how these runs ended; what is asked of
a job after every fault is in verdict.py.
"""

import ctypes
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core import graph
from tests.faults import power
from tests.faults.project import Child, Ended, Known, Project, at_every_change, other_setting

LOADER = 127  # the exit status with which the C library ends a process without memory for a thread's data
YEAR = 365 * 86_400


@dataclass
class Try:
    """One fault in one job: what lies there before, and everything that is left to chance."""

    project: Project
    job: graph.Job
    chance: random.Random
    before: str  # of the job's outputs and unfinished work: nothing | same | other (by another setting)
    expected: set[int] = field(default_factory=set)  # exit statuses, beside 0 and that of one line
    names_a_file: bool = False  # so must the line

    @property
    def known(self) -> Known:
        return self.project.known[self.job.name]

    def start(self, before: Callable[[], Any] | None = None) -> Child:
        return self.project.run(self.job, before)

    def run(self, before: Callable[[], Any] | None = None) -> Ended:
        return self.start(before).wait()

    def pause(self) -> float:
        """A random share of the time that the job takes, in seconds."""
        return self.chance.uniform(0, self.known.seconds)

    def struck(self, number: signal.Signals, before: Callable[[], Any] = lambda: None) -> Ended:
        """A run that gets a signal at a random moment: of its time, or right before it changes a file."""
        self.expected |= {-number}
        if self.chance.random() < 0.5:
            child = self.start(before)
            child.kill_after(self.pause(), number)
            return child.wait()
        left = self.chance.randrange(self.known.changes)

        def strike() -> None:
            nonlocal left
            left -= 1
            if left == -1:
                os.kill(os.getpid(), number)

        return self.run(lambda: (before(), at_every_change(strike))[:0])


Kind = Callable[[Try], list[Ended]]
KINDS: dict[str, tuple[Kind, int]] = {}  # what the table calls it -> the function, and how many tries there are


def kind(name: str, tries: int) -> Callable[[Kind], Kind]:
    def add(function: Kind) -> Kind:
        KINDS[name] = function, tries
        return function

    return add


# ---- the end of a process


@kind("SIGKILL at a random moment", 504)
def killed(one: Try) -> list[Ended]:
    return [one.struck(signal.SIGKILL)]


@kind("SIGINT at a random moment", 54)
def interrupted(one: Try) -> list[Ended]:
    one.expected |= {130}
    return [one.struck(signal.SIGINT)]


@kind("SIGTERM at a random moment", 54)
def terminated(one: Try) -> list[Ended]:
    one.expected |= {130}  # of a training, which finishes its step first
    return [one.struck(signal.SIGTERM)]


@kind("power cut, at a random moment", 54)
def power_cut(one: Try) -> list[Ended]:
    """Whatever was not synced is lost, as power.py has it."""
    with power.cut(one.project.now, one.chance) as record:
        return [one.struck(signal.SIGKILL, record)]


@kind("power cut, right after the end", 36)
def power_cut_after(one: Try) -> list[Ended]:
    with power.cut(one.project.now, one.chance) as record:
        return [one.run(record)]


# ---- what the system refuses


@kind("disk full", 54)
def disk_full(one: Try) -> list[Ended]:
    """So many bytes are left as the job writes at most, or fewer."""
    one.names_a_file = True
    with one.project.disk_with(one.chance.randrange(one.project.written(one.job))):
        return [one.run()]


@kind("files may not be longer (RLIMIT_FSIZE)", 36)
def files_too_large(one: Try) -> list[Ended]:
    one.names_a_file = True
    most = one.chance.randrange(one.project.largest(one.job))
    return [one.run(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))]


@kind("a folder is read-only", 54)
def read_only(one: Try) -> list[Ended]:
    one.names_a_file = True
    folders = {Path(path).parent for path in one.job.outputs} | {Path(".work"), one.job.log.parent}
    folders |= {path for path in map(Path, one.job.outputs) if path.is_dir()}
    folder = one.chance.choice(sorted(path for path in folders if path.exists()))
    folder.chmod(0o555)
    try:
        return [one.run(_without_privileges)]
    finally:
        folder.chmod(0o755)


def _without_privileges() -> None:
    """Root writes where it pleases, unless it gives up all its capabilities."""
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())


@kind("no file handles", 54)
def no_handles(one: Try) -> list[Ended]:
    spare = one.chance.randrange(8)

    def limit() -> None:
        used = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
        last = [number for number in range(len(used) + spare + 1) if number not in used][spare]
        resource.setrlimit(resource.RLIMIT_NOFILE, (last, last))

    return [one.run(limit)]


@kind("no memory", 54)
def no_memory(one: Try) -> list[Ended]:
    spare = int(2 ** one.chance.uniform(14, 27))  # 16 KiB to 128 MiB
    one.expected |= {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, LOADER}  # C libraries say nothing of ours

    def limit() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + spare, used + spare))

    return [one.run(limit)]


# ---- a clock, and a second run


@kind("clock runs backwards, files are of next year", 54)
def clock_backwards(one: Try) -> list[Ended]:
    for path in Path().rglob("*"):
        if one.chance.random() < 0.5:
            os.utime(path, (time.time() + YEAR,) * 2)

    def turn_back() -> None:
        now, back = time.time, iter(range(0, 10**9, 3600))
        time.time = lambda: now() - next(back)

    return [one.run(turn_back)]


@kind("two runs at once, equal ones", 54)
def two_equal(one: Try) -> list[Ended]:
    first = one.start()
    time.sleep(one.pause() / 2)
    return [ended.wait() for ended in (first, one.start())]


@kind("two runs at once, by different settings", 56)
def two_different(one: Try) -> list[Ended]:
    one.project.other(one.job)
    one.before = "other"
    one.project.set(*other_setting(one.job))
    first = one.start()
    time.sleep(one.pause() / 2)
    one.project.set()
    return [ended.wait() for ended in (first, one.start())]
