"""What a file was when it was written: a digest for every one of ours, compared wherever one is read.

A folder output carries the list of its files with their sizes and digests, `_SHA256SUMS`, which sha256sum reads too
(`cd FOLDER && sha256sum -c _SHA256SUMS`); whoever opens a folder of Parquet leaves out names that begin with `_`. What
stands alone, or is unfinished work, carries its seal in itself: Parquet before its footer, where no reader looks, a
training's state as the comment of its zip, JSON under the key `seal`, a line of a log likewise.

So a flipped bit is seen before its value is used, and a file that is gone, new or cut short by those who read the
folder. A file is read in full for that once in a process. What has no seal, as files of an earlier version, is read
with a word that says so.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

from pipeline.core import console, digests, graph
from pipeline.core.errors import UserError

LIST = "_SHA256SUMS"
KEY = "seal"  # of JSON
MARK = b"repose sha-256: "  # the digest follows, in hexadecimal digits
_SIZE = len(MARK) + 64
_PARQUET, _ZIP_END = b"PAR1", b"PK\5\6"
_FAR = 1 << 20  # bytes at a file's end among which a misplaced seal is looked for

# ---- in a file


def _digest(file: IO[bytes], end: int, rest: bytes = b"") -> bytes:
    """SHA-256 of the first `end` bytes and `rest`, as hexadecimal digits."""
    found, left = hashlib.sha256(), end
    file.seek(0)
    while left and (block := file.read(min(left, 1 << 20))):
        found.update(block)
        left -= len(block)
    found.update(rest)
    return found.hexdigest().encode()


def _footer(file: IO[bytes]) -> int:
    """Where the footer of a Parquet file begins. Raises ValueError if it has none."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    end = file.read()
    at = size - 8 - int.from_bytes(end[:4], "little")
    if end[4:] != _PARQUET or at < 4:
        raise ValueError("it does not end as Parquet does")
    return at


def seal(path: Path) -> None:
    """Give a finished Parquet file, or the zip of a state, its seal, in place. Readers of either take it as before."""
    with path.open("r+b") as file:
        if file.read(4) == _PARQUET:
            at = _footer(file)
        else:
            end = file.seek(-22, 2)
            assert file.read(4) == _ZIP_END, f"{path}: no zip, or one with a comment"
            file.seek(end + 20)
            file.write(_SIZE.to_bytes(2, "little"))  # the comment's length
            at = end + 22
        file.seek(at)
        rest = file.read()
        digest = _digest(file, at, rest)
        file.seek(at)
        file.write(MARK + digest + rest)


def _own_fault(path: Path) -> str | None:
    """What the seal within a Parquet file or a zip says is wrong with it: "" if nothing, None if there is no seal."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        at, rest = size - _SIZE, b""
        if path.suffix == ".parquet":
            try:
                at = _footer(file) - _SIZE
            except ValueError as error:
                return str(error)
            file.seek(at + _SIZE)
            rest = file.read()
        file.seek(max(0, at))
        found = file.read(_SIZE)
        if at >= 0 and found.startswith(MARK):
            return "" if _digest(file, at, rest) == found[len(MARK) :] else "its digest is another one"
        file.seek(max(0, size - _FAR))
        return "its seal is not where it was" if MARK in file.read() else None


def _canonical(values: Any) -> bytes:
    return json.dumps(values, sort_keys=True).encode()


def json_text(values: Mapping[str, Any]) -> str:
    """Sealed JSON of values with names."""
    values = json.loads(json.dumps(values))
    sealed = {**values, KEY: hashlib.sha256(_canonical(values)).hexdigest()}
    return json.dumps(sealed, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """The values of a JSON file of ours. Raises FileNotFoundError, and UserError if it is damaged."""
    check(path)
    values = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(values, dict):
        values.pop(KEY, None)
    return values


def _json_fault(path: Path) -> str | None:
    """As `_own_fault`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return "no JSON"
    except RecursionError:
        return "nested too deep"
    if isinstance(values, bool):  # no flipped bit makes one word of the other
        return ""
    for name, value in values.items() if isinstance(values, dict) else ():
        if name == KEY or (isinstance(value, str) and len(value) == 64):  # the seal, by its name or a damaged one
            rest = {other: values[other] for other in values if other != name}
            if value == hashlib.sha256(_canonical(rest)).hexdigest():
                return "" if name == KEY else "its seal has another name"
    return "its digest is another one" if isinstance(values, dict) and KEY in values else None


def json_line(values: Mapping[str, Any]) -> str:
    """A sealed line of a log."""
    return json.dumps({**values, KEY: f"{zlib.crc32(_canonical(values)):08x}"}) + "\n"


