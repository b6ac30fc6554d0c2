"""Digests of files and of code, each defined once: what an output or unfinished work was made from."""

import ast
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.core import graph
from pipeline.core.errors import UserError

ROOT = Path(__file__).parents[2]  # the folder of pipeline/ and models/, wherever the project's data lie
IGNORED = (".snakemake_timestamp", "__pycache__", "_SHA256SUMS")  # no part of a folder's content
FRESH = 2.0  # seconds in which a file may change again without a change of its time
_known: dict[tuple, Any] = {}


def remembered(path: Path, compute: Callable[[Path], Any]) -> Any:
    """`compute(path)`, once for each state of a file: what is read in many places is read in full once in a process."""
    state = path.stat()
    key = (compute, path.suffix, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    if key in _known:
        return _known[key]
    found = compute(path)
    if time.time() - state.st_mtime > FRESH:
        _known[key] = found
    return found


def _of_file(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of the lines "DIGEST  NAME" of what it holds, sorted by name.

    Raises UserError if it is missing.
    """
    if path.is_dir():
        held = sorted(child for child in path.iterdir() if child.name not in IGNORED)
        return hashlib.sha256("".join(f"{sha256(child)}  {child.name}\n" for child in held).encode()).hexdigest()
    try:
        return remembered(path, _of_file)
    except FileNotFoundError:
        raise UserError(f"{path}: not there; {graph.how_to_make(path)}") from None


def _statements(node: Any) -> Any:
    """A syntax tree as plain lists, without positions, comments, docstrings and the explanations of settings, and the
    same for every Python.
    """
    if isinstance(node, list):
        return [_statements(child) for child in node if not _is_docstring(child)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setting":  # its first argument explains it
        fields = [(name, value[1:] if name == "args" else value) for name, value in fields]
    return [type(node).__name__, *((name, _statements(value)) for name, value in fields)]


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def _of_python(source: bytes) -> str:
    with suppress(SyntaxError, ValueError):  # no Python, or none of this version: its bytes decide
        source = json.dumps(_statements(ast.parse(source))).encode()
    return hashlib.sha256(source).hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.name not in IGNORED:
        yield from (file for child in sorted(path.iterdir()) for file in _files(child)) if path.is_dir() else [path]


def code(paths: Iterable[str]) -> dict[str, str]:
    """A digest of each of these files, and of each file in these folders, by its path; all paths from `ROOT`.

    Of Python, what is parsed counts: an edited comment or docstring, or another layout, changes nothing.
    """
    files = sorted({file for path in paths for file in _files(ROOT / path)})
    return {
        file.relative_to(ROOT).as_posix(): _of_python(file.read_bytes()) if file.suffix == ".py" else sha256(file)
        for file in files
    }


def code_of(stage: str, *axes: str) -> dict[str, str]:
    """`code` that decides what a job computes, such as `code_of("train", "synthetic", "spig")`: as the graph has it."""
    return code(graph.find(stage, *axes).code)
