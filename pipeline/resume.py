"""Long work over many items, kept chunk by chunk: killed at any moment and started again, it goes on where it was.

Finished chunks lie as parquet files under `.work/`, beside a stamp of what they were made from. With another stamp
(another network, other images, other settings) they are thrown away. The rows, and so the output, are the same bytes
whether or not the work was interrupted.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import console
from pipeline.atomic import atomic_file

CHUNK = 256  # items of work that a kill can cost


def stamp(*made_from: Any) -> str:
    """A digest of what the work depends on: paths stand for the bytes of the file, or of every file in the folder,
    anything else for its JSON.
    """
    digest = hashlib.sha256()
    for part in made_from:
        if isinstance(part, Path):
            for path in sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]:
                if path.name == ".snakemake_timestamp":
                    continue
                with path.open("rb") as handle:
                    digest.update(hashlib.file_digest(handle, "sha256").digest())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()


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
    with console.progress(description, len(items)) as advance:
        for first in range(0, len(items), chunk):
            path = work / f"chunk-{first // chunk:06d}.parquet"
            some = items[first : first + chunk]
            if not path.exists():
                table = pa.Table.from_pylist(list(compute(some)), schema=columns)
                with atomic_file(path) as partial:
                    pq.write_table(table, partial, compression="zstd")
            yield from pq.read_table(path).to_pylist()
            advance(len(some))


def _keep_only(work: Path, wanted: Mapping) -> None:
    """Empty `work` unless its chunks were made from the same things."""
    path = work / "made_from.json"
    if path.exists():  # written before the first chunk
        if json.loads(path.read_text()) == wanted:
            done = len(list(work.glob("chunk-*.parquet")))
            if done:
                console.say(
                    f"going on: {min(done * wanted['chunk'], wanted['items'])} of {wanted['items']} done before"
                )
            return
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(wanted))


def finished(work: Path) -> None:
    """The output is in place: the chunks are not needed any more."""
    shutil.rmtree(work, ignore_errors=True)
