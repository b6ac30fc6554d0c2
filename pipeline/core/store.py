"""Parquet in and out: sorted shards with small row groups, written atomically and byte for byte reproducible.

A random read decodes one row group, about the cost of one JPEG decode; the files open as they
are in pandas, DuckDB, polars and Hugging Face `datasets`.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import graph, schema, seals
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.errors import UserError, is_shortage

ROW_GROUP = 64
TABLE_ROW_GROUP = 65_536  # of a table, which is read whole
SHARD_ROWS = 2048
_WRITER = {
    "compression": "zstd",
    "compression_level": 3,
    "write_page_index": True,
    "use_dictionary": False,
    "write_page_checksum": True,
}


def _hugging_face(columns: pa.Schema) -> dict[bytes, bytes]:
    """`datasets` shows image columns as pictures when the file's metadata says so."""
    features: dict[str, object] = {}
    for field in columns:
        if field.type == schema.IMAGE:
            features[field.name] = {"_type": "Image"}
        elif field.type == schema.POINTS:
            point = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 2, "_type": "Sequence"}
            features[field.name] = {"feature": point, "length": schema.JOINTS, "_type": "Sequence"}
        elif field.type == schema.JOINT_SCORES:
            value = {"dtype": "float32", "_type": "Value"}
            features[field.name] = {"feature": value, "length": schema.JOINTS, "_type": "Sequence"}
        else:
            features[field.name] = {"dtype": str(field.type), "_type": "Value"}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def _with_metadata(columns: pa.Schema, metadata: Mapping[str, str]) -> pa.Schema:
    extra = {key.encode(): value.encode() for key, value in metadata.items()}
    return columns.with_metadata(_hugging_face(columns) | extra)


def write_table(path: Path, rows: pa.Table | Sequence[Mapping], columns: pa.Schema, **metadata: str) -> None:
    """Write one parquet file. `metadata` (no timestamps, no paths) goes into the file's footer."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=columns)
    with atomic_file(path) as partial:
        table = table.cast(columns).replace_schema_metadata(_with_metadata(columns, metadata).metadata)
        pq.write_table(table, partial, row_group_size=TABLE_ROW_GROUP, **_WRITER)
        seals.seal(partial)


def write_shards(
    folder: Path, rows: Iterable[Mapping], columns: pa.Schema, row_group: int = ROW_GROUP, **metadata: str
) -> int:
    """Stream rows, in the order given, into `part-*.parquet` under `folder`; return their number.

    Memory holds one row group at a time. No rows still give one empty, readable shard. `row_group` (a divisor of
    SHARD_ROWS) is smaller than usual where a single row is large, so that a random read stays cheap.
    """
    with atomic_directory(folder) as partial:
        return write_parts(partial, rows, columns, row_group, 0, metadata)


def write_parts(
    folder: Path,
    rows: Iterable[Mapping],
    columns: pa.Schema,
    row_group: int,
    before: int,
    metadata: Mapping[str, str],
) -> int:
    """Write rows as the shards that follow the first `before` rows (whole shards); return how many there are then.

    A shard appears under its name when it is whole.
    """
    rows, count = iter(rows), before
    while True:
        head = list(islice(rows, row_group))
        if not head and count > 0:
            return count
        with atomic_file(folder / f"part-{count // SHARD_ROWS:05d}.parquet") as partial:
            with pq.ParquetWriter(partial, _with_metadata(columns, metadata), **_WRITER) as writer:
                written = 0
                while head:
                    writer.write_table(pa.Table.from_pylist(head, schema=columns), row_group_size=row_group)
                    written += len(head)
                    head = list(islice(rows, row_group)) if written < SHARD_ROWS else []
            seals.seal(partial)
        count += written
        if written < SHARD_ROWS:
            return count


def parts(folder: Path) -> list[Path]:
    """The shards of a folder, in order. Raises UserError if the stage that writes them has not run, and if one is gone,
    too many or of another size than the folder's list says.
    """
    seals.check_listing(Path(folder))
    found = sorted(Path(folder).glob("part-*.parquet"))
    if not found:
        raise UserError(f"{folder}: no shards here; {graph.how_to_make(folder)}")
    return found


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """What is read of a parquet file within the block; UserError that names the file where it cannot be."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if is_shortage(error):
            raise
        if "No match for FieldRef" in str(error):  # a column that is not there: the caller knows what that means
            raise
        if isinstance(error, OSError) and error.errno is not None:  # the system's, such as a file without permission
            raise
        raise seals.damaged(path, str(error).splitlines()[0]) from None


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A parquet file to read from within the block. Raises UserError if it is damaged."""
    seals.check(path)
    with _undamaged(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        yield file


def iter_rows(folder: Path, columns: Sequence[str] | None = None) -> Iterator[dict]:
    """All rows of a shard folder in order, one row group in memory at a time. Raises UserError for a damaged shard."""
    for path in parts(folder):
        with opened(path) as file:
            for batch in file.iter_batches(batch_size=ROW_GROUP, columns=columns):
                yield from batch.to_pylist()


def read_table(path: Path, columns: Sequence[str] | None = None, filters: list | None = None) -> pa.Table:
    """One parquet file, or all shards of a folder, as a table. `filters` are those of `pyarrow.parquet.read_table`.

    Raises UserError if it is not there or no parquet, KeyError for a column that it does not have.
    """
    if not Path(path).exists():
        raise UserError(f"{path}: not there; {graph.how_to_make(path)}")
    files = parts(path) if Path(path).is_dir() else [Path(path)]
    for one in files:
        seals.check(one)
    with _undamaged(path):
        if filters is not None:
            return pq.read_table(path, columns=columns, filters=filters, page_checksum_verification=True)
        # Not by pyarrow's datasets, which wait for ever where there is no memory for a thread.
        table = pa.concat_tables(
            pq.ParquetFile(one, page_checksum_verification=True).read(columns=columns) for one in files
        )
    return table if columns is None else table.select(columns)


class RandomReader:
    """Rows of a sorted shard folder by `image_id`, one row group decoded per read. UserError for a damaged shard."""

    def __init__(self, folder: Path, columns: Sequence[str] | None = None):
        self._columns = None if columns is None else ["image_id", *columns]
        self._paths, self._files = parts(folder), []
        for path in self._paths:
            seals.check(path)
            with _undamaged(path):
                self._files.append(pq.ParquetFile(path, page_checksum_verification=True))
        self._groups: list[tuple[int, int]] = []
        self._first: list[str] = []  # the smallest image_id of every row group, from the footers alone
        for number, file in enumerate(self._files):
            for group in range(file.metadata.num_row_groups):
                statistics = file.metadata.row_group(group).column(0).statistics
                self._groups.append((number, group))
                self._first.append(statistics.min)

    def __getitem__(self, image_id: str) -> dict:
        """The row of `image_id`. Raises KeyError if there is none."""
        position = bisect_right(self._first, image_id) - 1
        if position < 0:
            raise KeyError(image_id)
        number, group = self._groups[position]
        # A row group is too small to share among threads: starting them takes longer than the read.
        with _undamaged(self._paths[number]):
            table = self._files[number].read_row_group(group, columns=self._columns, use_threads=False)
        ids = table.column("image_id").to_pylist()
        index = bisect_left(ids, image_id)
        if index == len(ids) or ids[index] != image_id:
            raise KeyError(image_id)
        return table.slice(index, 1).to_pylist()[0]
