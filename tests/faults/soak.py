"""Run one small project over and over with other parameters, by both engines in turn, and see what it leaves behind.

    python -m tests.faults.soak [--seed 0] [--minutes 30] [--folder DIR]        `make soak`

A round changes one setting of params.yaml, or goes back to the settings of an earlier round, and runs one engine. Then

  - `repose handoff` has to make the other engine accept the work, and a second run of either to find nothing to do;
  - `repose status` has to find every stage done, and `repose verify` no damaged byte;
  - outputs have to have the bytes that they had when the settings were the same before;
  - no process and no half-written file may be left.

Sizes are taken of every folder that an engine or a stage writes, also of those outside the project (here under DIR).
Memory is the largest process's, as the kernel counted it, with the 190 MiB of this script as the least; open files are
those of all processes, twice a second. At the end the first settings come back, the commands that free space are run,
and both engines have to find nothing to do once more. Prints a line a round, then the figures as Markdown; exit status
1 if anything was wrong.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.core import digests, graph, params
from tests.commands.test_engines import make_tiny
from tests.conftest import copy_project

# Key of params.yaml -> the two values that rounds choose between, the first at the beginning. What follows from each is
# another part of the graph, from all of it to the report alone.
SETTINGS: dict[str, tuple[Any, Any]] = {
    "fetch.synthetic.seed": (0, 1),
    "pairs.synthetic.test_pairs": (4, 3),
    "distance_maps.synthetic.kappa": (-0.1, -0.3),
    "pretrain.synthetic.spig_flow.steps": (2, 4),
    "train.synthetic.spig.seed": (0, 2),  # 1 is that of spig-seed1
    "train.synthetic.spig.steps": (2, 4),
    "variants.spig": (["spig"], ["spig", "spig-seed1"]),
    "named.spig": ({}, {"spig-fast": {"learning_rate": 0.0005}}),
    "reference.synthetic.test_pairs": (4, 3),
    "score.synthetic.bootstrap": (100, 150),
    "tables.bootstrap": (100, 150),
    "report.title": ("Soak", "Another"),
}
BACK = 0.4  # how often a round goes back to earlier settings
ENGINES = {"snakemake": ("snakemake", "--cores", "2"), "dvc": ("dvc", "repro")}
PARTS = (
    "data", "runs", "reports", "logs", ".work", ".dvc/cache", ".dvc/tmp", ".snakemake/metadata", ".snakemake/log",
    ".snakemake", "../tmp", "../cache", ".",
)  # fmt: skip
HALF_WRITTEN = (".partial", ".old")
# What a user runs to free space, as docs/reliability.md has it.
CLEARING = (
    ".venv/bin/dvc gc --workspace --force --quiet",
    "rm -rf .work/*/*/*.set-aside",
    "rm -rf .snakemake/log",
)
Sizes = dict[str, tuple[int, int]]  # of PARTS: bytes, files


@dataclass
class Ran:
    """A command: exit status, what it said, MiB of its largest process, most open files at once, processes left."""

    status: int
    said: str
    mib: float
    files: int
    left: list[str]


@dataclass
class Soak:
    """A project in `folder`/project, and what was seen of it. settings: which of its two values each setting has."""

    folder: Path
    chance: random.Random
    settings: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SETTINGS, 0))
    earlier: dict[str, dict[str, str]] = field(default_factory=dict)  # settings as JSON -> digests of all outputs
    wrong: list[str] = field(default_factory=list)
    returned: int = 0  # rounds whose settings had been there before

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def build(self) -> None:
        for name in ("project", "tmp", "cache"):
            (self.folder / name).mkdir(parents=True)
        copy_project(self.project)
        for name in ("dvc", "repose"):  # for CLEARING
            command = self.project / ".venv/bin" / name
            module = {"repose": "pipeline"}.get(name, name)
            command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
            command.chmod(0o755)
        os.chdir(self.project)
        self.values = yaml.safe_load(Path("params.yaml").read_text())
        make_tiny(self.values)
        self.values["named"] = {family: {} for family in self.values["named"]}

    # ---- one round

    def call(self, *command: str) -> Ran:
        """A command of the project, in a session of its own, so that whatever it starts can be found."""
        environment = os.environ | {
            "TMPDIR": str(self.folder / "tmp"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "DVC_SITE_CACHE_DIR": str(self.folder / "cache/site"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with (self.folder / "said").open("w+", errors="replace") as said:
            child = subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)
            most = 0
            while (ended := os.wait4(child.pid, os.WNOHANG))[0] == 0:
                most = max(most, sum(_open_files(process) for process in _session(child.pid)))
                time.sleep(0.5)
            said.seek(0)
            text = said.read()
        child.returncode = os.waitstatus_to_exitcode(ended[1])
        left = [Path(f"/proc/{process}/cmdline").read_text() for process in _session(child.pid)]
        return Ran(child.returncode, text, ended[2].ru_maxrss / 1024, most, left)

    def module(self, *command: str) -> Ran:
        return self.call(".venv/bin/python", "-m", *command)

    def choose(self) -> str:
        """Change the settings; what was changed, in words."""
        before = [text for text in self.earlier if text != self.key]
        if before and self.chance.random() < BACK:
            self.settings = json.loads(self.chance.choice(before))
            return "back to earlier settings"
        name = self.chance.choice([*SETTINGS])
        self.settings[name] = 1 - self.settings[name]
        return f"{name}: {SETTINGS[name][self.settings[name]]}"

    @property
    def key(self) -> str:
        return json.dumps(self.settings)

    def write(self) -> None:
        values = json.loads(json.dumps(self.values))
        for name, which in self.settings.items():
            *path, last = name.split(".")
            block = values
            for part in path:
                block = block[part]
            block[last] = SETTINGS[name][which]
        Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))

    def run(self, engine: str) -> Ran:
        """The engine with the settings as they are, and everything that has to hold after it."""
        self.write()
        first = self.module(*ENGINES[engine])
        self.hold(first.status == 0, f"{engine} ended with {first.status}: {first.said[-2000:]}")
        handed = self.module("pipeline", "handoff")
        self.hold(handed.status == 0, f"handoff: {handed.said[-2000:]}")
        self.idle()
        state = self.module("pipeline", "status", "--json")
        jobs = json.loads(state.said[state.said.index("{") :])["jobs"] if state.status == 0 else [{"state": state.said}]
        off = [f"{one.get('job')}: {one['state']} {one.get('why')}" for one in jobs]
        off = [text for text, one in zip(off, jobs, strict=True) if one["state"] not in ("done", "unavailable")]
        self.hold(not off, f"status: {off}")
        read = self.module("pipeline", "verify", "--json")
        self.hold(read.status == 0, f"verify: {read.said[-2000:]}")
        self.compare()
        half = [str(path) for path in Path().rglob(".*") if path.suffix in HALF_WRITTEN]
        self.hold(not half, f"half-written: {half}")
        for one in (first, handed, state, read):
            self.hold(not one.left, f"processes left: {one.left}")
        return Ran(first.status, first.said, max(first.mib, handed.mib), max(first.files, handed.files), first.left)

    def idle(self) -> None:
        """A second run of either engine has nothing to do: a stage that runs writes its log anew."""
        before = _written()
        for engine, command in ENGINES.items():
            again = self.module(*command)
            self.hold(again.status == 0, f"{engine}, again: {again.said[-2000:]}")
            ran = [path for path, when in _written().items() if before.get(path) != when]
            self.hold(not ran, f"{engine}, again, ran {ran}")

    def compare(self) -> None:
        params.load.cache_clear()
        found = {}
        for path in (Path(path) for job in graph.jobs(params.load()) for path in job.outputs):
            files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
            found |= {str(one): digests.sha256(one) for one in files if one.name != ".snakemake_timestamp"}
        then = self.earlier.setdefault(self.key, found)
        self.returned += then is not found
        other = sorted(path for path in then.keys() | found.keys() if then.get(path) != found.get(path))
        self.hold(not other, f"other bytes than with these settings before: {other[:8]} of {len(other)}")

    def hold(self, is_so: bool, fault: str) -> None:
        if not is_so:
            self.wrong.append(fault)
            print(f"WRONG: {fault}", flush=True)

    def sizes(self) -> Sizes:
        found = {}
        for part in PARTS:
            files = [path for path in Path(part).rglob("*") if path.is_file() and not path.is_symlink()]
            found[part] = (sum(path.stat().st_size for path in files), len(files))
        return found


# ---- what the kernel knows


def _session(leader: int) -> Iterator[int]:
    """The processes of a session that are there, zombies left out."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                state, _, _, session, *_ = Path(entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:  # gone
                continue
            if int(session) == leader and state != "Z":
                yield int(entry.name)


