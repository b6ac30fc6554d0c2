"""Read everything that was made and compare it with what was written, as fsck does: a line a damaged file.

  repose verify
  repose verify market1501
  repose verify --json

Every output of the stages is read (of one data set, if it is named), the unfinished work in .work, the logs of losses
and what `score --images` wrote; unless a data set is named, also what `study score` wrote. A line names a file that is
damaged, gone or too many, and the command that makes it again. The exit status is 1 if there is such a file, else 0.

What has no seal is counted: pages for people (report, data cards, tables' notes), curves and numbers for DVC, and
whatever was written before files were sealed. Nothing of the former is read again by a stage. A published network and
images as they came are held to the digest of the file that was put there. How files are sealed: docs/reliability.md.

With --json one JSON object on standard output:
  files     how many were read
  bytes     their sizes together
  unsealed  paths of those that have no seal
  damaged   a list of objects: file, why, run (the command)
"""

import json as json_module
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.core import console, layout, params, seals
from pipeline.core.errors import UserError
from pipeline.core.graph import Job, jobs

UNFINISHED = (".parquet", ".pt", ".json")  # in .work


class Found(NamedTuple):
    """A file that is there, or should be; what is known to be wrong with it; and what makes it again."""

    path: Path
    why: str
    remedy: str


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", nargs="?", metavar="D", help="a data set of params.yaml; left out: everything")
    parser.add_argument("--json", action="store_true", help="as JSON, see above")


def _in_folder(folder: Path, remedy: str) -> Iterator[Found]:
    """The files of a listed folder: what the list and the folder say, then what is to be read."""
    wrong = dict(seals.listing_faults(folder))
    yield from (Found(path, why, remedy) for path, why in wrong.items())
    if folder / seals.LIST not in wrong:
        listed = seals.read_list(folder)
        there = sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] not in "._")
        names = there if listed is None else [folder / name for name in listed]
        yield from (Found(path, "", remedy) for path in names if path not in wrong)


def _of_job(job: Job) -> Iterator[Found]:
    for output in map(Path, job.outputs):
        if output.is_dir():
            yield from _in_folder(output, job.by_hand)
        elif output.exists():
            yield Found(output, "", job.by_hand)
    work = layout.work(job.stage, *job.axes.values())
    for path in sorted(work.rglob("*")):
        if path.suffix in UNFINISHED and path.name[0] != "." and path.name != "made_from.json":
            yield Found(path, "", job.by_hand)
    if (log := layout.metrics_log(job.stage, *job.axes.values())).exists():
        yield Found(log, "", job.by_hand)


def everything(dataset: str | None) -> list[Found]:
    """What is to be read, each file once. Raises UserError for a data set that params.yaml does not name."""
    if dataset is not None and dataset not in params.datasets():
        raise UserError(f"unknown data set {dataset}; {layout.PARAMS} names: {', '.join(params.datasets())}")
    some = [job for job in jobs(params.load()) if dataset in (None, job.axes.get("dataset"))]
    found = [one for job in some for one in _of_job(job)]
    for folder in sorted(layout.OUTSIDE.glob(f"{dataset or '[!.]*'}--*")):
        found += _in_folder(folder, "repose score --dataset D --images FOLDER --name NAME")
    for folder in sorted(layout.STUDIES.glob("[!.]*/")) if dataset is None else ():
        found += _in_folder(folder, "repose study score FOLDER")
    return list({one.path: one for one in found}.values())


def run(dataset: str | None, json: bool) -> int:
    """Print what is damaged, and how much was read; 1 if anything is. Raises UserError as `everything`."""
    damaged, unsealed, size, wanted = [], [], 0, everything(dataset)
    with console.progress("verify", len(wanted)) as advance:
        for path, why, remedy in wanted:
            if not why:
                try:
                    size += path.stat().st_size
                    fault = seals.fault(path)
                except OSError as error:  # a disk that fails, a file taken away or not permitted
                    fault = error.strerror or str(error)
                why = f"damaged ({fault})" if fault else ""
                unsealed += [str(path)] if fault is None else []
            if why:
                damaged.append({"file": str(path), "why": why, "run": remedy})
            advance(1)
    if json:
        record = {"files": len(wanted), "bytes": size, "unsealed": unsealed, "damaged": damaged}
        print(json_module.dumps(record, indent=1))
    else:
        for one in damaged:
            print(f"{one['file']}: {one['why']}; run: {one['run']}")
        print(f"{len(wanted)} files, {size / 1e6:,.1f} MB: {len(damaged)} damaged, {len(unsealed)} without a seal")
    return 1 if damaged else 0
