"""A small finished project, its jobs run in forks of this process, and what their outputs are.

A fork starts in milliseconds what a new process imports for seconds, so that hundreds of faults are minutes. Whoever
calls this must have no threads: a fork has one, and whatever lock another one held stays held there.
"""

import contextlib
import fcntl
import importlib
import json
import os
import pickle
import pkgutil
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import pipeline
from pipeline.__main__ import main
from pipeline.core import digests, graph, params, yaml_file
from tests.warm_python import LIBRARIES

PAGE = 4096
LIMIT = 300  # seconds until a job is taken for hung
DISK = "256m"  # of the project; it takes some 25 MiB
ROOT = Path(__file__).parents[2]
FILES = ("params.yaml", "params.schema.yaml", "reports/published.csv", "reports/template.html.j2", "reports/template")
NOT_WRITTEN = (".lock", ".partial", ".old")  # by a run that is over: locks and what is half-written

# A setting of each stage that changes its outputs.
OTHER: dict[str, tuple[tuple[str, ...], Any]] = {
    "fetch": (("fetch", "synthetic", "seed"), 1),
    "pairs": (("pairs", "synthetic", "test_pairs"), 3),
    "distance_maps": (("distance_maps", "synthetic", "kappa"), -0.3),
    "pretrain": (("pretrain", "synthetic", "detector", "seed"), 1),
    "reference": (("reference", "synthetic", "test_pairs"), 3),
    "train": (("train", "synthetic", "spig", "seed"), 1),
    "score": (("score", "synthetic", "seed"), 1),
    "tables": (("tables", "bootstrap"), 150),
    "report": (("report", "title"), "Another"),
}


def import_everything() -> None:
    """Libraries and all of `pipeline`, before the first fork."""
    for name in (*LIBRARIES, "pyarrow.dataset"):
        if not name.startswith(("dvc", "snakemake")):
            importlib.import_module(name)
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    import torch

    torch.set_num_threads(1)
    digests.code(graph.CODE)  # parsed once, not in every fork
    parse, parsed = yaml_file.parse, {}

    def remembered(text: str, where: Path) -> Any:
        if text not in parsed:
            parsed[text] = pickle.dumps(parse(text, where))
        return pickle.loads(parsed[text])

    yaml_file.parse = remembered  # likewise: three quarters of what a short stage takes


def make_small(values: dict) -> None:
    """In the values of params.yaml: every stage, one variant that is trained, no metric with a network."""
    wanted = {"floors": ["copy_source"], "spig": ["spig"]}
    values["variants"] = {family: wanted.get(family, []) for family in values["variants"]}
    values["fetch"]["synthetic"] |= {"train_identities": 4, "test_identities": 2, "views": 3, "height": 64, "width": 32}
    values["pairs"]["synthetic"]["test_pairs"] = 4
    for block in (values["pretrain"]["synthetic"]["spig_flow"], values["train"]["synthetic"]["spig"]):
        block |= {"steps": 4, "checkpoint_every": 2, "batch": 2, "width": 0.125}
    values["pretrain"]["synthetic"]["detector"] |= {"steps": 2, "batch": 2}
    values["reference"]["synthetic"] |= {"val_pairs": 2, "test_pairs": 4, "batch": 4, "missing_weights": "skip"}
    values["score"]["synthetic"] |= {"batch": 4, "samples": 2, "bootstrap": 100}
    values["tables"] |= {"choose_by": {"metric": "ssim", "split": "val"}, "bootstrap": 100}


class Unavailable(Exception):
    """Why a fault cannot be injected here."""


class Ended(NamedTuple):
    """How a run of a job ended: its exit status, minus the signal that ended it, and all that it said."""

    status: int
    said: str
    seconds: float


