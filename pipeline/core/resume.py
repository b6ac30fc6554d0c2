"""Long work over many items, kept piece by piece: killed at any moment and started again, it goes on where it was.

Finished pieces lie as parquet files under `.work/`, beside a stamp of what they were made from. With another stamp
(another network, other images, other settings) they are thrown away. The rows, and so the output, are the same bytes
whether or not the work was interrupted.

`rows` suits slow work with small results: its pieces are small. `shards` suits fast work with large results: its pieces
are the shards themselves, moved into place at the end.

Several jobs may share the pieces: each makes every N-th of them and `publish`es those, and the job that all this is for
takes them over, as if it had made them before it was stopped. What is missing it makes itself.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import atomic, console, layout, params, seals, store
from pipeline.core.atomic import atomic_directory, atomic_file, link
from pipeline.core.digests import sha256
from pipeline.core.errors import is_shortage

CHUNK = 256  # items of work that a kill can cost
MADE_FROM = "made_from.json"


@dataclass(frozen=True)
class Place:
    """Where a job keeps the pieces that it has finished, and which of them are its own."""

    work: Path  # under `.work/`; `finished` removes it when the output is in place
    parts: Path | None = None  # where the parts of this work put theirs, a folder each
    part: int | None = None  # which of `of` parts the job is; None: it makes the whole
    of: int = 1


def place(part: str | None, stage: str, *axes: str) -> Place:
    """That of a stage of `layout.SPREAD`, or of a part of it."""
    work, parts = layout.work(stage, *axes), layout.parts(stage, *axes)
    return Place(work, parts) if part is None else Place(work / part, parts, int(part), len(params.load()["parts"]))


def stamp(code: Mapping[str, str], *made_from: Any) -> str:
    """A digest of what the work depends on: `digests.code_of` its job, and whatever else it is made from. Of these,
    paths stand for the content of the file or folder, anything else for its JSON.
    """
    parts = [code, *(sha256(part) if isinstance(part, Path) else part for part in made_from)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def rows(
    place: Place,
    made_from: str,
    items: Sequence,
    compute: Callable[[Sequence], Sequence[Mapping]],
    columns: pa.Schema,
    description: str,
    chunk: int = CHUNK,
) -> Iterator[dict]:
    """The rows of all items in order, of a part those of its chunks: `compute(some items)` gives theirs, one chunk at a
    time, each computed once.

    made_from: a `stamp`.  compute: must not depend on how the items are cut into chunks.
    """
    _keep_only(place, {"made_from": made_from, "items": len(items), "chunk": chunk})
    own = range(chunk * (place.part or 0), len(items), chunk * place.of)
    total = sum(min(chunk, len(items) - first) for first in own)
    done = len(list(place.work.glob("chunk-*.parquet")))
    if done:
        console.say(f"going on: {min(done * chunk, total)} of {total} done before")
    with console.progress(description, total) as advance:
        for first in own:
            path = place.work / f"chunk-{first // chunk:06d}.parquet"
            some = items[first : first + chunk]
            table = _read(path)
            if table is None:
                table = pa.Table.from_pylist(list(compute(some)), schema=columns)
                with atomic_file(path) as partial:
                    pq.write_table(table, partial, compression="zstd")
                    seals.seal(partial)
            yield from table.to_pylist()
            advance(len(some))


def again(place: Place, columns: Sequence[str]) -> Iterator[dict]:
    """What `rows` gave, once more out of the finished chunks: some columns of them."""
    for path in sorted(place.work.glob("chunk-*.parquet")):
        yield from store.read_table(path, columns=list(columns)).to_pylist()


def shards(
    folder: Path,
    place: Place,
    made_from: str,
    rows_between: Callable[[int, int | None], Iterable[Mapping]],
    columns: pa.Schema,
    row_group: int = store.ROW_GROUP,
    **metadata: str,
) -> int:
    """`store.write_shards` in a way that keeps finished shards: `rows_between(m, n)` gives all rows from the m-th on,
    before the n-th if that is not None. Returns their number. A part makes and publishes its shards alone.
    """
    _keep_only(place, {"made_from": made_from})
    work = place.work
    if place.part is not None:
        return publish(place, sum(_shards_of_part(place, rows_between, columns, row_group, metadata)))
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
    total = store.write_parts(work, rows_between(before, None), columns, row_group, before, metadata)
    with atomic_directory(folder) as partial:
        for path in store.parts(work):
            link(path, partial / path.name)
    finished(place)
    return total


def _shards_of_part(
    place: Place, rows_between: Callable, columns: pa.Schema, row_group: int, metadata: Mapping
) -> Iterator[int]:
    """Make every `of`-th shard, until one is not full; yields the number of rows of each."""
    for first in count(place.part * store.SHARD_ROWS, place.of * store.SHARD_ROWS):
        table = _read(place.work / f"part-{first // store.SHARD_ROWS:05d}.parquet", [])
        if table is None:
            some = rows_between(first, first + store.SHARD_ROWS)
            made = store.write_parts(place.work, some, columns, row_group, first, metadata) - first
        else:
            made = len(table)
        yield made
        if made < store.SHARD_ROWS:
            return


def publish(place: Place, made: int) -> int:
    """Put the pieces of a part, which hold `made` rows, into its folder among `parts`, which is empty without any."""
    with atomic_directory(place.parts / str(place.part)) as partial:
        for path in [*place.work.glob("*-*.parquet"), place.work / MADE_FROM] if made else ():
            number = path.stem.rpartition("-")[2]
            if path.name == MADE_FROM or int(number) % place.of == place.part:  # others: of another number of parts
                link(path, partial / path.name)
    finished(place)
    console.say(f"part {place.part} of {place.of}: {made} rows in {place.parts / str(place.part)}")
    return made


def _keep_only(place: Place, wanted: Mapping) -> None:
    """Empty the folder of pieces unless they were made from the same things, and take over those of parts that were."""
    work = place.work
    if _made_from(work) != wanted:
        shutil.rmtree(work, ignore_errors=True)  # also what a kill left of a removal
        work.mkdir(parents=True)
        with atomic_file(work / MADE_FROM) as partial:
            partial.write_text(json.dumps(wanted))
    if place.parts is None or place.part is not None:
        return
    made = [path for part in place.parts.glob("*/") if _made_from(part) == wanted for path in part.glob("*.parquet")]
    for path in made:
        if not (work / path.name).exists():
            link(path, work / path.name)
    if made:
        console.say(f"{len(made)} pieces taken over from {place.parts}")


def _made_from(folder: Path) -> Any:
    with suppress(OSError, ValueError):
        return json.loads((folder / MADE_FROM).read_text(encoding="utf-8"))
    return None


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table | None:
    """A piece, None if it is not there. A damaged one, or one without a seal, is reported and removed, and so made
    again.
    """
    if not path.exists():
        return None
    try:
        fault = seals.fault(path)
        if fault == "":
            return pq.ParquetFile(path).read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        if is_shortage(error):
            raise
        fault = str(error).splitlines()[0]
    console.say(f"{path}: damaged ({fault or 'no seal'}), made again")
    atomic.remove(path)
    return None


def finished(place: Place) -> None:
    """The output is in place: the pieces are not needed any more."""
    shutil.rmtree(place.work, ignore_errors=True)
