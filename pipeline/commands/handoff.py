"""Let each engine accept what the other has built: run it after `snakemake --cores all` or `dvc repro`.

Snakemake and DVC keep their own books. After a run of one, the other would build everything again. This command
makes the second engine record what is on disk as up to date, but only if the first one vouches for all of it:

  after snakemake   `snakemake -n` finds nothing to do and has a record of every job  ->  `dvc commit --force`
  after dvc         `dvc status` is clean                                             ->  `snakemake --touch --forceall`

If neither engine vouches for the outputs (params.yaml or a source file was edited since, a stage failed), it
changes nothing and says which engine to run.

  python -m pipeline handoff --dry-run
"""

import argparse
import subprocess
import sys

from pipeline.core.console import say
from pipeline.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")


def _call(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)


def _last_line(result: subprocess.CompletedProcess) -> str:
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit status {result.returncode}"


def snakemake_state() -> str:
    """ "complete" (every job done and on record), "unrecorded" (outputs there, no record of how), or "stale"."""
    result = _call("snakemake", "--dry-run", "--nolock", "--workflow-profile", "none", "--cores", "1", "all")
    text = result.stdout + result.stderr
    if result.returncode != 0:
        raise UserError(f"snakemake cannot read the workflow: {_last_line(result)}")
    if "Nothing to be done" not in text:
        return "stale"
    return "unrecorded" if "missing provenance/metadata" in text else "complete"


def dvc_is_clean() -> bool:
    result = _call("dvc", "status", "--quiet")
    if result.returncode not in (0, 1):
        raise UserError(f"dvc cannot read the pipeline: {_last_line(result)}")
    return result.returncode == 0


def _do(*command: str) -> None:
    result = _call(*command)
    if result.returncode != 0:
        raise UserError(f"`{' '.join(command)}` failed: {_last_line(result)}")


def run(dry_run: bool) -> None:
    snakemake, dvc = snakemake_state(), dvc_is_clean()
    if snakemake == "complete" and dvc:
        say("both engines are up to date: nothing to hand over")
    elif snakemake == "complete":
        say("snakemake vouches for every output: recording them in dvc.lock")
        if not dry_run:
            _do("dvc", "commit", "--force", "--quiet")
    elif dvc:
        say("dvc vouches for every output: recording them for snakemake")
        if not dry_run:
            _do(
                "snakemake",
                "--touch",
                "--forceall",
                "--cores",
                "1",
                "--quiet",
                "all",
                "--workflow-profile",
                "none",
            )
    else:
        reason = (
            "outputs are there but neither engine knows how they were made"
            if snakemake == "unrecorded"
            else "some outputs are missing or older than their inputs, sources or parameters"
        )
        raise UserError(f"nothing handed over: {reason}; run `snakemake --cores all` or `dvc repro`, then this again")
