"""The stage score_components on the small drawn data set, with a network whose predictions are known."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from models import variants
from models.layers.blocks import Batch
from pipeline.core import layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints
from pipeline.stages import reference, score_components
from tests.fake_device import FakeCuda
from tests.scored_project import HEIGHT, WIDTH, entered, write_checkpoints

SEEDS = {"spatn": 1, "spatn_no_distance": 2}
pytestmark = pytest.mark.usefixtures("small_inception")


class Turned(nn.Module):
    """Predicts the source's parsing, its rows moved down by `rows`: known by heart, and never told the target's."""

    def __init__(self, rows: int = 0):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(float(rows)))

    def forward(self, batch: Batch) -> Tensor:
        assert batch.target is None
        assert batch.target_labels is None
        moved = batch.source_labels.long().roll(int(self.rows), 1)
        return one_hot(moved, 20).permute(0, 3, 1, 2).float()


def label_map(name: str) -> np.ndarray:
    """Blocks of LIP-20's labels 0 to 10 of an image; label 9 in training images alone."""
    random = np.random.default_rng(sum(name.encode()))
    coarse = random.integers(0, 11, (HEIGHT // 8, WIDTH // 8), np.uint8).repeat(8, 0).repeat(8, 1)
    return np.where(coarse == 9, 0, coarse) if name.startswith("test") else coarse


def cihp(name: str) -> np.ndarray:
    """The same as the component has it: its set, CIHP-20, knows no jumpsuits (10), for which a dress (6) stands."""
    return np.where(label_map(name) == 10, 6, label_map(name))


@pytest.fixture
def project(tmp_path, small_inception, monkeypatch):
    with entered(tmp_path) as folder:
        rows = [
            {
                "image_id": name,
                "parsing": {"bytes": cv2.imencode(".png", label_map(name))[1].tobytes(), "path": name},
                "label_source": "drawn",
            }
            for name in store.read_table(layout.keypoints("synthetic"))["image_id"].to_pylist()
        ]
        store.write_shards(layout.parsing("synthetic"), rows, schema.PARSING, parsing_source="drawn")
        for name, entry in variants.COMPONENTS.items():
            if name in SEEDS:
                known = replace(entry, build=lambda height, width, scale: Turned(), limb_maps=False)
                monkeypatch.setitem(variants.COMPONENTS, name, known)
        reference.run("synthetic")
        yield folder


def train(component: str, rows: int) -> None:
    """Checkpoints at two steps, of which the last is what variants start from."""
    write_checkpoints("synthetic", component, "component", Turned(0), [1, 2], ["data"])
    checkpoints.save(layout.checkpoints("synthetic", component), 2, Turned(rows))


def scores(component: str) -> dict[str, dict]:
    return {row["metric"]: row for row in store.read_table(layout.scores("synthetic", component)).to_pylist()}


def jaccard(pairs: list[dict], rows: int, background: bool) -> float:
    """The mean over labels of intersection by union, of what `Turned` predicts and the targets, as one picture all."""
    predicted = np.stack([np.roll(cihp(pair["source_id"]), rows, 0) for pair in pairs])
    truth = np.stack([cihp(pair["target_id"]) for pair in pairs])
    shown = [label for label in np.unique(truth) if background or label]
    return np.mean(
        [((predicted == one) & (truth == one)).sum() / ((predicted == one) | (truth == one)).sum() for one in shown]
    )


def test_scores_are_those_of_the_last_checkpoint_over_all_test_pairs(project):
    train("spatn", 3)
    score_components.run("synthetic", "spatn")
    found = scores("spatn")
    pairs = store.read_table(layout.pair_scores("synthetic", "spatn")).to_pylist()
    assert len(pairs) == 7  # of reference.synthetic.test_pairs
    for name, background in (("target-parsing-miou", True), ("target-parsing-miou-fg", False)):
        row = found[name]
        assert row["value"] == pytest.approx(jaccard(pairs, 3, background), abs=1e-12)
        assert row["low"] < row["value"] < row["high"]
        assert (row["step"], row["split"], row["n"], row["variant"]) == (2, "test", 7, "spatn")
        assert row["marks"] == ["data", "joints", "pairs"]  # joints: drawn, not the published annotations
        assert "20 labels" in row["protocol"]
        assert abs(sum(pair[name + schema.INFLUENCE] for pair in pairs)) < 1e-9
    assert jaccard(pairs, 9, True) != pytest.approx(
        jaccard(pairs, 3, True), abs=1e-3
    )  # another prediction's is another


def test_scores_on_a_gpu_are_those_of_the_cpu(project):
    train("spatn", 3)
    score_components.run("synthetic", "spatn")
    expected = scores("spatn")
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("device: cpu", "device: auto"))
    params.load.cache_clear()
    with FakeCuda() as device:
        score_components.run("synthetic", "spatn")
    assert sum(device.operations.values()) > 10
    assert scores("spatn") == expected


def test_no_value_depends_on_the_batch(project, monkeypatch):
    train("spatn", 3)
    score_components.run("synthetic", "spatn")
    before = [path("synthetic", "spatn").read_bytes() for path in (layout.scores, layout.pair_scores)]
    block = score_components.Params(batch=3)
    monkeypatch.setattr(score_components.params, "block", lambda *keys: block)
    score_components.run("synthetic", "spatn")
    assert [path("synthetic", "spatn").read_bytes() for path in (layout.scores, layout.pair_scores)] == before


def test_an_untrained_component_has_files_without_rows(project):
    folder = layout.checkpoints("synthetic", "spatn_no_distance")
    folder.mkdir(parents=True)
    checkpoints.write_meta(folder, {"kind": "untrained", "name": "spatn_no_distance"})
    score_components.run("synthetic", "spatn_no_distance")
    assert scores("spatn_no_distance") == {}
    assert store.read_table(layout.pair_scores("synthetic", "spatn_no_distance")).num_rows == 0


def test_what_is_wrong_is_one_line(project):
    with pytest.raises(UserError, match=r"spig_flow: predicts no parsing.*scored: spatn, spatn_no_distance"):
        score_components.run("synthetic", "spig_flow")
    train("spatn", 3)
    path = layout.checkpoints("synthetic", "spatn")
    meta = checkpoints.meta(path)
    checkpoints.write_meta(path, meta | {"height": 2 * HEIGHT})
    with pytest.raises(UserError, match="trained for images of 128 x 32, the data set has 64 x 32; train again"):
        score_components.run("synthetic", "spatn")


def test_a_network_that_diverged_is_one_line(project, monkeypatch):
    train("spatn", 3)
    monkeypatch.setattr(Turned, "forward", lambda self, given: torch.full((len(given.source), 20, 64, 32), torch.nan))
    with pytest.raises(UserError, match="predicts values that are not finite"):
        score_components.run("synthetic", "spatn")
