"""Outputs appear whole or not at all, and one process at a time writes an output.

An output is written to a temporary sibling of its process, then moved into place. Both engines take an output that
exists for a finished one, so nothing else in the project writes to a declared output path directly.

What was moved into place is on the disk: the content first, then the name. A power cut leaves what was there before, or
all of what is there now.

A second process is refused while the first writes. The lock is the system's, on a file beside the output that says who
holds it; it goes with its process however that ends, so none outlives a kill or a power cut. Where a file system has
no locks, two processes do not see each other: each writes a sibling of its own, and the last to finish stays, whole.
"""

import errno
import fcntl
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.core import seals
from pipeline.core.errors import UserError

_held: set[str] = set()  # the outputs that this process has locked, by their real paths


def _sibling(path: Path, ending: str = "partial") -> Path:
    """A temporary name beside `path`, this process's own."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.{ending}")


def _place(path: Path) -> Path:
    """Where the output `path` is written: behind a link, which stays one. Its folder is made."""
    path = Path(path)
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def remove(path: Path) -> None:
    """A file, a folder with all in it, or nothing."""
    if path.is_dir() and not path.is_symlink():
        try:
            shutil.rmtree(path)
        except OSError as error:  # whose file is said without its folder
            error.filename = str(path)
            raise
    else:
        path.unlink(missing_ok=True)


def link(path: Path, destination: Path) -> None:
    """A second name for the same bytes: a kill now loses neither."""
    try:
        destination.hardlink_to(path)
    except OSError:  # a file system without hard links, or another one
        shutil.copyfile(path, destination)


def sync(path: Path) -> None:
    """Let what a file holds, or which names a folder holds, outlive a power cut."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that does so for no folder
            raise
    finally:
        os.close(number)


def _is(handle: IO[str], file: Path) -> bool:
    """Whether what is open is still what lies at `file`."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), file.stat())
    except FileNotFoundError:
        return False


def _locked(file: Path, path: Path) -> IO[str]:
    """The lock file, opened and locked, with this process as its holder. Raises UserError if another one is.

    What others left half-written is removed: they are gone.
    """
    while True:
        handle = file.open("a+", encoding="utf-8", errors="backslashreplace")
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the process's own: children do not keep it alive
        except (BlockingIOError, PermissionError):
            handle.seek(0)
            holder = handle.read().strip() or "another run"
            handle.close()
            raise UserError(f"{path} is being written by {holder}; wait until it is done, or end it") from None
        except OSError:  # a file system without locks
            pass
        else:
            if not _is(handle, file):
                handle.close()  # whoever held it was done just now, and removed it
                continue
            for left in path.parent.iterdir():
                if left.name.startswith(f".{path.name}.") and left.suffix in (".partial", ".old"):
                    remove(left)
        handle.truncate(0)
        since, command = time.strftime("%Y-%m-%d %H:%M:%S"), shlex.join(sys.orig_argv)
        handle.write(f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})\n")
        handle.flush()
        return handle


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Keep other processes from writing the output `path`; this one may lock it again. Raises UserError, naming the
    one that does. An OSError in the block that names no file, as of a full disk, names `path` from here on.
    """
    try:
        place = _place(path)
        key = os.path.realpath(place)
        if key in _held:
            yield
            return
        file = place.with_name(f".{place.name}.lock")
        with _locked(file, place):
            _held.add(key)
            try:
                yield
            finally:
                _held.discard(key)
                file.unlink(missing_ok=True)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it replaces `path`, on any exception it is deleted.

    Raises UserError if another process is writing `path`.
    """
    path = _place(path)
    partial = _sibling(path)
    with lock(path):
        remove(partial)
        try:
            yield partial
            sync(partial)
            partial.replace(path)
            sync(path.parent)
        finally:
            remove(partial)


@contextmanager
def atomic_directory(path: Path, listed: bool = True) -> Iterator[Path]:
    """Yield a temporary empty directory; on success it replaces `path` (and all that was in it). It gets the list of
    its files (pipeline/core/seals.py), unless whoever reads it would take that for one of them.

    Raises UserError if another process is writing `path`.
    """
    path = _place(path)
    partial, old = _sibling(path), _sibling(path, "old")
    with lock(path):
        remove(partial)
        partial.mkdir()
        try:
            yield partial
            if listed:
                seals.write_list(partial)
            for inside in [*partial.rglob("*"), partial]:
                sync(inside)
            if path.exists():
                path.replace(old)  # a kill while it is removed must not leave half of it under the final name
            partial.replace(path)
            sync(path.parent)
            remove(old)
        finally:
            remove(partial)