class Child:
    """A job of the project that is the working folder, running in a fork.

    before: called in the fork, before the job; what it returns is called after the job.
    """

    def __init__(self, job: graph.Job, before: Callable[[], Any] | None = None):
        begun, begins = os.pipe()
        self.output, says = os.pipe()
        fcntl.fcntl(says, fcntl.F_SETPIPE_SZ, 1 << 20)  # more than a job says
        self.process = os.fork()
        if self.process == 0:
            self._run(job, before, begins, says)
        os.close(begins)
        os.close(says)
        os.read(begun, 1)  # nothing more, if it was ended before
        os.close(begun)
        self.started = time.monotonic()

    def _run(self, job: graph.Job, before: Callable[[], Any] | None, begins: int, says: int) -> None:
        status = 1
        try:
            os.dup2(says, 1)
            os.dup2(says, 2)
            signal.alarm(LIMIT)  # which ends it, as nothing else does
            arguments = shlex.split(job.command.partition(" -m pipeline ")[2])
            after = before() if before else None
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.write(begins, b"x")
            status = main(arguments)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if after:
                after()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def kill_after(self, seconds: float, number: int) -> None:
        """Send a signal if it still runs then."""
        while time.monotonic() < self.started + max(seconds, 0.002):
            if os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(0.001)
        os.kill(self.process, number)

    def wait(self) -> Ended:
        _, status = os.waitpid(self.process, 0)
        code = os.waitstatus_to_exitcode(status)
        with os.fdopen(self.output, errors="replace") as output:
            return Ended(code, output.read(), time.monotonic() - self.started)


CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "fcntl.lockf")  # audit events


def at_every_change(act: Callable[[], None]) -> None:
    """Call `act` right before each time that Python opens a file to write it, or renames, removes, links or locks one,
    from now on.
    """

    def hook(event: str, arguments: tuple) -> None:
        if event in CHANGES or (event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
            act()

    sys.addaudithook(hook)


MARK = ".snakemake_timestamp"  # of an engine, no content of a folder


def held(paths: Iterable[str]) -> dict[str, str]:
    """The digest of every file that is one of the outputs `paths` or lies in one."""
    found = {}
    for path in map(Path, paths):
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and file.name != MARK]
        found |= {str(file): digests._of_file(file) for file in files}
    return found


def leftovers(folder: Path) -> list[str]:
    """What only a run that is not over yet may have there."""
    return sorted(str(path) for path in folder.rglob(".*") if path.suffix in NOT_WRITTEN)


def left_by(job: graph.Job) -> list[Path]:
    """The folders and files that a job leaves: outputs, unfinished work, what was set aside, logs."""
    work = Path(".work", job.stage, *job.axes.values())
    logs = [job.log, job.log.with_suffix(".jsonl"), job.log.with_suffix("")]
    return [*map(Path, job.outputs), work, work.with_name(f"{work.name}.set-aside"), *logs]


def other_setting(job: graph.Job) -> tuple[tuple[str, ...], Any] | None:
    """Key and value of a setting by which the job's outputs are others."""
    key, value = OTHER.get(job.stage, ((), None))
    name = ".".join(key)
    return (key, value) if any(f"{name}.".startswith(f"{read}.") for read in job.params) and key else None


def _pages(root: Path) -> int:
    """Bytes on the disk of a file, or of all in a folder."""
    sizes = [path.stat().st_size for path in [root, *root.rglob("*")] if path.is_file()]
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def copy(paths: Iterable[Path], source: Path, target: Path) -> None:
    """Those of the paths that are in the folder `source`, into the folder `target`."""
    for path in paths:
        if (source / path).exists():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            take = shutil.copytree if (source / path).is_dir() else shutil.copy2
            take(source / path, target / path)


@dataclass
class Known:
    """What is known of a job by an undisturbed run: its outputs' digests, its seconds, how often it changes a file."""

    outputs: dict[str, str]
    seconds: float
    changes: int


