"""The pipeline's graph: dvc.yaml, resolved for params.yaml into jobs, each with what it reads and what it writes.

The Snakefile, `status` and whatever asks which code decides a result read it here, so there is one answer. DVC reads
dvc.yaml itself; tests/core/test_graph.py holds this reading to DVC's. Neither engine is started, both take seconds.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pipeline.core import layout, needs, params, yaml_file
from pipeline.core.errors import UserError

DVC_FILE = Path("dvc.yaml")
CODE = ("pipeline", "models")
DATASETS = "pipeline/datasets"
CODE_KEY = "code"  # in a data set's settings.yaml: digests of `code_of_data_set`, so that DVC sees an edit of it
# Folders of files under version control: what is in them counts, one by one.
SOURCES = (*CODE, str(layout.METHODS), "reports/template")
# What makes the prepared data set: `snakemake prepared`, and for DVC `dvc repro describe`, which reads all of it.
DATA_STAGES = ("index", "keypoints", "parsing", "pairs", "pseudo_labels", "distance_maps", "describe")
WATCHING = ("tracker",)
# Stages whose readers are not due because they ran: what one takes from `needs` is among what decides it, and `plan`
# tells it nothing. So for DVC, by content. Snakemake, which runs whatever reads an output that is about to be written
# (and, told that it is `ancient`, overlooks every other reason), has no edge from them: priority lets them run first.
FOREGOING = ("plan", "needs")
PLAN = str(layout.PLAN)
_VALUE = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True)
class Job:
    """One command of the graph. Paths are from the project root, as dvc.yaml spells them."""

    name: str  # as DVC lists it, such as "train_spig@synthetic-spig"
    command: str
    stage: str
    axes: dict[str, str]  # such as {"dataset": "synthetic", "variant": "spig"}
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: dict[str, Any]  # key of params.yaml, such as "train.synthetic.spig" -> its value
    needed: dict[str, bool]  # those of its inputs that `needs` writes -> what they will say

    @property
    def code(self) -> tuple[str, ...]:
        """Those of its inputs that are code or lie beside it: files and folders of pipeline/ and models/."""
        return tuple(path for path in self.inputs if path.startswith(CODE))

    @property
    def deciding(self) -> dict[str, Any]:
        """What is needed of it, and its params without the settings that only say who watches it: a change of those
        makes no other output.
        """
        return self.needed | {
            key: {name: text for name, text in value.items() if name not in WATCHING} if type(value) is dict else value
            for key, value in self.params.items()
        }

    @property
    def settings(self) -> dict[str, Any]:
        """All of its params' blocks in one: what a run has of its own comes after what its family has."""
        return {name: value for block in self.params.values() if type(block) is dict for name, value in block.items()}

    @property
    def processes(self) -> int:
        """How many share its work, if there is any."""
        return self.settings.get("gpus", 1) if all(self.needed.values()) else 1

    @property
    def by_hand(self) -> str:
        """Such as "repose train --dataset synthetic --variant spig"."""
        return " ".join(["repose", self.stage, *(f"--{axis} {value}" for axis, value in self.axes.items())])

    @property
    def log(self) -> Path:
        return layout.log(self.stage, *self.axes.values())

    def __str__(self) -> str:
        return " ".join([self.stage, *self.axes.values()])


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            raise UserError(f"{layout.PARAMS} lacks {key}, which {DVC_FILE} reads")
        values = values[part]
    return values


def _filled(text: str, values: dict) -> str:
    return _VALUE.sub(lambda found: str(_lookup(values, found[1])), text).replace(r"\${", "${")


def key_of(file: str, key: str) -> str:
    """A key of params.yaml by the file and the key that DVC reads instead: "train.synthetic.spig" for "train.spig" in
    data/synthetic/settings.yaml, where `needs` writes what holds for a data set. DVC finds only those blocks of
    params.yaml that are written out, and of a form of a data set only what it has of its own is.
    """
    if file == str(layout.PARAMS):
        return key
    stage, dot, below = key.partition(".")
    return f"{stage}.{Path(file).parts[1]}{dot}{below}"


