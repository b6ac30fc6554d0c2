"""Whole runs of an engine, killed with all that they had started, and run again.

The engine has something to do because one job's outputs are gone; it makes these, and whatever reads them if they
changed.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from pipeline.core import graph
from tests.conftest import copy_project
from tests.faults.project import held, leftovers, make_small, remove
from tests.faults.verdict import Wrong
from tests.warm_python import warm_python

ENGINES = {
    "snakemake": ("snakemake", "--cores", "1", "--rerun-incomplete"),
    "dvc": ("dvc", "repro", "--no-run-cache"),
}
TRIES = 20  # of each


def call(project: Path, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run([".venv/bin/python", "-m", *command], cwd=project, capture_output=True, text=True)


def kill_all_in(project: Path) -> None:
    """Whatever runs in the folder: Snakemake starts its jobs in sessions of their own."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone, or not ours
            if (process / "cwd").readlink() == project:
                os.kill(int(process.name), signal.SIGKILL)


def run(project: Path, engine: str, seconds: float | None = None) -> float | None:
    """Run the engine; return the seconds that it took, None if it was killed after so many. Raises Wrong."""
    began, said = time.monotonic(), project / "engine.log"
    with said.open("w") as log:
        command = [".venv/bin/python", "-m", *ENGINES[engine]]
        process = subprocess.Popen(command, cwd=project, start_new_session=True, stdout=log, stderr=log)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kill_all_in(project)
            return None
    if status:
        raise Wrong(f"{engine}: {said.read_text()[-1500:]}")
    return time.monotonic() - began


class Engines:
    """A small project that Snakemake has built and DVC accepts."""

    def __init__(self, folder: Path, python: Path, jobs: list[graph.Job]):
        self.project, self.jobs = copy_project(folder, python), jobs
        self.seconds: dict[str, float] = {}  # that an engine takes for one job
        values = yaml.safe_load((self.project / "params.yaml").read_text())
        make_small(values)
        (self.project / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        run(self.project, "snakemake")
        self.outputs = [str(self.project / path) for job in jobs for path in job.outputs]
        self.whole = held(self.outputs)

    def kill(self, engine: str, number: int, seed: int) -> str:
        """Kill the engine once; return the outcome."""
        chance = random.Random(f"{seed} {engine} {number}")
        if engine not in self.seconds:
            handed = call(self.project, "pipeline", "handoff")
            assert handed.returncode == 0, handed.stderr
            self._remove(self.jobs[-1])
            self.seconds[engine] = run(self.project, engine)
        job = chance.choice(self.jobs)
        self._remove(job)
        try:
            took = run(self.project, engine, chance.uniform(0, self.seconds[engine]))
            if engine == "snakemake":
                call(self.project, "snakemake", "--unlock")  # its own lock outlives a kill, as it says then
            run(self.project, engine)
            found = held(self.outputs)
            if found != self.whole:
                raise Wrong(f"other bytes: {sorted(name for name, _ in found.items() ^ self.whole.items())[:4]}")
            if left := [name for top in ("data", "runs", "reports") for name in leftovers(self.project / top)]:
                raise Wrong(f"left behind: {left[:4]}")
        except Wrong as error:
            print(f"WRONG: {engine} killed, number {number}, seed {seed}, {job} to be made: {error}", flush=True)
            return "wrong"
        return "stopped" if took is None else "undisturbed"

    def _remove(self, job: graph.Job) -> None:
        remove(self.project / path for path in job.outputs)


@contextmanager
def built(scratch: Path, jobs: list[graph.Job]) -> Iterator[Engines]:
    folder = scratch / "engines"
    folder.mkdir()
    with warm_python(scratch) as python:
        yield Engines(folder, python, jobs)
