"""Long work over many items, kept piece by piece: killed at any moment and started again, it goes on where it was.

Finished pieces lie as parquet files under `.work/`, beside a stamp of what they were made from. With another stamp
(another network, other images, other settings) they are thrown away. The rows, and so the output, are the same bytes
whether or not the work was interrupted.

`rows` suits slow work with small results: its pieces are small. `shards` suits fast work with large results: its pieces
are the shards themselves, moved into place at the end.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import atomic, console, seals, store
from pipeline.core.atomic import atomic_directory, atomic_file, link
from pipeline.core.digests import sha256
from pipeline.core.errors import is_shortage

CHUNK = 256  # items of work that a kill can cost


def stamp(code: Mapping[str, str], *made_from: Any) -> str:
    """A digest of what the work depends on: `digests.code_of` its job, and whatever else it is made from. Of these,
    paths stand for the content of the file or folder, anything else for its JSON.
    """
    parts = [code, *(sha256(part) if isinstance(part, Path) else part for part in made_from)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def rows(
    work: Path,
    made_from: str,
    items: Sequence,
    compute: Callable[[Sequence], Sequence[Mapping]],
    columns: pa.Schema,
    description: str,
    chunk: int = CHUNK,
) -> Iterator[dict]:
    """The rows of all items in order: `compute(some items)` gives theirs, one chunk at a time, each computed once.

    work: a folder under `.work/` for the finished chunks; remove it with `finished(work)` when the output is in place.
    made_from: a `stamp`.  compute: must not depend on how the items are cut into chunks.
    """
    _keep_only(work, {"made_from": made_from, "items": len(items), "chunk": chunk})
    done = len(list(work.glob("chunk-*.parquet")))
    if done:
        console.say(f"going on: {min(done * chunk, len(items))} of {len(items)} done before")
    with console.progress(description, len(items)) as advance:
        for first in range(0, len(items), chunk):
            path = work / f"chunk-{first // chunk:06d}.parquet"
            some = items[first : first + chunk]
            table = _read(path)
            if table is None:
                table = pa.Table.from_pylist(list(compute(some)), schema=columns)
                with atomic_file(path) as partial:
                    pq.write_table(table, partial, compression="zstd")
                    seals.seal(partial)
            yield from table.to_pylist()
            advance(len(some))


def again(work: Path, columns: Sequence[str]) -> Iterator[dict]:
    """What `rows` gave, once more out of the finished chunks: some columns of them."""
    for path in sorted(work.glob("chunk-*.parquet")):
        yield from store.read_table(path, columns=list(columns)).to_pylist()


def shards(
    folder: Path,
    work: Path,
    made_from: str,
    rows_after: Callable[[int], Iterable[Mapping]],
    columns: pa.Schema,
    row_group: int = store.ROW_GROUP,
    **metadata: str,
) -> int:
    """`store.write_shards` in a way that keeps finished shards: `rows_after(n)` gives all rows but the first n."""
    _keep_only(work, {"made_from": made_from})
    before, pieces = 0, sorted(work.glob("part-*.parquet"))
    for number, path in enumerate(pieces):
        table = _read(path, []) if path.name == f"part-{number:05d}.parquet" else None
        if table is None:  # those that follow go with it: each begins where the one before ends
            for later in pieces[number:]:
                atomic.remove(later)
            break
        before += len(table)
    if before:
        console.say(f"going on: {before} rows done before")
    count = store.write_parts(work, rows_after(before), columns, row_group, before, metadata)
    with atomic_directory(folder) as partial:
        for path in store.parts(work):
            link(path, partial / path.name)
    finished(work)
    return count


def _keep_only(work: Path, wanted: Mapping) -> None:
    """Empty `work` unless its pieces were made from the same things."""
    path = work / "made_from.json"
    with suppress(OSError, ValueError):
        if json.loads(path.read_text(encoding="utf-8")) == wanted:
            return
    shutil.rmtree(work, ignore_errors=True)  # also what a kill left of a removal
    work.mkdir(parents=True)
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(wanted))


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table | None:
    """A piece, None if it is not there. A damaged one, or one without a seal, is reported and removed, and so made
    again.
    """
    if not path.exists():
        return None
    try:
        fault = seals.fault(path)
        if fault == "":
            return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        if is_shortage(error):
            raise
        fault = str(error).splitlines()[0]
    console.say(f"{path}: damaged ({fault or 'no seal'}), made again")
    atomic.remove(path)
    return None


def finished(work: Path) -> None:
    """The output is in place: the pieces are not needed any more."""
    shutil.rmtree(work, ignore_errors=True)
