"""Every flipped bit of a file of ours is seen by whoever reads it, and so is a file that is gone, new or cut short."""

import json
import os
import subprocess
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import digests, graph, seals, store
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.errors import UserError

COLUMNS = pa.schema([("image_id", pa.string()), ("value", pa.float64()), ("step", pa.int32())])
ROWS = [{"image_id": f"{number:04d}.jpg", "value": number / 7, "step": number} for number in range(40)]


def table(path: Path) -> None:
    store.write_table(path, ROWS, COLUMNS, label_set="lip-20")


def record(path: Path) -> None:
    with atomic_file(path) as partial:
        partial.write_text(seals.json_text({"value": 0.5, "names": ["a", "é"], "inner": {"step": 3}}), encoding="utf-8")


def folder(path: Path) -> None:
    with atomic_directory(path.parent) as partial:
        (partial / path.name).write_text("step,name,value\n1,l1,0.25\n2,l1,0.125\n" * 20)


def read_text(path: Path) -> str:
    seals.check(path)
    return path.read_text()


WRITTEN = {
    "table.parquet": (table, lambda path: store.read_table(path).to_pydict()),
    "record.json": (record, seals.read_json),
    "listed/terms.csv": (folder, read_text),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_flipped_bit_anywhere_is_one_line_or_changes_nothing(tmp_path, monkeypatch, name):
    monkeypatch.setattr(graph, "how_to_make", lambda path: "run: it")  # reads the whole graph for every line
    write, read = WRITTEN[name]
    path = tmp_path / name
    write(path)
    before = read(path)
    whole, said = path.read_bytes(), []
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        digests._known.clear()
        try:
            assert read(path) == before
        except UserError as error:
            said.append(str(error))
    assert len(said) > 100
    assert all(line.startswith(f"{path}: damaged (") and "\n" not in line for line in said)
    path.write_bytes(whole)
    assert read(path) == before


def test_a_sealed_table_is_the_same_for_every_reader(tmp_path):
    table(tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == ROWS
    assert pd.read_parquet(tmp_path / "x.parquet").to_dict("records") == ROWS
    assert pl.read_parquet(tmp_path / "x.parquet").to_dicts() == ROWS
    assert pq.read_schema(tmp_path / "x.parquet").metadata[b"label_set"] == b"lip-20"


def test_a_folder_opens_as_a_whole_where_its_list_lies(tmp_path):
    store.write_shards(tmp_path / "x", ROWS, COLUMNS)
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["_SHA256SUMS", "part-00000.parquet"]
    assert pq.read_table(tmp_path / "x").to_pylist() == ROWS
    assert pd.read_parquet(tmp_path / "x").to_dict("records") == ROWS
    assert pl.read_parquet(tmp_path / "x/part-*.parquet").to_dicts() == ROWS


def test_sha256sum_takes_the_list(tmp_path):
    store.write_shards(tmp_path / "x", ROWS, COLUMNS)
    command = ["sha256sum", "--strict", "-c", seals.LIST]
    found = subprocess.run(command, cwd=tmp_path / "x", capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("part-00000.parquet: OK\n", "")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda part: part.unlink(), "part-00000.parquet: gone; "),
        (lambda part: part.write_bytes(b""), "part-00000.parquet: damaged (0 bytes, of "),
        (
            lambda part: (part.parent / "part-00001.parquet").write_bytes(part.read_bytes()),
            "part-00001.parquet: not in ",
        ),
        (lambda part: (part.parent / seals.LIST).write_text("# 5 by"), "_SHA256SUMS: damaged (it is cut short); "),
    ],
    ids=["gone", "emptied", "extra", "list"],
)
def test_a_shard_that_is_gone_new_or_emptied_is_seen_by_its_reader(tmp_path, spoil, says):
    store.write_shards(tmp_path / "x", ROWS, COLUMNS)
    spoil(tmp_path / "x/part-00000.parquet")
    for read in (store.read_table, store.RandomReader, lambda path: list(store.iter_rows(path)), seals.check_all):
        with pytest.raises(UserError) as caught:
            read(tmp_path / "x")
        assert str(caught.value).startswith(f"{tmp_path / 'x'}/{says}")


def test_what_engines_and_kills_leave_in_a_folder_is_no_file_of_it(tmp_path):
    store.write_shards(tmp_path / "x", ROWS, COLUMNS)
    for name in (".snakemake_timestamp", ".part-00000.parquet.lock", ".part-00000.parquet.host-1.partial"):
        (tmp_path / "x" / name).touch()
    seals.check_all(tmp_path / "x")


def test_the_list_of_a_folder_covers_the_folders_in_it(tmp_path):
    with atomic_directory(tmp_path / "x") as partial:
        (partial / "y").mkdir()
        (partial / "y/terms.csv").write_text("l1,0.25")
    seals.check(tmp_path / "x/y/terms.csv")
    (tmp_path / "x/y/terms.csv").write_text("l1,0.75")
    for check, path in ((seals.check, "x/y/terms.csv"), (seals.check_all, "x")):
        with pytest.raises(UserError, match=r"x/y/terms\.csv: damaged"):
            check(tmp_path / path)


def test_what_was_never_sealed_is_read_with_a_word(tmp_path, capfd):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    assert store.read_table(tmp_path / "x.parquet").to_pylist() == ROWS
    assert store.read_table(tmp_path / "x.parquet").to_pylist() == ROWS
    said = capfd.readouterr().err.splitlines()
    assert said == [f"{tmp_path}: written before files were sealed, or elsewhere; read as it is"]


def test_a_line_of_a_log_is_what_was_written_or_nothing():
    line = seals.json_line({"step": 3, "l1": 0.1 + 0.2})
    assert seals.read_line(line) == {"step": 3, "l1": 0.1 + 0.2}
    assert json.loads(line)["step"] == 3
    for place in range(len(line) - 1):
        damaged = line[:place] + chr(ord(line[place]) ^ 1) + line[place + 1 :]
        assert seals.read_line(damaged) in (None, {"step": 3, "l1": 0.1 + 0.2})
    assert seals.read_line(line[:-1]) is None


def test_a_file_is_read_in_full_once(tmp_path, monkeypatch):
    table(tmp_path / "x.parquet")
    os.utime(tmp_path / "x.parquet", (1e9, 1e9))
    calls = []
    monkeypatch.setattr(seals, "_own_fault", lambda path: calls.append(1) or "")
    for _ in range(3):
        store.read_table(tmp_path / "x.parquet")
    assert len(calls) == 1


def test_a_log_of_an_earlier_version_is_unsealed_not_damaged(tmp_path):
    path, sealed = tmp_path / "log.jsonl", seals.json_line({"step": 2, "l1": 0.25})
    for text, found in (
        ('{"step": 1, "l1": 0.5}\n{"step": 2, "l1": NaN}\n', None),
        (sealed, ""),
        (sealed.replace('"seal"', '"seam"'), "1 lines"),
        (sealed.replace(": 2", ": 3"), "1 lines"),
        (sealed + "\0" * 40, "1 lines"),
    ):
        path.write_text(text)
        assert seals.fault(path) == found
