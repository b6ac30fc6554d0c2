"""What each kind of training data holds, on the tiny data set: people 0 to 2 train, person 3 is in the val pairs."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.loading import pair_lists
from pipeline.training import training_data
from tests import tiny_dataset
from tests.tiny_dataset import name

CPU = torch.device("cpu")
STAND_INS = {name(0, 0): name(1, 1), name(0, 1): None, name(1, 0): name(2, 2), name(1, 1): name(0, 0)}
STAND_INS |= {name(1, 2): name(3, 0), name(2, 0): name(0, 2), name(2, 1): name(2, 2), name(3, 1): name(0, 0)}
USED = [(name(0, 0), name(1, 1)), (name(1, 0), name(2, 2)), (name(1, 1), name(0, 0)), (name(2, 1), name(2, 2))]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny_dataset.write(tmp_path, parsing_source="oracle")
    rows = [
        {"image_id": one, "pseudo_id": other, "cost": 1.0, "pose_distance": 1.0} for one, other in STAND_INS.items()
    ]
    store.write_shards(tmp_path / layout.pseudo_labels("synthetic", "equation"), rows, schema.PSEUDO_LABELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(image_id):
    return tiny_dataset.picture(int(image_id[:4]), int(image_id[5])).transpose(2, 0, 1) / 127.5 - 1


def check_side(batch, side, ids):
    points, valid = zip(*(tiny_dataset.joints(int(one[:4]), int(one[5])) for one in ids), strict=True)
    np.testing.assert_array_equal(getattr(batch, f"{side}_valid").numpy(), valid)
    np.testing.assert_array_equal(
        getattr(batch, f"{side}_joints").numpy(), np.array(points) * np.array(valid)[..., None]
    )
    labels = [tiny_dataset.label_map(int(one[:4]), int(one[5])) for one in ids]
    np.testing.assert_array_equal(getattr(batch, f"{side}_labels").numpy(), labels)


def test_unpaired_data_never_reads_a_targets_picture(folder, monkeypatch):
    """Person 0's second image is made a target only: it must not even be decoded."""
    pairs = [row for row in store.read_table(layout.pairs("synthetic")).to_pylist() if row["source_id"] != name(0, 1)]
    store.write_table(layout.pairs("synthetic"), pairs, schema.PAIRS)
    read, decode = set(), pictures.decode_stored

    def look(encoded, image_id):
        read.add(image_id)
        return decode(encoded, image_id)

    monkeypatch.setattr(pictures, "decode_stored", look)
    data = training_data.load("synthetic", "unpaired", CPU, "lip-20")
    paired = pair_lists.read("synthetic", "train")
    sources, targets = paired["source_id"].to_pylist(), paired["target_id"].to_pylist()
    assert read == set(sources)
    assert name(0, 1) in set(targets) - read
    assert len(data.images) == len(set(sources))
    assert len(data) == len(sources)
    batch = data.batch(torch.arange(len(data)))
    assert batch.target is None
    check_side(batch, "source", sources)
    check_side(batch, "target", targets)
    np.testing.assert_allclose(batch.source.numpy(), [picture(one) for one in sources], atol=1e-6)


def test_a_stand_in_takes_the_targets_place(folder, capfd):
    """Without those whose stand-in is missing, was rejected, or is of the people held out; sources of them neither."""
    data = training_data.load("synthetic", "pseudo_pairs", CPU, "lip-20")
    assert "3 of 7 training images have no stand-in that may be trained on" in capfd.readouterr().err
    assert [(data.ids[one], data.ids[other]) for one, other in data.pairs.tolist()] == USED
    assert len(data.images) == len(USED)  # (2, 2) stands in without being a source
    batch = data.batch(torch.tensor([3, 0]))
    assert batch.target is None
    check_side(batch, "source", [USED[3][0], USED[0][0]])
    check_side(batch, "target", [USED[3][1], USED[0][1]])
    np.testing.assert_allclose(batch.source.numpy(), [picture(USED[3][0]), picture(USED[0][0])], atol=1e-6)
    assert training_data.load("synthetic", "pseudo_pairs", CPU, None).labels is None


def test_no_stand_in_at_all_is_one_line(folder):
    rows = [{"image_id": one, "pseudo_id": None, "cost": None, "pose_distance": None} for one in STAND_INS]
    store.write_shards(layout.pseudo_labels("synthetic", "equation"), rows, schema.PSEUDO_LABELS)
    with pytest.raises(UserError, match="no training image has a stand-in; run pseudo_labels again"):
        training_data.load("synthetic", "pseudo_pairs", CPU, "lip-20")


def test_images_are_those_of_nobody_in_a_validation_pair(folder):
    """Not even an image of such a person that is in no pair."""
    pairs = store.read_table(layout.pairs("synthetic")).to_pylist()
    pairs = [row for row in pairs if name(3, 0) not in (row["source_id"], row["target_id"])]
    store.write_table(layout.pairs("synthetic"), pairs, schema.PAIRS)
    data = training_data.load("synthetic", "images", CPU, "lip-20")
    expected = [name(person, view) for person in range(3) for view in range(3) if (person, view) != (0, 2)]
    assert data.ids == expected
    batch = data.batch(torch.tensor([6, 1, 4]))
    check_side(batch, "source", [expected[6], expected[1]])
    check_side(batch, "target", [expected[4]])
    np.testing.assert_allclose(batch.target.numpy(), [picture(expected[4])], atol=1e-6)


def test_a_test_image_is_no_training_image(folder):
    rows = store.read_table(layout.keypoints("synthetic")).to_pylist()
    rows[4]["split"] = "test"
    store.write_table(layout.keypoints("synthetic"), pa.Table.from_pylist(rows, schema.KEYPOINTS), schema.KEYPOINTS)
    assert name(1, 1) not in training_data.training_images("synthetic").to_pylist()


def test_inputs_are_what_a_kind_reads():
    always = {layout.images("d"), layout.keypoints("d"), layout.pairs("d")}
    assert set(training_data.inputs("d", "pairs", False)) == always
    assert set(training_data.inputs("d", "images", True)) == always | {layout.parsing("d")}
    for kind, rule in {"pseudo_pairs": "equation", "balanced_pseudo_pairs": "balanced"}.items():
        assert set(training_data.inputs("d", kind, False)) == always | {layout.pseudo_labels("d", rule)}
