"""The score stage on a small drawn data set, with reference variants whose values can be worked out by hand."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from models.detector import JointDetector
from models.variants import VARIANTS
from pipeline.core import layout, params, schema, seals, store
from pipeline.core.atomic import atomic_directory
from pipeline.core.errors import UserError
from pipeline.extraction import repose_parser
from pipeline.loading import checkpoints, parallel, pixels
from pipeline.loading.arrays import load_pairs
from pipeline.metrics import METRICS, fid, inception, networks
from pipeline.scoring import checkpoint, failures, judge, protocol
from pipeline.scoring import networks as scoring_networks
from pipeline.scoring.detectors import open_detector
from pipeline.scoring.pairs import open_split
from pipeline.scoring.protocol import Protocol, Reference
from pipeline.stages import reference, score
from tests.fake_device import FakeCuda
from tests.scored_project import (
    CPU,
    HEIGHT,
    ROOT,
    WIDTH,
    entered,
    seeing,
    stored_images,
    true_joints,
    write_checkpoints,
    write_weights,
)

pytestmark = pytest.mark.usefixtures("small_inception")

OUTPUTS = (layout.scores, layout.pair_scores, layout.samples, layout.figures, layout.network)


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_inception):
    """The project with copy_source scored on synthetic; tests that change it change a copy."""
    with entered(tmp_path_factory.mktemp("project")) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "code_of", lambda *job: "the code as it is")  # whoever edits it while the tests run
        reference.run("synthetic")
        score.run("synthetic", "copy_source")
        yield folder


class Stopped(Exception):
    """Stands for a kill."""


def rows(dataset: str = "synthetic", variant: str = "copy_source") -> list[dict]:
    return store.read_table(layout.scores(dataset, variant)).to_pylist()


def pairs(dataset: str = "synthetic", variant: str = "copy_source") -> list[dict]:
    return store.read_table(layout.pair_scores(dataset, variant)).to_pylist()


def output_bytes() -> list[bytes]:
    return [path("synthetic", "copy_source").read_bytes() for path in OUTPUTS]


def test_reference_and_scores_on_a_gpu_are_those_of_the_cpu(project, copied):
    """Every network that is not OpenVINO's works there: Inception, LPIPS and the trained detector."""
    expected = rows(), pairs()
    text = (copied / "params.yaml").read_text()
    (copied / "params.yaml").write_text(text.replace("device: cpu", "device: auto"))
    params.load.cache_clear()
    shutil.rmtree(layout.reference("synthetic"))
    for path in OUTPUTS[:2]:
        path("synthetic", "copy_source").unlink()
    counted = {}
    for stage, axes in ((reference, ()), (score, ("copy_source",))):
        with FakeCuda() as device:
            stage.run("synthetic", *axes)
            counted[stage] = device.operations["conv2d"]  # as inference mode names it
    assert min(counted.values()) > 100
    assert (rows(), pairs()) == expected


def test_one_row_a_step_split_and_metric(project):
    assert store.read_table(layout.scores("synthetic", "copy_source")).schema.remove_metadata() == schema.SCORES
    both = [
        "ssim",
        "ssim-uniform7",
        "psnr",
        "mask-ssim",
        "mask-ssim-uniform7",
        "mask-psnr",
        "inside-ssim",
        "inside-psnr",
    ]
    both += [
        "lpips-alex-v0.1",
        "mask-lpips-alex-v0.1",
        "pckh@0.5",
        "pose-error-px",
    ]  # 51 pixels are wider than an image
    expected = [(step, "val", name) for step in (0, 5) for name in both]
    expected += [(step, "test", name) for step in (0, 5) for name in [*both, "fid", "kid", "is"]]
    assert sorted((row["step"], row["split"], row["metric"]) for row in rows()) == sorted(expected)
    for row in rows():
        assert (row["dataset"], row["variant"]) == ("synthetic", "copy_source")
        assert row["n"] + row["excluded"] == {"val": 3, "test": 7}[row["split"]]
        assert row["protocol"].startswith(METRICS[row["metric"]].protocol)
        assert row["higher_is_better"] == METRICS[row["metric"]].higher_is_better
        if row["metric"] in ("pckh@0.5", "pose-error-px"):
            ceiling = protocol.read("synthetic").described["ceilings"][row["split"]].get(row["metric"])
            assert row["ceiling"] == ceiling
            assert "our detector, synthetic step 20" in row["protocol"]
        else:
            assert row["ceiling"] is None


