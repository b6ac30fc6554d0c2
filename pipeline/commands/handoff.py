"""Let each engine accept what the other has built: run it after `snakemake --cores all` or `dvc repro`.

Each engine remembers by itself what it has built, so after a run of one the other would build everything again. This
command makes the other record what is on disk as up to date, but only if the first vouches for all of it:

  after snakemake   by `snakemake --detailed-summary` no file is to be made again, and each is on record
                    ->  `dvc commit --force`
  after dvc         by `dvc status` nothing has changed
                    ->  `snakemake --touch --forceall`

If neither does (params.yaml or a source file was edited since, a stage failed), it changes nothing and names the files
that are in the way.

  repose handoff --dry-run
"""

import argparse
import csv
import json
import subprocess
import sys

from pipeline.core import graph, params
from pipeline.core.console import say
from pipeline.core.errors import UserError

SNAKEMAKE = ("snakemake", "--cores", "1", "--workflow-profile", "none")
NAMED = 5  # files that a message names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")


def _call(*command: str) -> str:
    """What a command prints. Raises UserError with its last line if it fails."""
    result = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if result.returncode != 0:
        lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
        last = lines[-1].strip() if lines else f"exit status {result.returncode}"
        raise UserError(f"`{' '.join(command)}` failed: {last}")
    return result.stdout


def unlike_snakemake() -> dict[str, str]:
    """Files that Snakemake would make again, or does not know the making of, and why."""
    text = _call(*SNAKEMAKE, "--nolock", "--detailed-summary")
    table = text[text.index("output_file\t") :].splitlines()
    found = {}
    for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE):
        if row["status"] == "missing" or row["plan"] != "no update":
            found[row["output_file"]] = "follows from others" if row["status"] == "ok" else row["status"]
        elif row["shellcmd"] == "-":
            found[row["output_file"]] = "not on record"
    return found


def unlike_dvc() -> dict[str, str]:
    """Files and stages that have changed since DVC recorded them, and how."""
    found = {}
    for stage, changes in json.loads(_call("dvc", "status", "--json")).items():
        for change in changes:
            for kind, files in change.items() if isinstance(change, dict) else ():
                found |= {stage: kind} if isinstance(files, str) else {str(path): why for path, why in files.items()}
    return found


def _named(engine: str, files: dict[str, str]) -> str:
    noted = {path for job in graph.jobs(params.load()) if job.stage == "needs" for path in job.outputs}
    first = sorted(
        files.items(), key=lambda one: one[0] in noted
    )  # last what `needs` noted: it follows from params.yaml
    listed = [f"{path} ({why if isinstance(why, str) else 'changed'})" for path, why in first[:NAMED]]
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return f"{engine} does not vouch for {', '.join(listed)}{more}"


def run(dry_run: bool) -> None:
    stages = graph.stages(params.load())  # what is wrong with these files is said better here than by an engine
    if missing := dict.fromkeys(key for stage in stages for key in stage.left_out):
        empty = ", ".join(f"{key}: {'{}' if key.startswith('named.') else '[]'}" for key in missing)
        raise UserError(f"params.yaml: DVC knows no defaults; write there what is left out, then this again: {empty}")
    snakemake = unlike_snakemake()
    dvc = unlike_dvc()
    if not snakemake and not dvc:
        say("both engines are up to date: nothing to hand over")
    elif not snakemake:
        say("snakemake vouches for every output: recording them in dvc.lock")
        if not dry_run:
            _call("dvc", "commit", "--force", "--quiet")
    elif not dvc:
        say("dvc vouches for every output: recording them for snakemake")
        if not dry_run:
            _call(*SNAKEMAKE, "--touch", "--forceall", "--quiet", "all")
    else:
        reasons = "; ".join((_named("snakemake", snakemake), _named("dvc", dvc)))
        raise UserError(f"nothing handed over: {reasons}; run `snakemake --cores all` or `dvc repro`, then this again")
