"""Write docs/architecture.md: the stages as dvc.yaml has them, and who imports whom as the code has it.

The words about a room are those of its `__init__.py`, those about a stage are the first line of its module.

  repose architecture
"""

import argparse
import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import graph, params
from pipeline.core.atomic import atomic_file
from pipeline.core.console import say

PAGE = Path("docs/architecture.md")
HEAD = """\
# Architecture

<!-- Written by `repose architecture`; a test fails when it is out of date. -->

Data flows down the stage table. `dvc.yaml` says what each stage reads, runs and writes, and the Snakefile makes its
rules from it. A stage is a thin module in `pipeline/stages/`; the work is done in the rooms below it.
"""


@dataclass(frozen=True)
class Room:
    """A folder of modules. `may`: the rooms that its docstring allows it; `imports`: those that its modules import."""

    name: str
    layer: int
    holds: str
    may: frozenset[str]
    imports: frozenset[str]


def imported(file: Path) -> set[str]:
    """The project's modules that a file imports, dotted, wherever in the file: pipeline.core.store, models.spig."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("pipeline", "models")}


def _room_of(module: str) -> str:
    """core of pipeline.core.store; models of models.spig."""
    top, *rest = module.split(".")
    return rest[0] if top == "pipeline" else top


def _room(folder: Path, known: dict[str, int]) -> Room:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    found = re.search(r"^Layer (\d+); may import: ([^.]+)\.", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{folder}/__init__.py lacks a line 'Layer N; may import: ...'")
    layer, named = int(found[1]), found[2]
    if named == "every room below":
        may = {name for name, other in known.items() if other < layer}
    else:
        may = set() if named == "nothing of the project" else set(named.split(", "))
    imports = {_room_of(module) for file in folder.rglob("*.py") for module in imported(file)}
    return Room(folder.name, layer, text.splitlines()[0], frozenset(may), frozenset(imports - {folder.name}))


def rooms() -> list[Room]:
    """All rooms, the lowest first. Raises ValueError if the docstring of one does not say its layer."""
    folders = [path.parent for path in sorted(Path("pipeline").glob("*/__init__.py"))] + [Path("models")]
    layers = {}
    for folder in folders:
        found = re.search(r"^Layer (\d+)", (folder / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
        layers[folder.name] = int(found[1]) if found else 0
    return sorted((_room(folder, layers) for folder in folders), key=lambda room: (room.layer, room.name))


def _shown(paths: Iterable[str]) -> str:
    """Paths of the graph for a reader: `data/D/raw` for data/{dataset}/raw, those that lie side by side as one."""
    beside: dict[str, list[str]] = {}
    for path in paths:
        shown = path.format(dataset="D", variant="V", component="C", net="NET", method="M", part="K")
        folder, _, name = shown.rpartition("/")
        beside.setdefault(folder, []).append(name)
    names = {folder: ",".join(dict.fromkeys(found)) for folder, found in beside.items()}
    joined = (f"{folder}/{{{found}}}" if "," in found else f"{folder}/{found}" for folder, found in names.items())
    return " ".join(f"`{path.lstrip('/')}`" for path in joined)


def _summary(stage: str) -> str:
    room = "commands" if stage == "score_images" else "stages"
    source = Path(f"pipeline/{room}/{stage}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).splitlines()[0]


def _stage_lines() -> list[str]:
    merged: dict[str, list[graph.Job]] = {}  # the families of `train` are stages of dvc.yaml, but one module
    for stage in graph.stages(params.load()):
        merged.setdefault(stage.pattern.stage, []).append(stage.pattern)
    lines = [
        "## Stages",
        "",
        "D is a data set, V a variant, C a component, M a method of methods/. *Some* is what only some families read.",
        "",
    ]
    lines += ["| stage | for each | what it does | reads | writes |", "|---|---|---|---|---|"]
    for name, jobs in merged.items():
        inputs = [[path for path in job.inputs if path not in job.code] for job in jobs]
        every = [path for path in inputs[0] if all(path in other for other in inputs)]
        some = sorted({path for one in inputs for path in one} - set(every))
        reads = _shown(every) + (f" *some:* {_shown(some)}" if some else "")
        outputs = dict.fromkeys(
            path.replace(f"/{job.axes.get('component')}/", "/C/") for job in jobs for path in job.outputs
        )
        axes = ", ".join(jobs[-1].axes)  # of the whole, which comes after its parts
        lines.append(f"| {' | '.join((f'`{name}`', axes, _summary(name), reads, _shown(outputs)))} |")
    return lines


def _room_lines(found: list[Room]) -> list[str]:
    lines = ["## Rooms", "", "A room imports from layers below its own, and only what its line allows.", ""]
    lines += ["| layer | room | holds | imports |", "|---|---|---|---|"]
    for room in found:
        where = "models/" if room.name == "models" else f"pipeline/{room.name}/"
        lines.append(f"| {room.layer} | `{where}` | {room.holds} | {', '.join(sorted(room.imports))} |")
    return lines


def _below(name: str, imports: dict[str, frozenset[str]]) -> set[str]:
    return set().union(*({other} | _below(other, imports) for other in imports[name]))


def _drawing(found: list[Room]) -> list[str]:
    """The arrows, without those that follow from others."""
    imports = {room.name: room.imports for room in found}
    lines = ["Left out of the drawing: an arrow that a longer way stands for.", "", "```mermaid", "flowchart BT"]
    for room in reversed(found):
        longer = set().union(*(_below(other, imports) for other in room.imports))
        lines += [f"  {room.name} --> {other}" for other in sorted(room.imports - longer)]
    return [*lines, "```"]


def page() -> str:
    """The whole page, from the files of the working folder."""
    found = rooms()
    return "\n".join([HEAD, *_stage_lines(), "", *_room_lines(found), "", *_drawing(found), ""])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run() -> None:
    with atomic_file(PAGE) as partial:
        partial.write_text(page(), encoding="utf-8")
    say(f"{PAGE}: written")
