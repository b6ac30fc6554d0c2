import json
import os
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import resume, seals, store
from tests.conftest import ROOT

COLUMNS = pa.schema([("item", pa.int64()), ("square", pa.int64())])


def squares(seen, stop_at=None):
    def compute(some):
        if stop_at is not None and stop_at in some:
            raise KeyboardInterrupt
        seen.extend(some)
        return [{"item": item, "square": item * item} for item in some]

    return compute


def run(work, seen, stop_at=None, made_from="a", items=range(10)):
    place = work if isinstance(work, resume.Place) else resume.Place(work)
    return list(resume.rows(place, made_from, items, squares(seen, stop_at), COLUMNS, "squares", chunk=3))


def test_rows_come_in_order_and_once(tmp_path):
    seen = []
    rows = run(tmp_path / "work", seen)
    assert rows == [{"item": item, "square": item * item} for item in range(10)]
    assert seen == list(range(10))


def test_after_an_interruption_only_the_rest_is_computed(tmp_path):
    first, second = [], []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "work", first, stop_at=7)
    rows = run(tmp_path / "work", second)
    assert first == list(range(6))
    assert second == [6, 7, 8, 9]
    assert [row["item"] for row in rows] == list(range(10))


def test_work_made_from_something_else_is_not_taken(tmp_path):
    run(tmp_path / "work", [])
    for changed in ({"made_from": "b"}, {"items": range(9)}):
        seen = []
        run(tmp_path / "work", seen, **changed)
        assert seen == list(changed.get("items", range(10)))


def test_finished_removes_the_chunks(tmp_path):
    run(tmp_path / "work", [])
    resume.finished(resume.Place(tmp_path / "work"))
    assert not (tmp_path / "work").exists()
    resume.finished(resume.Place(tmp_path / "work"))


def test_the_stamp_is_of_bytes_and_values_not_of_names_or_times(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub/file").write_bytes(b"bytes")
    os.utime(other / "sub/file", (0, 0))
    (other / ".snakemake_timestamp").touch()
    assert resume.stamp({}, one, {"batch": 1}) == resume.stamp({}, other, {"batch": 1})
    assert resume.stamp({}, one, {"batch": 2}) != resume.stamp({}, one, {"batch": 1})
    assert resume.stamp({}, one / "sub/file") != resume.stamp({}, b"".decode())
    (other / "sub/file").write_bytes(b"bytez")
    assert resume.stamp({}, one, {"batch": 1}) != resume.stamp({}, other, {"batch": 1})


SHARD = 4


def shards(folder, work, made_from="a", fail_at=None, total=10):
    asked = []

    def rows_between(first, stop):
        asked.append(first)
        for item in range(first, total if stop is None else min(stop, total)):
            if item == fail_at:
                raise KeyboardInterrupt
            yield {"item": item, "square": item * item}

    place = work if isinstance(work, resume.Place) else resume.Place(work)
    count = resume.shards(folder, place, made_from, rows_between, COLUMNS, row_group=2, kind="squares")
    return count, asked


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(store, "SHARD_ROWS", SHARD)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != seals.LIST}


@pytest.mark.parametrize(("fail_at", "kept"), [(1, 0), (3, 0), (4, 4), (9, 8)])
def test_finished_shards_survive_an_interruption(tmp_path, small_shards, fail_at, kept):
    folder, work = tmp_path / "folder", tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        shards(folder, work, fail_at=fail_at)
    assert not folder.exists()
    assert shards(folder, work) == (10, [kept])
    assert not work.exists()
    rows = ({"item": item, "square": item * item} for item in range(10))
    store.write_shards(tmp_path / "plain", rows, COLUMNS, row_group=2, kind="squares")
    assert content(folder) == content(tmp_path / "plain")
    assert sorted(content(folder)) == [f"part-0000{number}.parquet" for number in range(3)]


def test_a_kill_while_the_shards_move_into_place_loses_none(tmp_path, small_shards, monkeypatch):
    folder, work = tmp_path / "folder", tmp_path / "work"
    original = resume.link

    def once(path, destination):
        original(path, destination)
        raise KeyboardInterrupt

    monkeypatch.setattr(resume, "link", once)
    with pytest.raises(KeyboardInterrupt):
        shards(folder, work)
    monkeypatch.setattr(resume, "link", original)
    assert shards(folder, work) == (10, [10])
    assert [row["item"] for row in store.iter_rows(folder)] == list(range(10))


