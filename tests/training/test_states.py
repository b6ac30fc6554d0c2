# ruff: noqa: F811 (fixtures of test_loop)
"""What a state belongs to, when a run goes on from it, and what becomes of one that does not fit: it is never lost."""

import json
import os
import re
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.core import digests, seals
from pipeline.loading import checkpoints
from pipeline.training import loop, states
from tests.training.test_loop import (  # noqa: F401 (fixtures)
    PHASE,
    Game,
    Noise,
    Weighted,
    _one_thread,
    crash,
    files,
    logged,
    run,
    uninterrupted,
)


class Fading(Game):
    progress = 0.0


def weighted(at_step=None):
    game = Weighted()
    game.at_step = at_step or {}
    return game


ADVERSARIAL = {"phase": replace(PHASE, weights={"l1": 1.0, "adversarial": 0.5}), "starts": {"adversarial": 5}}


def trained_to(run, step, game=Game):
    """The run, saved after `step` and stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "STATE_SECONDS", 0.0)
        with pytest.raises(ZeroDivisionError):
            loop.train(run, game({step + 1: crash}), None, Noise())


def again(run, capfd, game=Game):
    """Run to the end; how many steps that took, and what was said but for the steps."""
    torch.manual_seed(99)
    capfd.readouterr()
    played = game()
    loop.train(run, played, None, Noise())
    said = [line for line in capfd.readouterr().err.splitlines() if " pairs/s " not in line]
    return played.calls, said


def published(run):
    """The checkpoints that the run asks for, and its log."""
    folder = run.work / "checkpoints"
    files = {step: checkpoints.path(folder, step).read_bytes() for step in loop.checkpoint_steps(run)}
    return files, logged(run)[: run.steps]


def whole(run, folder, game=Game):
    """The same of a run that was never stopped."""
    other = replace(run, work=folder / "other", metrics=folder / "other.jsonl")
    loop.train(other, game(), None, Noise())
    return published(other)


def aside(run):
    return sorted(path.name for path in run.work.parent.glob(f"{run.work.name}.set-aside/*"))


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- more steps, other checkpoints


@pytest.mark.parametrize("step", [1, 3, 5, 7])
@pytest.mark.parametrize("steps", [9, 12])
def test_more_steps_go_on_and_end_with_the_same_bytes(run, tmp_path, capfd, step, steps):
    if step < 7:
        trained_to(run, step)
    else:
        loop.train(run, Game(), None, Noise())
    more = replace(run, steps=steps)
    calls, said = again(more, capfd)
    assert calls == steps - step
    assert said == [
        f"train test game: going on after step {step} of {steps}; "
        f"steps was 7 and is {steps}, on which no step so far depends"
    ]
    assert aside(run) == []
    assert published(more) == whole(more, tmp_path)


def test_fewer_steps_go_on_too_or_are_done_already(run, tmp_path, capfd):
    trained_to(run, 5)
    fewer = replace(run, steps=6)
    assert again(fewer, capfd)[0] == 1
    assert published(fewer) == whole(fewer, tmp_path)
    calls, said = again(replace(run, steps=3), capfd)
    assert calls == 0
    assert said == [
        "train test game: all 3 steps were done before; steps was 6 and is 3, on which no step so far depends"
    ]
    assert published(replace(run, steps=3)) == whole(replace(run, steps=3), tmp_path)
    trained = loop.train(replace(run, steps=3), Game(), None, Noise())
    again_saved = checkpoints.save(tmp_path / "again", 3, trained.generator)
    assert again_saved.read_bytes() == checkpoints.path(trained.folder, 3).read_bytes()
    assert again(run, capfd)[0] == 1  # from step 6: what was done beyond 3 was kept
    assert published(run) == whole(run, tmp_path)


def test_fewer_steps_without_a_checkpoint_of_the_last_are_set_aside(run, tmp_path, capfd):
    trained_to(run, 5)
    calls, said = again(replace(run, steps=4), capfd)
    assert calls == 4
    assert "steps was 7 and is 4, and no checkpoint of step 4 was kept; what was trained up to step 5" in said[0]
    assert again(run, capfd)[0] == 2  # not the one of step 4 that would fit, too: what was set aside is further
    assert published(run) == whole(run, tmp_path)
    assert aside(run) == ["2-step-4-overtaken"]


DECAY = replace(PHASE, decay_from=0.5)


@pytest.mark.parametrize(
    ("change", "game", "step", "depends"),
    [
        ({"phase": DECAY}, Game, 3, None),
        ({"phase": DECAY}, Game, 5, "its learning rates fall towards the last step"),
        ({}, Fading, 3, "its objective follows the share of steps that are done"),
        (ADVERSARIAL, weighted, 4, None),
        (ADVERSARIAL, weighted, 5, "adversarial comes in after a share of the steps"),
        ({"phase": replace(PHASE, frozen=("0",)), "thaws": {"0": 5}}, Game, 4, None),
        ({"phase": replace(PHASE, frozen=("0",)), "thaws": {"0": 5}}, Game, 6, "0 comes in after a share of the steps"),
    ],
)
def test_steps_that_depend_on_their_number_are_set_aside(run, tmp_path, capfd, change, game, step, depends):
    run = replace(run, **change)
    trained_to(run, step, game)
    firsts = {key: value for key, value in change.items() if key != "phase"}
    later = {key: {name: first + 3 for name, first in value.items()} for key, value in firsts.items()}
    more = replace(run, steps=12, **later)
    calls, said = again(more, capfd, game)
    assert calls == 12 - (0 if depends else step)
    assert published(more) == whole(more, tmp_path, game)
    if depends:
        assert f"steps was 7 and is 12, and {depends}" in said[0]
        assert aside(run) == [f"1-step-{step}-steps"]
        calls, said = again(run, capfd, game)
        assert calls == 7 - step
        assert published(run) == whole(run, tmp_path, game)


@pytest.mark.parametrize(
    ("step", "every", "goes_on"), [(3, 6, True), (1, 2, True), (5, 5, True), (3, 2, False), (7, 7, True), (7, 2, False)]
)
def test_other_checkpoints_go_on_where_all_that_are_asked_for_can_be_had(run, tmp_path, capfd, step, every, goes_on):
    trained_to(run, step) if step < 7 else loop.train(run, Game(), None, Noise())
    other = replace(run, checkpoint_every=every)
    calls, said = again(other, capfd)
    assert calls == (7 - step if goes_on else 7)
    assert f"checkpoint_every was 3 and is {every}" in said[0]
    assert goes_on or f", and no checkpoint of step {every} was kept; what was trained up to step {step}" in said[0]
    assert published(other) == whole(other, tmp_path)


# ---- finished


def test_a_finished_run_trains_nothing_again(run, uninterrupted, capfd):
    loop.train(run, Game(), None, Noise())
    assert again(run, capfd) == (0, ["train test game: all 7 steps were done before"])
    assert (files(run), logged(run)) == uninterrupted


# ---- something else changed


def changed(run, what, folder):
    if what == "input":
        (folder / "shards/part-00000.parquet").write_bytes(b"two")
        return run
    changes = {
        "settings": {"settings": {"width": 0.5}},
        "seed": {"seed": 2},
        "phase": {"phase": replace(PHASE, weights={"l1": 2.0})},
        "batch and seed": {"batch": 5, "seed": 3},
        "code": {"code": {**run.code, "models/spig.py": "3"}},
        "new code": {"code": {**run.code, "models/spt.py": "3"}},
    }
    return replace(run, **changes[what])


@pytest.mark.parametrize(
    ("what", "why", "undo", "name"),
    [
        ("settings", "width was 1.0 and is 0.5", "width 1.0", "width"),
        ("seed", "seed was 1 and is 2", "seed 1", "seed"),
        ("phase", "phase changed", "phase as it was", "phase"),
        ("batch and seed", "batch was 4 and is 5, seed was 1 and is 3", "batch 4, seed 1", "batch"),
        ("code", "models/spig.py changed", "models/spig.py as it was", "models-spig.py"),
        ("new code", "models/spt.py is new", "models/spt.py as it was", "models-spt.py"),
        ("input", "{folder}/shards changed", "{folder}/shards as it was", "{word}-shards"),
    ],
)
def test_what_changed_is_said_and_its_undoing_takes_the_state_up(run, tmp_path, capfd, what, why, undo, name):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/part-00000.parquet").write_bytes(b"one")
    run = replace(run, inputs=(tmp_path / "shards",), code={"models/spig.py": "1", "models/gfla.py": "2"})
    trained_to(run, 5)
    before = {**content(run.work), "metrics.jsonl": run.metrics.read_bytes()}
    other = changed(run, what, tmp_path)
    calls, said = again(other, capfd)
    assert calls == 7
    word = re.sub(r"[^\w.]+", "-", str(tmp_path))
    (folder,) = run.work.parent.glob("work.set-aside/*")
    assert folder.name == f"1-step-5-{name.format(word=word)}"
    assert said == [
        f"train test game: {why.format(folder=tmp_path)}; what was trained up to step 5 is set aside in {folder}; "
        f"with {undo.format(folder=tmp_path)} the same command takes it up again"
    ]
    assert content(folder) == before
    result = published(other)

    (tmp_path / "shards/part-00000.parquet").write_bytes(b"one")
    calls, said = again(run, capfd)
    assert calls == 2
    assert said[1:] == [f"train test game: takes up {folder} again", "train test game: going on after step 5 of 7"]
    assert published(run) == whole(run, tmp_path)
    assert len(aside(run)) == 1

    other = changed(run, what, tmp_path)  # and there again: nothing was lost on either way
    calls, said = again(other, capfd)
    assert (calls, said[-1]) == (0, "train test game: all 7 steps were done before")
    assert published(other) == result


def test_another_torch_or_number_of_processes_is_named(run, monkeypatch, capfd):
    trained_to(run, 3)
    found = states.belongs(run, 2)["machine"]
    assert found == {"torch": torch.__version__, "device": "cpu", "processes": 2}
    monkeypatch.setattr(torch, "__version__", "9.0")
    assert f"torch was {found['torch']} and is 9.0; what was trained" in again(run, capfd)[1][0]


def test_a_run_by_hand_belongs_to_all_the_code_there_is(run, tmp_path, monkeypatch, capfd):
    """A comment or a docstring changes nothing; the batch order is code as any other."""
    for room in ("pipeline", "models"):
        shutil.copytree(digests.ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digests, "ROOT", tmp_path)
    trained_to(run, 3)
    (order,) = (path for path in tmp_path.glob("pipeline/*/*.py") if "class BatchOrder" in path.read_text())
    text = order.read_text()
    order.write_text("# An edited comment.\n" + text.replace('"""', '"""A new word. ', 1))
    assert again(run, capfd) == (4, ["train test game: going on after step 3 of 7"])
    order.write_text(text + "\nEDITED = True\n")
    name = order.relative_to(tmp_path).as_posix()
    assert f"train test game: {name} changed; what was trained up to step 7" in again(run, capfd)[1][0]


def test_many_changes_are_counted(run, capfd):
    run = replace(run, code={f"models/{name}.py": "1" for name in "abcde"})
    trained_to(run, 3)
    _, said = again(replace(run, code=dict.fromkeys(run.code, "2")), capfd)
    assert said[0].startswith(
        "train test game: models/a.py changed, models/b.py changed, models/c.py changed, and 2 more; what was trained"
    )


# ---- damage


def cut(path):
    path.write_bytes(path.read_bytes()[:-500])


def flip(path):
    """One bit of a weight."""
    data, place = bytearray(path.read_bytes()), -1
    if path.suffix == ".pt":
        place = data.index(torch.load(path)["networks"]["generator"]["0.weight"].numpy().tobytes())
    data[place] ^= 64
    path.write_bytes(data)


def text(path):
    path.write_text("no state")


def unsealed(path):
    record = json.loads(path.read_text())
    del record[seals.KEY]
    path.write_text(json.dumps(record))


def other_content(path):
    torch.save([1, 2], path)


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("state.pt", cut, "state.pt is unreadable ("),
        ("state.pt", flip, "state.pt is unreadable ("),
        ("state.pt", text, "state.pt is unreadable ("),
        ("state.pt", other_content, "state.pt is unreadable ("),
        ("state.pt", Path.unlink, "state.pt is gone"),
        ("checkpoints/step-0000003.safetensors", cut, "step-0000003.safetensors is gone or damaged"),
        ("checkpoints/step-0000003.safetensors", flip, "step-0000003.safetensors is gone or damaged"),
        ("checkpoints/step-0000003.safetensors", Path.unlink, "step-0000003.safetensors is gone or damaged"),
        ("belongs.json", text, "belongs.json is missing or damaged"),
        ("belongs.json", unsealed, "belongs.json is missing or damaged"),
        ("belongs.json", Path.unlink, "belongs.json is missing or damaged"),
    ],
)
def test_what_is_damaged_is_set_aside_with_a_line(run, uninterrupted, capfd, name, damage, said):
    trained_to(run, 5)
    damage(run.work / name)
    left = content(run.work)
    (run.work / ".state.pt.lock").touch()  # of a process that was killed
    calls, lines = again(run, capfd)
    assert calls == 7
    assert lines[0].startswith(f"train test game: {said}")
    assert (files(run), logged(run)) == uninterrupted
    (folder,) = run.work.parent.glob("work.set-aside/*")
    assert {key: value for key, value in content(folder).items() if key != "metrics.jsonl"} == left


def test_any_flipped_bit_of_a_state_is_seen(run, capfd):
    """Also in the zip's directory and between its members, where a checksum of the members does not reach."""
    trained_to(run, 3)
    path = run.work / "state.pt"
    whole = path.read_bytes()
    mark = len(whole) - 80  # of the seal: without it there would be none
    for place in (*range(0, len(whole), max(1, len(whole) // 200)), mark):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(states.Unfit):
            states.load(run.work)
    path.write_bytes(whole)
    assert states.load(run.work)["step"] == 3
    assert states.load(run.work, mmap=True)["step"] == 3


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("torch.load", RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")),
        ("torch.load", MemoryError()),
        ("pipeline.core.seals.fault", OSError(24, "Too many open files")),
    ],
)
def test_a_shortage_sets_no_training_aside(run, uninterrupted, capfd, monkeypatch, where, error):
    def fail(*_, **__):
        raise error

    trained_to(run, 5)
    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(type(error)):
            loop.train(run, Game(), None, Noise())
    assert again(run, capfd)[0] == 2
    assert (files(run), logged(run)) == uninterrupted


def test_the_log_is_on_the_disk_before_the_state_that_counts_its_lines(run, monkeypatch):
    done, fsync, save = [], os.fsync, states.save
    monkeypatch.setattr(
        os, "fsync", lambda file: (done.append(str(Path(f"/proc/self/fd/{file}").readlink())), fsync(file))
    )
    monkeypatch.setattr(states, "save", lambda *given: (done.append("state"), save(*given)))
    loop.train(run, Game(), None, Noise())
    before = done[: done.index("state")]
    assert str(run.metrics.resolve()) in before


def test_a_damaged_line_of_the_log_costs_that_line(run, uninterrupted, capfd):
    """A training once stopped at it for ever."""
    trained_to(run, 5)
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"1", b"\xff", 1)
    lines[2] = lines[2].replace(b"0.", b"1.", 1)
    run.metrics.write_bytes(b"".join(lines))
    calls, said = again(run, capfd)
    assert calls == 2
    assert f"{run.metrics}: damaged lines, left out of the curves: 2; no weight depends on them" in said
    assert files(run) == uninterrupted[0]
    assert [line["step"] for line in logged(run)] == [1, 4, 5, 6, 7]


def test_the_checkpoint_of_the_state_itself_is_made_again(run, uninterrupted, capfd):
    trained_to(run, 3)
    cut(checkpoints.path(run.work / "checkpoints", 3))
    assert again(run, capfd)[0] == 4
    assert (files(run), logged(run)) == uninterrupted


@pytest.mark.parametrize("undone", [True, False])
def test_a_kill_while_a_state_is_set_aside_loses_nothing(run, uninterrupted, monkeypatch, capfd, undone):
    trained_to(run, 5)
    other = replace(run, seed=2)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda path, target: crash(None))
        with pytest.raises(ZeroDivisionError):
            loop.train(other, Game(), None, Noise())
    if not undone:
        loop.train(other, Game(), None, Noise())
    assert again(run, capfd)[0] == 2
    assert (files(run), logged(run)) == uninterrupted


def test_a_full_disk_is_an_error_of_the_disk_and_leaves_the_state_before(run):
    trained_to(run, 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            states.save(run, {"weights": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert states.load(run.work)["step"] == 3
    assert sorted(path.name for path in run.work.iterdir()) == ["belongs.json", "checkpoints", "state.pt"]


def test_a_folder_without_anything_trained_is_not_kept(run):
    with pytest.raises(ZeroDivisionError):
        loop.train(run, Game({1: crash}), None, Noise())
    loop.train(replace(run, seed=2), Game(), None, Noise())
    assert aside(run) == []
    assert json.loads((run.work / "belongs.json").read_text())["settings"]["seed"] == 2
