"""The stages pretrain and train through the command line, on the tiny data set."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import spig
from models.layers.schedule import Jitter, Move
from models.spatn import Spatn
from models.variants import COMPONENTS, VARIANTS, Adam, Batch, Output, Phase, Variant
from pipeline.__main__ import main
from pipeline.core import digests, layout, params, schema, store
from pipeline.loading import checkpoints
from pipeline.stages import train
from pipeline.training import components as starting_points
from pipeline.training import loop, losses, start, tracker, training_data
from tests import tiny_dataset
from tests.conftest import working_in
from tests.tiers import entries
from tests.training.test_tracker import of_tensorboard

PRETRAIN = ["pretrain", "--dataset", "synthetic", "--component", "spig_flow"]
DETECTOR = ["pretrain", "--dataset", "synthetic", "--component", "detector"]
TRAIN = ["train", "--dataset", "synthetic", "--variant", "spig"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    tiny_dataset.write(folder)
    return folder


@pytest.fixture
def enter(tmp_path, prepared, monkeypatch):
    """`enter("name", **blocks)`: a project folder of its own as working directory, with the data set and params."""

    def function(name="project", **blocks):
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True, exist_ok=True)
        if not (folder / "data/synthetic").exists():
            (folder / "data/synthetic").symlink_to(prepared / "data/synthetic")
        tiny_dataset.write_params(folder, **blocks)
        monkeypatch.chdir(folder)
        params.load.cache_clear()
        return folder

    yield function
    params.load.cache_clear()


def outputs(folder):
    runs = folder / "runs"
    return {str(path.relative_to(runs)): path.read_bytes() for path in sorted(runs.rglob("*")) if path.is_file()}


def test_two_steps_of_everything(enter, capfd):
    folder = enter()
    assert main(PRETRAIN) == 0
    assert main(TRAIN) == 0
    out = layout.checkpoints("synthetic", "spig")
    assert sorted(path.name for path in out.iterdir()) == [
        "_SHA256SUMS",
        "meta.json",
        "step-0000001.safetensors",
        "step-0000002.safetensors",
    ]
    kept = layout.work("train", "synthetic", "spig") / "checkpoints/step-0000002.safetensors"
    assert kept.samefile(out / kept.name)  # no second copy
    rows = list(losses.metrics(layout.metrics_log("train", "synthetic", "spig")))
    assert [row["step"] for row in rows] == [1, 2]
    assert set(rows[0]) == {"step", "sampling", "l1", "adversarial", "perceptual", "style", "discriminator"}

    generator, meta = checkpoints.load(out, 2)
    pose = torch.zeros(1, 18, 2), torch.ones(1, 18, dtype=torch.bool)
    assert generator(Batch(torch.zeros(1, 3, 64, 32), None, *pose, *pose)).image.shape == (1, 3, 64, 32)
    flow, _ = checkpoints.load(layout.checkpoints("synthetic", "spig_flow"), 2)
    made = meta.pop("components")["spig_flow"]
    assert made["step"] == 2
    assert made["checkpoint"].startswith("sha256:")
    assert meta == {
        "kind": "variant",
        "name": "spig",
        "family": "spig",
        "dataset": "synthetic",
        "height": 64,
        "width": 32,
        "steps": [1, 2],
        "settings": {
            "seed": 0,
            "steps": 2,
            "checkpoint_every": 1,
            "batch": 2,
            "width": 0.1,
            "learning_rate": 0.001,
            "augment": True,
            "precision": "fp32",
            "accumulate": 1,
            "compile": False,
        },
        "features": {"net": "squeezenet1_1", "provenance": "seeded", "published": "vgg19"},
        "marks": ["weights", "steps", "settings", "borrowed", "width", "data", "joints"],
        "parameters": sum(parameter.numel() for parameter in generator.parameters()),
        "published": {"dataset": "market1501", "batch": 8, "learning_rate": 0.001, "steps": 200_000, "width": 1.0},
    }
    assert set(flow.state_dict()) == set(generator.flow.state_dict())
    log = (folder / "logs/train/synthetic-spig.log").read_text()
    assert "14 pairs of 64 x 32, batch 2, 2 steps" in log
    assert "features squeezenet1_1 (seeded)" in log
    grids = sorted(path.name for path in (folder / "logs/train/synthetic-spig").iterdir())
    assert grids == ["step-0000001.png", "step-0000002.png"]


def test_a_further_seed_is_trained_beside_the_first(enter):
    """From the same component and settings but the seed, into a folder of its own that any reader can load."""
    folder = enter(variants={"spig": ["spig", "spig-seed1"]})
    for command in (PRETRAIN, TRAIN):
        assert main(command) == 0
    first = outputs(folder)
    assert main([*TRAIN[:-1], "spig-seed1"]) == 0
    after = outputs(folder)
    assert {path: after[path] for path in first} == first
    names = ("_SHA256SUMS", "meta.json", "step-0000001.safetensors", "step-0000002.safetensors")
    wanted = {f"synthetic/spig-seed1/checkpoints/{name}" for name in names}
    assert after.keys() - first.keys() == wanted | {"synthetic/spig-seed1/losses/terms.csv"}
    generator, meta = checkpoints.load(layout.checkpoints("synthetic", "spig-seed1"), 2)
    other, of_first = checkpoints.load(layout.checkpoints("synthetic", "spig"), 2)
    assert meta == of_first | {"settings": of_first["settings"] | {"seed": 1}}
    assert type(generator) is type(other)
    assert any(not torch.equal(a, b) for a, b in zip(generator.parameters(), other.parameters(), strict=True))
    assert (folder / "logs/train/synthetic-spig-seed1.jsonl").exists()


def test_settings_of_a_runs_own_are_trained_with_beside_the_familys(enter, capfd):
    """And a change of them concerns no other run."""
    train = [*TRAIN[:-1], "patn"]
    folder = enter(named={"patn": {"patn-fast": {"learning_rate": 0.0004}}})
    assert main(train) == main([*train[:-1], "patn-fast"]) == 0
    _, meta = checkpoints.load(layout.checkpoints("synthetic", "patn-fast"), 2)
    _, plain = checkpoints.load(layout.checkpoints("synthetic", "patn"), 2)
    assert meta == plain | {"settings": plain["settings"] | {"learning_rate": 0.0004}}
    before = outputs(folder)
    enter(named={"patn": {"patn-fast": {"learning_rate": 0.0008}}})
    capfd.readouterr()
    assert main(train) == main([*train[:-1], "patn-fast"]) == 0
    said = capfd.readouterr().err
    assert "train synthetic patn: all 2 steps were done before" in said
    assert "train synthetic patn-fast: learning_rate was 0.0004 and is 0.0008" in said
    changed = {path for path, content in outputs(folder).items() if content != before[path]}
    assert changed == {path for path in before if "/patn-fast/" in path}


@pytest.fixture(scope="module")
def components(tmp_path_factory):
    """A project with parsing where every component was trained for two steps."""
    folder = tmp_path_factory.mktemp("components")
    tiny_dataset.write(folder, parsing_source="oracle")
    tiny_dataset.write_params(folder)
    with working_in(folder):
        for component in params.load()["components"]:
            assert main(["pretrain", "--dataset", "synthetic", "--component", component]) == 0
        yield folder


@pytest.mark.parametrize("name", entries(name for name, entry in VARIANTS.items() if entry.phase))
def test_two_steps_of_every_variant(components, monkeypatch, name):
    monkeypatch.chdir(components)
    params.load.cache_clear()
    assert main(["train", "--dataset", "synthetic", "--variant", name]) == 0
    generator, meta = checkpoints.load(layout.checkpoints("synthetic", name), 2)
    assert set(meta["components"]) == {*VARIANTS[name].components, *VARIANTS[name].judges.values()}
    assert meta.get("kappa") == (tiny_dataset.KAPPA if VARIANTS[name].limb_maps else None)
    rows = list(losses.metrics(layout.metrics_log("train", "synthetic", name)))
    assert set(VARIANTS[name].phase.weights) <= set(rows[-1])
    for component in VARIANTS[name].components:  # what a phase freezes is still the component's
        entry = COMPONENTS[component]
        trained, _ = checkpoints.load(layout.checkpoints("synthetic", component), 2)
        found = generator.get_submodule(entry.into).state_dict()
        same = all(torch.equal(value, found[key]) for key, value in trained.state_dict().items())
        phase = VARIANTS[name].phase  # a part that thaws after 0.8 of two steps has not yet
        assert same == (entry.into.split(".")[0] in phase.frozen)
        assert all(round(2 * share) == 2 for shares in phase.thaw.values() for share in shares.values())


@pytest.mark.parametrize("component", [name for name in COMPONENTS if name != "detector"])
def test_two_steps_of_every_component(components, component):
    _, meta = checkpoints.load(components / layout.checkpoints("synthetic", component), 2)
    assert meta["kind"] == "component"
    entry = COMPONENTS[component]
    seeded = {"net": "squeezenet1_1", "provenance": "seeded", "published": entry.features}
    assert meta["features"] == (seeded if entry.features else None)
    log = [*losses.metrics(components / layout.metrics_log("pretrain", "synthetic", component))]
    assert set(log[0]) - {"discriminator"} == {"step", *entry.phase.weights}


def test_a_trained_network_draws_the_stored_distance_maps(components, monkeypatch):
    """By the kappa in their metadata, which its meta.json keeps, to within their 8 bits."""
    monkeypatch.chdir(components)
    network, meta = checkpoints.load(layout.checkpoints("synthetic", "spatn"), 2)
    assert meta["kappa"] == tiny_dataset.KAPPA
    rows = store.read_table(layout.distance_maps("synthetic")).to_pylist()
    assert len(rows) == 12

    def pose(row):
        points, valid = tiny_dataset.joints(int(row["image_id"][:4]), int(row["image_id"][5]))
        return torch.tensor(points)[None], torch.tensor(valid)[None]

    for pair in zip(rows, rows[1:] + rows[:1], strict=True):
        size = pair[0]["height"], pair[0]["width"]
        drawn = network.pose_maps(Batch(torch.zeros(1, 3, *size), None, *pose(pair[0]), *pose(pair[1])))
        for row, maps in zip(pair, drawn[0].chunk(2), strict=True):
            stored = np.frombuffer(row["distance_maps"], np.uint8).reshape(12, *size)
            assert stored.any()
            assert np.abs(255 * maps[18:].double().numpy() - stored).max() < 0.514


def test_a_component_with_other_distance_maps_is_refused(components, monkeypatch, capfd):
    monkeypatch.chdir(components)
    params.load.cache_clear()
    monkeypatch.setattr(training_data, "kappa", lambda dataset: -0.1)
    line = refused(["train", "--dataset", "synthetic", "--variant", "spgnet"], capfd)
    assert "spatn/checkpoints: trained for kappa -0.3, -0.1 is wanted" in line


@pytest.mark.parametrize("stage", ["pretrain", "train"])
def test_parsing_reaches_what_needs_it_and_decides_its_state(components, monkeypatch, stage):
    """Every batch of the loop holds labels, in the set that SPGNet works in, and the parsing shards are inputs of the
    run; nothing else has either.
    """
    monkeypatch.chdir(components)
    params.load.cache_clear()
    seen = {}

    def look(run, objective, features, data, group, sample=None):
        batch = data.batch(torch.arange(2))
        seen[run.title.split()[-1]] = (batch, layout.parsing("synthetic") in run.inputs, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", look)
    names = ("spatn", "spgnet_flow") if stage == "pretrain" else ("spgnet", "spig")
    axis = "--component" if stage == "pretrain" else "--variant"
    for name in names:
        assert main([stage, "--dataset", "synthetic", axis, name]) == 130
    batch, declared, data = seen[names[0]]
    assert declared
    for side, column in (("source", 0), ("target", 1)):
        ids = [data.ids[row] for row in data.pairs[:2, column].tolist()]
        wanted = [tiny_dataset.label_map(int(name[:4]), int(name[5])) for name in ids]
        found = getattr(batch, f"{side}_labels")
        assert found.dtype == torch.uint8
        in_cihp = np.where(np.equal(wanted, 10), 6, wanted)  # no jumpsuits there: a dress stands for them
        np.testing.assert_array_equal(found.numpy(), in_cihp)
    batch, declared, _ = seen[names[1]]
    assert (batch.source_labels, batch.target_labels, declared) == (None, None, False)


def test_a_component_that_is_not_asked_for_is_not_trained(enter, capfd):
    enter(components={"spgnet_flow": False}, variants={"spgnet": []})
    command = ["pretrain", "--dataset", "synthetic", "--component", "spgnet_flow"]
    assert main(command) == 0
    out = layout.checkpoints("synthetic", "spgnet_flow")
    assert sorted(path.name for path in out.iterdir()) == ["_SHA256SUMS", "meta.json"]
    assert checkpoints.meta(out) == {"kind": "untrained", "name": "spgnet_flow"}
    said = capfd.readouterr().err.replace("\n", " ")
    assert "no variant in params.yaml starts from it, nor is components.spgnet_flow true" in said


def test_a_component_that_needs_parsing_is_refused_without(enter, capfd):
    enter()
    line = refused(["pretrain", "--dataset", "synthetic", "--component", "spatn"], capfd)
    assert "pretrain synthetic spatn: needs human parsing, but data/synthetic/parsing has none" in line


def test_an_image_without_parsing_is_named(enter, capfd):
    folder = enter()
    (folder / "data/synthetic").unlink()
    tiny_dataset.write(folder, parsing_source="oracle")
    rows = store.read_table(layout.parsing("synthetic"))
    store.write_shards(layout.parsing("synthetic"), rows.slice(1).to_pylist(), schema.PARSING, parsing_source="oracle")
    line = refused(["pretrain", "--dataset", "synthetic", "--component", "spatn"], capfd)
    assert "no parsing of 1 of 8 images, 0000_0.png the first" in line


def test_spig_starts_from_the_last_flow_checkpoint(enter, monkeypatch):
    enter(spig={"steps": 1, "learning_rate": 1e-12})
    assert main(PRETRAIN) == 0
    assert main(TRAIN) == 0
    flow, _ = checkpoints.load(layout.checkpoints("synthetic", "spig_flow"), 2)
    generator, _ = checkpoints.load(layout.checkpoints("synthetic", "spig"), 1)
    for name, value in flow.state_dict().items():
        torch.testing.assert_close(generator.flow.state_dict()[name], value, msg=name)


@pytest.fixture(scope="module")
def two_steps_of_patn(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("patn")
    (folder / "data").mkdir()
    (folder / "data/synthetic").symlink_to(prepared / "data/synthetic")
    tiny_dataset.write_params(folder)
    with working_in(folder):
        assert main([*TRAIN[:-1], "patn"]) == 0
    return folder


@pytest.fixture
def trained_patn(two_steps_of_patn, enter):
    """A project with two steps of patn, the last checkpoint, and what `named` says of a run that starts from it."""
    shutil.copytree(two_steps_of_patn / "runs", enter() / "runs")
    file = checkpoints.path(layout.checkpoints("synthetic", "patn"), 2)
    block = {"start": str(file), "start_sha256": digests.sha256(file), "learning_rate": 1e-12, "steps": 1}
    return file, block, [*TRAIN[:-1], "patn-on"]


def assert_learned_alike(wanted, found):
    """But for the statistics of batch norms, which a step without any learning rate changes too."""
    learned = [name for name in wanted if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert len(learned) > 50
    for name in learned:
        torch.testing.assert_close(found[name], wanted[name].to(found[name].dtype), msg=name, atol=1e-6, rtol=0)


def test_a_training_starts_from_a_checkpoint(trained_patn, enter, capfd):
    """Only its generator's weights: the record and the mark say so, and another file sets what was trained aside."""
    file, block, command = trained_patn
    enter(named={"patn": {"patn-on": block}})
    assert main(command) == 0
    before, after = (
        load_file(path) for path in (file, checkpoints.path(layout.checkpoints("synthetic", "patn-on"), 1))
    )
    assert before.keys() == after.keys()
    assert_learned_alike(before, after)
    meta, plain = (checkpoints.meta(layout.checkpoints("synthetic", name)) for name in ("patn-on", "patn"))
    weights = f"sha256:{block['start_sha256']}"
    assert meta["start"] == {"weights": weights, "name": "patn", "step": 2, "trained_on": "synthetic"}
    assert "start" not in plain
    assert set(meta["marks"]) == {*plain["marks"], "start"}
    other = checkpoints.path(layout.checkpoints("synthetic", "patn"), 1)
    enter(named={"patn": {"patn-on": block | {"start": str(other), "start_sha256": digests.sha256(other)}}})
    capfd.readouterr()
    assert main(command) == 0
    said = capfd.readouterr().err
    assert "start.weights changed" in said
    assert "start.step was 2 and is 1" in said
    assert "what was trained up to step 1 is set aside" in said