class Project:
    """A finished project in the folder `now`, which faults are tried on, and its copy in `whole`, which stays."""

    def __init__(self, scratch: Path):
        self.scratch, self.now, self.whole = scratch, scratch / "disk" / "now", scratch / "whole"
        self.known: dict[str, Known] = {}
        self.others: dict[str, Known] = {}
        self._texts: dict[tuple[str, ...], str] = {}
        self.now.parent.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "repose-faults", self.now.parent]
        self.own_disk = os.getuid() == 0 and subprocess.run(mount, check=False).returncode == 0
        for name in FILES:
            source, target = ROOT / name, self.now / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        (self.now / "docs").mkdir()
        shutil.copy(ROOT / "docs/protocols.md", self.now / "docs")
        self.values = yaml.safe_load((ROOT / "params.yaml").read_text())
        make_small(self.values)
        os.chdir(self.now)
        self.set()
        self.jobs = self.read()
        for job in self.jobs:
            self.known[job.name] = self.undisturbed(job)
        shutil.copytree(self.now, self.whole)

    def close(self) -> None:
        os.chdir(self.scratch)
        if self.own_disk:
            subprocess.run(["umount", self.now.parent], check=True)

    def set(self, key: tuple[str, ...] = (), value: Any = None) -> None:
        """Write params.yaml, with another value of a key if one is given."""
        if key not in self._texts:
            values = json.loads(json.dumps(self.values))
            block = values
            for name in key[:-1]:
                block = block[name]
            if key:
                block[key[-1]] = value
            self._texts[key] = yaml.safe_dump(values)
        (self.now / "params.yaml").write_text(self._texts[key])

    def read(self) -> list[graph.Job]:
        """The jobs; what is parsed for them is in mind for the forks that follow."""
        params.load.cache_clear()
        jobs = graph.jobs(params.load())
        params.load.cache_clear()
        return jobs

    def run(self, job: graph.Job, before: Callable[[], Any] | None = None) -> Child:
        return Child(job, before)

    def undisturbed(self, job: graph.Job) -> Known:
        """Run a job; whatever it leaves is the project's now."""
        counted = self.scratch / "changes"

        def count() -> Callable[[], None]:
            seen = []
            at_every_change(lambda: seen.append(1))
            return lambda: counted.write_text(str(len(seen)))

        ended = self.run(job, count).wait()
        assert ended.status == 0, f"{job}, undisturbed: {ended}"
        return Known(held(job.outputs), ended.seconds, int(counted.read_text()))

    def other(self, job: graph.Job) -> Known:
        """What the job's outputs are by the setting of OTHER, which lie in a folder of their own from then on."""
        if job.name not in self.others:
            remove(left_by(job))
            self.set(*other_setting(job))
            self.read()
            self.others[job.name] = self.undisturbed(job)
            copy(left_by(job), self.now, self.scratch / "other" / job.name)
            self.set()
            self.restore(job)
        return self.others[job.name]

    def put_other(self, job: graph.Job) -> None:
        """The outputs and the work of `other` in the place of its own."""
        self.other(job)
        remove(left_by(job))
        copy(left_by(job), self.scratch / "other" / job.name, self.now)

    def restore(self, job: graph.Job) -> None:
        """What a job leaves, as it was."""
        remove(left_by(job))
        copy(left_by(job), self.whole, self.now)

    def written(self, job: graph.Job) -> int:
        """About how many bytes of disk a job takes while it runs."""
        return 2 * sum(_pages(self.whole / path) for path in left_by(job)) + 3 * PAGE

    def largest(self, job: graph.Job) -> int:
        """The length of the longest file that it writes, in bytes."""
        roots = [self.whole / path for path in left_by(job)]
        files = [path for root in roots for path in [root, *root.rglob("*")] if path.is_file()]
        return max(path.stat().st_size for path in files)

    @contextlib.contextmanager
    def disk_with(self, free: int) -> Iterator[None]:
        """So many bytes are left on the project's disk. Raises Unavailable if it has none of its own."""
        if not self.own_disk:
            raise Unavailable("a disk of its own is for root alone")
        filler, disk = self.now.parent / "filler", os.statvfs(self.now)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - free // PAGE * PAGE)
        try:
            yield
        finally:
            filler.unlink()

    def renew(self) -> None:
        """All of the project, as it was."""
        self.set()
        os.chdir(self.scratch)
        shutil.rmtree(self.now)
        shutil.copytree(self.whole, self.now)
        os.chdir(self.now)