def _open_files(process: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return 0


def _written() -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path("logs").rglob("*.log")}


# ---- the whole of it


def show(first: Sizes, largest: Sizes, last: Sizes, cleared: Sizes) -> None:
    print(
        "\n| folder | after the first run | largest | same settings, at the end | cleared |\n|---|---:|---:|---:|---:|"
    )
    for part in PARTS:
        cells = (f"{size[part][0] / 2**20:,.1f} MiB, {size[part][1]:,}" for size in (first, largest, last, cleared))
        print(f"| `{part}` | {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, help="where to work, kept; without it a temporary one")
    given = parser.parse_args()
    folder = given.folder.resolve() if given.folder else Path(tempfile.mkdtemp(prefix="repose-soak-"))
    soak = Soak(folder, random.Random(given.seed))
    soak.build()
    began, rounds = time.monotonic(), []
    engines = [*ENGINES]
    ran = soak.run(engines[0])
    first = largest = soak.sizes()
    print(f"first run: {time.monotonic() - began:.0f} s, {ran.mib:.0f} MiB, {ran.files} open files", flush=True)
    while time.monotonic() < began + 60 * given.minutes:
        start, what = time.monotonic(), soak.choose()
        engine = engines[(len(rounds) + 1) % 2]
        ran = soak.run(engine)
        now = soak.sizes()
        largest = {part: max(now[part], largest[part]) for part in PARTS}
        rounds.append(ran)
        seconds = time.monotonic() - start
        print(f"{len(rounds)} {engine}: {what}; {seconds:.0f} s, {ran.mib:.0f} MiB, {ran.files} open files", flush=True)
    soak.settings = dict.fromkeys(SETTINGS, 0)
    soak.run(engines[(len(rounds) + 1) % 2])
    last = soak.sizes()
    for command in CLEARING:
        done = soak.call("sh", "-c", command)
        soak.hold(done.status == 0, f"{command}: {done.said}")
    cleared = soak.sizes()
    soak.idle()
    soak.compare()
    show(first, largest, last, cleared)
    half = rounds[: len(rounds) // 2], rounds[len(rounds) // 2 :]
    of = [
        f"{max(one.mib for one in some):,.0f} MiB, {max(one.files for one in some)} open files" for some in half if some
    ]
    print(
        f"\nSeed {given.seed}: {len(rounds) + 2} runs in {(time.monotonic() - began) / 60:.0f} minutes,"
        f" {len(soak.earlier)} settings, {soak.returned} returns to earlier ones; most at once in the first half of the"
        f" rounds and in the second: {'; '.join(of)}; {len(soak.wrong)} faults"
    )
    if not given.folder and not soak.wrong:
        os.chdir("/")
        shutil.rmtree(folder)
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
