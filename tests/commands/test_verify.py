"""`repose verify`: what is damaged, gone or too many is a line with the command that makes it again; exit status 1."""

import json
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.core import digests, layout, params, seals, store
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.schema import IMAGES, KEYPOINTS

IMAGE = {"split": "train", "person_id": "0001", "image": {"bytes": b"x" * 99, "path": "a"}, "height": 8, "width": 4}
ROWS = [{**IMAGE, "image_id": f"{number}.jpg"} for number in range(9)]


@pytest.fixture
def prepared(project, monkeypatch) -> Path:
    """A project with some outputs: shards, a table, raw files, unfinished work, a log, and a page that has no seal."""
    monkeypatch.chdir(project)
    params.load.cache_clear()
    store.write_shards(layout.images("synthetic"), ROWS, IMAGES)
    store.write_table(layout.keypoints("synthetic"), [], KEYPOINTS)
    with atomic_directory(layout.raw("synthetic")) as raw:
        (raw / "source.json").write_text('{"images": {}}')
    work, log = layout.work("train", "synthetic", "spgnet"), layout.metrics_log("train", "synthetic", "spgnet")
    work.mkdir(parents=True)
    log.parent.mkdir(parents=True)
    log.write_text(seals.json_line({"step": 1, "l1": 0.5}))
    with atomic_file(work / "belongs.json") as partial:
        partial.write_text(seals.json_text({"settings": {}}))
    layout.data_card("synthetic").write_text("# For people")
    yield project
    params.load.cache_clear()


def verified(capfd, *arguments: str) -> tuple[int, list[str]]:
    status = main(["verify", *arguments])
    return status, capfd.readouterr().out.splitlines()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_is_whole_is_counted(prepared, capfd):
    assert verified(capfd) == (0, ["6 files, 0.0 MB: 0 damaged, 1 without a seal"])


@pytest.mark.parametrize(
    ("path", "spoil", "line"),
    [
        ("data/synthetic/images/part-00000.parquet", flip, "damaged (its digest is another one); run: repose index"),
        ("data/synthetic/images/part-00000.parquet", Path.unlink, "gone; run: repose index"),
        ("data/synthetic/keypoints.parquet", flip, "damaged (its digest is another one); run: repose keypoints"),
        ("data/synthetic/raw/source.json", flip, "damaged (its digest is another one); run: repose fetch"),
        ("data/synthetic/raw/more.csv", Path.touch, "not in data/synthetic/raw/_SHA256SUMS; run: repose fetch"),
        (".work/train/synthetic/spgnet/belongs.json", flip, "damaged ("),
        ("logs/train/synthetic-spgnet.jsonl", flip, "damaged (1 lines); run: repose train"),
    ],
    ids=["shard", "gone", "table", "raw", "extra", "work", "log"],
)
def test_damage_is_a_line_with_the_command(prepared, capfd, path, spoil, line):
    spoil(Path(path))
    status, lines = verified(capfd, "synthetic")
    assert (status, len(lines)) == (1, 2)
    assert lines[0].startswith(f"{path}: {line}")
    assert " --dataset synthetic" in lines[0]
    assert main(["verify", "--json"]) == 1
    assert [one["file"] for one in json.loads(capfd.readouterr().out)["damaged"]] == [path]


@pytest.mark.parametrize("path", ["data/synthetic/keypoints.parquet", "data/synthetic/raw/source.json"])
def test_a_stage_reads_no_damaged_input(prepared, capfd, path):
    flip(Path(path))
    assert main(["pairs", "--dataset", "synthetic"]) == 2
    assert f"repose: {path}: damaged (its digest is another one); delete it; run: " in capfd.readouterr().err


def test_what_commands_wrote_is_read_too(prepared, capfd):
    for folder in (layout.outside("synthetic", "mine"), layout.study("seen")):
        with atomic_directory(folder) as partial:
            (partial / "results.csv").write_text("method,value\nspig,0.5\n")
        flip(folder / "results.csv")
    with atomic_directory(layout.weights("vgg19")) as partial:
        (partial / "source.json").write_text('{"status": "missing"}')
    flip(layout.weights("vgg19") / "source.json")
    status, (_, *lines) = verified(capfd)
    assert (status, len(lines)) == (1, 3)
    assert lines[0].endswith("; run: repose score --dataset D --images FOLDER --name NAME")
    assert lines[1].endswith("; run: repose study score FOLDER")
    assert len(verified(capfd, "synthetic")[1]) == 2


def test_a_file_that_cannot_be_read_is_a_line_among_others(prepared, capfd, monkeypatch):
    """A failing disk is what it looks for."""
    of_file = digests._of_file

    def failing(path: Path) -> str:
        if path.name == "source.json":
            raise OSError(5, "Input/output error", str(path))
        return of_file(path)

    monkeypatch.setattr(digests, "_of_file", failing)
    flip(Path("data/synthetic/images/part-00000.parquet"))
    status, lines = verified(capfd)
    assert (status, len(lines)) == (1, 3)
    assert "data/synthetic/raw/source.json: damaged (Input/output error); run: repose fetch" in "\n".join(lines)


def test_an_unknown_data_set_is_one_line(prepared, capfd):
    assert main(["verify", "market"]) == 2
    assert capfd.readouterr().err == "repose: unknown data set market; params.yaml names: synthetic\n"
