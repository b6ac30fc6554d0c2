"""Training in two real processes over gloo."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.layers import features
from pipeline.__main__ import main
from pipeline.core import layout, params
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints, devices, parallel
from pipeline.training import loop, losses
from tests import tiny_dataset
from tests.models.test_spig import build
from tests.training import test_loop
from tests.training.test_loop import CPU, Figures, Game, Noise, Plain

GAMES = {"game": Game, "plain": Plain}
ACTIONS = {
    None: lambda game: None,
    "crash": lambda game: 1 / 0,
    "terminate": lambda game: os.kill(os.getpid(), signal.SIGTERM),
    "spoil": lambda game: setattr(game, "factor", {"seen": float("nan")}),
}


def run_in(folder, **changes):
    run = loop.Run(
        title="train test game",
        phase=test_loop.PHASE,
        steps=7,
        checkpoint_every=3,
        batch=4,
        seed=1,
        precision="fp32",
        device=CPU,
        work=folder / "work",
        metrics=folder / "log.jsonl",
        settings={},
    )
    return replace(run, **changes)


def play(kind, at_step=None):
    """A game, or the objective of a published phase: with its features and data."""
    if kind in GAMES:
        return GAMES[kind](at_step), None, Noise()
    _, objective, _ = build(kind)
    return objective, features.build("squeezenet1_1"), Figures()


def process(rank, port, folder, kind, action, changes):
    """One process of two. Its end goes to folder/end-RANK: a game's calls, the error's kind and text."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    what, who, at = action
    game, net, data = play(kind, {at: ACTIONS[what]} if rank == who else {})
    end = "finished"
    try:
        with parallel.joined(CPU) as group:
            loop.train(run_in(folder, **changes), game, net, data, group)
    except (Exception, KeyboardInterrupt) as error:
        end = f"{type(error).__name__}: {error}"
    weights = {name: network.state_dict() for name, network in game.networks().items()}
    torch.save(weights, folder / f"weights-{rank}.pt")
    (folder / f"end-{rank}").write_text(f"{game.calls} {end}" if kind in GAMES else end)


def two(folder, kind="game", action=(None, 0, 1), **changes):
    """Train in two processes; return how each ended."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")  # torch is imported once for all of this file
    context.set_forkserver_preload(["tests.loading.test_parallel", "torch._dynamo", "torch.distributed"])
    both = [context.Process(target=process, args=(rank, port, folder, kind, action, changes)) for rank in (0, 1)]
    for one in both:
        one.start()
    for one in both:
        one.join(300)
        assert one.exitcode == 0
    return [(folder / f"end-{rank}").read_text() for rank in (0, 1)]


def logged(folder):
    return list(losses.metrics(folder / "log.jsonl"))


def saved(folder):
    files = {path.name: path.read_bytes() for path in (folder / "work/checkpoints").iterdir()}
    return files, (folder / "log.jsonl").read_bytes()


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("accumulate", "batch"), [(1, 4), (2, 5)])
def test_two_processes_take_one_processs_steps(tmp_path, accumulate, batch):
    """Spectral and instance norms, both updates, unequal shares for a batch of 5: losses to 1e-4, weights to 1e-3."""
    alone = run_in(tmp_path, batch=batch)
    game = Plain()
    loop.train(alone, game, None, Noise())
    assert two(tmp_path / "two", "plain", batch=batch, accumulate=accumulate) == [f"{7 * accumulate} finished"] * 2
    for one, other in zip(logged(tmp_path), logged(tmp_path / "two"), strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    ranks = [torch.load(tmp_path / f"two/weights-{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, network in game.networks().items():
        torch.testing.assert_close(ranks[0][name], dict(network.state_dict()), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(ranks[0][name], ranks[1][name], rtol=0, atol=0)


@pytest.mark.parametrize(
    "kind", ["spig", "gfla", *(pytest.param(flow, marks=pytest.mark.slow) for flow in ("spig_flow", "gfla_flow"))]
)
def test_published_phases_lose_the_same_in_two_processes(tmp_path, kind):
    """Sampling losses over masks among them, 5 = 3 + 2 pairs: every term of three steps to 1e-4."""
    objective, net, data = play(kind)
    _, _, phase = build(kind)
    alone = run_in(tmp_path, phase=phase, steps=3, batch=5)
    loop.train(alone, objective, net, data)
    assert two(tmp_path / "two", kind, phase=phase, steps=3, batch=5) == ["finished"] * 2
    for one, other in zip(logged(tmp_path), logged(tmp_path / "two"), strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-7), one["step"]


def test_batch_norms_see_their_part_and_share_their_statistics(tmp_path):
    """After one step the running mean is one process's, and both processes hold the same."""
    one = run_in(tmp_path, steps=1)
    game = Game()
    loop.train(one, game, None, Noise())
    two(tmp_path / "two", steps=1)
    ranks = [torch.load(tmp_path / f"two/weights-{rank}.pt", weights_only=True)["generator"] for rank in (0, 1)]
    torch.testing.assert_close(ranks[0]["1.running_mean"], game.generator[1].running_mean)
    torch.testing.assert_close(ranks[0], ranks[1], rtol=0, atol=0)


