"""A method's images from the stage that runs it to its row: by name alone they become those of the test pairs."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from models.variants import VARIANTS, Output
from pipeline.__main__ import main
from pipeline.commands import check_method, score_images
from pipeline.core import layout, store
from pipeline.core.errors import UserError
from pipeline.loading import runs
from pipeline.methods import checks
from pipeline.scoring import image_folder
from pipeline.scoring import pairs as scored_pairs
from pipeline.stages import draw, reference, score
from tests.methods.made import write_method
from tests.scored_project import entered, stored_images

pytestmark = pytest.mark.usefixtures("small_inception")


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_inception, bundle):
    with entered(tmp_path_factory.mktemp("project")) as folder:
        reference.run("synthetic")
        score.run("synthetic", "copy_source")
        write_method(folder / "methods/mine", bundle)
        yield folder


def rows(path: Path) -> dict[str, dict]:
    found = [row for row in store.read_table(path).to_pylist() if row["split"] == "test" and row["step"] in (0, 5)]
    return {row["metric"]: row for row in found}


def test_what_a_method_drew_is_scored_as_a_variant_is(project):
    """The dummy copies the source, as copy_source does."""
    draw.run("synthetic", "mine")
    listed = scored_pairs.listed("synthetic", "test", 7).to_pylist()
    names = {f"{Path(row['source_id']).stem}_2_{Path(row['target_id']).stem}_vis.png" for row in listed}
    folder = layout.method_images("synthetic", "mine")
    assert {path.name for path in folder.glob("*.png")} == names
    (folder / ".snakemake_timestamp").touch()  # of one engine alone, and the scores are the same by both
    assert main(["score", "--dataset", "synthetic", "--method", "mine"]) == 0
    mine = layout.outside("synthetic", "mine")
    theirs = rows(layout.scores("synthetic", "copy_source"))
    found = rows(mine / "scores.parquet")
    assert found.keys() == theirs.keys()
    for metric, row in found.items():
        assert [row[key] for key in ("value", "low", "n")] == [theirs[metric][key] for key in ("value", "low", "n")]
    with (mine / "files.csv").open(newline="") as handle:
        assert {row["what"] for row in csv.DictReader(handle)} == {image_folder.COPY}
    said = json.loads((mine / "method.json").read_text())
    assert said["name"] == "Mine"
    assert said["program"]["saw"]["training"] == "nothing"
    assert said["program"]["licence"] == "MIT"
    changed = next(folder.glob("*.png"))
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="damaged"):
        score_images.run("synthetic", method="mine")
    with pytest.raises(UserError, match="give --images FOLDER and --name NAME, or --method alone"):
        score_images.run("synthetic", name="Mine", method="mine")


def test_no_name_of_an_image_reaches_a_method(project):
    """Nor does the order in which their names stand."""
    listed = scored_pairs.listed("synthetic", "test", 7)
    task = draw.task("synthetic", listed)
    pictures = dict(task.pictures())
    assert {pair.source for pair in task.pairs} == {*pictures}
    assert len(task.pairs) == 7
    by_name = {row["image_id"]: row for row in store.read_table(layout.keypoints("synthetic")).to_pylist()}
    for pair, row in zip(task.pairs, listed.to_pylist(), strict=True):
        assert pair.source[0] + pair.target[0] == "st"
        assert checks.pictures.decode(pictures[pair.source]).tobytes() == stored_images([row["source_id"]])[0].tobytes()
        for joints, valid, name in (
            (pair.source_joints, pair.source_valid, row["source_id"]),
            (pair.target_joints, pair.target_valid, row["target_id"]),
        ):
            stored = by_name[name]["keypoints"]
            assert valid.tolist() == [one is not None for one in stored]
            assert joints[valid].tolist() == [one for one in stored if one is not None]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "mine: 1 of 7 pictures are not there, s"),
        ("size", "png: 64 x 33, wanted 64 x 32 (height x width); `repose check-method mine` says more"),
    ],
)
def test_a_picture_that_is_not_as_wanted_leaves_no_output(project, bundle, fault, message):
    write_method(project / "methods/other", bundle, fault, title="Other")
    with pytest.raises(UserError) as error:
        draw.run("synthetic", "other")
    assert message.replace("mine", "other") in str(error.value)
    assert not layout.method_images("synthetic", "other").exists()


# ---- a variant of one's own


def verdicts(generator=None, name: str = "copy_source", **changes) -> dict[str, bool | None]:
    trained = replace(runs.load_run(layout.checkpoints("synthetic", name).parent), **changes)
    trained = replace(trained, generator=generator or trained.generator)
    return {one.check: one.passed for one in check_method.of_variant(trained)}


class Planted(nn.Module):
    def __init__(self, image):
        super().__init__()
        self.image = image

    def forward(self, batch) -> Output:
        return Output(self.image(batch))


def test_a_variant_passes(project, capsys):
    assert main(["check-method", "--variant", "copy_source", "--dataset", "synthetic"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "copy_source: passes all 5"
    assert set(verdicts(name="mean_image").values()) == {True}
    found = verdicts(entry=replace(VARIANTS["copy_source"], given_target_parsing=True))
    assert [name for name, passed in found.items() if passed is False] == ["targets"]
    assert main(["check-method", "--variant", "copy_source"]) == 2
    assert "give a method's NAME, or --variant V --dataset D" in capsys.readouterr().err


def noise(batch):
    return torch.rand_like(batch.source) * 2 - 1


@pytest.mark.parametrize(
    ("image", "check"),
    [
        (noise, "determinism"),
        (lambda batch: batch.source - batch.source.mean(dim=0), "batch"),
        (lambda batch: batch.target * 1.0, "targets"),
        (lambda batch: batch.source if batch.target is None else batch.target, "targets"),
    ],
)  # fmt: skip
def test_a_variants_faults_are_caught_by_name(project, image, check):
    found = verdicts(Planted(image))
    assert [name for name, passed in found.items() if passed is False] == [check]
