"""Outputs appear whole or not at all: written to a temporary sibling, then moved into place.

Both engines take an output that exists for a finished one, so nothing else in the project writes to a declared
output path directly.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _sibling(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f".{path.name}.partial"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link(path: Path, destination: Path) -> None:
    """A second name for the same bytes: a kill now loses neither."""
    try:
        destination.hardlink_to(path)
    except OSError:  # a file system without hard links, or another one
        shutil.copyfile(path, destination)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it replaces `path`, on any exception it is deleted."""
    path = Path(path)
    partial = _sibling(path)
    _remove(partial)
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())  # a crash after the move must not leave an empty file under the final name
        partial.replace(path)
    finally:
        _remove(partial)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary empty directory; on success it replaces `path` (and all that was in it)."""
    path = Path(path)
    partial = _sibling(path)
    _remove(partial)
    partial.mkdir()
    try:
        yield partial
        _remove(path)
        partial.replace(path)
    finally:
        _remove(partial)