def test_an_error_in_one_process_stops_both_and_the_run_goes_on_exactly(tmp_path):
    """With batch norm and dropout, which each process draws for itself."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    two(whole)
    ends = two(broken, action=("crash", 1, 5))
    assert ends[1] == "5 ZeroDivisionError: division by zero"
    assert ends[0].startswith("5 UserError: process 0 of 2 lost another, whose own line says why")
    assert "\n" not in ends[0]
    assert two(broken) == ["4 finished"] * 2
    assert saved(broken) == saved(whole)


def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    two(whole)
    assert two(broken, action=("terminate", 1, 5)) == ["5 KeyboardInterrupt: "] * 2
    assert two(broken) == ["2 finished"] * 2
    assert saved(broken) == saved(whole)


def test_a_loss_that_is_no_number_in_one_process_is_told_by_both(tmp_path):
    for end in two(tmp_path / "two", action=("spoil", 1, 5)):
        assert end.startswith("5 UserError: train test game: the loss term seen is nan at step 5; last good checkpoint")


def test_a_state_of_another_number_of_processes_is_discarded(tmp_path):
    with pytest.raises(ZeroDivisionError):
        loop.train(run_in(tmp_path), Game({5: ACTIONS["crash"]}), None, Noise())
    assert two(tmp_path) == ["7 finished"] * 2


def test_each_process_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.device("auto") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.device("auto") == devices.device("cuda") == torch.device("cuda:1")
    assert devices.device("cuda:0") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="not on this machine"):
        devices.device("cuda")


@pytest.mark.slow
def test_a_variant_is_trained_by_two_processes_as_by_one(tmp_path, monkeypatch):
    """SPIG: one log of losses, to 1e-4 in every term, and one set of checkpoints."""
    tiny_dataset.write(tmp_path)
    settings = {"steps": 3, "checkpoint_every": 3, "batch": 4, "learning_rate": 1e-5}
    tiny_dataset.write_params(tmp_path, spig=settings)
    monkeypatch.chdir(tmp_path)
    params.load.cache_clear()
    train = ["train", "--dataset", "synthetic", "--variant", "spig"]
    assert main(["pretrain", "--dataset", "synthetic", "--component", "spig_flow"]) == 0
    assert main(train) == 0
    log, out = layout.metrics_log("train", "synthetic", "spig"), layout.checkpoints("synthetic", "spig")
    one = list(losses.metrics(log))
    meta = (out / "meta.json").read_bytes()
    log.unlink()
    environment = {**os.environ, "PYTHONPATH": str(tiny_dataset.ROOT), "OMP_NUM_THREADS": "1"}
    tiny_dataset.write_params(tmp_path, spig=settings | {"gpus": 2})
    command = [sys.executable, "-m", "pipeline", *train]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "processes was 1 and is 2, so that each sees another part of a batch" in done.stderr
    assert done.stderr.count("checkpoints in runs/synthetic/spig/checkpoints") == 1
    found = list(losses.metrics(log))
    for ours, theirs in zip(found, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-7)
    assert (out / "meta.json").read_bytes() == meta
    assert checkpoints.steps(out) == [3]
    logs = sorted(path.name for path in Path("logs/train").glob("*.log"))
    assert logs == ["synthetic-spig.log", "synthetic-spig.rank-1.log"]
    params.load.cache_clear()


@pytest.mark.parametrize("missing", ["MASTER_ADDR", "MASTER_PORT"])
def test_a_clusters_world_size_without_torchrun_is_one_line(monkeypatch, missing):
    """Some clusters set it in every job; the process waited for others, or fell with a traceback."""
    for name, value in {"WORLD_SIZE": "4", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    says = rf"^process 1 of 4 \(WORLD_SIZE\) cannot join .*{missing}.* torchrun, or"
    with pytest.raises(UserError, match=says), parallel.joined(CPU):
        pass
