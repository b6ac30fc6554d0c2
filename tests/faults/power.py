"""A power cut, approximated: of what a process did to files, the disk has what was synced before, and no more.

Every file that was written since its last fsync is empty, half or all zeros. Renames and links are undone if their
folder was not synced since. What was removed stays removed, and a new file stays where it is. That is more than a disk
loses mostly, which writes all of it within seconds, and in order.
"""

import contextlib
import json
import os
import random
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

State = tuple[int, int, int]  # what tells whether a file was written since: inode, size, time


def _state(path: Path | int) -> State:
    found = os.stat(path)  # noqa: PTH116 -- of a file number, too
    return found.st_ino, found.st_size, found.st_mtime_ns


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def cut(folder: Path, chance: random.Random) -> Iterator[Callable[[], None]]:
    """Yield what a process calls to have noted what it does from then on; at the end of the block the power fails."""
    journal, kept = folder.with_name("journal"), folder.with_name("kept")  # on the same disk
    kept.mkdir()
    before = {_state(path) for path in _files(folder)}
    try:
        yield lambda: _record(journal, kept)
        notes = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
        _undo(notes)
        durable = before | {tuple(note[1:]) for note in notes if note[0] == "file"}
        for path in _files(folder):
            if _state(path) not in durable:
                data = path.read_bytes()
                path.write_bytes(chance.choice((b"", data[: len(data) // 2], bytes(len(data)))))
    finally:
        journal.unlink(missing_ok=True)
        shutil.rmtree(kept)


def _record(journal: Path, kept: Path) -> None:
    """Note every fsync, and every rename and link with what it replaces."""
    notes = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    fsync, link = os.fsync, os.link

    def note(*values: Any) -> None:
        os.write(notes, f"{json.dumps(values)}\n".encode())

    def synced(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        fsync(number)
        note("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file", *_state(number))

    def noting(call: Callable) -> Callable:
        def noted(source: Any, target: Any, **options: Any) -> None:
            source, target, replaced = Path(source).absolute(), Path(target).absolute(), kept / str(time.monotonic_ns())
            if target.is_file():
                link(target, replaced)
            inode = source.stat().st_ino
            call(source, target, **options)
            note("link" if call is link else "rename", inode, *map(str, (source, target, replaced)))

        return noted

    os.fsync = synced
    os.rename, os.replace, os.link = noting(os.rename), noting(os.replace), noting(link)


def _undo(notes: list[list]) -> None:
    synced = set()  # folders, from the end
    for what, inode, *rest in reversed(notes):
        if what == "folder":
            synced.add(inode)
        elif what in ("rename", "link"):
            source, target, replaced = map(Path, rest)
            if not target.exists() or target.stat().st_ino != inode or target.parent.stat().st_ino in synced:
                continue
            if what == "link":
                target.unlink()
            elif source.parent.exists():
                target.rename(source)
                if replaced.exists():
                    replaced.rename(target)
