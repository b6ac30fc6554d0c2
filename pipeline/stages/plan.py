"""Say what a run takes, and stop it before anything long where it could not reach its end: data/plan.txt.

Checks the whole of params.yaml against what is here: published networks that a loss, a metric or a detector needs and
that cannot be had (not at `path`, not in $REPOSE_MIRROR, not to be downloaded), data sets without a source, human
parsing that is read and not made, networks of another width than what starts from them, metrics that a size of images
does not have, trackers that are not installed. A line for each fault, and exit status 2; whatever else may not be meant
is a warning.

Then for every job: hours of one core, hours of one H100, peak memory and disk, from what was measured or counted
(pipeline/planning/), what is downloaded, and how long all jobs take on one GPU and on several. Only names are read,
nothing is downloaded, and no network is loaded.

Both engines run it first, and again whenever params.yaml changes; by hand it can run at any time. logs/plan/plan.json
has the same for programs. Data alone (`snakemake prepared`, `dvc repro describe`) are made without it.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict

from pipeline.core import console, graph, layout, params
from pipeline.core.atomic import atomic_file
from pipeline.core.errors import UserError
from pipeline.fetching import download, networks
from pipeline.planning import faults, schedule
from pipeline.planning.costs import Cost, costs
from pipeline.planning.machine import Machine, machine

PASSED = "params.yaml was checked: nothing in it stops the run.\n"  # always the same, see dvc.yaml
WORTH_SAYING = 50  # MiB of a download that nobody needs
GPUS = (1, 8, 64)
ON_A_CPU = 2.0  # times the counted memory: a margin, for what was counted is the tensors alone


def downloads(values: dict) -> dict[str, int | None]:
    """The networks that are downloaded, and the MiB of each; None where that is not known."""
    found = {}
    for net in values["weights"]:
        try:
            if any(isinstance(source, str) for source in faults.sources(net, values)):
                found[net] = networks.MEBIBYTES.get(net)
        except (download.Unavailable, UserError):
            pass  # a fault where it is needed
    return found


def _number(value: float | None, form: str = ".1f") -> str:
    if value is None:
        return "?"
    return format(value, form) if value >= 0.05 else "<0.1"


def table(found: list[Cost]) -> Iterator[str]:
    """A line a job, and their sums."""
    width = max(len(cost.job) for cost in found)
    head = ("core-hours", "H100-hours", "GiB", "disk MiB")
    yield " ".join([f"{'job':<{width}}", *(f"{name:>10}" for name in head), " how it is known"])
    for cost in found:
        gpu = _number(cost.gpu_hours) if cost.job.startswith(("train", "pretrain")) else ""
        disk = "" if cost.disk_mib is None else f"{cost.disk_mib:.0f}"
        cells = (_number(cost.core_hours), gpu, _number(cost.gib), disk)
        yield " ".join([f"{cost.job:<{width}}", *(f"{cell:>10}" for cell in cells), f" {cost.basis}"])
    known = [cost.core_hours for cost in found if cost.core_hours is not None]
    gpu = [cost.gpu_hours for cost in found if cost.gpu_hours is not None]
    disk = [cost.disk_mib for cost in found if cost.disk_mib is not None]
    cells = (_number(sum(known)), _number(sum(gpu)), "", f"{sum(disk):.0f}")
    unknown = f" and {len(found) - len(known)} jobs that are not known" if len(known) < len(found) else ""
    yield " ".join([f"{'together':<{width}}", *(f"{cell:>10}" for cell in cells), unknown]).rstrip()


def on_gpus(values: dict, found: list[Cost]) -> Iterator[str]:
    """How long the jobs take together on one GPU and on several, and which of them wait for each other."""
    tasks = schedule.tasks(graph.jobs(values), found)
    plans = {gpus: schedule.plan(tasks, gpus, gpus * schedule.BESIDE) for gpus in GPUS}
    if plans[1].hours > 1:
        took = ", ".join(f"{gpus}: {one.hours:.0f} h" for gpus, one in plans.items())
        yield f"on so many H100, with {schedule.BESIDE} cores each: {took}"
        chain = ", ".join(f"{task.name} {task.hours:.1f}" for task in plans[1].chain if task.hours >= 0.05)
        yield f"no number of GPUs makes it shorter than its longest chain, in hours: {chain}"


def too_large(found: list[Cost], here: Machine, fetched: dict[str, int | None]) -> Iterator[str]:
    """Warnings: what may not fit on this machine."""
    for cost in found:
        trained = cost.job.startswith(("train", "pretrain"))
        wanted = (cost.gib or 0) * (ON_A_CPU if trained and not here.gpus else 1)
        there, what = (here.gpus[0][1], here.gpus[0][0]) if here.gpus and trained else (here.memory, "this machine")
        if there is not None and wanted > there:
            setting = "; a smaller batch or width, or accumulate" if trained else ""
            yield f"{cost.job} takes some {wanted:.0f} GiB of memory, and {what} has {there:.0f} free{setting}"
    disk = (sum(cost.disk_mib or 0 for cost in found) + 2 * sum(size or 0 for size in fetched.values())) / 1024
    if disk > here.disk:
        yield f"the run writes {disk:.0f} GiB and checkpoints beside that; {here.disk:.0f} GiB of disk are free here"


def run() -> None:
    """Print all of it and write `data/plan.txt`. Raises UserError with the faults, a line each."""
    values = params.load()
    wrong, found, here, fetched = faults.faults(values), list(costs(values)), machine(), downloads(values)
    doubtful = [*faults.warnings(values), *too_large(found, here, fetched)]
    read = {use.net for dataset in values["datasets"] for use in faults.uses(values, dataset)}
    doubtful += [
        f"{net} is downloaded ({size} MiB), and no job reads it; weights.{net}.download: false spares that"
        for net, size in fetched.items()
        if size is not None and size >= WORTH_SAYING and net not in read
    ]
    gpus = ", ".join(f"{name} ({gib:.0f} GiB)" for name, gib in here.gpus) or "no GPU"
    memory = "memory not known" if here.memory is None else f"{here.memory:.0f} GiB of memory free"
    for line in table(found):
        console.say(line)
    console.say(
        "core-hours: measured on one core of a server (AVX-512 or AMX, bf16) or scaled from that;"
        " another core may take several times as long. H100-hours and GiB of trainings: counted, not measured."
        " Disk: without checkpoints. ?: not measured"
    )
    for line in on_gpus(values, found):
        console.say(line)
    if fetched:
        sizes = (f"{net} ({'size not known' if size is None else f'{size} MiB'})" for net, size in fetched.items())
        console.say(f"downloads: {', '.join(sizes)}")
    console.say(f"this machine: {here.cores} cores, {memory}, {gpus}, {here.disk:.0f} GiB of disk free")
    hours = sum(cost.core_hours or 0 for cost in found) / here.cores
    if hours > 1 and not here.gpus:
        took = f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
        console.say(f"without a GPU, on {here.cores} such cores: {took} at least")
    for line in doubtful:
        console.say(f"warning: {line}")
    record = {"faults": wrong, "warnings": doubtful, "downloads": fetched, "machine": asdict(here)}
    with atomic_file(layout.log("plan").with_suffix(".json")) as partial:
        jobs = [asdict(cost) for cost in found]
        partial.write_text(json.dumps({**record, "jobs": jobs}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if wrong:
        raise UserError(*(f"plan: {line}" for line in wrong))
    with atomic_file(layout.PLAN) as partial:
        partial.write_text(PASSED, encoding="utf-8")
    console.say("plan: nothing in params.yaml stops the run")
