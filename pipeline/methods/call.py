"""One call of a method's command: what it is given, and the folder of what it wrote.

It is given a CSV of pairs, pictures of the sources, joints of both; of the target no picture and not even its name, by
which it might be found on a disk.
"""

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.errors import UserError
from pipeline.formats import annotations, pictures
from pipeline.methods.manifest import filled
from pipeline.methods.ready import Ready, execute, program

COLUMNS = ("index", "from", "to", "image", "height", "width", "source_y", "source_x", "target_y", "target_x")
PNG = b"\x89PNG\r\n\x1a\n"
DECOYS = ("images", "targets", "target")  # where a picture of a target might be looked for
# Of the user's environment; HOME and PATH are its own.
PASSED = ("LANG", "LC_ALL", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Pair:
    """source, target: names that are made up, s00012 and t00007. Joints (18, 2) as (x, y) in pixels, valid (18,)."""

    index: int
    source: str
    target: str
    source_joints: np.ndarray
    source_valid: np.ndarray
    target_joints: np.ndarray
    target_valid: np.ndarray


@dataclass(frozen=True)
class Task:
    """Pairs of one size. pictures: a function that gives name and PNG of every source."""

    pairs: Sequence[Pair]
    height: int
    width: int
    pictures: Callable[[], Iterator[tuple[str, bytes]]]


def named(names: str, pair: Pair) -> str:
    """The file that a method writes for a pair, by its pattern of names."""
    return f"{filled(names, {'index': pair.index, 'from': pair.source, 'to': pair.target})}.png"


def unlike(png: bytes, height: int, width: int) -> str:
    """What is wrong with a picture that a method wrote; "" if nothing."""
    if not png.startswith(PNG):
        return "no PNG"
    picture = pictures.exact(png)
    if isinstance(picture, str):
        return picture
    found = picture.shape[:2]
    return "" if found == (height, width) else f"{found[0]} x {found[1]}, wanted {height} x {width} (height x width)"


def _lists(joints: np.ndarray, valid: np.ndarray) -> tuple[str, str]:
    """Its y and its x in the field's form, a number that is whole without a point."""
    x, y = annotations.coordinates(joints[None], valid[None], decimals=2)[0]
    return tuple(json.dumps([int(one) if one == int(one) else one for one in values]) for values in (y, x))


def write(task: Task, folder: Path, decoy: bytes | None = None) -> Path:
    """The CSV and the pictures in `folder`. decoy: a picture that lies wherever a target might be looked for."""
    (folder / "images").mkdir()
    for name, png in task.pictures():
        (folder / "images" / f"{name}.png").write_bytes(png)
    for target in {pair.target for pair in task.pairs} if decoy else ():
        for place in DECOYS:
            (folder / place).mkdir(exist_ok=True)
            (folder / place / f"{target}.png").write_bytes(decoy)
    path = folder / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(COLUMNS)
        for pair in task.pairs:
            image = folder / "images" / f"{pair.source}.png"
            lists = (*_lists(pair.source_joints, pair.source_valid), *_lists(pair.target_joints, pair.target_valid))
            writer.writerow((pair.index, pair.source, pair.target, image, task.height, task.width, *lists))
    return path


@contextmanager
def drawn(ready: Ready, task: Task, decoy: bytes | None = None) -> Iterator[Path]:
    """Run the command on the pairs and yield the folder that it wrote to, which is gone after the block.

    Everything of the call lies in a temporary folder (of $TMPDIR), far from the data set. Raises UserError if it fails,
    or takes images of another size.
    """
    method = ready.method
    if method.size not in (None, (task.height, task.width)):
        sizes = [f"{height} x {width}" for height, width in (method.size, (task.height, task.width))]
        raise UserError(f"{method.name}: takes images of {sizes[0]} (height x width), these are {sizes[1]}")
    with tempfile.TemporaryDirectory(prefix=f"repose-{method.name}-", ignore_cleanup_errors=True) as folder:
        root = Path(folder).resolve()
        work, output, home = (root / name for name in ("work", "output", "home"))
        for one in (work, output, home):
            one.mkdir()
        ready.check_out(root / "code")
        places = {
            "pairs": write(task, work, decoy),
            "output": output,
            "weights": ready.weights,
            "code": root / "code",
            "here": method.folder,
        }
        command, environment = [filled(part, places) for part in method.command], _environment(ready, home)
        if method.container:
            command, environment = _in_container(ready, root, command, environment), None
        execute(command, ready.log, f"{method.name}: its command", root / "code", environment)
        yield output


def _environment(ready: Ready, home: Path) -> dict[str, str]:
    """What the command finds in its environment: a home folder without settings, and no key to a network's models."""
    own = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if ready.environment:
        own |= {
            "PATH": os.pathsep.join([str(ready.environment / "bin"), os.defpath]),
            "VIRTUAL_ENV": str(ready.environment),
        }
    return own | {name: os.environ[name] for name in PASSED if name in os.environ}


def _in_container(ready: Ready, root: Path, command: list[str], environment: Mapping[str, str]) -> list[str]:
    """The command in its container, which sees this call's folder, the weights and the method's folder, no network."""
    method, where = ready.method, program(ready.method.name)
    user = ["--user", f"{os.getuid()}:{os.getgid()}"] if Path(where).name == "docker" else ["--userns", "keep-id"]
    gpus = (["--gpus", "all"] if Path(where).name == "docker" else ["--device", "nvidia.com/gpu=all"]) * method.gpu
    mounts = [f"{root}:{root}", *(f"{path}:{path}:ro" for path in (ready.weights, method.folder))]
    inside = {name: value for name, value in environment.items() if name != "LD_LIBRARY_PATH"}
    return [
        *(where, "run", "--rm", "--network", "none", *user, *gpus, "--workdir", str(root / "code")),
        *(part for mount in mounts for part in ("--volume", mount)),
        *(part for name, value in inside.items() for part in ("--env", f"{name}={value}")),
        method.container,
        *command,
    ]