def test_every_pair_has_the_values_of_its_own_two_images(project):
    stored = store.read_table(layout.pairs("synthetic")).to_pylist()
    known = {(row["split"], row["pair_index"]): (row["source_id"], row["target_id"]) for row in stored}
    table = pairs()
    assert [(row["step"], row["split"]) for row in table] == [
        (step, split) for step in (0, 5) for split in ["val"] * 3 + ["test"] * 7
    ]
    assert list(table[0])[:5] == [name for name, _ in schema.PAIR_SCORE_KEYS]
    for row in table:
        assert known[row["split"], row["pair_index"]] == (row["source_id"], row["target_id"])
        source, target = stored_images([row["source_id"], row["target_id"]])
        ssim = structural_similarity(
            source,
            target,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
        assert row["ssim"] == pytest.approx(ssim, abs=1e-9)
        assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(target, source, data_range=255), abs=1e-9)


def test_interval_holds_the_mean_of_the_pairs(project):
    table = pairs()
    for row in rows():
        if row["value"] is None:  # seven pairs make no ten splits, and the untrained detector finds few joints
            assert row["metric"] in ("is", "pose-error-px")
            assert row["low"] is row["high"] is None
            assert row["n"] == 0
            continue
        assert row["low"] <= row["value"] <= row["high"]
        mine = [pair for pair in table if (pair["step"], pair["split"]) == (row["step"], row["split"])]
        if row["metric"] in ("pckh@0.5", "pose-error-px", "fid", "kid"):  # no plain mean
            assert np.sum([pair[f"{row['metric']}:influence"] for pair in mine]) == pytest.approx(0, abs=1e-6)
            continue
        assert row["value"] == pytest.approx(np.mean([pair[row["metric"]] for pair in mine]), abs=1e-12)
        assert row["low"] < row["value"] < row["high"]


def test_marks_tell_training_from_the_metrics_own_network(project):
    for row in rows():
        seeded = "lpips" in row["metric"] or row["metric"] in ("fid", "kid", "is")
        fewer = row["split"] == "test"  # 7 pairs are asked for, the list has more
        assert row["marks"] == ["steps", "data", "joints"] + ["pairs"] * fewer + ["metric-weights"] * seeded


