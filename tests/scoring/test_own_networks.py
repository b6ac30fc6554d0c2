"""A network of the user's from params.yaml to the rows of scores, on the small drawn data set."""

import hashlib
import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.commands import score_images
from pipeline.core import graph, layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.metrics import METRICS
from pipeline.metrics.fid import frechet_distance, statistics_of
from pipeline.metrics.own_network import OwnNetwork, Settings, cosine
from pipeline.metrics.pckh import Joints
from pipeline.planning import faults
from pipeline.scoring import protocol
from pipeline.stages import reference, score
from pipeline.tables import inputs
from pipeline.tables.paired import differences
from tests.metrics.test_own_network import SIZE, write_network
from tests.scored_project import CPU, entered, stored_images, true_joints

AWAY = "test-01.jpg"  # its nose is not known: no face


def networks() -> dict[str, dict]:
    """Two names of one file: the whole picture, and the face by another kernel."""
    digest = hashlib.sha256((layout.PARAMS.parent / "net.onnx").read_bytes()).hexdigest()
    shared = {"file": "net.onnx", "sha256": digest, "size": [*SIZE], "mean": [0.5] * 3, "std": [0.5, 0.5, 1]}
    return {"colours": shared, "face": shared | {"crop": "face", "kernel": "gaussian"}}