def test_no_rows_are_one_empty_shard(tmp_path, small_shards):
    assert shards(tmp_path / "folder", tmp_path / "work", total=0) == (0, [0])
    assert list(store.iter_rows(tmp_path / "folder")) == []


def test_shards_of_something_else_and_half_removed_ones_are_not_taken(tmp_path, small_shards):
    work = tmp_path / "work"
    for spoil in (lambda: None, (work / "made_from.json").unlink):
        with pytest.raises(KeyboardInterrupt):
            shards(tmp_path / "folder", work, fail_at=9)
        spoil()
        assert shards(tmp_path / "folder", work, made_from="b") == (10, [0])


SCRIPT = """
import json, sys
from pathlib import Path
import pyarrow as pa
from pipeline.core import resume
columns = pa.schema([("item", pa.int64())])
def compute(some):
    print(json.dumps(list(some)), flush=True)
    if sys.argv[2] == "wait" and 6 in some:
        sys.stdin.readline()
    return [{"item": item} for item in some]
rows = resume.rows(resume.Place(Path(sys.argv[1])), "a", range(9), compute, columns, "x", chunk=3)
print(json.dumps([row["item"] for row in rows]))
"""


def test_a_killed_process_loses_its_chunk_only(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "work")]
    with subprocess.Popen([*command, "wait"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        begun = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGKILL)
    assert begun == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    again = subprocess.run([*command, "go"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [json.loads(line) for line in again] == [[6, 7, 8], list(range(9))]


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def overwrite(path):
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def unsealed(path):
    pq.write_table(pq.read_table(path), path)


@pytest.mark.parametrize("damage", [cut, overwrite, empty, unsealed])
def test_a_damaged_chunk_is_made_again_with_a_line(tmp_path, damage, capfd):
    work, seen = tmp_path / "work", []
    expected = run(work, [])
    damage(work / "chunk-000001.parquet")
    assert run(work, seen) == expected
    assert seen == [3, 4, 5]
    assert "chunk-000001.parquet: damaged (" in capfd.readouterr().err.replace("\n", "")
    assert run(work, []) == expected


@pytest.mark.parametrize("damage", [cut, overwrite, empty, lambda path: path.unlink()])
def test_shards_from_the_first_damaged_one_on_are_made_again(tmp_path, small_shards, damage):
    folder, work = tmp_path / "folder", tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        shards(folder, work, fail_at=13, total=16)
    damage(work / "part-00001.parquet")
    assert shards(folder, work, total=16) == (16, [4])
    assert [row["item"] for row in store.iter_rows(folder)] == list(range(16))
    assert shards(tmp_path / "plain", work, total=16) == (16, [0])
    assert content(folder) == content(tmp_path / "plain")


@pytest.mark.parametrize("error", [pa.ArrowMemoryError("malloc of size 9 failed"), OSError(24, "Too many open files")])
def test_a_shortage_costs_no_piece(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    expected, seen = run(tmp_path / "work", []), []
    with monkeypatch.context() as patch:
        patch.setattr(resume.pq, "ParquetFile", fail)
        with pytest.raises(type(error)):
            run(tmp_path / "work", [])
    assert run(tmp_path / "work", seen) == expected
    assert seen == []


@pytest.mark.parametrize("record", [b"{", b"\xff", b"null", b""])
def test_a_damaged_record_of_what_pieces_were_made_from_stops_nothing(tmp_path, record):
    work, seen = tmp_path / "work", []
    run(work, [])
    (work / "made_from.json").write_bytes(record)
    run(work, seen)
    assert seen == list(range(10))


# ---- in parts


def parts_of(folder, number):
    """The places of a work's parts, and that of the job that takes them over."""
    parts = [resume.Place(folder / f"work/{part}", folder / "parts", part, number) for part in range(number)]
    return parts, resume.Place(folder / "work", folder / "parts")


def made(folder):
    return {path.name for path in folder.iterdir()} - {seals.LIST, "made_from.json"}


def test_parts_make_all_chunks_once_and_the_whole_takes_them_over(tmp_path, capfd):
    parts, whole = parts_of(tmp_path, 3)
    seen = [[], [], []]
    for place, its in zip(parts, seen, strict=True):
        rows = run(place, its)
        assert [row["item"] for row in rows] == its
        resume.publish(place, len(rows))
        assert not place.work.exists()
    assert seen == [[0, 1, 2, 9], [3, 4, 5], [6, 7, 8]]
    assert made(tmp_path / "parts/0") == {"chunk-000000.parquet", "chunk-000003.parquet"}
    assert f"part 2 of 3: 3 rows in {tmp_path}/parts/2" in capfd.readouterr().err.replace("\n", "")
    again = []
    assert run(whole, again) == run(tmp_path / "alone", [])
    assert again == []
    assert f"4 pieces taken over from {tmp_path}/parts" in capfd.readouterr().err.replace("\n", "")


def test_what_a_part_did_not_make_or_made_from_something_else_is_made(tmp_path):
    """One was never run, one has a damaged piece, one is of other images."""
    parts, whole = parts_of(tmp_path, 4)
    for place, made_from in zip(parts[:3], "aab", strict=True):
        resume.publish(place, len(run(place, [], made_from=made_from)))
    overwrite(tmp_path / "parts/1/chunk-000001.parquet")
    seen = []
    assert run(whole, seen) == run(tmp_path / "alone", [])
    assert seen == [3, 4, 5, 6, 7, 8, 9]
    resume.finished(whole)
    assert made(tmp_path / "parts/0") == {"chunk-000000.parquet"}  # still the part's own


def test_a_part_that_was_stopped_goes_on(tmp_path):
    place = parts_of(tmp_path, 2)[0][0]
    first, second = [], []
    with pytest.raises(KeyboardInterrupt):
        run(place, first, stop_at=8)
    assert not (tmp_path / "parts").exists()
    run(place, second)
    assert (first, second) == ([0, 1, 2], [6, 7, 8])


def test_a_part_stopped_when_there_were_more_leaves_nothing_of_others(tmp_path):
    before = parts_of(tmp_path, 3)[0][0]
    run(before, [], items=range(16))  # has 0 and 3, and was stopped before it published them
    seen, parts = [], parts_of(tmp_path, 2)[0]
    for place in parts:
        resume.publish(place, len(run(place, seen, items=range(16))))
    assert seen == [6, 7, 8, 12, 13, 14, 3, 4, 5, 9, 10, 11, 15]
    assert [len(made(place.parts / str(place.part))) for place in parts] == [3, 3]


def test_a_part_without_work_is_an_empty_folder(tmp_path):
    """Also where a stopped run with other settings has left pieces."""
    parts, whole = parts_of(tmp_path, 2)
    with pytest.raises(KeyboardInterrupt):
        run(parts[1], [], stop_at=9)
    resume.publish(parts[1], 0)
    assert [path.name for path in (tmp_path / "parts/1").iterdir()] == [seals.LIST]
    assert not parts[1].work.exists()
    seen = []
    run(whole, seen)
    assert seen == list(range(10))


@pytest.mark.parametrize("total", [0, 3, 4, 10, 12])
def test_parts_make_whole_shards_of_the_same_bytes(tmp_path, small_shards, total):
    parts, whole = parts_of(tmp_path, 2)
    counts = [shards(tmp_path / "never", place, total=total) for place in parts]
    assert sum(count for count, _ in counts) == total
    assert all(first % (2 * SHARD) == SHARD * number for number, (_, asked) in enumerate(counts) for first in asked)
    assert not (tmp_path / "never").exists()
    assert shards(tmp_path / "folder", whole, total=total) == (total, [total])
    shards(tmp_path / "alone", tmp_path / "other", total=total)
    assert content(tmp_path / "folder") == content(tmp_path / "alone")


def test_a_part_keeps_the_shards_that_it_has_finished(tmp_path, small_shards):
    place = parts_of(tmp_path, 2)[0][0]
    with pytest.raises(KeyboardInterrupt):
        shards(tmp_path, place, fail_at=9)
    assert shards(tmp_path, place) == (6, [8])
    assert made(tmp_path / "parts/0") == {"part-00000.parquet", "part-00002.parquet"}