def read_line(line: str) -> dict[str, Any] | None:
    """The values of such a line; None if it is damaged."""
    try:
        values = json.loads(line)
        return values if values.pop(KEY) == f"{zlib.crc32(_canonical(values)):08x}" and line[-1:] == "\n" else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _is_unsealed(line: str) -> bool:
    """Whether a line is one of an earlier version: numbers alone, where a damaged seal is still text."""
    try:
        return all(type(value) in (int, float) for value in json.loads(line).values())
    except (ValueError, AttributeError, RecursionError):
        return False


def _lines_fault(path: Path) -> str | None:
    """As `_own_fault`."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        unsealed = [_is_unsealed(line) for line in lines if read_line(line) is None]
    if unsealed and all(unsealed):
        return None
    return f"{len(unsealed)} lines" if unsealed else ""


# ---- of a folder


def write_list(folder: Path) -> None:
    """Write the list of a folder that is finished."""
    lines = [
        f"# {size} bytes\n{digests.sha256(folder / name)}  {name}\n" for name, size in sorted(_here(folder).items())
    ]
    (folder / LIST).write_text("".join(lines), encoding="utf-8")


def read_list(folder: Path) -> dict[str, tuple[int, str]] | None:
    """Size and digest of each file by its path in the folder; None if it has no list. Raises ValueError for a list that
    is damaged.
    """
    try:
        return digests.remembered(folder / LIST, _parsed)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parsed(path: Path) -> dict[str, tuple[int, str]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines.pop() or len(lines) % 2:
        raise ValueError("it is cut short")
    found = {}
    for size, line in zip(lines[::2], lines[1::2], strict=True):
        digest, _, name = line.partition("  ")
        found[name] = int(size.removeprefix("# ").removesuffix(" bytes")), digest
    return found


def _here(folder: Path) -> dict[str, int]:
    """Size of each file in a folder that counts: not what the engines, locks and half-written files leave there."""
    found = {path.relative_to(folder): path for path in folder.rglob("*")}
    return {
        name.as_posix(): path.stat().st_size
        for name, path in found.items()
        if name.parts[-1] != LIST and not any(part[0] == "." or part == "__pycache__" for part in name.parts)
        if path.is_file()
    }


def listing_faults(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files of a folder that are gone, too many, or of another size than its list says; nothing is read."""
    try:
        listed = read_list(folder)
    except ValueError as error:
        yield folder / LIST, f"damaged ({error})"
        return
    if listed is None:
        return
    here = _here(folder)
    for name in sorted(listed.keys() | here.keys()):
        if name not in here:
            yield folder / name, "gone"
        elif name not in listed:
            yield folder / name, f"not in {folder / LIST}"
        elif here[name] != listed[name][0]:
            yield folder / name, f"damaged ({here[name]} bytes, of {listed[name][0]})"


# ---- read


def fault(path: Path) -> str | None:
    """What is wrong with a file that is there: "" if nothing, None if it has no seal. Raises FileNotFoundError."""
    path.stat()
    for folder in list(path.parents)[:2]:
        try:
            listed = read_list(folder)
        except ValueError:
            return f"{folder / LIST} is damaged"
        if listed is not None:
            size, digest = listed.get(path.relative_to(folder).as_posix(), (-1, ""))
            if size < 0:
                return f"not in {folder / LIST}"
            return "" if digests.sha256(path) == digest else "its digest is another one"
    own = {".parquet": _own_fault, ".pt": _own_fault, ".json": _json_fault, ".jsonl": _lines_fault}.get(path.suffix)
    return digests.remembered(path, own) if own else None


@cache
def _without(folder: Path) -> None:
    console.say(f"{folder}: written before files were sealed, or elsewhere; read as it is")


def damaged(path: Path, why: str) -> UserError:
    """The line for a file that is not what it was."""
    return UserError(f"{path}: damaged ({why}); delete it; {graph.how_to_make(path)}")


def check(path: Path) -> None:
    """Read a file once and compare it with its seal. Raises UserError if it is damaged, FileNotFoundError."""
    found = fault(path)
    if found is None:
        _without(path.parent)
    elif found:
        raise damaged(path, found)


def check_listing(folder: Path) -> None:
    """Raises UserError if a file of a folder is gone, too many or of another size."""
    for path, why in listing_faults(folder):
        raise UserError(f"{path}: {why}; {graph.how_to_make(path)}")


def check_all(path: Path) -> None:
    """All of an output that is there and sealed. Raises UserError if it is damaged, or something is gone or new."""
    if path.is_dir():
        check_listing(path)
        for name in read_list(path) or ():
            check(path / name)
    elif path.exists() and (found := fault(path)):
        raise damaged(path, found)
