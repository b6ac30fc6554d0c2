"""Long data stages in parts: each piece is made once, by a part or by the whole, and the bytes are those of one job."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.__main__ import main
from pipeline.core import layout, params, resume, store
from pipeline.stages import distance_maps, keypoints, parsing, pseudo_labels
from tests import tiny_dataset

OUTPUT = {
    "keypoints": layout.keypoints("synthetic"),
    "parsing": layout.parsing("synthetic"),
    "distance_maps": layout.distance_maps("synthetic"),
    "pseudo_labels": layout.pseudo_labels("synthetic", "equation"),
}


def set_params(change):
    values = yaml.safe_load(layout.PARAMS.read_text())
    change(values)
    layout.PARAMS.write_text(yaml.safe_dump(values))
    params.load.cache_clear()


def three_parts(values):
    values["parts"] = [0, 1, 2]
    values["keypoints"]["synthetic"] = {"source": "openpose"}
    values["parsing"]["synthetic"] = {"source": "schp"}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A tiny data set, in pieces of two and shards of four; what the stages were asked to work on."""
    tiny_dataset.write(tmp_path, parsing_source="oracle")
    tiny_dataset.write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    set_params(three_parts)
    asked: list[str] = []

    def find(images):
        asked.extend(f"{image.mean()}" for image in images)
        brightness = np.float32([image.mean() for image in images]) % 30
        return np.broadcast_to(brightness[:, None, None], (len(images), 18, 2)), np.ones((len(images), 18), np.float32)

    def parse(images):
        asked.extend(image["image_id"] for image in images)
        return [np.full((image["height"], image["width"]), int(image["image_id"][3]), np.uint8) for image in images]

    def heard(module, name, which):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: asked.extend(map(repr, given[which])) or real(*given))

    heard(distance_maps, "limb_distance_maps", 0)
    heard(pseudo_labels, "rows", 4)
    monkeypatch.setattr(keypoints, "detector", lambda source: (find, []))
    monkeypatch.setattr(parsing, "parser", lambda *_: parsing.Source(parse, "schp", "lip-20", "lip-20", []))
    for module in (parsing, pseudo_labels):
        monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(store, "SHARD_ROWS", 4)
    monkeypatch.setattr(store, "ROW_GROUP", 2)
    yield asked
    params.load.cache_clear()


def content(path):
    return {file.name: file.read_bytes() for file in (path.iterdir() if path.is_dir() else [path])}


@pytest.fixture
def run(made, monkeypatch):
    def once(stage, *part):
        if stage == "keypoints":
            monkeypatch.setattr(keypoints.resume, "rows", partial(resume_rows, chunk=2))
        options = ["--rule", "equation"] if stage == "pseudo_labels" else []
        return main([stage, "--dataset", "synthetic", *options, *(["--part", *part] if part else [])])

    resume_rows = resume.rows
    return once


@pytest.mark.parametrize("stage", OUTPUT)
def test_three_parts_and_the_whole_are_one_job(made, run, stage):
    output = OUTPUT[stage]
    assert run(stage) == 0
    alone, once = content(output), sorted(made)
    assert len(once) >= 9
    made.clear()
    output.rename(output.with_name("before"))
    shares = []
    for part in "012":
        before = len(made)
        assert run(stage, part) == 0
        assert not output.exists()
        shares.append(len(made) - before)
    assert min(shares) >= 2
    assert sorted(made) == once
    made.clear()
    assert run(stage) == 0
    assert made == []
    assert content(output) == alone
    assert not layout.work(stage, "synthetic", *(["equation"] if stage == "pseudo_labels" else [])).exists()


@pytest.mark.parametrize("stage", ["keypoints", "parsing", "pseudo_labels"])
def test_a_part_of_what_takes_no_time_is_empty(made, run, stage):
    """Published lists, no parsing, stand-ins that nobody needs: the whole makes what there is."""

    def change(values):
        values["keypoints"]["synthetic"] = {"source": "annotations"}
        values["parsing"]["synthetic"] = {"source": "none"}
        values["components"] = dict.fromkeys(values["components"], "auto")
        values["variants"]["spt"] = []

    before = content(OUTPUT[stage])
    set_params(change)
    assert run(stage, "1") == 0
    assert [path.name for path in Path("data/synthetic/parts").rglob("*") if path.is_file()] == ["_SHA256SUMS"]
    assert made == []
    assert content(OUTPUT[stage]) == before


def test_a_part_that_params_do_not_name_is_one_line(made, run, capfd):
    assert run("distance_maps", "3") == 2
    assert capfd.readouterr().err == "repose: unknown part 3; params.yaml names: 0, 1, 2\n"
    set_params(lambda values: values.update(parts=[]))
    assert run("distance_maps", "0") == 2
    assert capfd.readouterr().err == "repose: unknown part 0; params.yaml names: none\n"


def test_parts_are_numbered_from_0_on(made, run, capfd):
    set_params(lambda values: values.update(parts=[1, 2]))
    assert run("distance_maps") == 2
    assert capfd.readouterr().err == "repose: params.yaml: parts is [1, 2]; number them from 0 on: [0, 1]\n"