def test_weights_to_start_from_may_be_of_few_bits_or_an_exported_program(trained_patn, enter):
    file, block, command = trained_patn
    exact, wanted = load_file(file), {}
    folder = Path("few")
    folder.mkdir()
    shutil.copy(file.parent / checkpoints.META, folder)
    wanted["few/step-0000002.safetensors"] = {
        name: value.to(torch.float8_e4m3fn if value.dim() == 4 else torch.float16) for name, value in exact.items()
    }
    save_file(wanted["few/step-0000002.safetensors"], folder / "step-0000002.safetensors")
    export = ["export", "--what", "model", "--dataset", "synthetic", "--variant", "patn", "--output", "patn.pt2"]
    assert main(export) == 0
    wanted["patn.pt2"] = exact
    for path, weights in wanted.items():
        enter(named={"patn": {"patn-on": block | {"start": path, "start_sha256": digests.sha256(Path(path))}}})
        assert main(command) == 0
        assert_learned_alike(weights, load_file(checkpoints.path(layout.checkpoints("synthetic", "patn-on"), 1)))
        assert checkpoints.meta(layout.checkpoints("synthetic", "patn-on"))["start"]["step"] == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": "runs/none.safetensors"}, "train.synthetic.patn.start: runs/none.safetensors is no file"),
        ({"start_sha256": "0" * 64}, "start_sha256 is 000000000000..., which "),
        ({"start_sha256": None}, "start_sha256 is missing; the file's own is: start_sha256: "),
        ({"width": 0.3}, "start: weights of patn of width 0.1 do not fit: "),
        ({"start": "params.yaml"}, "start: params.yaml holds no weights of a run (SafetensorError: "),
    ],
)
def test_weights_that_cannot_be_started_from_are_refused_in_a_line(trained_patn, enter, capfd, change, said):
    _, block, command = trained_patn
    if change.get("start") == "params.yaml":
        enter(named={"patn": {"patn-on": block}})
        Path("broken").mkdir()
        shutil.copy("params.yaml", "broken/step-1.safetensors")
        change = {"start": "broken/step-1.safetensors", "start_sha256": digests.sha256(Path("params.yaml"))}
        said = said.replace("params.yaml", change["start"])
    enter(named={"patn": {"patn-on": block | change}})
    assert said in refused(command, capfd)


