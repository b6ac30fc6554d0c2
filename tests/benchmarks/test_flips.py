"""The count of flipped bits, on a small project: of no kind of file is one silent, and a reader that checks nothing is
found out.
"""

import random
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import flips
from models.variants import COMPONENTS
from pipeline.core import digests, graph, layout, params, seals, store
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.schema import REJECTS
from pipeline.loading import checkpoints
from pipeline.training import states

META = {"kind": "component", "name": "detector", "height": 64, "width": 32, "settings": {"width": 0.25}}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """What `flips.kinds` finds in a project with a file of every kind, but for the statistics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("flips"))
        patch.setattr(graph, "how_to_make", lambda path: "run: it")
        params.load.cache_clear()
        rejects = [{"image_id": f"{number}.jpg", "split": "train", "reason": "cut short"} for number in range(50)]
        store.write_table(layout.rejects("synthetic"), rejects, REJECTS)
        store.write_shards(layout.images("synthetic"), rejects, REJECTS)
        with atomic_directory(layout.raw("synthetic")) as raw:
            with zipfile.ZipFile(raw / "images.zip", "w") as archive:
                archive.writestr("0.jpg", b"a picture" * 30)
            (raw / "annotation-train.csv").write_text("name:keypoints_y:keypoints_x\n" * 9)
            (raw / "source.json").write_text('{"images": {"train": {"count": 1}}}')
        work = layout.work("pretrain", "synthetic", "detector")
        network = COMPONENTS["detector"].build(64, 32, 0.25)
        checkpoints.save(work / "checkpoints", 3, network)
        checkpoints.publish(work / "checkpoints", [3], META, layout.checkpoints("synthetic", "detector"))
        with atomic_file(work / "state.pt") as partial:
            torch.save({name: torch.arange(9.0) for name in states.PARTS}, partial)
            seals.seal(partial)
        log = layout.metrics_log("pretrain", "synthetic", "detector")
        log.parent.mkdir(parents=True)
        log.write_text("".join(seals.json_line({"step": step, "l1": step / 7}) for step in range(1, 9)))
        yield {name: kind for name, kind in flips.kinds("synthetic").items() if kind.files}


NAMES = ("Parquet", "checkpoints (safetensors)", "state.pt", "JSON", "JSONL", "zip", "CSV")


@pytest.mark.parametrize("name", NAMES)
def test_no_flip_is_silent(kinds, name):
    assert set(kinds) == set(NAMES)
    found = flips.count(kinds[name], 24, random.Random(0))
    assert found.total() == 24
    assert (found["silent"], found["crashed"]) == (0, 0)
    assert found["seen"] > 12


def test_a_reader_that_checks_nothing_is_found_out(kinds):
    careless = kinds["CSV"]._replace(read=Path.read_bytes)
    assert flips.count(careless, 8, random.Random(0)) == {"silent": 8}


def test_the_cost_is_that_of_every_input_once_and_every_output_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = []
    monkeypatch.setattr(digests, "sha256", lambda path: read.append(str(path)))
    made = [
        SimpleNamespace(inputs=("pipeline", *inputs), outputs=(name,), log=Path(f"{name}.log"))
        for name, inputs in (("a", ()), ("b", ("a",)), ("c", ("b",)))
    ]
    monkeypatch.setattr(graph, "jobs", lambda values: made)
    monkeypatch.setattr(params, "load", dict)
    for name, text in (("a", "wall 2.5 s\n"), ("b", "failed: killed\n"), ("c", "10 pairs\nwall 4 s\n")):
        Path(name).touch()
        Path(f"{name}.log").write_text(text)
    assert [took for _, took, _ in flips.costs()] == [2.5, 4.0]
    assert read == ["a", "a", "a", "b", "b", "b", "c", "c"]
