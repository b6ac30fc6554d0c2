"""Each control is what it says; the judge scores the true target best, and a worse one the worse the damage."""

import io
import json
import shutil
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.core import layout, params, store
from pipeline.core.digests import sha256
from pipeline.loading import pair_lists
from pipeline.metrics.fid import frechet_influence, statistics_of
from pipeline.metrics.kid import kid
from pipeline.metrics.pckh import Joints
from pipeline.scoring import controls
from pipeline.scoring.controls import CONTROLS, People
from pipeline.stages import reference
from tests.scored_project import PEOPLE, VIEWS, entered, seeing, true_joints

RANDOM = np.random.default_rng(4)
IMAGE = cv2.resize(RANDOM.integers(0, 256, (8, 6, 3), np.uint8), (42, 56), interpolation=cv2.INTER_CUBIC)


@dataclass
class Shown:
    """As `judged.Pairs`: image `row` is full of its own number."""

    rows: np.ndarray
    xy: np.ndarray | None = None
    valid: np.ndarray | None = None
    size: tuple[int, int] = (40, 20)

    @property
    def pair_ids(self) -> list[int]:
        return [100 + place for place in range(len(self.rows))]

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([np.full((4, 3, 3), row, np.uint8) for row in rows])

    def joints(self, rows: np.ndarray) -> Joints:
        return Joints(self.xy[rows], self.valid[rows])


# ---- damage


def test_jpeg_is_that_of_the_two_libraries_by_themselves():
    """To the bit of OpenCV's default at 95; of Pillow's default, within the rounding of another decoder, at 75."""
    written = cv2.imencode(".jpg", IMAGE[:, :, ::-1])[1]
    assert np.array_equal(controls.jpeg(IMAGE, 95), cv2.imdecode(written, cv2.IMREAD_COLOR)[:, :, ::-1])
    content = io.BytesIO()
    Image.fromarray(IMAGE).save(content, "JPEG")
    theirs = np.array(Image.open(content)).astype(int)
    assert np.abs(controls.jpeg(IMAGE, 75) - theirs).max() <= 2
    assert np.abs(controls.jpeg(IMAGE, 50) - theirs).max() > 2


def test_shift_moves_by_one_pixel_and_repeats_the_edge():
    moved = controls.shift(IMAGE)
    assert np.array_equal(moved[:, 1:], IMAGE[:, :-1])
    assert np.array_equal(moved[:, 0], IMAGE[:, 0])


def test_blur_is_a_gaussian_of_one_pixel():
    point = np.zeros((21, 21, 3), np.uint8)
    point[10, 10] = 255
    spread = controls.blur(point)[:, :, 0].astype(float)
    across = spread.sum(axis=0) / spread.sum()
    assert across @ np.arange(21) == pytest.approx(10, abs=0.01)
    assert across @ np.square(np.arange(21) - 10) == pytest.approx(1, abs=0.15)  # of whole grey levels
    flat = np.full((9, 9, 3), 90, np.uint8)
    assert np.array_equal(controls.blur(flat), flat)  # also at the edge


# ---- other pictures


@pytest.mark.parametrize("groups", [(1, 1), (2, 2, 2), (3, 1, 1, 1), (5, 2, 3), (1,) * 7, (4, 3, 2, 1)])
def test_a_shuffle_gives_every_pair_the_target_of_another_person(groups):
    person = RANDOM.permutation(np.repeat([f"p{one}" for one in range(len(groups))], groups))
    rows = np.stack([np.zeros(len(person), int), np.arange(len(person))], axis=1)
    dealt = controls.shuffled(Shown(rows), People(person, rows[:, 1]))
    assert sorted(dealt) == sorted(rows[:, 1])  # each once
    assert (person[dealt] != person).all()
    assert np.array_equal(dealt, controls.shuffled(Shown(rows), People(person, rows[:, 1])))