def test_weights_of_another_family_are_refused(trained_patn, enter, capfd):
    _, block, _ = trained_patn
    start = {name: block[name] for name in ("start", "start_sha256")}
    enter(spig_flow=start)
    assert "pretrain.synthetic.spig_flow.start: weights of patn of width 0.1 do not fit" in refused(PRETRAIN, capfd)


def test_components_weights_are_their_own_whatever_a_training_starts_from(components, monkeypatch, tmp_path):
    """The file may lack the parts that components bring, and what it has of them is not taken."""
    monkeypatch.chdir(components)
    params.load.cache_clear()
    of_spatn = checkpoints.load(layout.checkpoints("synthetic", "spatn"), 2)[0].state_dict()
    network = VARIANTS["spgnet"].build(64, 32, 0.1)
    network.parsing.load_state_dict(of_spatn)
    whole = {name: value + 1 for name, value in network.state_dict().items()}
    without = {name: value for name, value in whole.items() if not name.startswith("parsing.")}
    meta = {"name": "spgnet", "settings": {"width": 0.1}}
    for tensors in (whole, without):
        start.give(network, start.Weights(tensors, meta), ["parsing"], "train.synthetic.spgnet")
        found = network.state_dict()
        assert all(torch.equal(found[f"parsing.{name}"], value) for name, value in of_spatn.items())
        assert all(torch.equal(found[name], value) for name, value in without.items())