def ask_for(own: dict[str, dict], **more) -> None:
    values = yaml.safe_load(layout.PARAMS.read_text())
    values["reference"]["synthetic"] |= {"networks": own, "missing_weights": "skip", "test_pairs": None, **more}
    values["datasets"] = ["synthetic"]
    values["variants"] = {"floors": ["copy_source", "mean_image"]}
    layout.PARAMS.write_text(yaml.safe_dump(values))
    params.load.cache_clear()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project with both floors scored; tests that change it change a copy."""
    with entered(tmp_path_factory.mktemp("project")) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "code_of", lambda *job: "the code as it is")
        write_network(folder / "net.onnx")
        rows = store.read_table(layout.keypoints("synthetic")).to_pylist()
        for row in rows:
            if row["image_id"] == AWAY:
                row["keypoints"][0], row["keypoint_scores"][0] = None, 0
        store.write_table(layout.keypoints("synthetic"), rows, schema.KEYPOINTS)
        ask_for(networks())
        reference.run("synthetic")
        for variant in ("copy_source", "mean_image"):
            score.run("synthetic", variant)
        yield folder


def found(split: str = "test", variant: str = "copy_source") -> dict[str, dict]:
    rows = store.read_table(layout.scores("synthetic", variant)).to_pylist()
    step = max(row["step"] for row in rows)
    return {row["metric"]: row for row in rows if (row["split"], row["step"]) == (split, step)}


def test_every_number_is_that_of_its_definition(project):
    listed = store.read_table(layout.pairs("synthetic"), filters=[("split", "=", "test")]).to_pylist()
    sources, targets = ([row[end] for row in listed] for end in ("source_id", "target_id"))
    known = {name: true_joints([name])[stored_images([name])[0].tobytes()] for name in {*sources, *targets}}

    def vectors(name: str, shown: list[str], cropped: list[str]) -> np.ndarray:
        pose = Joints(*(np.stack([known[one][part] for one in cropped]) for part in (0, 1)))
        return OwnNetwork(name, Settings(**networks()[name]))(stored_images(shown), pose)

    scores = found()
    for name in ("colours", "face"):
        generated = vectors(name, sources, targets)  # copies of the sources, looked at where the target's joints are
        source, target = vectors(name, sources, sources), vectors(name, targets, targets)
        there = np.isfinite(target[:, 0])
        assert there.all() == (name == "colours")
        distance = frechet_distance(statistics_of(generated[there]), statistics_of(target[there]))
        row = scores[f"frechet-{name}"]
        assert row["value"] == pytest.approx(distance, rel=1e-6)
        assert row["low"] <= row["value"] <= row["high"]
        assert (row["n"], row["excluded"]) == (there.sum(), (~there).sum())
        assert row["ceiling"] is None
        row = scores[f"cosine-target-{name}"]
        assert row["value"] == pytest.approx(np.nanmean(cosine(generated, target)))
        assert (row["n"], row["excluded"]) == (there.sum(), (~there).sum())
        row = scores[f"cosine-source-{name}"]
        assert row["value"] == pytest.approx(np.nanmean(cosine(generated, source)))
        assert row["ceiling"] == pytest.approx(np.nanmean(cosine(target, source)))
        assert scores[f"kid-{name}"]["n"] == there.sum()
    digest = networks()["face"]["sha256"][:12]
    assert (
        scores["kid-face"]["protocol"] == f"kernel distance, test targets, gaussian kernel, by {digest}, face at 16x24"
    )
    assert scores["cosine-target-colours"]["protocol"] == f"cosine to the target, by {digest}, whole image at 16x24"
    assert {name for name in found("val") if name.endswith(("colours", "face"))} == {
        f"cosine-{end}-{name}" for end in ("target", "source") for name in networks()
    }


def test_methods_are_compared_on_the_pairs_that_have_a_face(project, monkeypatch):
    monkeypatch.setattr(inputs, "starts", lambda trained: [])  # floors here are no trainings
    runs = inputs.read_runs({"metric": "ssim", "split": "val"})
    apart = {one.metric: one for one in differences(combinations(runs.values(), 2), 200, 0)}
    for metric in ("frechet-face", "kid-face", "cosine-target-face"):
        assert apart[metric].n == found()[metric]["n"] < apart["ssim"].n
        both = [found(variant=variant)[metric]["value"] for variant in ("copy_source", "mean_image")]
        assert apart[metric].difference == pytest.approx(both[0] - both[1], abs=1e-9 * max(map(abs, both)))


def test_the_reference_knows_the_file_by_its_digest_and_not_by_its_place(project, copied):
    before = protocol.read("synthetic")
    assert "net.onnx" not in json.dumps(before.described)
    shutil.move("net.onnx", "elsewhere.onnx")
    assert [line for line in faults.faults(params.load()) if "net.onnx" in line] == [
        f"net.onnx: no such file; correct reference.synthetic.networks.{name}.file in params.yaml"
        for name in ("colours", "face")
    ]
    moved = {name: block | {"file": "elsewhere.onnx"} for name, block in graph_params()["networks"].items()}
    ask_for(moved)
    shutil.rmtree(layout.reference("synthetic"))
    reference.run("synthetic")
    assert protocol.read("synthetic").sha256 == before.sha256


def graph_params() -> dict:
    """What both engines hold an output of the stage to."""
    return graph.find("reference", "synthetic").deciding["reference.synthetic"]


def test_another_file_is_another_reference(project, copied):
    before, asked = protocol.read("synthetic"), graph_params()
    write_network(layout.PARAMS.parent / "net.onnx", shape=(1, 3, *SIZE))
    with pytest.raises(UserError, match=r"its digest is [0-9a-f]+; give the right file"):
        protocol.open_protocol("synthetic", CPU)
    ask_for(networks())
    assert graph_params() != asked
    with pytest.raises(UserError, match="colours is another than the reference was made with; run: repose reference"):
        protocol.open_protocol("synthetic", CPU)
    reference.run("synthetic")
    assert protocol.read("synthetic").sha256 != before.sha256


def test_scores_of_another_version_are_left_out_and_named(project, copied, tmp_path, monkeypatch):
    made(tmp_path / "made")
    score_images.run("synthetic", tmp_path / "made", "mine")
    assert {row["version"] for row in found().values()} == {1}
    monkeypatch.setitem(METRICS, "ssim", replace(METRICS["ssim"], version=2))
    with pytest.raises(UserError, match="by another version of ssim; run: repose reference --dataset synthetic"):
        score.run("synthetic", "copy_source")
    reference.run("synthetic")
    left_out = inputs.outdated()
    assert left_out["synthetic", "copy_source"] == "run: repose score --dataset synthetic --variant copy_source"
    assert left_out["synthetic", "mine"].startswith("(other version of ssim); run: repose score --dataset synthetic")
    score.run("synthetic", "copy_source")
    assert ("synthetic", "copy_source") not in inputs.outdated()
    assert {name: row["version"] for name, row in found().items() if row["version"] > 1} == {"ssim": 2}


def test_a_reference_of_another_form_is_refused_and_one_without_versions_is_of_the_first(project, monkeypatch):
    assert protocol._other({}, {"old": 1, "new": 2}) == ["new"]
    monkeypatch.setitem(protocol.FORMS, "pose-mask", 2)
    with pytest.raises(UserError, match="by another version of pose-mask; run: repose reference --dataset synthetic"):
        protocol.read("synthetic")


def made(folder: Path) -> list[dict]:
    """The first five pairs, and a perfect picture of each."""
    listed = store.read_table(layout.pairs("synthetic"), filters=[("split", "=", "test")]).to_pylist()[:5]
    folder.mkdir()
    for row in listed:
        picture = Image.fromarray(stored_images([row["target_id"]])[0])
        picture.save(folder / f"{row['source_id']}_{row['target_id']}.png")
    return listed


def test_a_partial_set_is_held_to_its_own_targets(project, copied, tmp_path):
    listed = made(tmp_path / "made")
    score_images.run("synthetic", tmp_path / "made", "perfect")
    rows = store.read_table(layout.outside("synthetic", "perfect") / "scores.parquet").to_pylist()
    values = {row["metric"]: row for row in rows}
    assert values["frechet-colours"]["value"] == pytest.approx(0, abs=1e-6)
    assert values["cosine-target-face"]["value"] == pytest.approx(1)
    assert values["cosine-target-face"]["n"] == sum(row["target_id"] != AWAY for row in listed)
    assert values["cosine-source-colours"]["value"] == values["cosine-source-colours"]["ceiling"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "abc"}, "networks.colours.sha256"),
        ({"std": [1, 1, 0]}, "networks.colours.std.2"),
        ({"mean": [1, 1]}, "networks.colours.mean"),
        ({"crop": "hand"}, "networks.colours.crop is 'hand'; allowed: none, person, face"),
        ({"size": None}, "networks.colours.size is None; allowed: a value of type list"),
    ],
)
def test_a_wrong_setting_is_named(project, copied, change, message):
    ask_for({"colours": networks()["colours"] | change})
    with pytest.raises(UserError, match=message) as error:
        params.load()
    assert "\n" not in str(error.value)


def test_a_wrong_name_and_a_missing_setting_are_named(project, copied):
    ask_for({"My net": networks()["colours"]})
    with pytest.raises(UserError, match=r"networks\.My net: a name is of small letters and digits"):
        params.load()
    ask_for({"colours": {"file": "net.onnx"}})
    with pytest.raises(UserError, match=r"networks\.colours lacks the key sha256"):
        params.load()


def test_faces_that_nobody_shows_are_said(project, copied):
    rows = store.read_table(layout.keypoints("synthetic")).to_pylist()
    for row in rows:
        row["keypoints"][0] = None
    store.write_table(layout.keypoints("synthetic"), rows, schema.KEYPOINTS)
    with pytest.raises(UserError, match=r"networks\.face: the joints show a face in the targets of fewer"):
        reference.run("synthetic")
