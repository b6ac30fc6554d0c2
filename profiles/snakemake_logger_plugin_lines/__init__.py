"""What Snakemake prints with `--logger lines`: a line for each stage that is done, and every error in full.

    PYTHONPATH=profiles REPOSE_LINES=1 snakemake --logger lines

A line says how many of the jobs are done, what the stage said last and how long it took, all from the stage's own log.
REPOSE_LINES keeps the stages themselves off the terminal, but for their errors (pipeline/core/console.py).
"""

import logging
import sys
import textwrap
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

WIDTH = 100  # characters of what a stage said


def told(log: str) -> str:
    """The last line of a stage's log that is not set in (else the last) but for its time, and its time."""
    try:
        *said, took = Path(log).read_text(encoding="utf-8").splitlines()
        what = ([line for line in said if not line.startswith(" ")] or said)[-1]
    except (OSError, ValueError, IndexError):
        return log
    return f"{textwrap.shorten(what, WIDTH, placeholder=' ...')} ({took.removeprefix('wall ').partition(',')[0]})"


class LogHandler(LogHandlerBase):
    writes_to_stream, writes_to_file, needs_rulegraph = True, False, False
    has_filter, has_formatter = True, False  # it filters by itself

    def __post_init__(self) -> None:
        self.logs: dict[int, str] = {}  # of jobs that run
        self.finished: list[str] = []  # of jobs that are done and not yet told

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            self.logs[record.jobid] = next(iter(record.log or ()), "")
        elif event == LogEvent.JOB_FINISHED:
            self.finished.append(self.logs.pop(record.job_id, ""))
        elif event == LogEvent.PROGRESS:
            for log in filter(None, self.finished):  # the rule `all`, which does nothing, has none
                print(f"[{record.done:>2} of {record.total}] {told(log)}", flush=True)
            self.finished.clear()
        elif record.levelno >= logging.WARNING or event == LogEvent.JOB_ERROR:
            print(self.format(record), file=sys.stderr, flush=True)
        elif str(record.msg).startswith("Nothing to be done"):
            print("Nothing to be done: all is there and up to date.", flush=True)
