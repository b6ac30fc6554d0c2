import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from models.layers import pose_maps
from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.loading import device_data
from pipeline.loading.device_data import BatchOrder
from tests import tiny_dataset

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny_dataset.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pairs_carry_the_stored_pixels_and_joints(folder):
    data = device_data.load_pairs("synthetic", "val", CPU)
    assert (data.height, data.width, len(data)) == (64, 32, 6)
    batch = data.batch(torch.tensor([1]))
    table = store.read_table(layout.pairs("synthetic")).to_pylist()
    row = next(row for row in table if row["pair_index"] == data.pair_index[1])
    for image, points, valid, image_id in (
        (batch.source, batch.source_joints, batch.source_valid, row["source_id"]),
        (batch.target, batch.target_joints, batch.target_valid, row["target_id"]),
    ):
        person, view = int(image_id[:4]), int(image_id[5])
        pixels = tiny_dataset.picture(person, view).transpose(2, 0, 1)
        assert image.dtype == torch.float32
        np.testing.assert_allclose(image[0].numpy(), pixels / 127.5 - 1, atol=1e-6)
        known, there = tiny_dataset.joints(person, view)
        np.testing.assert_array_equal(valid[0].numpy(), there)
        np.testing.assert_array_equal(points[0].numpy(), known * there[:, None])


def test_pairs_of_a_rejected_image_are_dropped_and_counted(folder, capfd):
    data = device_data.load_pairs("synthetic", "train", CPU)
    # 3 people x 6 pairs, less the 4 pairs that the rejected image is part of
    assert len(data) == 14
    assert "synthetic train: 4 of 18 pairs dropped" in capfd.readouterr().err
    assert tiny_dataset.name(0, 2) not in data.ids
    assert data.pair_index.tolist() == sorted(data.pair_index.tolist())


def test_limit_spreads_over_people_and_depends_on_the_list_only(folder):
    pairs = store.read_table(layout.pairs("synthetic"))
    chosen = device_data.chosen_pairs(pairs, 12)
    assert len(chosen) == 12
    again = device_data.chosen_pairs(pairs.take(pa.array(np.random.default_rng(0).permutation(len(pairs)))), 12)
    assert sorted(chosen["pair_index"].to_pylist()) == sorted(again["pair_index"].to_pylist())
    assert chosen["pair_index"].to_pylist() == sorted(chosen["pair_index"].to_pylist())
    fewer = set(device_data.chosen_pairs(pairs, 5)["pair_index"].to_pylist())
    assert fewer < set(chosen["pair_index"].to_pylist())
    assert fewer != set(range(5))
    assert len({source[:4] for source in chosen["source_id"].to_pylist()}) == tiny_dataset.PEOPLE
    assert device_data.chosen_pairs(pairs, 1000) is pairs
    assert len(device_data.load_pairs("synthetic", "val", CPU, limit=4)) == 4


