"""The reference of a small drawn data set against the same quantities worked out by hand."""

import hashlib
import io
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torchvision.models import alexnet

from models.detector import JointDetector
from pipeline.anatomy import pose
from pipeline.core import layout, params, schema, store
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints
from pipeline.metrics.inception import inception_features
from pipeline.scoring import networks, pairs, protocol
from pipeline.scoring.detectors import open_detector
from pipeline.stages import reference
from tests.scored_project import (
    CPU,
    entered,
    seeing,
    stored_images,
    true_joints,
    write_checkpoints,
    write_weights,
)

pytestmark = pytest.mark.usefixtures("small_inception")


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_inception):
    """The project with its synthetic reference made; tests that change it change a copy."""
    with entered(tmp_path_factory.mktemp("project")) as folder:
        reference.run("synthetic")
        yield folder


def test_fid_statistics_count_each_pairs_target_once(project):
    made = protocol.read("synthetic")
    table = store.read_table(layout.reference("synthetic") / "pairs.parquet").to_pylist()
    targets = [row["target_id"] for row in table if row["split"] == "test"]
    assert len(targets) == 7
    assert len(set(targets)) < 7  # so that counting distinct images once would show
    network = networks.open_all(made.described["networks"], CPU)["inception"]
    features = inception_features(network, stored_images(targets)).double().numpy()
    scale = np.abs(np.cov(features.T)).max()
    np.testing.assert_allclose(made.real["inception"].mean, features.mean(axis=0), atol=1e-9 * np.abs(features).max())
    np.testing.assert_allclose(made.real["inception"].covariance, np.cov(features.T), atol=1e-9 * scale)
    assert made.real["inception"].count == 7


def test_listed_pairs_are_those_that_are_loaded(project):
    made = protocol.read("synthetic")
    listed = store.read_table(layout.reference("synthetic") / "pairs.parquet")
    assert [len(listed.filter(np.array(listed["split"]) == split)) for split in ("val", "test")] == [3, 7]
    for split, count in (("val", 3), ("test", 7)):
        data = pairs.open_split("synthetic", split, CPU, made).data
        assert len(data) == count == made.described["pairs"][split]["count"]
    everything = {tuple(row.values()) for row in store.read_table(layout.pairs("synthetic")).to_pylist()}
    assert {tuple(row.values()) for row in listed.to_pylist()} < everything


def test_same_inputs_give_same_bytes(project, copied):
    before = sha256(layout.reference("synthetic"))
    shutil.rmtree(layout.reference("synthetic"))
    reference.run("synthetic")
    assert sha256(layout.reference("synthetic")) == before
    text = (layout.reference("synthetic") / "reference.json").read_text()
    assert str(copied) not in text


def test_statistics_do_not_depend_on_the_batch(project, copied):
    before = load_file(layout.reference("synthetic") / "real.safetensors")
    text = (copied / "params.yaml").read_text().replace("batch: 4", "batch: 3")
    (copied / "params.yaml").write_text(text)
    params.load.cache_clear()
    described = protocol.read("synthetic").described
    reference.run("synthetic")
    after = load_file(layout.reference("synthetic") / "real.safetensors")
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-9, atol=1e-9 * np.abs(value).max())
    assert protocol.read("synthetic").described == described


def test_ceiling_pools_joints_over_pairs(project, copied, monkeypatch):
    listed = store.read_table(layout.reference("synthetic") / "pairs.parquet").to_pylist()
    targets = [row["target_id"] for row in listed if row["split"] == "test"]
    blind = targets[0]  # a picture without a detection: all its joints are wrong, in every pair that asks for it
    memory = true_joints(sorted({row["target_id"] for row in listed} - {blind}))
    monkeypatch.setattr(reference, "open_detector", seeing(memory))
    reference.run("synthetic")
    made = protocol.read("synthetic")
    joints = {name: 18 if int(name[5:7]) % 2 == 0 else 17 for name in targets}
    right = sum(joints[name] for name in targets if name != blind)
    assert made.described["ceilings"]["test"]["pckh@0.5"] == right / sum(joints[name] for name in targets)
    assert made.described["ceilings"]["val"]["pckh@0.5"] == 1.0
    assert made.described["detector"]["name"] == "a good memory"

    detected = store.read_table(layout.reference("synthetic") / "detected.parquet").to_pylist()
    rows = {(row["split"], row["image_id"]): row["keypoints"] for row in detected}
    assert rows["test", blind] == [None] * 18
    assert set(rows) == {(row["split"], row["target_id"]) for row in listed}
    other = next(name for name in targets if name != blind)
    xy, valid = pose.to_array(rows["test", other])
    expected = memory[stored_images([other])[0].tobytes()]
    assert np.array_equal(xy, expected[0])
    assert np.array_equal(valid, expected[1])


