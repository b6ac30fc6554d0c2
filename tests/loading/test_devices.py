import platform
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch

from models.layers.schedule import Jitter, Move
from pipeline.core.errors import UserError
from pipeline.loading import arrays, devices, shard_loader
from pipeline.training import augmentation
from tests.fake_device import FakeCuda

CUDA = torch.device("cuda")


def test_devices_are_checked():
    assert devices.device("auto").type in ("cpu", "cuda")
    assert devices.device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "gpu"):
        with pytest.raises(UserError, match="use auto"):
            devices.device(name)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told to keep memory")
@pytest.mark.parametrize("kept", [False, True])
def test_memory_that_is_freed_on_a_cpu_is_used_again(kept):
    """For forty tensors, each freed before the next is made, the system gives out the pages of a few. (Not of one: what
    is made around them moves where the next can lie.)
    """
    code = """if True:
        import resource, sys, torch
        from pipeline.loading import devices
        if sys.argv[1] == "True":
            devices.device("cpu")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(40):
            torch.ones(1 << 24)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / (1 << 26))
    """
    done = subprocess.run([sys.executable, "-c", code, str(kept)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 15 if kept else float(done.stdout) > 39


def people(where: torch.device, kind: type[arrays.PairData] = arrays.PairData) -> arrays.PairData:
    drawn = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (6, 3, 16, 8), dtype=torch.uint8, generator=drawn)
    return kind(
        images=devices.place(pictures, where),
        labels=devices.place(pictures[:, 0] // 13, where),
        joints=(torch.rand(6, 18, 2, generator=drawn) * 8).to(where),
        valid=(torch.rand(6, 18, generator=drawn) > 0.2).to(where),
        ids=list("abcdef"),
        device=where,
        pairs=torch.tensor([[0, 1], [2, 3], [5, 4], [1, 0]]),
        pair_index=torch.arange(4),
    )


def small_device(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where=None: (100, 1 << 36))


class Inline:
    """A pool without threads, into which the pretended device could not see."""

    def __init__(self, *of):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *of):
        done = Future()
        done.set_result(function(*of))
        return done

    def shutdown(self, **how):
        pass


def equal(ours, theirs) -> bool:
    pairs = zip(vars(ours).values(), vars(theirs).values(), strict=True)
    return all(one is other if other is None else torch.equal(one.cpu(), other) for one, other in pairs)


@pytest.mark.parametrize("kind", [arrays.PairData, arrays.UnpairedData])
@pytest.mark.parametrize("fits", [True, False])
def test_a_batch_is_made_on_the_device_without_a_wait(monkeypatch, capfd, fits, kind):
    """Where the pictures have no room there, they are gathered in main memory, and copied from pinned memory."""
    rows, moves = torch.tensor([2, 0, 3]), Move(scale=(0.9, 1.1), shift=3.0, angle=10.0)
    jitter = Jitter(source=moves, target=moves)
    drawn = augmentation.draws(jitter, 3, seed=1, step=2)
    with FakeCuda() as device:
        if not fits:
            small_device(monkeypatch)
        data = people(CUDA, kind)
        assert data.resident == fits
        device.clear()
        batch = data.batch(rows)
        moved = augmentation.move(batch, jitter, drawn)
        assert all(value is None or value.is_cuda for value in vars(moved).values())
        assert not device.waits, device.where()
        wanted = people(torch.device("cpu"), kind).batch(rows)
        assert equal(batch, wanted)
        assert equal(moved, augmentation.move(wanted, jitter, drawn))
    assert ("stay in main memory" in capfd.readouterr().err) != fits


def test_what_does_not_fit_is_copied_ahead(monkeypatch):
    """In order, and the host waits for none."""
    monkeypatch.setattr(shard_loader, "ThreadPoolExecutor", Inline)
    with FakeCuda() as device:
        small_device(monkeypatch)
        data, plain = people(CUDA), people(torch.device("cpu"))
        device.clear()
        found = list(shard_loader.ahead(lambda step: ([data.batch(torch.tensor([step]))], [1.0]), range(4), CUDA))
        assert not device.waits, device.where()
        assert [share for _, share in found] == [[1.0]] * 4
        assert all(equal(batch, plain.batch(torch.tensor([step]))) for step, ([batch], _) in enumerate(found))


def test_the_training_stream_waits_for_each_copy_and_owns_what_it_is_given(monkeypatch):
    """Else a step would read a batch that is not there yet, or that the next copy overwrites."""
    monkeypatch.setattr(shard_loader, "ThreadPoolExecutor", Inline)
    waited, owned = [], []
    with FakeCuda():
        monkeypatch.setattr(torch.cuda.Stream, "wait_event", lambda stream, event: waited.append(event))
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: owned.append(tensor))
        found = list(shard_loader.ahead(lambda step: [torch.ones(1), {"a": 1}], range(4), CUDA))
    assert len(waited) == 4
    assert [id(tensor) for tensor in owned] == [id(item[0]) for item in found]


def test_one_device_gets_back_what_it_has():
    assert replace(people(torch.device("cpu"))).resident
    tensor = torch.ones(2)
    assert devices.send(tensor, torch.device("cpu")) is tensor
    with FakeCuda() as device:
        there = devices.send(tensor, CUDA)
        assert there.is_cuda
        assert devices.send(there, CUDA) is there
        assert not device.waits
