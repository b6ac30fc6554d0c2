"""The pipeline's graph as dvc.yaml has it, resolved for params.yaml: every job, what it reads and what it writes.

Read here without either engine, which take seconds to start. tests/core/test_graph.py shows that dvc.yaml and Snakefile hold
one graph, and tests/commands/test_status.py that this reading is DVC's own.
"""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import layout, params, yaml_file
from pipeline.core.errors import UserError

DVC_FILE = Path("dvc.yaml")
_VALUE = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True)
class Job:
    """One command of the graph. Paths are from the project root, as dvc.yaml spells them."""

    command: str
    stage: str
    axes: dict[str, str]  # such as {"dataset": "synthetic", "variant": "spig"}
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: dict[str, Any]  # key of params.yaml, such as "train.synthetic.spig" -> its value

    @property
    def code(self) -> tuple[str, ...]:
        """Those of its inputs that are code or lie beside it: files and folders of pipeline/ and models/."""
        return tuple(path for path in self.inputs if path.startswith(("pipeline/", "models/")))

    def __str__(self) -> str:
        return " ".join([self.stage, *self.axes.values()])


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _filled(text: str, values: dict) -> str:
    return _VALUE.sub(lambda found: str(_lookup(values, found[1])), text)


def _items(matrix: dict[str, Any], values: dict) -> list[dict[str, str]]:
    """Every combination of a stage's axes; an axis is a list, or "${key}" of params.yaml that holds one."""
    lists = [_lookup(values, _VALUE.fullmatch(axis)[1]) if isinstance(axis, str) else axis for axis in matrix.values()]
    return [dict(zip(matrix, chosen, strict=True)) for chosen in itertools.product(*lists)]


def _job(entry: dict, item: dict[str, str], values: dict) -> Job:
    known = values | {"item": item}
    command = _filled(entry["cmd"], known)
    _, _, call = command.partition(" -m pipeline ")
    stage, *options = call.split()
    outputs = (out if isinstance(out, str) else next(iter(out)) for out in entry["outs"])
    keys = [_filled(key, known) for key in entry.get("params", ())]
    return Job(
        command,
        stage,
        {name.removeprefix("--"): value for name, value in zip(options[::2], options[1::2], strict=True)},
        tuple(_filled(path, known) for path in entry["deps"]),
        tuple(_filled(path, known) for path in outputs),
        {key: _lookup(values, key) for key in keys},
    )


def jobs() -> list[Job]:
    """All jobs, each after those that write what it reads. Raises UserError if params.yaml is missing or wrong."""
    values = params.load()
    # data may lie apart from the code
    stages = yaml_file.read(DVC_FILE if DVC_FILE.exists() else Path(__file__).parents[2] / DVC_FILE)
    found = [
        _job(entry, item, values)
        for entry in stages["stages"].values()
        for item in _items(entry.get("matrix", {}), values)
    ]
    return _in_order(found)


def find(stage: str, *values: str) -> Job:
    """The job of a stage with these values of its axes, such as `find("train", "synthetic", "spig")`. Raises UserError
    if `params.yaml` names none.
    """
    for job in jobs():
        if (job.stage, *job.axes.values()) == (stage, *values):
            return job
    raise UserError(f"{layout.PARAMS} asks for no {' '.join([stage, *values])}")


def reads(job: Job, other: Job) -> bool:
    """Whether `job` reads something that `other` writes: the path itself, or a folder around it."""
    return any(path == out or out.startswith(f"{path}/") for path in job.inputs for out in other.outputs)


def _in_order(found: list[Job]) -> list[Job]:
    before = {job.command: [other for other in found if reads(job, other)] for job in found}
    ordered: dict[str, Job] = {}

    def put(job: Job) -> None:
        if job.command not in ordered:
            for other in before[job.command]:
                put(other)
            ordered[job.command] = job

    for job in found:
        put(job)
    return list(ordered.values())
