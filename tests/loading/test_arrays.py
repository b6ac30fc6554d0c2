import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.loading import arrays, pair_lists, stored_images
from tests import tiny_dataset

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny_dataset.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pairs_carry_the_stored_pixels_and_joints(folder):
    data = arrays.load_pairs("synthetic", "val", CPU)
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
    data = arrays.load_pairs("synthetic", "train", CPU)
    # 3 people x 6 pairs, less the 4 pairs that the rejected image is part of
    assert len(data) == 14
    assert "synthetic train: 4 of 18 pairs dropped" in capfd.readouterr().err
    assert tiny_dataset.name(0, 2) not in data.ids
    assert data.pair_index.tolist() == sorted(data.pair_index.tolist())


def test_limit_spreads_over_people_and_depends_on_the_list_only(folder):
    pairs = store.read_table(layout.pairs("synthetic"))
    chosen = pair_lists.chosen(pairs, 12)
    assert len(chosen) == 12
    again = pair_lists.chosen(pairs.take(pa.array(np.random.default_rng(0).permutation(len(pairs)))), 12)
    assert sorted(chosen["pair_index"].to_pylist()) == sorted(again["pair_index"].to_pylist())
    assert chosen["pair_index"].to_pylist() == sorted(chosen["pair_index"].to_pylist())
    fewer = set(pair_lists.chosen(pairs, 5)["pair_index"].to_pylist())
    assert fewer < set(chosen["pair_index"].to_pylist())
    assert fewer != set(range(5))
    assert len({source[:4] for source in chosen["source_id"].to_pylist()}) == tiny_dataset.PEOPLE
    assert pair_lists.chosen(pairs, 1000) is pairs
    assert len(arrays.load_pairs("synthetic", "val", CPU, limit=4)) == 4


def test_streaming_gives_every_wanted_image_once(folder):
    wanted = pa.array([tiny_dataset.name(2, 1), tiny_dataset.name(1, 0)])
    batches = list(stored_images.stream("synthetic", wanted))
    assert [name for names, _ in batches for name in names] == [tiny_dataset.name(1, 0), tiny_dataset.name(2, 1)]
    expected = np.stack([tiny_dataset.picture(1, 0), tiny_dataset.picture(2, 1)]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(torch.cat([images for _, images in batches]).numpy(), expected)


def test_image_batches_cover_their_rows(folder):
    usable = pair_lists.usable_images("synthetic")
    data = arrays.load_images("synthetic", usable["image_id"].combine_chunks(), CPU)
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
        arrays.load_pairs("synthetic", "train", CPU)
    assert "\n" not in str(caught.value)


def test_a_split_without_usable_pairs_is_one_line(folder):
    with pytest.raises(UserError, match=r"no usable pair in split test"):
        arrays.load_pairs("synthetic", "test", CPU)


def test_label_ids_lie_beside_the_images(tmp_path, monkeypatch):
    tiny_dataset.write(tmp_path, parsing_source="oracle")
    monkeypatch.chdir(tmp_path)
    data = arrays.load_pairs("synthetic", "train", CPU, label_set="lip-20")
    assert data.labels.dtype == torch.uint8
    assert data.labels.shape == (len(data.ids), 64, 32)
    rows = data.pairs[[5, 2, 5]]
    for side in (0, 1):
        wanted = [tiny_dataset.label_map(int(data.ids[i][:4]), int(data.ids[i][5])) for i in rows[:, side]]
        np.testing.assert_array_equal(data.parsing(rows[:, side]).numpy(), wanted)
    assert arrays.load_pairs("synthetic", "train", CPU).labels is None
    assert torch.equal(data.images, arrays.load_pairs("synthetic", "train", CPU).images)


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
        arrays.load_pairs("synthetic", "train", CPU, label_set="lip-20")
    assert "\n" not in str(caught.value)
    assert len(arrays.load_pairs("synthetic", "train", CPU)) == 14  # who does not ask is not stopped
