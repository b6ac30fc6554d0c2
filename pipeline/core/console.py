"""What a stage says: to the terminal, and to its log file under `logs/`.

Durations and memory go here and only here: outputs must not depend on when or how fast they were made.
"""

import fcntl
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pipeline.core import environment
from pipeline.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

LINES = environment.is_on("REPOSE_LINES")  # whoever started the stage prints one line of it; its log has the rest
RANK = environment.rank()  # of torchrun's processes only the first, 0, writes to the terminal
LONGEST = 4000  # characters of a line
LINE_EVERY = 30.0  # seconds between lines of progress where there is no terminal for a bar
_log: "Console | None" = None


@cache
def terminal() -> "Console":
    from rich.console import Console  # `--help` does without

    return Console(stderr=True, highlight=False)


# What no line of text holds: control characters, marks that turn the direction of writing, halves of a character.
_UNREADABLE = re.compile(r"[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _escaped(found: re.Match) -> str:
    code = ord(found[0])
    return f"\\x{code & 255:02x}" if code < 256 or 0xDC80 <= code < 0xDD00 else f"\\u{code:04x}"


def readable(text: str) -> str:
    """`text` as one line that any terminal and file takes: a name's control characters, and its bytes that are not
    UTF-8, are escaped, as `\\xe9`.
    """
    return _UNREADABLE.sub(_escaped, text)


def without_secrets(text: str) -> str:
    """`text` without what addresses in it may keep to themselves: name and password, and all after a `?`."""
    text = re.sub(r"(\w://)[^\s/?#'\"]*@", r"\1...@", text)
    return re.sub(r"(\w://[^\s?'\"]*\?)[^\s'\"]+", r"\1...", text)


def line(text: str) -> str:
    """`text` as it is said: readable, without secrets, and no longer than a reader reads."""
    text = readable(without_secrets(text))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def say(message: str) -> None:
    """One line to the terminal and to the stage's log."""
    message = line(message)
    if RANK == 0 and not LINES:
        terminal().print(message, markup=False, soft_wrap=True)
    if _log is not None:
        _log.print(message, markup=False, soft_wrap=True)


def peak_memory() -> float:
    """In MiB. Linux resets VmHWM when a program starts; `ru_maxrss` may still be the parent's."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def is_written(path: Path) -> bool:
    """Whether a running stage is writing the log `path`: it holds a lock, which goes when its process ends."""
    try:
        with path.open("r+", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such log, or a file system without locks
        pass
    return False


def _hold(handle: IO) -> None:
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_SH)  # shared: only `is_written` is kept waiting


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send `say` to `path` as well; the last line states wall time and peak memory of the stage.

    Each of several processes has its own log: the first NAME.log, the others NAME.rank-N.log.
    """
    from rich.console import Console

    global _log
    if RANK:
        path = path.with_suffix(f".rank-{RANK}.log")
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with path.open("w+", encoding="utf-8") as handle:  # readable, too, or NFS does not lock it
        _hold(handle)
        _log = Console(file=handle, width=200, highlight=False)
        try:
            yield
        except BaseException as error:
            said = "\n".join(map(line, error.args if isinstance(error, UserError) else [str(error)]))
            _log.print(f"failed: {type(error).__name__}: {said}", markup=False)
            raise
        finally:
            _log.print(f"wall {time.perf_counter() - start:.1f} s, peak memory {peak_memory():.0f} MiB", markup=False)
            _log = None


def _span(seconds: float) -> str:
    """A time left, roughly: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _in_lines(description: str, total: int | None) -> Callable[..., None]:
    """`advance` that says where the work is, every LINE_EVERY seconds; what is left by the pace since the last line."""
    start = said = time.monotonic()
    done = counted = 0  # counted: what was done at the last line

    def advance(amount: int = 1, note: str = "") -> None:
        nonlocal done, said, counted
        done, now = done + amount, time.monotonic()
        if now - start < 1:  # most of it was done before, by a run that was stopped
            counted = done
        if now - said < LINE_EVERY:
            return
        pace = (now - said) / (done - counted) if done > counted else 0
        left = f" of {total:,}, {_span(pace * (total - done))} left" if total and pace else ""
        said, counted = now, done
        say(f"{description}: {done:,}{left}{f', {note}' if note else ''}")

    return advance


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar for long work; yields a function `advance(n=1, note="")`.

    Where stderr is no terminal, as in a job of an engine, a line every LINE_EVERY seconds. Silent in all processes of
    torchrun but the first.
    """
    if RANK == 0 and (LINES or not sys.stderr.isatty()):
        yield _in_lines(description, total)
        return

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=terminal(), transient=True, disable=RANK > 0) as bars:
        task = bars.add_task(description, total=total, note="")

        def advance(amount: int = 1, note: str = "") -> None:
            bars.update(task, advance=amount, note=note)

        yield advance