def test_a_shuffle_needs_other_people():
    person = np.array(["a", "a", "a", "b", "b"])
    rows = np.stack([np.arange(5), np.arange(5)], axis=1)
    why = controls.shuffled(Shown(rows), People(person, rows[:, 1]))
    assert why == "one person is on 3 of 5 targets: more than half cannot be dealt to others"


def test_the_other_person_is_the_one_in_the_nearest_pose():
    """Of other people alone, also among targets of pairs that are not scored; of equals the first."""
    xy, valid = np.zeros((6, 18, 2), np.float32), np.ones((6, 18), bool)
    xy[:, :, 0] = np.array([5, 5, 8, 6, 6, 5])[:, None]  # by image: how far right the whole pose stands
    person = np.array(["a", "a", "b", "c", "d", "e"])
    targets = np.array([0, 1, 2, 3, 4])  # not 5, which nobody asks for
    pairs = Shown(np.array([[1, 0], [3, 2], [0, 1]]), xy, valid)
    assert controls.nearest_others(pairs, People(person, targets)).tolist() == [3, 3, 3]
    valid[3, :9] = False  # unknown joints count as far away
    assert controls.nearest_others(pairs, People(person, targets)).tolist() == [4, 4, 4]
    alone = People(np.array(["a"] * 6), targets)
    assert controls.nearest_others(pairs, alone) == "no test target shows another person"


def test_pose_distance_by_hand():
    xy, valid = np.zeros((4, 18, 2), np.float32), np.zeros((4, 18), bool)
    valid[:, :2] = True
    xy[1, 0] = (3, 4)  # 5 away, and 0
    xy[2, 0] = (30, 40)  # no more than the bound
    valid[3] = False
    valid[3, 2] = True  # no joint in common: three that only one has
    found = controls.pose_distances(Joints(xy[:1], valid[:1]), Joints(xy, valid), 10.0)
    assert found.tolist() == [0, 2.5, 5, 10]
    nothing = Joints(xy[:1], np.zeros((1, 18), bool))
    assert controls.pose_distances(nothing, nothing, 10.0).tolist() == [10]


def test_images_are_those_chosen_whatever_the_batch():
    pairs = Shown(np.array([[0, 1], [2, 3], [4, 5], [6, 7], [1, 0]]))
    control = controls.Control("", "", "", controls.targets, controls.shift)
    for batch in (1, 2, 5, 9):
        parts = list(controls.images(control, pairs, controls.targets(pairs, None), batch))
        assert [one for ids, _ in parts for one in ids] == pairs.pair_ids
        assert np.concatenate([images for _, images in parts])[:, 0, 0, 0].tolist() == [1, 3, 5, 7, 0]


