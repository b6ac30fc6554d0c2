"""How long all jobs take on so many GPUs and cores, by what `costs` says of each: list scheduling.

Whenever something is free, of the jobs whose inputs are there the one begins that has the most time before it: its own
and that of the longest chain of jobs that wait for it. A job holds what the Snakefile asks for. Its hours of a core are
divided evenly among its cores, and the hours of an H100 that are counted for a training among its GPUs (`gpus`): the
best that can be. Where only hours of a core are known, the GPU that a job holds is counted as if it helped nothing.
Parts of a data stage (`parts`) are counted as one job.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.core import graph
from pipeline.planning.costs import Cost

# As NEEDS in the Snakefile: what holds a GPU, and what more cores than one.
ON_GPU = {"parsing", "reference", "score", "score_components", "score_images", "pretrain", "train", "draw"}
CORES = dict.fromkeys((*ON_GPU, "keypoints", "pseudo_labels"), 8)
BESIDE = 16  # cores that a machine has for each of its GPUs: a training holds 8


@dataclass(frozen=True)
class Task:
    """A job: the hours for which it holds `gpus` and `cores`. after: the names of those it waits for."""

    name: str
    hours: float
    gpus: int
    cores: int
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """hours: until the last job has ended. chain: the longest one of jobs that wait for each other, which no number of
    GPUs makes shorter. busy: the share of the GPUs' hours that jobs hold.
    """

    hours: float
    chain: tuple[Task, ...]
    busy: float


def tasks(jobs: list[graph.Job], found: Iterable[Cost]) -> list[Task]:
    """A task a job, in the same order. A job of which nothing is known takes no time and holds nothing."""
    costs, writers, laid = {cost.job: cost for cost in found}, graph.Writers(jobs), []
    for job in jobs:
        cost, cores = costs.get(str(job)), CORES.get(job.stage, 1)
        after = tuple(one.name for one in writers.before(job))
        if cost is None or cost.core_hours is None:
            laid.append(Task(job.name, 0, 0, 0, after))
        else:
            hours = cost.core_hours / cores if cost.gpu_hours is None else cost.gpu_hours / job.processes
            laid.append(Task(job.name, hours, job.processes * (job.stage in ON_GPU), cores, after))
    return laid


def _following(some: list[Task]) -> dict[str, tuple[Task, ...]]:
    """The longest chain that begins with each task. In `some` a task stands behind those that it waits for."""
    chains: dict[str, tuple[Task, ...]] = {}
    for task in reversed(some):
        chain = (task, *chains.get(task.name, ()))
        chains[task.name] = chain
        for name in task.after:  # so far what follows it, without itself
            chains[name] = max(chains.get(name, ()), chain, key=_hours)
    return chains


def _hours(chain: Iterable[Task]) -> float:
    return sum(task.hours for task in chain)


def plan(some: list[Task], gpus: int, cores: int) -> Plan:
    """On so many GPUs and cores, or as many as the largest task needs. A task stands behind those that it waits for."""
    chains = _following(some)
    order = {task.name: (-_hours(chains[task.name]), place) for place, task in enumerate(some)}
    waits = {task.name: set(task.after) for task in some}
    todo = sorted(some, key=lambda task: order[task.name])
    running: list[tuple[float, int, Task]] = []  # by the hour of its end
    gpus = max([gpus, *(task.gpus for task in some)])
    cores = max([cores, *(task.cores for task in some)])
    now, free_gpus, free_cores = 0.0, gpus, cores
    while todo or running:
        for task in [*todo]:
            if not waits[task.name] and task.gpus <= free_gpus and task.cores <= free_cores:
                todo.remove(task)
                free_gpus, free_cores = free_gpus - task.gpus, free_cores - task.cores
                heapq.heappush(running, (now + task.hours, order[task.name][1], task))
        now, _, ended = heapq.heappop(running)
        free_gpus, free_cores = free_gpus + ended.gpus, free_cores + ended.cores
        for names in waits.values():
            names.discard(ended.name)
    held = sum(task.gpus * task.hours for task in some)
    longest = max(chains.values(), key=_hours, default=())
    return Plan(now, tuple(task for task in longest if task.hours), held / (gpus * now) if now else 0.0)