def _params(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """File and key of each of an entry's params."""
    for one in entry.get("params", ()):
        for file, keys in one.items() if isinstance(one, dict) else ((str(layout.PARAMS), [one]),):
            yield from ((file, key) for key in keys)


def code_of_data_set(dataset: str) -> tuple[str, ...]:
    """The folders of the code that makes a data set: those whose name its own begins with, for deepfashion_sample and
    deepfashion-resize176 that of deepfashion.
    """
    folders = sorted(path.name for path in (_root() / DATASETS).iterdir() if path.is_dir())
    return tuple(f"{DATASETS}/{name}" for name in folders if re.match(rf"{name}(?![a-z0-9])", dataset))


@dataclass(frozen=True)
class Stage:
    """One entry of dvc.yaml, a job for every combination of its axes."""

    name: str
    entry: dict[str, Any]
    values: dict[str, Any]  # params.yaml

    @cached_property
    def axes(self) -> dict[str, list[str]]:
        """The values of each axis: a list, or "${key}" of params.yaml that holds one, or a block, whose keys count."""
        return {
            axis: [*map(str, self._listed(_VALUE.fullmatch(values)[1]) if isinstance(values, str) else values)]
            for axis, values in self.entry.get("matrix", {}).items()
        }

    def _listed(self, key: str) -> Iterable[str]:
        return () if self._is_left_out(key) else _lookup(self.values, key)

    def _is_left_out(self, key: str) -> bool:
        """Whether params.yaml leaves out a list that is empty then: a family's variants, methods."""
        top, _, family = key.partition(".")
        if top in ("variants", "named"):
            return family not in self.values.get(top, {})
        return key == "methods" and key not in self.values

    @property
    def left_out(self) -> list[str]:
        """Keys of params.yaml that its axes want and that are not there: DVC, which knows no defaults, stops there."""
        wanted = [_VALUE.fullmatch(of)[1] for of in self.entry.get("matrix", {}).values() if isinstance(of, str)]
        return [key for key in wanted if self._is_left_out(key)]

    @cached_property
    def pattern(self) -> Job:
        """The job with "{axis}" for the value of each axis, as Snakemake writes wildcards, and without params."""
        return self._job({axis: f"{{{axis}}}" for axis in self.axes}, lambda key: None)

    @cached_property
    def jobs(self) -> dict[tuple[str, ...], Job]:
        """By the values of its axes."""
        return {
            chosen: self._job(dict(zip(self.axes, chosen, strict=True)), lambda key: _lookup(self.values, key))
            for chosen in itertools.product(*self.axes.values())
        }

    @property
    def is_idle(self) -> bool:
        """Whether nothing is needed of any of its jobs: each notes that in a second."""
        return all(job.needed and not any(job.needed.values()) for job in self.jobs.values())

    def _job(self, item: dict[str, str], value: Callable[[str], Any]) -> Job:
        own = {name: text for some in self.entry.get("vars", ()) for name, text in some.items()}
        known = self.values | own | {"item": item}
        command = _filled(self.entry["cmd"], known)
        stage, *options = command.partition(" -m pipeline ")[2].split()
        declared = itertools.chain.from_iterable(self.entry.get(kind, ()) for kind in ("outs", "metrics", "plots"))
        outputs = (out if isinstance(out, str) else next(iter(out)) for out in declared)
        inputs = tuple(_filled(path, known) for path in self.entry["deps"])
        read = [(_filled(file, known), _filled(key, known)) for file, key in _params(self.entry)]
        if (str(layout.settings(item.get("dataset", ""))), CODE_KEY) in read:
            inputs += code_of_data_set(item["dataset"])
        return Job(
            f"{self.name}@{'-'.join(item.values())}" if item else self.name,
            command,
            stage,
            {name.removeprefix("--"): text for name, text in zip(options[::2], options[1::2], strict=True)},
            inputs,
            tuple(_filled(path, known) for path in outputs),
            {name: value(name) for name in (key_of(file, key) for file, key in read if key != CODE_KEY)},
            {path: needs.said(self.values, path) for path in inputs if needs.is_file(path) and "{" not in path},
        )


def _root() -> Path:
    """The folder of dvc.yaml and the code; data may lie apart from it."""
    return Path() if DVC_FILE.exists() else Path(__file__).parents[2]


def _entries() -> dict[str, dict]:
    return yaml_file.read(_root() / DVC_FILE)["stages"]


def stages(values: dict[str, Any]) -> list[Stage]:
    """The stages of dvc.yaml for these values of params.yaml, each after those that write what it reads. Raises
    UserError for a name in params.yaml that no stage makes, and for code in dvc.yaml that is not there.
    """
    found = [Stage(name, entry, values) for name, entry in _entries().items()]
    problem = next(itertools.chain(_without_code(found), _unmade(found, values)), None)
    if problem:
        raise UserError(problem)
    return found


def jobs(values: dict[str, Any]) -> list[Job]:
    """The jobs of all stages, in the order of `stages`. Raises what it raises."""
    return [job for stage in stages(values) for job in stage.jobs.values()]


def find(stage: str, *values: str) -> Job:
    """The job of a stage with these values of its axes, such as `find("train", "synthetic", "spig")`. Raises UserError
    if `params.yaml` names none.
    """
    everything = params.with_forms(yaml_file.read(layout.PARAMS))
    for name, entry in _entries().items():
        if f" -m pipeline {stage} " in f"{entry['cmd']} ":
            for job in Stage(name, entry, everything).jobs.values():
                if tuple(job.axes.values()) == values:
                    return job
    raise UserError(f"{layout.PARAMS} asks for no {' '.join([stage, *values])}")


@lru_cache(maxsize=1)  # asked for every file that is not there
def _unchecked(settings: str, described: str) -> list[Job]:
    """The jobs by the texts of params.yaml and dvc.yaml, neither of which need be valid."""
    return jobs(params.with_forms(yaml_file.parse(settings, layout.PARAMS)))


def how_to_make(path: Path | str) -> str:
    """What to run where a path is missing that a stage writes: the one command, or why there is none."""
    wanted = Path(path)
    with suppress(UserError, OSError):
        for job in _unchecked(yaml_file.text(layout.PARAMS), yaml_file.text(_root() / DVC_FILE)):
            for output in map(Path, job.outputs):
                if wanted == output or output in wanted.parents or wanted in output.parents:
                    return f"run: {job.by_hand}"
    return f"no stage writes it for what {layout.PARAMS} names (datasets, variants, components)"


# ---- who reads whose outputs


class Writers:
    """Which of some jobs write a path or what is below it."""

    def __init__(self, some: list[Job]):
        self._of: dict[str, dict[str, Job]] = {}  # path or a folder around it -> output -> its job
        self._files: dict[str, list[str]] = {}
        for job in some:
            for output in job.outputs:
                for path in (output, *map(str, Path(output).parents)):
                    self._of.setdefault(path, {})[output] = job

    def outputs(self, path: str) -> dict[str, Job]:
        """Every output that is the path or lies below it, and its job."""
        return self._of.get(path, {})

    def before(self, job: Job) -> list[Job]:
        """The jobs whose outputs it reads."""
        found = (writer for path in job.inputs for writer in self.outputs(path).values())
        return list({writer.name: writer for writer in found}.values())

    def files(self, job: Job) -> list[str]:
        """Its inputs one by one: all outputs in a folder of outputs, all files in a folder of sources. Without what the
        stages of FOREGOING write.
        """
        for path in job.inputs:
            if path not in self._files:
                written = self.outputs(path)
                read = [name for name, writer in written.items() if writer.stage not in FOREGOING]
                beside = [path] if path == str(layout.OUTSIDE) else []  # what was scored by hand
                self._files[path] = [*read, *beside] if written else _sources(path)
        return [file for path in job.inputs for file in self._files[path]]


def _sources(path: str) -> list[str]:
    if not path.startswith(SOURCES) or not Path(path).is_dir():
        return [path]
    inside = (file for file in Path(path).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return sorted(map(str, inside))


# ---- names that nothing stands behind


def _without_code(found: list[Stage]) -> Iterator[str]:
    jobs = [job for stage in found for job in stage.jobs.values()]
    code = {path: job.name for job in jobs for path in job.inputs if path.startswith(SOURCES)}
    root = _root()
    for path, name in code.items():
        if not (root / path).exists():
            yield f"{DVC_FILE}: {name} reads {path}, which is not there"


def _unmade(found: list[Stage], values: dict[str, Any]) -> Iterator[str]:
    """The keys of params.yaml that no stage is there for, such as a family without a stage that trains it."""
    matrices = [stage.entry.get("matrix", {}) for stage in found]
    lists = {text[2:-1] for matrix in matrices for text in matrix.values() if isinstance(text, str)}
    names = {axis: set(text) for matrix in matrices for axis, text in matrix.items() if not isinstance(text, str)}
    keys = {key for stage in found for key in stage.pattern.params}
    keys |= {
        f"components.{Path(path).stem}" for stage in found for path in stage.pattern.outputs if needs.is_file(path)
    }
    # One by one: that all of `variants` is read makes none of them.
    tops = {key.partition(".")[0] for key in lists | keys if "." in key}
    known = [key.split(".") for key in lists | {key for key in keys if key not in tops}]

    def fits(part: str, wanted: str) -> bool:
        return part == wanted or (wanted[0] == "{" and part in names.get(wanted[1:-1], {part}))

    def look(key: list[str], value: Any, among: list[list[str]]) -> Iterator[str]:
        among = [wanted for wanted in among if fits(key[-1], wanted[len(key) - 1])]
        if not among:
            yield f"{layout.PARAMS}: {'.'.join(key)}: no stage of {DVC_FILE} makes or reads it"
        elif isinstance(value, dict) and all(len(wanted) > len(key) for wanted in among):
            for name, below in value.items():
                yield from look([*key, name], below, among)

    for name, value in values.items():
        if name != "presets":  # what blocks take over, and no block itself
            yield from look([name], value, known)
