"""Every reader of the stored parsing gets it in the set that it works in, whatever set it is stored in."""

import cv2
import numpy as np
import pytest
import torch

from models.variants import COMPONENTS, VARIANTS
from pipeline.anatomy import labels
from pipeline.core import layout, schema, store
from pipeline.loading import arrays, stored_labels
from pipeline.report import prepared
from pipeline.scoring import pairs
from pipeline.stages import pseudo_labels
from tests import tiny_dataset

CPU = torch.device("cpu")
JUMPSUITS = TORSO_SKIN = 10  # in LIP-20 and in CIHP-20
DRESS, FACE = 6, 13


@pytest.fixture(params=labels.STORED)
def stored(request, tmp_path, monkeypatch) -> str:
    """A project whose label maps, of random ids of a whole set, are in that set."""
    tiny_dataset.write(tmp_path, parsing_source="files")
    monkeypatch.chdir(tmp_path)
    count = len(labels.NAMES[request.param])
    rows = list(store.iter_rows(layout.parsing("synthetic")))
    for number, row in enumerate(rows):
        blocks = np.random.default_rng(number).permutation(16 * 8).reshape(16, 8) % count
        row["parsing"]["bytes"] = cv2.imencode(".png", blocks.astype(np.uint8).repeat(4, 0).repeat(4, 1))[1].tobytes()
    said = {"parsing_source": "files", "label_set": request.param, "made_in": request.param}
    store.write_shards(layout.parsing("synthetic"), rows, schema.PARSING, **said)
    return request.param


def raw(name: str) -> np.ndarray:
    for row in store.iter_rows(layout.parsing("synthetic")):
        if row["image_id"] == name:
            return cv2.imdecode(np.frombuffer(row["parsing"]["bytes"], np.uint8), cv2.IMREAD_UNCHANGED)
    raise KeyError(name)


def meaning(ids: np.ndarray, label_set: str, lacks: str) -> np.ndarray:
    """The labels' names, with `lacks` called what stands for it."""
    names = np.array(labels.NAMES[label_set])[ids]
    return np.where(names == lacks, {"torso-skin": "face", "jumpsuits": "dress"}[lacks], names)


@pytest.mark.parametrize(("wanted", "lacks"), [("lip-20", "torso-skin"), ("cihp-20", "jumpsuits")])
def test_a_batch_has_the_labels_that_were_asked_for(stored, wanted, lacks):
    data = arrays.load_pairs("synthetic", "train", CPU, label_set=wanted)
    assert int(data.labels.max()) == 19
    for name, found in zip(data.ids, data.labels.numpy(), strict=True):
        assert (np.array(labels.NAMES[wanted])[found] == meaning(raw(name), stored, lacks)).all()
    sharded = stored_labels.in_shards("synthetic", data.ids, (64, 32), wanted)
    assert torch.equal(sharded[torch.arange(len(data.ids))], data.labels)


def test_other_readers_say_which_set_they_read(stored):
    """The metric's parser speaks LIP-20, SPT's stand-ins are searched in labels made from it; pages show all."""
    table = pairs.listed("synthetic", "train", None)
    data = pairs.load("synthetic", table, CPU, "cihp-20")
    for row, found in pairs.labels_of(pairs.target_parsing("synthetic", table), data).items():
        assert (np.array(labels.LIP20)[found] == meaning(raw(data.ids[row]), stored, "torso-skin")).all()
    wanted = {name: number for number, name in enumerate(data.ids)}
    for some in pseudo_labels._batches_of_one_size(layout.parsing("synthetic"), wanted):
        for name, found in some:
            assert (np.array(labels.LIP20)[found] == meaning(raw(name), stored, "torso-skin")).all()
    shares, _ = prepared.label_shares("synthetic")
    shown = {name for name, share in zip(labels.NAMES["lip-cihp-21"], shares, strict=True) if share}
    assert shown == set(labels.NAMES[stored])


def test_each_family_states_the_set_of_its_paper_s_parser():
    stated = {entry.name: entry.labels for entry in (*VARIANTS.values(), *COMPONENTS.values()) if entry.labels}
    for name, label_set in stated.items():
        assert label_set == ("lip-20" if name.startswith("spt") else "cihp-20")
        assert name.startswith(("spt", "sgw", "spgnet", "spatn"))
