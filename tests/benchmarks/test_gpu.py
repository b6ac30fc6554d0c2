"""The ten minutes on a GPU on a CPU at toy size: a bundle packed, every part run on it, and what it leaves."""

import json
import os
import re
import subprocess
import sys
import zipfile

import pyarrow.compute as pc
import pytest
import safetensors.torch
import torch

from benchmarks import gpu
from benchmarks.training import Setup, backends
from models.layers import features
from models.variants import VARIANTS
from pipeline.core import layout, params, store
from pipeline.formats import pictures
from pipeline.stages import fetch, index, keypoints, pairs
from tests import scored_project, small_project
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Market-1501 of a few people, packed, with weights that stand for the published ones."""
    project, out = tmp_path_factory.mktemp("market"), tmp_path_factory.mktemp("out") / "bundle.zip"
    with pytest.MonkeyPatch.context() as patch:
        market = small_project.published_market(project / "published")
        small_project.enter(
            project,
            patch,
            fetch__market1501=market,
            pairs__market1501__val_fraction=0.2,
            pairs__market1501__test_pairs=None,
        )
        for stage in (fetch, index, keypoints, pairs):
            stage.run("market1501")
        weights = {
            key.removeprefix("features."): value for key, value in features.build(gpu.FEATURES).state_dict().items()
        }
        scored_project.write_weights(gpu.FEATURES, {"net.safetensors": safetensors.torch.save(weights)})
        scored_project.write_weights("vgg19", {})
        said = gpu.pack_project(project, out)
        params.load.cache_clear()
    return project, out, said


def test_the_bundle_has_every_test_pair_and_whole_people(bundle):
    project, out, said = bundle
    with zipfile.ZipFile(out) as archive:
        archive.extractall(project / "unpacked")
    packed = project / "unpacked"
    whole = store.read_table(project / layout.pairs("market1501"))
    assert store.read_table(packed / layout.pairs("market1501")).num_rows == whole.num_rows
    assert "2 test" in said
    assert said.endswith("weights: squeezenet1_1")
    images = store.read_table(packed / layout.images("market1501"))
    assert set(images["image_id"].to_pylist()) >= set(whole["target_id"].to_pylist())


def test_people_who_do_not_fit_are_left_out_whole(bundle):
    project, _, _ = bundle
    listed = store.read_table(project / layout.pairs("market1501"))
    images = store.read_table(project / layout.images("market1501"))
    people = dict(zip(images["image_id"].to_pylist(), images["person_id"].to_pylist(), strict=True))
    sizes = dict.fromkeys(people, 10)
    validation = listed.filter(pc.equal(listed["split"], "val"))
    of_validation = {*validation["source_id"].to_pylist(), *validation["target_id"].to_pylist()}
    kept = gpu.chosen_people(listed, sizes, people, 10 * len(of_validation) + 45)
    train = kept.filter(pc.equal(kept["split"], "train"))
    whole = listed.filter(pc.equal(listed["split"], "train")).sort_by("pair_index")
    first = people[whole["source_id"][0].as_py()]
    assert kept.filter(pc.equal(kept["split"], "val")).equals(validation)
    assert {people[name] for name in train["source_id"].to_pylist()} == {first}
    assert len(train) == sum(people[name] == first for name in whole["source_id"].to_pylist())


def test_the_stages_run_in_a_project_of_the_benchmarks_own(tmp_path):
    gpu.open_project(tmp_path, {})
    done = subprocess.run([sys.executable, "-m", "pipeline", "needs", "--dataset", "market1501"], cwd=tmp_path)
    assert done.returncode == 0


def test_the_plain_way_has_what_pytorch_does_unasked():
    """TF32 convolutions, as PyTorch's default is; products in float32."""
    setup = Setup(VARIANTS["spig"], "market1501", 0.1, None, torch.device("cuda"))
    default = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    with backends("plain", setup):
        assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == default == (True, "highest")


def test_a_bundle_that_is_too_large_is_refused(bundle, tmp_path):
    with pytest.raises(SystemExit, match="the test pairs alone are too many"):
        gpu.pack_project(bundle[0], tmp_path / "bundle.zip", 1000)


def run_alone(bundle, out, *options: str) -> str:
    """`benchmarks.gpu run` where nothing but what it asks for is installed, with one thread; what it said. In a process
    of its own: PyTorch's loader, of the plain way, leaves a handler of SIGCHLD behind.
    """
    asked = re.search(r"this checkout, ([^.]*)\.", gpu.__doc__)[1]
    names = re.sub(r",|\band\b", " ", asked).replace("opencv", "opencv-python-headless").split()
    command = [sys.executable, "-m", "tests.bare", " ".join(names), "benchmarks.gpu", "run", "--bundle", str(bundle)]
    command += ["--out", str(out), "--minutes", "0.1", "--device", "cpu", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_every_family_is_compared_and_timed(bundle, tmp_path):
    parts = ["--parts", "agreement", "speed", "--sizes", "market1501", "--features", gpu.FEATURES]
    run_alone(bundle[1], tmp_path, *parts, "--minutes", "60", "--width", "0.05")
    agreement, speed = (tmp_path / "page.md").read_text().split("## speed")
    for name in gpu.FAMILIES:
        assert re.search(rf"\| `{name}` \| 0\.0e\+00 \| 0\.0e\+00 \|", agreement)  # a CPU beside itself
        assert re.search(rf"\| 128x64 \| `{name}` \| \d+ \| [\d.]+ \|", speed), name
    assert "failed" not in agreement + speed
    assert "left out" not in agreement + speed


@pytest.mark.slow
def test_every_part_runs_and_leaves_its_section(bundle, tmp_path):
    toy = ["--width", "0.1", "--families", "spig", "--sizes", "market1501"]
    said = run_alone(bundle[1], tmp_path, *toy)
    assert "features squeezenet1_1 (sha256:" in said
    page = (tmp_path / "page.md").read_text()
    for part in gpu.PARTS:
        assert f"## {part} (" in page
    assert "failed" not in page
    assert "| `spig` |" in page
    assert "pckh@0.5" in page
    assert "mask-ssim" in page
    assert "fid" not in page.split("## score")[1].split("Marks")[0]  # no Inception in the bundle
    logs = {path.name: path.read_text().splitlines() for path in tmp_path.glob("*.jsonl")}
    assert set(logs) == {f"pretrain-market1501-{name}.jsonl" for name in ("detector", "spig_flow")} | {
        "train-market1501-spig.jsonl"
    }
    steps = [json.loads(line)["step"] for line in logs["train-market1501-spig.jsonl"]]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 2
    drawn = sorted(tmp_path.glob("pair-*.png"))
    assert len(drawn) == 2  # as many as there are test pairs
    height, width = pictures.decode(drawn[0].read_bytes()).shape[:2]
    assert 128 <= height < 256  # four pictures in a row, with a frame
    assert 4 * 64 <= width < 5 * 64


def test_a_part_that_fails_is_named_and_the_others_go_on(bundle, tmp_path, monkeypatch, one_thread):
    def broken(run):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu.PARTS, "speed", broken)
    options = ["--minutes", "0.1", "--width", "0.1", "--parts", "speed", "detector", "--device", "cpu"]
    assert gpu.main(["run", "--bundle", str(bundle[1]), "--out", str(tmp_path), *options]) == 1
    page = (tmp_path / "page.md").read_text()
    assert "failed: RuntimeError: no such kernel" in page
    assert "steps of batch" in page