def test_samples_hold_stored_bytes_and_the_generated_image(project):
    table = store.read_table(layout.samples("synthetic", "copy_source"))
    assert table.schema.remove_metadata() == schema.SAMPLES
    reader = store.RandomReader(layout.images("synthetic"), ["image"])
    keypoints = {
        row["image_id"]: row["keypoints"] for row in store.read_table(layout.keypoints("synthetic")).to_pylist()
    }
    first = [row["pair_index"] for row in pairs() if (row["step"], row["split"]) == (5, "test")][:2]
    sampled = [row for row in table.to_pylist() if "sample" in row["why"]]
    assert [(row["step"], row["pair_index"]) for row in sampled] == [(5, index) for index in first]
    for row in table.to_pylist():
        assert row["source"] == reader[row["source_id"]]["image"]
        assert row["target"] == reader[row["target_id"]]["image"]
        assert row["target_keypoints"] == keypoints[row["target_id"]]
        picture = cv2.imdecode(np.frombuffer(row["generated"]["bytes"], np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(picture[:, :, ::-1], stored_images([row["source_id"]])[0])


def test_every_checkpoint_keeps_the_pairs_it_fails_on(project):
    table = store.read_table(layout.samples("synthetic", "copy_source")).to_pylist()
    for step in (0, 5):
        mine = [row for row in pairs() if (row["step"], row["split"]) == (step, "test")]
        worst = sorted(mine, key=lambda row: (-row["lpips-alex-v0.1"], row["pair_index"]))[: failures.KEPT]
        kept = {row["pair_index"] for row in table if row["step"] == step and "lpips-alex-v0.1" in row["why"]}
        assert kept == {row["pair_index"] for row in worst}


def test_what_the_network_costs_and_how_it_was_trained(project):
    found = json.loads(layout.network("synthetic", "copy_source").read_text())
    assert (found["parameters"], found["macs"]) == (0, 0)
    assert found["trained"] == checkpoints.meta(layout.checkpoints("synthetic", "copy_source"))


def test_perfect_images_score_perfectly(project, copied):
    reference.run("market1501")  # pairs of an image with itself, LPIPS on SqueezeNet
    score.run("market1501", "copy_source")
    values = {row["metric"]: row for row in rows("market1501") if row["split"] == "test" and row["step"] == 5}
    assert values["ssim"]["value"] == values["mask-ssim"]["value"] == 1
    assert values["lpips-squeeze-v0.1"]["value"] == values["mask-lpips-squeeze-v0.1"]["value"] == 0
    assert values["psnr"]["value"] == pytest.approx(10 * np.log10(255**2 * 3 * HEIGHT * WIDTH))
    assert values["fid"]["value"] == pytest.approx(0, abs=1e-6)
    assert values["pckh@0.5"]["value"] == values["pckh@0.5"]["ceiling"]  # the generated images are the real ones
    assert values["ssim"]["n"] == 8


def without_networks(made: Reference) -> Reference:
    """The same with only those metrics that need no network: seconds are saved."""
    names = [name for name in made.described["metrics"] if set(METRICS[name].needs) <= {"masks", "joints"}]
    return replace(made, described={**made.described, "metrics": names})


def test_pckh_judges_generated_images_by_the_targets_joints(project, copied, monkeypatch):
    data = load_pairs("synthetic", "test", CPU, 7)
    sources = {data.ids[row] for row in data.pairs[:, 0].tolist()}
    blind = min(sources)
    memory = true_joints(sorted(sources - {blind}))
    detector = seeing(memory)("synthetic", CPU)
    made = without_networks(protocol.read("synthetic"))
    shared = Protocol(made, {}, detector)
    split = open_split("synthetic", "test", CPU, made)
    generator = VARIANTS["copy_source"].build(HEIGHT, WIDTH, 1.0).eval()
    values, totals = judge.score_images(split, checkpoint.generate(generator, 3, "here", False, data), shared, 100, 0)
    assert {"ssim", "psnr", "mask-ssim", "mask-psnr", "pckh@0.5", "pckh@0.5:influence"} < set(values)

    right = counted = 0
    for (source, target), share in zip(data.pairs.tolist(), values["pckh@0.5"], strict=True):
        head = [0, 1, 14, 15, 16, 17]
        box = (data.joints[target, head].amax(0) - data.joints[target, head].amin(0)) / 2
        near = ((data.joints[source] - data.joints[target]).abs() < box).all(1)
        near &= data.valid[source] & data.valid[target] & (data.ids[source] != blind)
        assert share == pytest.approx(float(near.sum() / data.valid[target].sum()))
        right, counted = right + int(near.sum()), counted + int(data.valid[target].sum())
    assert totals["pckh@0.5"].value == pytest.approx(right / counted)
    assert 0 < right < counted


def test_images_are_matched_by_id_in_any_order(project):
    made = without_networks(protocol.read("synthetic"))
    shared = Protocol(made, {}, open_detector("synthetic", CPU))
    split = open_split("synthetic", "test", CPU, made)
    generator = VARIANTS["copy_source"].build(HEIGHT, WIDTH, 1.0).eval()
    batches = list(checkpoint.generate(generator, 2, "here", False, split.data))
    turned = [(ids[::-1], images[::-1]) for ids, images in batches[::-1]]
    straight, totals = judge.score_images(split, batches, shared, 100, 0)
    shuffled, totals_shuffled = judge.score_images(split, turned, shared, 100, 0)
    assert repr(totals) == repr(totals_shuffled)  # by their text: NaN where the detector found nothing
    for name, values in straight.items():
        assert np.array_equal(values, shuffled[name], equal_nan=True)
    assert len(set(straight["ssim"])) > 1
    with pytest.raises(UserError, match="have no generated image"):
        judge.score_images(split, batches[:-1], shared, 100, 0)
    with pytest.raises(UserError, match="99 is not a test pair"):
        judge.score_images(split, [([99], batches[0][1][:1])], shared, 100, 0)
    with pytest.raises(UserError, match="equal size"):
        judge.score_images(split, [(ids, images[:, 1:]) for ids, images in batches], shared, 100, 0)


def test_values_do_not_depend_on_the_batch(project, copied):
    before, before_pairs, samples = rows(), pairs(), output_bytes()[2]
    shutil.rmtree(layout.WORK)
    (copied / "params.yaml").write_text((copied / "params.yaml").read_text().replace("batch: 4", "batch: 3"))
    params.load.cache_clear()
    score.run("synthetic", "copy_source")
    assert pairs() == before_pairs
    assert output_bytes()[2] == samples
    for old, new in zip(before, rows(), strict=True):
        assert old == new  # to the last bit: what a metric of the set keeps is read in the order of the pairs


def write_parsing(leave_out: str = "", dataset: str = "synthetic") -> dict[str, np.ndarray]:
    """A label map for every image but one, all twenty labels in each; by image."""
    random, rows, maps = np.random.default_rng(2), [], {}
    for row in store.read_table(layout.keypoints(dataset)).to_pylist():
        maps[row["image_id"]] = random.integers(0, 20, (HEIGHT // 8, WIDTH // 8), np.uint8).repeat(8, 0).repeat(8, 1)
        png = cv2.imencode(".png", maps[row["image_id"]])[1].tobytes()
        entry = {"image_id": row["image_id"], "parsing": {"bytes": png, "path": row["image_id"]}}
        rows += [] if row["image_id"] == leave_out else [{**entry, "label_source": "drawn"}]
    store.write_shards(layout.parsing(dataset), rows, schema.PARSING, parsing_source="oracle")
    return maps


def test_a_variant_that_needs_parsing_is_given_the_sources_alone(project, copied, monkeypatch):
    torch.manual_seed(1)
    variant = VARIANTS["spgnet"]
    network = variant.build(HEIGHT, WIDTH, 0.25)
    write_checkpoints("synthetic", "spgnet", "variant", network, [3], ["steps"])
    with pytest.raises(UserError, match="parsing"):
        score.run("synthetic", "spgnet")
    maps, seen, drawn, forward = write_parsing(), [], [], type(network).forward

    def look(self, batch):
        seen.append(batch)
        return forward(self, batch)

    monkeypatch.setattr(type(network), "forward", look)
    monkeypatch.setattr(score.for_report, "rows", lambda *given: drawn.append(given) or [])
    score.run("synthetic", "spgnet")
    assert [given[:3] for given in drawn] == [("synthetic", "spgnet", 3)]
    assert {row["metric"] for row in rows(variant="spgnet")} == {row["metric"] for row in rows()}
    assert all(batch.target is None and batch.target_labels is None for batch in seen)
    labels = [one.numpy() for batch in seen for one in batch.source_labels if one.any()]  # others fill up a batch
    listed = [row for split in ("val", "test") for row in pairs(variant="spgnet") if row["split"] == split]
    kept = store.read_table(layout.samples("synthetic", "spgnet")).to_pylist()  # generated once more for their pictures
    assert len(listed) == 10
    assert kept
    for found, row in zip(labels, [*listed, *kept], strict=True):
        stored = maps[row["source_id"]]  # in LIP-20: CIHP-20, SPGNet's set, knows no jumpsuits and has a dress for them
        np.testing.assert_array_equal(found, np.where(stored == 10, 6, stored))

    # scored before, from the same parsing: nothing to do; from other: again
    seen.clear()
    score.run("synthetic", "spgnet")
    assert not any(batch.source_labels.any() for batch in seen)  # the blank pair that the cost is counted on
    write_parsing(leave_out="test-00.jpg")
    with pytest.raises(UserError, match=r"no parsing of 1 of \d+ images, test-00.jpg the first"):
        score.run("synthetic", "spgnet")


def test_a_further_seed_is_scored_as_its_variant_is(project, copied, monkeypatch):
    torch.manual_seed(1)
    network = VARIANTS["spgnet"].build(HEIGHT, WIDTH, 0.25)
    write_checkpoints("synthetic", "spgnet", "variant", network, [3], ["steps"])
    shutil.copytree(layout.checkpoints("synthetic", "spgnet"), layout.checkpoints("synthetic", "spgnet-seed1"))
    write_parsing()
    monkeypatch.setattr(score.for_report, "rows", lambda *given: [])
    for name in ("spgnet", "spgnet-seed1"):
        score.run("synthetic", name)
    assert [row | {"variant": "spgnet"} for row in rows(variant="spgnet-seed1")] == rows(variant="spgnet")
    assert {row["variant"] for row in rows(variant="spgnet-seed1")} == {"spgnet-seed1"}
    assert pairs(variant="spgnet-seed1") == pairs(variant="spgnet")


def ask_for(names: list[str]) -> None:
    """Score market1501 by these metrics, too."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["reference"]["market1501"]["metrics"] = names
    Path("params.yaml").write_text(yaml.safe_dump(values))
    params.load.cache_clear()


@pytest.mark.slow
def test_metrics_on_request(project, copied, capsys):
    """market1501 here pairs every image with itself: copy_source is perfect and must reach every ceiling."""
    maps = write_parsing(dataset="market1501")
    for net in ("inception_v3", "reid", "alexnet"):
        write_weights(net, {})
    asked = ["fid-train-tv", "parsing-miou", "parsing-miou-fg", "lpips-alex-v0.1", "identity-target"]
    ask_for(asked)
    reference.run("market1501")
    assert "reid: published weights missing; its metrics are left out" in capsys.readouterr().err
    score.run("market1501", "copy_source")
    found = {row["metric"]: row for row in rows("market1501") if (row["step"], row["split"]) == (5, "test")}
    assert {*asked, "lpips-squeeze-v0.1"} - set(found) == {"identity-target"}  # no random network can stand for it
    assert found["lpips-alex-v0.1"]["value"] == 0
    made = protocol.read("market1501")
    for name in ("parsing-miou", "parsing-miou-fg"):
        assert found[name]["value"] == found[name]["ceiling"] == made.described["ceilings"]["test"][name]
        assert 0 <= found[name]["value"] < 0.5  # the drawn labels have nothing to do with the pictures
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]

    # by hand: the parser on the real targets with the detector's joints, and the features of all training images
    ids = [f"test-{view:02d}.jpg" for view in range(8)]
    images = stored_images(ids)
    joints = open_detector("market1501", CPU).find(images)
    parsed = repose_parser.load()(list(images), *joints)
    truth = np.stack([maps[name] for name in ids])
    ious = [
        ((parsed == k) & (truth == k)).sum() / ((parsed == k) | (truth == k)).sum() for k in range(20) if k in truth
    ]
    assert found["parsing-miou"]["value"] == pytest.approx(np.mean(ious))
    assert found["parsing-miou-fg"]["value"] == pytest.approx(np.mean(ious[1:]))
    network = scoring_networks.open_all(made.described["networks"], CPU)["inception-tv"]
    train = inception.inception_features(network, stored_images([f"train-{view:02d}.jpg" for view in range(8)])).numpy()
    test = inception.inception_features(network, images).numpy()
    expected = fid.frechet_distance(fid.statistics_of(test), fid.statistics_of(train))
    assert found["fid-train-tv"]["value"] == pytest.approx(expected, rel=1e-6)
    assert "metric-weights" in found["fid-train-tv"]["marks"]

    ask_for(["ssim-win51"])
    with pytest.raises(UserError, match=r"params\.yaml"):
        reference.run("market1501")  # standard metrics are not asked for, and images of 32 pixels are too small for it
    write_parsing("test-03.jpg", "market1501")
    ask_for(["parsing-miou"])
    with pytest.raises(UserError, match=r"no parsing of 1 targets, test-03\.jpg"):
        reference.run("market1501")


def test_a_network_generates_the_same_pictures_in_any_batch(project):
    torch.manual_seed(2)
    generator = VARIANTS["spig"].build(HEIGHT, WIDTH, 0.25).eval()
    seen = set()  # eight bits may hide what the number of pairs does to a network's last digits
    generator.register_forward_pre_hook(lambda _, inputs: seen.add(len(inputs[0].source)))
    data = load_pairs("synthetic", "test", CPU, 7)
    whole = np.concatenate([images for _, images in checkpoint.generate(generator, 7, "here", False, data)])
    parts = np.concatenate([images for _, images in checkpoint.generate(generator, 2, "here", False, data)])
    assert whole.dtype == np.uint8
    assert np.array_equal(whole, parts)
    assert seen == {networks.BATCH}
    assert len(np.unique(whole)) > 20


def test_a_stopped_run_goes_on_where_it_was_and_ends_with_the_same_bytes(project, copied, monkeypatch):
    whole = output_bytes()
    shutil.rmtree(layout.WORK)
    for path in OUTPUTS:
        path("synthetic", "copy_source").unlink()
    scored, stop, once = [], [5], checkpoint.score

    def counted(dataset, variant, step, *rest):
        if step in stop:
            raise Stopped
        scored.append(step)
        return once(dataset, variant, step, *rest)

    monkeypatch.setattr(checkpoint, "score", counted)
    with pytest.raises(Stopped):
        score.run("synthetic", "copy_source")
    assert scored == [0]
    assert not any(path("synthetic", "copy_source").exists() for path in OUTPUTS)
    stop.clear()
    score.run("synthetic", "copy_source")
    assert scored == [0, 5]
    assert output_bytes() == whole


def test_damaged_scores_of_before_serve_no_more(tmp_path, capfd):
    with atomic_directory(tmp_path / "0000005-a") as partial:
        (partial / "scores.csv").write_text("ssim,0.5")
    assert score._is_whole(tmp_path / "0000005-a")
    (tmp_path / "0000005-a/scores.csv").write_text("ssim,0.7")
    assert not score._is_whole(tmp_path / "0000005-a")
    assert "scores.csv: damaged (its digest is another one); scored again" in capfd.readouterr().err
    assert not score._is_whole(tmp_path / "0000006-b")


def test_what_was_scored_before_serves_only_the_same_question(project, copied, monkeypatch):
    asked = []

    def noted(dataset, variant, step, *rest):
        asked.append(step)
        raise Stopped

    monkeypatch.setattr(checkpoint, "score", noted)
    score.run("synthetic", "copy_source")
    assert asked == []
    folder = layout.checkpoints("synthetic", "copy_source")

    def asks(step: int) -> None:
        with pytest.raises(Stopped):
            score.run("synthetic", "copy_source")
        assert asked.pop() == step

    checkpoints.save(folder, 7, VARIANTS["copy_source"].build(HEIGHT, WIDTH, 1.0))
    asks(5)  # no longer the last one: its samples are not wanted, and step 7's are
    checkpoints.path(folder, 7).unlink()
    score.run("synthetic", "copy_source")
    meta = checkpoints.meta(folder)
    checkpoints.write_meta(folder, {**meta, "marks": []})
    asks(0)
    checkpoints.write_meta(folder, meta)
    score.run("synthetic", "copy_source")
    described = layout.reference("synthetic") / "reference.json"
    text = described.read_text()
    described.write_text(text + "\n")
    seals.write_list(described.parent)
    asks(0)
    described.write_text(text)
    seals.write_list(described.parent)
    score.run("synthetic", "copy_source")
    monkeypatch.setattr(score, "code_of", lambda *job: "the code after an edit")
    asks(0)


def test_generated_values_are_rounded_and_clipped():
    values = torch.tensor([-1.2, -1.0, -0.999, 0.0, 0.5, 0.9999, 1.0, 3.0])
    images = values.view(1, 1, 1, -1).expand(1, 3, 1, -1)
    assert pixels.as_bytes(images)[0, 0, :, 1].tolist() == [0, 0, 0, 128, 191, 255, 255, 255]


def test_a_diverged_checkpoint_is_named(project, copied):
    mean = VARIANTS["mean_image"].build(HEIGHT, WIDTH, 1.0)
    mean.mean.fill_(float("nan"))
    checkpoints.save(layout.checkpoints("synthetic", "mean_image"), 0, mean)
    with pytest.raises(UserError, match=r"mean_image.*step-0000000.*not finite"):
        score.run("synthetic", "mean_image")


def test_checkpoints_for_another_image_size_or_none_are_refused(project, copied):
    folder = layout.checkpoints("synthetic", "mean_image")
    checkpoints.write_meta(folder, {**checkpoints.meta(folder), "height": 128, "width": 64})
    checkpoints.save(folder, 0, VARIANTS["mean_image"].build(128, 64, 1.0))
    with pytest.raises(UserError, match="128 x 64, the data set has 64 x 32"):
        score.run("synthetic", "mean_image")
    checkpoints.path(folder, 0).unlink()
    with pytest.raises(UserError, match="no checkpoint"):
        score.run("synthetic", "mean_image")


def test_another_detector_than_the_references_is_refused(project, copied):
    folder = layout.checkpoints("synthetic", "detector")
    shutil.rmtree(folder)
    torch.manual_seed(9)
    write_checkpoints("synthetic", "detector", "component", JointDetector(0.25), [20], [])
    with pytest.raises(UserError, match="another joint detector"):
        protocol.open_protocol("synthetic", CPU)


def test_outputs_hold_no_path(project):
    for content in output_bytes():
        assert str(Path.cwd()).encode() not in content


def shared_by(processes: int) -> None:
    values = yaml.safe_load(layout.PARAMS.read_text())
    values["score"]["synthetic"]["gpus"] = processes
    layout.PARAMS.write_text(yaml.safe_dump(values))
    params.load.cache_clear()


def test_four_processes_make_the_numbers_of_one(project, copied, monkeypatch):
    """To the byte. One after the other, in place of at once; the last has no share of the three validation pairs."""
    before, kept = output_bytes(), {rank: [] for rank in range(1, 4)}

    class Process(parallel.Group):
        def gather(self, value):
            return [[0, 5]] + [value] * 3  # the first process looks what is missing

        def collect(self, value):
            if self.rank:
                kept[self.rank].append(value)
                return []
            return [value, *(shares.pop(0) for shares in kept.values())]

    shutil.rmtree(layout.WORK)
    shared_by(4)
    for path in OUTPUTS:
        path("synthetic", "copy_source").unlink()
    for rank in (3, 2, 1):
        monkeypatch.setattr(score.parallel, "joined", lambda where, rank=rank: nullcontext(Process(rank, 4, where)))
        score.run("synthetic", "copy_source")
        assert [len(share["rows"]) for share, _ in kept[rank]] == [
            int(rank < 3),
            1 + (rank < 3),
        ] * 2  # val, test; twice
        assert not any(path("synthetic", "copy_source").exists() for path in OUTPUTS)
    monkeypatch.setattr(score.parallel, "joined", lambda where: nullcontext(Process(0, 4, where)))
    score.run("synthetic", "copy_source")
    assert output_bytes() == before
    assert not any(kept.values())


def test_another_number_of_processes_scores_nothing_again(project, copied, monkeypatch):
    shared_by(4)
    monkeypatch.setattr(score.parallel, "joined", lambda where: nullcontext(parallel.Group(0, 1, where)))
    monkeypatch.setattr(checkpoint, "score", lambda *_: pytest.fail("scored before"))
    score.run("synthetic", "copy_source")


@pytest.mark.slow
def test_two_real_processes_make_the_numbers_of_one(project, copied):
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = []
    for processes in (1, 2):
        shutil.rmtree(layout.WORK, ignore_errors=True)
        shared_by(processes)
        command = [sys.executable, "-m", "pipeline", "score", "--dataset", "synthetic", "--variant", "copy_source"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("  test: 7 pairs") == 2  # a line a checkpoint, by the first process
        found.append(output_bytes())
    assert found[0] == found[1]
    assert layout.log("score", "synthetic", "copy_source").with_suffix(".rank-1.log").exists()
