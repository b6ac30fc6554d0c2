from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.anatomy import pose
from pipeline.core import schema, store
from pipeline.core.errors import UserError
from tests.small_project import contents

COLUMNS = pa.schema([("image_id", pa.string()), ("value", pa.int32()), ("image", schema.IMAGE)])


def rows(count: int):
    for i in range(count):
        image_id = f"{i:06d}.jpg"
        yield {"image_id": image_id, "value": i, "image": {"bytes": bytes([i % 256]) * (i % 50), "path": image_id}}


@pytest.mark.parametrize(
    "count", [0, 1, 63, 64, 65, store.SHARD_ROWS - 1, store.SHARD_ROWS, store.SHARD_ROWS + 1, 5000]
)
def test_every_row_comes_back_in_order(tmp_path, count):
    assert store.write_shards(tmp_path / "x", rows(count), COLUMNS) == count
    assert list(store.iter_rows(tmp_path / "x")) == list(rows(count))
    files = store.parts(tmp_path / "x")
    assert len(files) == max(1, -(-count // store.SHARD_ROWS))
    assert len(store.read_table(tmp_path / "x", columns=["value"])) == count


def test_columns_come_as_they_were_asked_for_or_not_at_all(tmp_path):
    store.write_shards(tmp_path / "x", rows(3), COLUMNS)
    asked = COLUMNS.names[::-1]
    assert store.read_table(tmp_path / "x", columns=asked).column_names == asked
    with pytest.raises(KeyError, match="none"):
        store.read_table(tmp_path / "x", columns=["none"])


@pytest.mark.parametrize("row_group", [2, 64])
def test_row_groups_are_small(tmp_path, row_group):
    store.write_shards(tmp_path / "x", rows(300), COLUMNS, row_group)
    metadata = pq.read_metadata(tmp_path / "x/part-00000.parquet")
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sizes == [row_group] * (300 // row_group) + ([300 % row_group] if 300 % row_group else [])
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert metadata.row_group(0).column(0).has_offset_index


def test_same_rows_same_bytes(tmp_path):
    for name in "ab":
        store.write_shards(tmp_path / name, rows(3000), COLUMNS, dataset="d")
        store.write_table(tmp_path / f"{name}.parquet", list(rows(100)), COLUMNS, dataset="d")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_interrupted_writing_leaves_what_was_there(tmp_path, error):
    store.write_shards(tmp_path / "x", rows(100), COLUMNS)
    before = contents(tmp_path)

    def cut():
        yield from rows(3000)
        raise error

    for folder in ("x", "new"):
        with pytest.raises(error):
            store.write_shards(tmp_path / folder, cut(), COLUMNS)
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]


def test_shorter_rewrite_leaves_no_old_shard(tmp_path):
    store.write_shards(tmp_path / "x", rows(5000), COLUMNS)
    store.write_shards(tmp_path / "x", rows(10), COLUMNS)
    assert list(store.iter_rows(tmp_path / "x")) == list(rows(10))


@pytest.mark.parametrize("row_group", [2, 64])
def test_random_reader(tmp_path, row_group):
    store.write_shards(tmp_path / "x", rows(4500), COLUMNS, row_group)
    everything = list(rows(4500))
    reader = store.RandomReader(tmp_path / "x")
    only = store.RandomReader(tmp_path / "x", ["value"])
    edges = [0, 1, 63, 64, 65, 2047, 2048, 2049, 4095, 4096, 4499]
    for i in [*edges, *np.random.default_rng(0).integers(0, 4500, 50)]:
        assert reader[f"{i:06d}.jpg"] == everything[i]
        assert only[f"{i:06d}.jpg"] == {"image_id": f"{i:06d}.jpg", "value": i}
    for missing in ("", "000010.jph", "999999.jpg", "-1"):
        with pytest.raises(KeyError):
            reader[missing]


def test_random_reader_of_no_rows(tmp_path):
    store.write_shards(tmp_path / "x", [], COLUMNS)
    with pytest.raises(KeyError):
        store.RandomReader(tmp_path / "x")["a"]


def test_metadata_and_hugging_face_features(tmp_path):
    store.write_shards(tmp_path / "x", [], schema.PARSING, parsing_source="none")
    metadata = pq.read_schema(tmp_path / "x/part-00000.parquet").metadata
    assert metadata[b"parsing_source"] == b"none"
    assert b'"parsing": {"_type": "Image"}' in metadata[b"huggingface"]


def test_pandas_reads_the_folder(tmp_path):
    store.write_shards(tmp_path / "x", rows(100), COLUMNS)
    frame = pd.read_parquet(tmp_path / "x")
    assert frame["value"].tolist() == list(range(100))
    assert frame["image"][7]["bytes"] == b"\7" * 7


def test_what_is_not_there_names_itself(tmp_path):
    for read in (store.read_table, store.parts, store.RandomReader):
        with pytest.raises(UserError, match="none"):
            read(tmp_path / "none")


def test_joints_round_trip_through_parquet(tmp_path):
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(200, 18, 2)).astype(np.float32)
    valid = rng.random((200, 18)) < 0.7
    valid[3] = False
    columns = pa.schema([("keypoints", schema.POINTS)])
    store.write_table(tmp_path / "x.parquet", pa.table({"keypoints": pose.to_column(joints, valid)}), columns)
    column = store.read_table(tmp_path / "x.parquet").column("keypoints")
    assert column.type == schema.POINTS
    for read, seen in (
        pose.batch_arrays(column),
        map(np.stack, zip(*map(pose.to_array, column.to_pylist()), strict=True)),
    ):
        np.testing.assert_array_equal(seen, valid)
        np.testing.assert_array_equal(read, np.where(valid[:, :, None], joints, 0))
    half, half_valid = pose.batch_arrays(column.slice(50, 100))  # a slice starts at its own first row
    np.testing.assert_array_equal(half_valid, valid[50:150])
    np.testing.assert_array_equal(half, np.where(valid[50:150, :, None], joints[50:150], 0))


def test_a_damaged_file_is_one_line(tmp_path):
    store.write_table(tmp_path / "x.parquet", list(rows(3)), COLUMNS)
    for damaged in (b"", b"garbage", (tmp_path / "x.parquet").read_bytes()[:-20]):
        (tmp_path / "x.parquet").write_bytes(damaged)
        with pytest.raises(UserError, match=r"x\.parquet: damaged \(.*\);( delete it;)? no stage writes it") as caught:
            store.read_table(tmp_path / "x.parquet")
        assert "\n" not in str(caught.value)


def test_a_shortage_is_no_damage(tmp_path, monkeypatch):
    """The line would say to delete a file that is whole."""
    store.write_table(tmp_path / "x.parquet", list(rows(3)), COLUMNS)
    shortages = (pa.ArrowMemoryError("malloc of size 128 failed"), OSError(24, "Too many open files"))
    for error in (*shortages, OSError("Unknown error: Failed to launch worker thread")):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(store.pq, "ParquetFile", fail)
        with pytest.raises(type(error)) as caught:
            store.read_table(tmp_path / "x.parquet")
        assert caught.value is error


def test_a_damaged_shard_is_one_line(tmp_path):
    """Cut off, empty or with another byte in its data: whoever reads it row by row is told which file it is."""
    store.write_shards(tmp_path / "x", rows(3000), COLUMNS)
    path = tmp_path / "x/part-00001.parquet"
    whole = path.read_bytes()
    middle = len(whole) // 3

    def list_rows(folder: Path) -> None:
        list(store.iter_rows(folder))

    def read_each(folder: Path) -> None:
        reader = store.RandomReader(folder)
        for i in range(2048, 3000):
            reader[f"{i:06d}.jpg"]

    for damaged in (b"", whole[:-20], whole[:middle] + bytes(64) + whole[middle + 64 :]):
        path.write_bytes(damaged)
        for read in (list_rows, read_each):
            with pytest.raises(
                UserError, match=r"part-00001\.parquet: damaged \(.*\);( delete it;)? no stage writes it"
            ) as caught:
                read(tmp_path / "x")
            assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    assert list(store.iter_rows(tmp_path / "x")) == list(rows(3000))