KILL = """
import os, signal, sys
from pipeline.training import loop, tracker, training_data
from pipeline.__main__ import main
step, left = loop.Trainer.step, int(sys.argv.pop(1))
def count(self, *arguments, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments, **options)
loop.Trainer.step = count
main(sys.argv[1:])
"""


def killed_at(step, command, folder):
    environment = {**os.environ, "PYTHONPATH": str(tiny_dataset.ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILL, str(step), *command], cwd=folder, env=environment, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_a_killed_run_ends_with_the_same_bytes(enter, capfd):
    steps = {"steps": 4, "checkpoint_every": 2}
    whole = enter("whole", spig=steps)
    assert main(PRETRAIN) == 0
    assert main(TRAIN) == 0

    broken = enter("broken", spig=steps)
    assert main(PRETRAIN) == 0
    killed_at(4, TRAIN, broken)
    assert not layout.checkpoints("synthetic", "spig").exists()
    assert (layout.work("train", "synthetic", "spig") / "state.pt").exists()
    capfd.readouterr()
    assert main(TRAIN) == 0
    assert "going on after step 2 of 4" in capfd.readouterr().err
    # Three claims at once: pretraining twice gives equal bytes, resuming does, and no path is in them.
    assert outputs(broken) == outputs(whole)
    log = layout.metrics_log("train", "synthetic", "spig")
    assert (whole / log).read_bytes() == (broken / log).read_bytes()


def removed(folder):
    """The outputs of `pretrain`, which are then removed, as an engine does before it runs a stage again."""
    found = outputs(folder)
    shutil.rmtree(folder / layout.checkpoints("synthetic", "spig_flow"))
    return found


def test_a_finished_training_outlives_its_outputs(enter, capfd, monkeypatch, tmp_path):
    """An engine runs a stage again for a comment, for more steps, for a setting, and removes its outputs first."""
    for room in ("pipeline", "models"):
        shutil.copytree(digests.ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(digests.ROOT / "dvc.yaml", tmp_path)
    monkeypatch.setattr(digests, "ROOT", tmp_path)
    folder = enter(spig_flow={"steps": 2})
    assert main(PRETRAIN) == 0
    first = removed(folder)
    model, stage = tmp_path / "models/spig.py", tmp_path / "pipeline/stages/pretrain.py"
    for file in (model, stage):
        file.write_text("# An edited comment.\n" + file.read_text().replace('"""', '"""A new word. ', 1))
    capfd.readouterr()
    assert main(PRETRAIN) == 0
    assert "pretrain synthetic spig_flow: all 2 steps were done before\n" in capfd.readouterr().err
    assert removed(folder) == first

    enter(spig_flow={"steps": 3})
    assert main(PRETRAIN) == 0
    error = capfd.readouterr().err
    assert "going on after step 2 of 3; steps was 2 and is 3, on which no step so far depends" in error
    longer = removed(folder)

    enter(spig_flow={"steps": 3, "seed": 1})
    assert main(PRETRAIN) == 0
    assert "pretrain synthetic spig_flow: seed was 0 and is 1; what was trained up to step 3" in capfd.readouterr().err
    assert removed(folder) != longer
    enter(spig_flow={"steps": 3})
    assert main(PRETRAIN) == 0
    error = capfd.readouterr().err
    assert "takes up .work/pretrain/synthetic/spig_flow.set-aside/1-step-3-seed again" in error
    assert removed(folder) == longer

    stage.write_text(stage.read_text() + "\nEDITED = True\n")
    assert main(PRETRAIN) == 0
    assert "spig_flow: pipeline/stages/pretrain.py changed; what was trained up to step 3" in capfd.readouterr().err
    assert removed(folder) == longer  # trained anew, to the same bytes
    whole = enter("whole", spig_flow={"steps": 3})
    assert main(PRETRAIN) == 0
    assert outputs(whole) == longer


def test_another_tracker_trains_nothing_again(enter, capfd, monkeypatch):
    """Switched on after the run, it is given the steps that were done; nothing is set aside, and no byte differs."""
    monkeypatch.setattr(tracker, "require", lambda *_: None)
    lines = []

    @contextmanager
    def listen(folder):
        yield lines.append

    monkeypatch.setitem(tracker._TRACKERS, "tensorboard", listen)
    folder = enter()
    assert main(PRETRAIN) == 0
    before, log = outputs(folder), layout.metrics_log("pretrain", "synthetic", "spig_flow")
    monkeypatch.setattr(loop.Trainer, "step", None)
    enter(spig_flow={"tracker": "tensorboard"})
    capfd.readouterr()
    assert main(PRETRAIN) == 0
    assert "pretrain synthetic spig_flow: all 2 steps were done before\n" in capfd.readouterr().err
    assert outputs(folder) == before
    assert lines == list(losses.metrics(log))
    assert [line["step"] for line in lines] == [1, 2]
    assert [path.name for path in layout.work("pretrain", "synthetic", "spig_flow").parent.iterdir()] == ["spig_flow"]


def test_a_tracker_is_given_each_step(enter, monkeypatch):
    pytest.importorskip("tensorboard")
    enter(spig_flow={"tracker": "tensorboard"})
    assert main(PRETRAIN) == 0
    log = layout.metrics_log("pretrain", "synthetic", "spig_flow")
    found = of_tensorboard(log.with_suffix(".tensorboard"))
    assert found == [pytest.approx(line, rel=1e-6) for line in losses.metrics(log)]


def test_a_diverging_run_says_so_in_one_line(enter, capfd, monkeypatch):
    enter(spig_flow={"steps": 6, "checkpoint_every": 1})
    losses, calls = spig.FlowObjective.generator_losses, []

    def diverge(self, batch, features):
        calls.append(1)
        terms, output = losses(self, batch, features)
        return {name: term / (3 - len(calls)) for name, term in terms.items()}, output

    monkeypatch.setattr(spig.FlowObjective, "generator_losses", diverge)
    line = refused(PRETRAIN, capfd)
    assert line.startswith("repose: pretrain synthetic spig_flow: the loss term sampling is inf at step 3; last good")
    assert ".work/pretrain/synthetic/spig_flow/checkpoints/step-0000002.safetensors" in line
    assert not layout.checkpoints("synthetic", "spig_flow").exists()


def refused(command, capfd):
    capfd.readouterr()
    assert main(command) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("repose: ")
    return lines[-1]


def test_a_missing_component_names_its_command(enter, capfd):
    enter()
    assert "run: repose pretrain --dataset synthetic --component spig_flow" in refused(TRAIN, capfd)


def test_a_component_of_another_width_is_refused(enter, capfd):
    enter(spig={"width": 0.5})
    assert main(PRETRAIN) == 0
    assert "trained for network width 0.1, 0.5 is wanted" in refused(TRAIN, capfd)


def test_another_learning_rate_than_the_papers_is_marked(enter):
    folder = enter(spig_flow={"batch": 8, "learning_rate": 0.0001})
    assert main(PRETRAIN) == 0
    meta = json.loads((folder / "runs/synthetic/spig_flow/checkpoints/meta.json").read_text())
    assert "settings" in meta["marks"]
    assert meta["published"]["learning_rate"] == 0.001


def test_missing_weights_stop_where_params_say_so(enter, capfd):
    enter(spig_flow={"features": None, "missing_weights": "stop"})
    line = refused(PRETRAIN, capfd)
    assert "pretrain.synthetic.spig_flow needs the published weights of vgg19" in line


def test_a_variant_that_needs_parsing_is_refused_without(enter, capfd, monkeypatch, prepared, tmp_path):
    folder = enter()
    monkeypatch.setitem(VARIANTS, "spig", VARIANTS["spig"].__class__(**{**vars(VARIANTS["spig"]), "labels": "lip-20"}))
    assert "train synthetic spig: needs human parsing, but data/synthetic/parsing has none" in refused(TRAIN, capfd)
    (folder / "data/synthetic").unlink()
    tiny_dataset.write(folder, parsing_source="oracle")
    assert "no checkpoint of spig_flow" in refused(TRAIN, capfd)


def test_reference_variants(enter):
    enter()
    for variant in ("copy_source", "mean_image"):
        assert main(["train", "--dataset", "synthetic", "--variant", variant]) == 0
    copy, meta = checkpoints.load(layout.checkpoints("synthetic", "copy_source"), 0)
    assert (meta["family"], meta["steps"], meta["marks"], meta["parameters"]) == ("floors", [0], ["data", "joints"], 0)
    assert (meta["height"], meta["width"]) == (64, 32)
    image = torch.rand(2, 3, 64, 32)
    assert torch.equal(copy(Batch(image, *[None] * 5)).image, image)

    # the images of the training pairs: three people, one image rejected, nothing of the people of val
    seen = [(person, view) for person in range(3) for view in range(3) if (person, view) != (0, 2)]
    mean = np.mean([tiny_dataset.picture(*which) for which in seen], axis=0).transpose(2, 0, 1) / 127.5 - 1
    fitted, _ = checkpoints.load(layout.checkpoints("synthetic", "mean_image"), 0)
    np.testing.assert_allclose(fitted.mean.numpy(), mean, atol=1e-6)


def test_an_openpose_detector_trains_nothing(enter):
    enter(detector={"source": "openpose"})
    assert main(DETECTOR) == 0
    out = layout.checkpoints("synthetic", "detector")
    assert sorted(path.name for path in out.iterdir()) == ["_SHA256SUMS", "meta.json"]
    assert checkpoints.meta(out) == {"kind": "openpose", "net": "openpose"}


def test_a_trained_detector_records_its_error_on_people_it_never_saw(enter, capfd):
    enter()
    assert main(DETECTOR) == 0
    assert "9 images of 64 x 32" in capfd.readouterr().err  # eleven, less the two of the identity held out
    network, meta = checkpoints.load(layout.checkpoints("synthetic", "detector"), 2)
    assert meta["marks"] == ["steps", "settings", "borrowed", "data", "joints"]
    assert network(torch.zeros(1, 3, 64, 32)).shape == (1, 18, 16, 8)
    found = meta["validation"]
    assert found["joints"] == sum(tiny_dataset.joints(0, view)[1].sum() for view in range(2))
    assert 0 < found["mean_error_px"] < 80
    assert 0 <= found["within_6px"] <= 1
    enter(detector={"steps": 0})
    assert "needs 1 or more" in refused(DETECTOR, capfd)


class Judged(torch.nn.Module):
    """A generator of one convolution, whose images a detector judges."""

    def __init__(self):
        super().__init__()
        self.image, self.parsing = torch.nn.Conv2d(3, 3, 1), Spatn(0.1)

    def forward(self, batch):
        return Output(self.image(batch.source))


class PoseObjective:
    weights = None

    def __init__(self, generator):
        self.generator, self.detector = generator, COMPONENTS["detector"].build(64, 32, 1.0)

    def networks(self):
        return {"generator": self.generator, "detector": self.detector}

    def generator_losses(self, batch, features):
        assert batch.target is None
        output = self.generator(batch)
        return {"pose": self.detector(output.image).square().mean()}, output

    def discriminator_losses(self, batch, output):
        return {}


def test_a_variant_without_targets_with_a_judge_and_a_part_that_thaws(components, monkeypatch):
    monkeypatch.chdir(components)
    params.load.cache_clear()
    assert main(DETECTOR) == 0
    adam = {"generator": Adam(0.01, (0.5, 0.9))}
    phase = Phase(("generator",), (), adam, {}, {"market1501": 2}, {"market1501": 9}, frozen=("parsing",))
    variant = Variant(
        name="spig",
        paper="none",
        row="none",
        build=lambda height, width, scale: Judged(),
        components=("spatn",),
        labels="lip-20",
        objective=lambda generator, height, width, scale, weights: PoseObjective(generator),
        phase=replace(phase, thaw={"parsing": {"market1501": 0.5}}),
        judges={"detector": "detector"},
        data="unpaired",
    )
    monkeypatch.setitem(VARIANTS, "spig", variant)
    seen, original = [], loop.train

    def look(run, objective, features, data, group, sample=None):
        trained, _ = checkpoints.load(layout.checkpoints("synthetic", "detector"), 2)
        state = objective.detector.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in trained.state_dict().items())
        result = original(run, objective, features, data, group, sample)
        assert all(torch.equal(value, state[key]) for key, value in trained.state_dict().items())
        seen.append(run)
        return result

    monkeypatch.setattr(loop, "train", look)
    assert main(TRAIN) == 0
    assert seen[0].thaws == {"parsing": 2}
    meta = checkpoints.meta(layout.checkpoints("synthetic", "spig"))
    assert set(meta["components"]) == {"spatn", "detector"}


def test_a_component_that_starts_from_another(components, monkeypatch):
    monkeypatch.chdir(components)
    params.load.cache_clear()
    flow = COMPONENTS["spgnet_flow"]
    monkeypatch.setitem(COMPONENTS, "spig_flow", replace(flow, name="spig_flow", into="", components=("spig_flow",)))
    monkeypatch.setattr(starting_points, "last_checkpoint", lambda dataset, component: 2)
    copied = []

    def look(run, objective, features, data, group, sample=None):
        copied.append((run.settings["components"], objective.networks()))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", look)
    other = layout.checkpoints("synthetic", "spgnet_flow")
    monkeypatch.setattr(layout, "checkpoints", lambda dataset, name: other)
    assert main(PRETRAIN) == 130
    ((made, networks),) = copied
    assert set(made) == {"spig_flow"}
    trained, _ = checkpoints.load(other, 2)
    (network,) = networks.values()
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in trained.state_dict().items())