def test_streaming_gives_every_wanted_image_once(folder):
    wanted = pa.array([tiny_dataset.name(2, 1), tiny_dataset.name(1, 0)])
    batches = list(device_data.stream_images("synthetic", wanted))
    assert [name for names, _ in batches for name in names] == [tiny_dataset.name(1, 0), tiny_dataset.name(2, 1)]
    expected = np.stack([tiny_dataset.picture(1, 0), tiny_dataset.picture(2, 1)]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(torch.cat([images for _, images in batches]).numpy(), expected)


def test_image_batches_cover_their_rows(folder):
    usable = device_data.usable_images("synthetic")
    data = device_data.load_images("synthetic", usable["image_id"].combine_chunks(), CPU)
    assert len(data) == 11
    batch = data.batch(torch.tensor([4, 0, 2]))
    both = torch.cat([batch.source, batch.target])
    assert sorted(map(hash, (x.numpy().tobytes() for x in both))) == sorted(
        hash(x.numpy().tobytes()) for x in data.pictures(torch.tensor([0, 2, 4]))
    )
    assert torch.equal(
        torch.cat([batch.source_joints, batch.target_joints]).sort(0)[0], data.joints[[0, 2, 4]].sort(0)[0]
    )


def test_images_of_two_sizes_are_refused_in_one_line(folder):
    rows = list(store.iter_rows(layout.images("synthetic")))
    rows[5]["image"]["bytes"] = cv2.imencode(".png", np.zeros((60, 32, 3), np.uint8))[1].tobytes()
    store.write_shards(layout.images("synthetic"), rows, schema.IMAGES)
    with pytest.raises(UserError, match=r"0002_0.png is 60 x 32 but 0000_0.png is 64 x 32") as caught:
        device_data.load_pairs("synthetic", "train", CPU)
    assert "\n" not in str(caught.value)


def test_a_split_without_usable_pairs_is_one_line(folder):
    with pytest.raises(UserError, match=r"no usable pair in split test"):
        device_data.load_pairs("synthetic", "test", CPU)


@pytest.mark.parametrize(("pairs", "batch"), [(10, 3), (7, 7), (3, 8)])
def test_every_epoch_covers_every_pair_once(pairs, batch):
    order = BatchOrder(pairs, batch, seed=5)
    seen = torch.cat([order.rows(step) for step in range(1, 4 * pairs + 1)])
    for epoch in seen[: 4 * pairs].split(pairs):
        assert sorted(epoch.tolist()) == list(range(pairs))


def test_order_is_a_function_of_seed_and_step():
    one, other = BatchOrder(1000, 16, 0), BatchOrder(1000, 16, 0)
    forward = [one.rows(step) for step in range(1, 200)]
    backward = [other.rows(step) for step in range(199, 0, -1)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not torch.equal(one.rows(1), BatchOrder(1000, 16, 1).rows(1))
    epochs = torch.cat(forward)[:2000].split(1000)
    assert not torch.equal(*epochs)
    # seed 0's second epoch must not be seed 1's first: a sum of seed and epoch would make it so
    assert not torch.equal(epochs[1][:16], BatchOrder(1000, 16, 1).rows(1))


def test_label_ids_lie_beside_the_images(tmp_path, monkeypatch):
    tiny_dataset.write(tmp_path, parsing_source="oracle")
    monkeypatch.chdir(tmp_path)
    data = device_data.load_pairs("synthetic", "train", CPU, parsing=True)
    assert data.labels.dtype == torch.uint8
    assert data.labels.shape == (len(data.ids), 64, 32)
    rows = data.pairs[[5, 2, 5]]
    for side in (0, 1):
        wanted = [tiny_dataset.label_map(int(data.ids[i][:4]), int(data.ids[i][5])) for i in rows[:, side]]
        np.testing.assert_array_equal(data.parsing(rows[:, side]).numpy(), wanted)
    assert device_data.load_pairs("synthetic", "train", CPU).labels is None
    assert torch.equal(data.images, device_data.load_pairs("synthetic", "train", CPU).images)


@pytest.mark.parametrize("fault", ["none", "one missing", "other size", "not a picture"])
def test_missing_or_broken_parsing_is_one_line(tmp_path, monkeypatch, fault):
    tiny_dataset.write(tmp_path, parsing_source="none" if fault == "none" else "oracle")
    monkeypatch.chdir(tmp_path)
    rows = list(store.iter_rows(layout.parsing("synthetic")))
    if fault == "one missing":
        del rows[4]
    elif fault == "other size":
        rows[4]["parsing"]["bytes"] = cv2.imencode(".png", np.zeros((32, 64), np.uint8))[1].tobytes()
    elif fault == "not a picture":
        rows[4]["parsing"]["bytes"] = b"PNG"
    store.write_shards(layout.parsing("synthetic"), rows, schema.PARSING)
    message = {
        "none": r"no parsing of 8 of 8 images, 0000_0.png the first; set parsing.synthetic.source",
        "one missing": r"no parsing of 1 of 8 images, 0001_2.png the first",
    }.get(fault, r"parsing of 0001_2.png is no 8-bit label map of 64 x 32; run parsing again")
    with pytest.raises(UserError, match=message) as caught:
        device_data.load_pairs("synthetic", "train", CPU, parsing=True)
    assert "\n" not in str(caught.value)
    assert len(device_data.load_pairs("synthetic", "train", CPU)) == 14  # who does not ask is not stopped


def test_one_hot_agrees_with_torchs_own():
    labels = torch.randint(0, 20, (3, 17, 11), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.one_hot(labels.long(), 20).permute(0, 3, 1, 2).float()
    given = torch.full((3, 20, 17, 11), torch.nan)
    for found in (pose_maps.one_hot(labels, 20), pose_maps.one_hot(labels, 20, out=given)):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)
    assert torch.equal(pose_maps.one_hot(labels, 8), wanted[:, :8])  # ids beyond the set are in no channel
    assert pose_maps.one_hot(labels[:0], 20).shape == (0, 20, 17, 11)


def test_heatmaps_into_given_memory_are_the_same_and_hold_no_denormal():
    joints = torch.tensor([[[0.0, 0.0], [250.5, 9.0], [-30.0, 300.0]]])
    valid = torch.tensor([[True, True, False]])
    fresh = pose_maps.heatmaps(joints, valid, 256, 256)
    given = torch.full((1, 3, 256, 256), torch.nan)
    assert pose_maps.heatmaps(joints, valid, 256, 256, out=given) is given
    assert torch.equal(given, fresh)
    assert fresh[fresh > 0].min() >= torch.finfo(torch.float32).tiny
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    wanted = torch.exp(-((x - 250.5) ** 2 + (y - 9) ** 2) / 72)
    torch.testing.assert_close(fresh[0, 1], wanted, rtol=1e-5, atol=1e-18)


def test_devices_are_checked():
    assert device_data.device("auto").type in ("cpu", "cuda")
    assert device_data.device("cpu") == CPU
    for name in ("cuda:99", "gpu"):
        with pytest.raises(UserError, match="use auto"):
            device_data.device(name)
