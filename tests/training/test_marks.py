"""How the settings and data of a run differ from the paper's."""

from dataclasses import replace

import pytest

from models.layers.features import Features
from models.variants import COMPONENTS, VARIANTS, Phase
from pipeline.core import layout, params, schema, store
from pipeline.training import marks
from pipeline.training.features import FeatureSource
from pipeline.training.settings import FeatureParams, kind_of

BLOCK = FeatureParams(seed=0, steps=100, checkpoint_every=10, device="cpu", precision="fp32")


def test_null_is_the_published_value():
    phase = VARIANTS["spig"].phase
    block, same = marks.resolve(BLOCK, phase, "deepfashion")
    assert (block.batch, block.learning_rate) == (6, 0.001)
    assert same == phase
    block, slower = marks.resolve(replace(BLOCK, learning_rate=2e-4, batch=3), phase, "market1501")
    assert (block.batch, block.learning_rate) == (3, 2e-4)
    assert {name: round(adam.lr, 9) for name, adam in slower.optimisers.items()} == {
        "generator": 2e-4,
        "discriminator": 2e-5,
    }


@pytest.mark.parametrize(
    ("net", "provenance", "changes", "dataset", "expected"),
    [
        ("vgg19", "sha256:1", {"steps": 200_000}, "market1501", []),
        ("vgg19", "sha256:1", {"steps": 199_999}, "market1501", ["steps"]),
        ("vgg19", "seeded", {"steps": 400_000}, "market1501", ["weights"]),
        ("squeezenet1_1", "sha256:1", {"steps": 400_000, "width": 0.5}, "market1501", ["weights", "width"]),
        ("vgg19", "sha256:1", {"steps": 400_000}, "synthetic", []),
        ("vgg19", "sha256:1", {"steps": 400_000, "learning_rate": 1e-4}, "market1501", ["settings"]),
        ("vgg19", "sha256:1", {"steps": 400_000, "batch": 32}, "market1501", ["settings"]),
        ("vgg19", "sha256:1", {"steps": 400_000, "accumulate": 8, "resident": False}, "market1501", []),
    ],
)
def test_marks(net, provenance, changes, dataset, expected):
    phase: Phase = VARIANTS["spig"].phase
    source = FeatureSource(Features(net, provenance), provenance, "vgg19")
    block, _ = marks.resolve(replace(BLOCK, **changes), phase, dataset)
    assert marks.of_settings(block, phase, dataset, source) == expected


def test_each_entry_has_the_net_of_its_paper():
    """SPT's losses look through VGG16, for which VGG19 would be a stand-in like any other."""
    assert {entry.features for entry in VARIANTS.values() if entry.paper == "SPT"} == {"vgg16"}
    assert {VARIANTS[name].features for name in ("spig", "spgnet", "patn", "gfla")} == {"vgg19"}
    entry = VARIANTS["spt"]
    block, _ = marks.resolve(replace(BLOCK, steps=250_000), entry.phase, "market1501")
    for net, found in (("vgg16", []), ("vgg19", ["weights"])):
        source = FeatureSource(Features(net, "sha256:1"), "sha256:1", entry.features)
        assert marks.of_settings(block, entry.phase, "market1501", source) == found


@pytest.mark.parametrize(
    ("dataset", "partial", "joints", "expected"),
    [
        ("market1501", False, "annotations", []),
        ("deepfashion", False, "annotations", []),
        ("deepfashion", True, "annotations", ["data"]),
        ("market1501", False, "openpose", ["data"]),
        ("synthetic", False, "annotations", ["data"]),
        ("folder", False, "annotations", ["data"]),
    ],
)
def test_other_images_or_joints_than_the_papers_are_marked(tmp_path, monkeypatch, dataset, partial, joints, expected):
    monkeypatch.chdir(tmp_path)
    store.write_shards(layout.images(dataset), [], schema.IMAGES, **({"partial": "{}"} if partial else {}))
    row = {"image_id": "a", "split": "train", "person_id": "1", "row": 0}
    row |= {"keypoints": [None] * 18, "keypoint_scores": [0.0] * 18, "keypoint_source": joints}
    store.write_table(layout.keypoints(dataset), [row], schema.KEYPOINTS)
    assert marks.of_data(dataset) == expected


@pytest.mark.parametrize("dataset", marks.PUBLISHED_SETS)
@pytest.mark.parametrize("name", [n for n, e in (VARIANTS | COMPONENTS).items() if e.phase and n != "detector"])
def test_params_yaml_trains_as_the_papers_do(name, dataset):
    """In full on both of the papers' data sets, and so without a mark but for SPIG's learning rate: docs/papers.md."""
    params.load.cache_clear()
    entry = (VARIANTS | COMPONENTS)[name]
    family = entry.paper.lower().replace("-", "_")
    keys = ("pretrain", dataset, name) if name in COMPONENTS else ("train", dataset, family)
    block, _ = marks.resolve(params.block(kind_of(entry), *keys), entry.phase, dataset)
    source = None
    if entry.features:
        source = FeatureSource(Features(block.features or entry.features, "sha256:1"), "sha256:1", entry.features)
    assert marks.of_settings(block, entry.phase, dataset, source) == (["settings"] if entry.paper == "SPIG" else [])
