import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.loading import shard_loader
from pipeline.training import training_data
from tests import tiny_dataset
from tests.tiny_dataset import name

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny_dataset.write(tmp_path, parsing_source="oracle")
    people = [name(person, view) for person in range(3) for view in range(3)]
    rows = [{"image_id": one, "pseudo_id": other, "cost": 1.0, "pose_distance": 1.0} for one, other in pairwise(people)]
    store.write_shards(tmp_path / layout.pseudo_labels("synthetic", "equation"), rows, schema.PSEUDO_LABELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["pairs", "unpaired", "images", "pseudo_pairs"])
def test_batches_from_shards_equal_resident_ones(folder, kind):
    resident = training_data.load("synthetic", kind, CPU, "lip-20", resident=True)
    sharded = training_data.load("synthetic", kind, CPU, "lip-20", resident=False)
    assert (resident.resident, sharded.resident) == (True, False)
    assert sharded.ids == resident.ids
    assert (sharded.height, sharded.width, len(sharded)) == (64, 32, len(resident))
    for rows in (torch.tensor([3, 0, 3]), torch.arange(len(resident))):
        ours, theirs = vars(sharded.batch(rows)), vars(resident.batch(rows))
        for key, value in theirs.items():
            assert ours[key] is None if value is None else torch.equal(ours[key], value), key


def test_what_is_missing_or_of_another_size_is_one_line(folder):
    rows = list(store.iter_rows(layout.parsing("synthetic")))
    store.write_shards(layout.parsing("synthetic"), rows[1:], schema.PARSING)
    with pytest.raises(UserError, match=r"no parsing of 1 of 8 images, 0000_0.png the first; set parsing.synthetic"):
        training_data.load("synthetic", "pairs", CPU, "lip-20", resident=False)
    rows = list(store.iter_rows(layout.images("synthetic")))
    rows[5]["height"] = 60
    store.write_shards(layout.images("synthetic"), rows, schema.IMAGES)
    with pytest.raises(UserError, match=r"images of one size .*: 64 x 32 \(0000_0.png\), 60 x 32 \(0002_0.png\)"):
        training_data.load("synthetic", "pairs", CPU, None, resident=False)


def test_pictures_stay_in_their_shards_where_memory_is_short(folder, monkeypatch, capfd):
    size = 64 * 32 * (3 * 8 + 8)  # eight images with their labels
    for memory, kept in ((2 * size, True), (2 * size - 1, False)):
        monkeypatch.setattr(shard_loader, "main_memory", lambda memory=memory: memory)
        assert training_data.load("synthetic", "pairs", CPU, "lip-20", resident="auto").resident == kept
    assert "0 MiB of pictures stay in their shards" in capfd.readouterr().err
    assert training_data.load("synthetic", "pairs", CPU, None, resident="auto").resident
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # each process would keep its own
    assert not training_data.load("synthetic", "pairs", CPU, None, resident="auto").resident


def test_main_memory_is_that_of_the_machine_or_less():
    with Path("/proc/meminfo").open() as lines:
        total = int(next(lines).split()[1]) * 1024
    assert 2**28 < shard_loader.main_memory() <= total * 1.01


def test_batches_come_in_order_and_no_more_than_a_few_ahead():
    started = []

    def make(step):
        started.append(step)
        time.sleep(0.001 * (step % 3))
        return step * step

    seen, most = [], 0
    for value in shard_loader.ahead(make, range(1, 40), CPU):
        time.sleep(0.002)
        seen.append(value)
        most = max(most, len(started) - len(seen))
    assert seen == [step * step for step in range(1, 40)]
    assert 1 <= most <= shard_loader.AHEAD
    assert started == list(range(1, 40))


def test_an_error_in_the_background_reaches_the_loop_at_its_step_and_the_thread_ends():
    def make(step):
        if step == 3:
            raise UserError("damaged")
        return step

    batches = shard_loader.ahead(make, range(1, 100), CPU)
    assert [next(batches), next(batches)] == [1, 2]
    with pytest.raises(UserError, match="damaged"):
        next(batches)
    batches = shard_loader.ahead(make, range(10, 1000), CPU)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