def test_trained_detector_is_the_last_checkpoint_with_its_threshold(project, copied):
    folder = layout.checkpoints("synthetic", "detector")
    shutil.rmtree(folder)
    torch.manual_seed(1)
    network = JointDetector(0.25)
    with torch.no_grad():
        network.head.bias.uniform_(0, 0.6)  # some maps reach the threshold, some do not
    write_checkpoints("synthetic", "detector", "component", network, [20, 40], [])
    checkpoints.save(folder, 20, JointDetector(0.25))
    finder = open_detector("synthetic", CPU)
    images = stored_images([f"test-{view:02d}.jpg" for view in range(5)])
    found = finder.find(images)
    assert finder.name.endswith("step 40")
    network.eval()
    with torch.no_grad():
        maps = network(torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1)
    assert np.array_equal(found.valid, (maps.amax((2, 3)) >= 0.3).numpy())
    assert 0 < found.valid.mean() < 1
    cells = np.stack(np.unravel_index(maps.flatten(2).argmax(2).numpy(), maps.shape[2:])[::-1], axis=-1)
    assert np.abs(found.xy - (4 * cells + 1.5)).max() <= 2


def test_missing_weights_stop_unless_they_may_be_seeded(project, copied):
    described = protocol.read("synthetic").described
    assert described["networks"] == {"inception": {"seed": 5}, "lpips-alex": {"seed": 5}}
    metrics = ["ssim", "lpips-alex-v0.1", "mask-lpips-alex-v0.1", "fid", "pckh@0.5"]
    with pytest.raises(UserError, match="inception"):
        networks.describe(metrics, "stop", 0)
    assert networks.describe(metrics, "seeded", 0)[0] == metrics
    assert networks.describe(metrics, "skip", 0) == (["ssim", "pckh@0.5"], {})


def test_published_weights_are_used_and_held_to_their_digest(project, copied):
    torch.manual_seed(4)
    state = {key: value for key, value in alexnet().state_dict().items() if key.startswith("features")}
    content = io.BytesIO()
    torch.save(state, content)
    write_weights("alexnet", {"alexnet.pth": content.getvalue()})
    _, described = networks.describe(["lpips-alex-v0.1", "fid"], "seeded", 5)
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    assert described == {"inception": {"seed": 5}, "lpips-alex": {"files": {"alexnet.pth": sha256}}}
    network = networks.open_all({"lpips-alex": described["lpips-alex"]}, CPU)["lpips-alex"]
    assert network.provenance == "published"
    assert torch.equal(network.net.slice1[0].weight, state["features.0.weight"])

    state["features.0.bias"] += 1
    content = io.BytesIO()
    torch.save(state, content)
    write_weights("alexnet", {"alexnet.pth": content.getvalue()})
    with pytest.raises(UserError, match="changed since the reference"):
        networks.open_all({"lpips-alex": described["lpips-alex"]}, CPU)


def test_other_pairs_than_the_listed_ones_are_refused(project, copied):
    made = protocol.read("synthetic")
    rows = store.read_table(layout.pairs("synthetic")).to_pylist()
    for row in rows:
        row["source_id"] = row["target_id"]
    store.write_table(layout.pairs("synthetic"), rows, schema.PAIRS)
    with pytest.raises(UserError, match="other pairs of test"):
        pairs.open_split("synthetic", "test", CPU, made)


def test_before_the_stage_has_run_the_message_names_it(project, copied):
    shutil.rmtree(layout.reference("synthetic"))
    with pytest.raises(UserError, match="repose reference --dataset synthetic"):
        protocol.read("synthetic")