def test_a_judge_that_was_not_trained_here_is_named(enter, capfd, monkeypatch):
    enter(detector={"source": "openpose"})
    assert main(PRETRAIN) == 0
    assert main(DETECTOR) == 0
    monkeypatch.setitem(VARIANTS, "spig", replace(VARIANTS["spig"], judges={"detector": "detector"}))
    line = refused(TRAIN, capfd)
    assert "no checkpoint of detector to start from; set pretrain.synthetic.detector.source to trained and run" in line


BARE = "torch numpy pyarrow opencv-python-headless safetensors rich PyYAML jsonschema"


def test_training_needs_few_packages(enter):
    """Two steps of a component and its variant on a machine that has torch, numpy, pyarrow, opencv, safetensors, rich,
    PyYAML and jsonschema, with what these require, and nothing else.
    """
    folder = enter()
    environment = {**os.environ, "PYTHONPATH": str(tiny_dataset.ROOT), "OMP_NUM_THREADS": "1"}
    for stage in (PRETRAIN, TRAIN):
        command = [sys.executable, "-m", "tests.bare", BARE, "pipeline", *stage]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert sorted(checkpoints.steps(folder / layout.checkpoints("synthetic", "spig"))) == [1, 2]


def test_keys_that_a_block_may_leave_out(enter):
    """What they decide is in the meta; where the pictures lie decides nothing: the same bytes."""
    kept = {}
    for resident in (True, False):
        enter(str(resident), spig_flow={"accumulate": 2, "resident": resident})
        assert main(PRETRAIN) == 0
        out = layout.checkpoints("synthetic", "spig_flow")
        settings = checkpoints.meta(out)["settings"]
        assert (settings["accumulate"], settings["compile"]) == (2, False)
        kept[resident] = [path.read_bytes() for path in sorted(out.iterdir())]
    assert kept[True] == kept[False]