# ---- scored by the judge


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A small drawn data set whose reference, and so its controls, are made, without Inception and LPIPS; its detector
    knows the test images by heart and sees nothing on any other.
    """
    with entered(tmp_path_factory.mktemp("project")) as folder, pytest.MonkeyPatch.context() as patch:
        known = true_joints([f"test-{view:02d}.jpg" for view in range(PEOPLE * VIEWS)])
        patch.setattr(reference, "open_detector", seeing(known))
        score(test_pairs=None, missing_weights="skip", controls=200)
        yield folder


def score(**settings) -> None:
    values = yaml.safe_load(layout.PARAMS.read_text(encoding="utf-8"))
    values["reference"]["synthetic"] |= settings
    layout.PARAMS.write_text(yaml.safe_dump(values), encoding="utf-8")
    params.load.cache_clear()
    reference.run("synthetic")


def about() -> dict:
    return json.loads((layout.controls("synthetic") / "controls.json").read_text(encoding="utf-8"))


def values(metric: str) -> dict[str, float]:
    """Control -> its value."""
    folders = [layout.controls("synthetic") / one.name for one in CONTROLS]
    rows = [row for folder in folders for row in store.read_table(folder / "scores.parquet").to_pylist()]
    assert {row["reference"] for row in rows} == {sha256(layout.reference("synthetic"))}
    return {row["variant"]: row["value"] for row in rows if row["metric"] == metric}


def test_the_true_target_is_perfect_and_more_damage_is_worse(project):
    ssim, psnr, found_again = (values(metric) for metric in ("ssim", "psnr", "pckh@0.5"))
    assert ssim["true-target"] == 1.0
    assert psnr["true-target"] == pytest.approx(10 * np.log10(255**2 * 3 * 64 * 32))
    ceilings = json.loads((layout.reference("synthetic") / "reference.json").read_text())["ceilings"]["test"]
    assert found_again["true-target"] == ceilings["pckh@0.5"] == 1
    assert found_again["jpeg-95"] == 0 < found_again["other-person"] < 1
    for found in (ssim, psnr):
        milder = ["true-target", "jpeg-95", "jpeg-75", "wrong-pose"]
        assert [found[name] for name in milder] == sorted((found[name] for name in milder), reverse=True)
        undamaged = found.keys() - {"true-target"}
        assert all(found[name] < found["true-target"] for name in undamaged)
        assert max(found["shuffled"], found["other-person"], found["wrong-pose"]) < min(
            found[name] for name in ("jpeg-95", "jpeg-75", "blurred", "shifted")
        )


def test_what_is_written_says_what_it_is_and_why_a_metric_is_missing(project):
    said = about()
    assert (said["pairs"], said["of"]) == (24, 24)
    assert [one["name"] for one in said["controls"]] == [one.name for one in CONTROLS]
    assert {one["why"] for one in said["controls"]} == {""}
    why = said["unscored"]
    assert why["fid"] == "the published weights of inception could not be had: logs/weights/inception.log says why"
    assert why["ssim-win51"] == "not defined for images of 64 x 32 (height x width)"
    assert why["identity-target"] == "on request: not in reference.synthetic.metrics"
    assert not set(why) & set(json.loads(layout.scored_by("synthetic").read_text())["metrics"])


def test_controls_are_the_same_in_every_run_and_batch(project, copied):
    before = sha256(layout.controls("synthetic"))
    shutil.rmtree(layout.controls("synthetic"))
    score(batch=5)
    assert sha256(layout.controls("synthetic")) == before


def test_fewer_pairs_are_those_of_the_rule_for_shorter_lists(project, copied):
    made = sha256(layout.reference("synthetic"))
    score(controls=9)
    assert sha256(layout.reference("synthetic")) == made  # no other score is of another reference for that
    listed = store.read_table(layout.pairs("synthetic"), filters=[("split", "=", "test")])
    expected = pair_lists.chosen(listed, 9)["pair_index"].to_pylist()
    folder = layout.controls("synthetic") / "true-target"
    assert store.read_table(folder / "pairs.parquet")["pair_index"].to_pylist() == expected
    rows = store.read_table(folder / "scores.parquet").to_pylist()
    assert {row["n"] + row["excluded"] for row in rows} == {9}
    assert all("pairs" in row["marks"] for row in rows)
    assert about()["controls"][-1]["why"].startswith("one person is on 5 of 9 targets")
    assert not (layout.controls("synthetic") / "shuffled").exists()
    score(controls=0)
    assert about()["controls"] == []
    assert [path.name for path in layout.controls("synthetic").glob("[!_]*")] == ["controls.json"]


def test_a_shuffle_is_beyond_what_a_metric_of_the_whole_set_can_see():
    """FID and KID of the shuffled targets are those of the targets: the set is the same."""
    features = RANDOM.normal(size=(40, 16)).astype(np.float32)
    dealt = features[RANDOM.permutation(40)]
    true, shuffled = (frechet_influence(rows, statistics_of(features))[0] for rows in (features, dealt))
    assert true == pytest.approx(0, abs=1e-9)
    assert shuffled == pytest.approx(0, abs=1e-9)
    assert kid(dealt, features)[0] == pytest.approx(kid(features, features)[0], rel=1e-9)