def test_images_are_augmented_as_those_of_the_nearest_size_that_a_paper_used(enter, monkeypatch):
    enter()
    assert main(PRETRAIN) == 0
    seen = []
    monkeypatch.setattr(loop, "train", lambda run, *others: seen.append(run.jitter) or 1 / 0)
    variant, jitter = VARIANTS["spig"], Jitter(target=Move(shift=10.0))
    for dataset in ("market1501", "deepfashion"):
        phase = replace(variant.phase, augment={dataset: jitter})
        monkeypatch.setitem(VARIANTS, "spig", replace(variant, phase=phase))
        with pytest.raises(ZeroDivisionError):
            train.run("synthetic", "spig")
    assert seen == [Jitter(target=Move(shift=5.0)), None]  # of 64 rows, where 128 are published


def test_a_delay_is_a_share_of_the_steps(enter, monkeypatch):
    """The published share of a data set that no paper used is that of Market-1501."""
    enter(spig={"steps": 20, "checkpoint_every": 20})
    assert main(PRETRAIN) == 0
    variant = VARIANTS["spig"]
    phase = replace(variant.phase, delays={"adversarial": {"market1501": 0.5, "deepfashion": 0.1}})
    monkeypatch.setitem(VARIANTS, "spig", replace(variant, phase=phase))
    seen = []
    monkeypatch.setattr(loop, "train", lambda run, *others: seen.append(run.starts) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.run("synthetic", "spig")
    assert seen == [{"adversarial": 11}]
