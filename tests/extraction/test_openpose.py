"""The detector on a network whose answer is known in closed form; on the real network where it is at hand."""

import csv
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from pipeline.anatomy import pose
from pipeline.core.errors import UserError
from pipeline.extraction import openpose
from pipeline.extraction.openpose import CHANNELS, LIMBS, PEAK, PEAKS, THRESHOLD, OpenPose, highest
from tests.conftest import ROOT

FILES = ("human-pose-estimation-0001.xml", "human-pose-estimation-0001.bin")


@pytest.fixture(scope="module")
def colour_network(tmp_path_factory) -> list[Path]:
    """Heatmaps 0, 1, 2 are the first, second and third input plane, averaged over 8 x 8 pixels; all else is 0."""
    data = ops.parameter([1, 3, -1, -1], np.float32, name="data")
    data.output(0).tensor.set_names({"data"})
    pooled = ops.avg_pool(ops.divide(data, np.float32(255)), [8, 8], [0, 0], [0, 0], [8, 8], False)
    rest = ops.pad(pooled, [0, 0, 0, 0], [0, 16, 0, 0], "constant", np.float32(0))
    rest.output(0).tensor.set_names({"Mconv7_stage2_L2"})
    fields = ops.multiply(ops.pad(pooled, [0, 0, 0, 0], [0, 35, 0, 0], "constant", np.float32(0)), np.float32(0))
    fields.output(0).tensor.set_names({"Mconv7_stage2_L1"})
    folder = tmp_path_factory.mktemp("network")
    openvino.save_model(openvino.Model([fields, rest], [data]), folder / "colour.xml", compress_to_fp16=False)
    return [folder / "colour.bin", folder / "colour.xml"]


def blob(height: int, width: int, x: float, y: float, sigma: float) -> np.ndarray:
    """(height, width) uint8, a Gaussian of height 255 at (x, y)."""
    rows, columns = np.mgrid[:height, :width]
    return np.round(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(128, 64), (256, 256), (256, 176), (64, 33)])
def test_peaks_come_back_in_pixels_of_the_image_that_was_given(colour_network, height, width):
    places = {0: (0.3, 0.2), 1: (0.62, 0.5), 2: (0.45, 0.81)}  # red, green, blue: x and y as shares of the size
    image = np.zeros((height, width, 3), np.uint8)
    for channel, (x, y) in places.items():
        image[..., channel] = blob(height, width, x * width, y * height, 0.05 * height)
    joints, scores = OpenPose(colour_network)(image[None])
    assert joints.shape == (1, 18, 2)
    assert joints.dtype == scores.dtype == np.float32
    for plane, channel in enumerate((2, 1, 0)):  # the network's planes are blue, green, red
        x, y = places[channel]
        assert np.abs(joints[0, plane] - (x * width, y * height)).max() < 0.004 * height
        assert scores[0, plane] > 0.8


def test_a_joint_below_the_threshold_is_missing(colour_network):
    images = np.zeros((2, 128, 64, 3), np.uint8)
    images[0, ..., 2] = round(255 * (THRESHOLD - 0.01))
    images[1, ..., 2] = round(255 * (THRESHOLD + 0.01))
    joints, scores = OpenPose(colour_network)(images)
    assert not scores[0].any()
    assert not joints[0].any()
    assert scores[1, 0] == pytest.approx(THRESHOLD + 0.01, abs=0.003)
    assert not scores[1, 1:].any()


def test_peaks_are_exact_on_a_parabola():
    rows, columns = np.mgrid[:16, :8].astype(np.float32)
    tops = [(3.0, 5.0), (4.3, 7.6), (1.25, 12.4)]
    maps = np.stack([2 - 0.1 * (columns - x) ** 2 - 0.05 * (rows - y) ** 2 for x, y in tops])
    found, heights = highest(maps)
    np.testing.assert_allclose(found, tops, atol=1e-5)
    assert heights[0] == 2


def test_peaks_of_flat_maps_and_at_borders_stay_in_the_cell():
    maps = np.zeros((3, 6, 4), np.float32)
    maps[0] = 0.7
    maps[1, 0, 0] = 1
    maps[2, 5, 3] = 1
    found, _ = highest(maps)
    assert found[0].tolist() == [0, 0]
    assert np.abs(found[1:] - [(0, 0), (3, 5)]).max() <= 0.5


def test_files_that_are_no_network_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"want one \.xml"):
        OpenPose([tmp_path / "net.bin"])
    (tmp_path / "net.xml").write_text("no network")
    with pytest.raises(UserError, match="openvino cannot read it"):
        OpenPose([tmp_path / "net.xml"])


COLD = f"""
import sys, threading
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from pipeline.extraction.openpose import OpenPose

use, *files = sys.argv[1:]
sys.setswitchinterval(1e-6)  # threads take turns as often as can be
images = np.zeros((4, 64, 32, 3), np.uint8)
detector = OpenPose(files)
if use == "tensors":  # two threads read their first tensor at the same moment
    start, free = threading.Barrier(2), detector._network._free

    def read(request):
        start.wait()
        request.output_tensors[0].data

    threads = [threading.Thread(target=read, args=(free.get(),)) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
else:
    detector(images) if use == "score" else detector.central_people(images)
"""


def ends(files: list[Path], use: str, starts: int) -> int:
    """How many of so many fresh processes, all at once, come to their end within a minute. Two threads each."""
    command = [sys.executable, "-c", COLD, use, *map(str, files)]
    processes = [subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "2"}) for _ in range(starts)]
    good = 0
    for process in processes:
        try:
            good += process.wait(60) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return good


def test_the_first_tensors_of_two_threads_do_not_wait_for_each_other(colour_network):
    assert ends(colour_network, "tensors", 4) == 4


@pytest.mark.slow
@pytest.mark.parametrize("use", ["tensors", "keypoints", "score"])
def test_none_of_twenty_cold_starts_hangs(colour_network, use):
    assert sum(ends(colour_network, use, 4) for _ in range(5)) == 20


SIGNALLED = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pipeline.extraction.openpose import OpenPose

first, second = OpenPose(sys.argv[1:]), OpenPose(sys.argv[1:])
del first, second
signal.signal(signal.SIGUSR1, lambda *of: print("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_is_heard_after_two_networks_are_gone(colour_network):
    """Where the processor has AMX, an openvino core that goes may leave its thread without a stack for signals."""
    command = [sys.executable, "-c", SIGNALLED, *map(str, colour_network)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "heard\n"


def paint(people: list[dict[int, tuple[float, float]]], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Heatmaps (18, h, w) and fields (19, 2, h, w) of people whose joints (number -> (x, y) in cells) are given, as the
    network is trained to give them: Gaussians of height 1, and unit vectors within a cell of each limb.
    """
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    heatmaps = np.zeros((18, height, width), np.float32)
    fields = np.zeros((len(LIMBS), 2, height, width), np.float32)
    for person in people:
        for joint, (x, y) in person.items():
            peak = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 0.9**2))
            heatmaps[joint] = np.maximum(heatmaps[joint], peak)
        for limb, (first, second) in enumerate(LIMBS):
            if first in person and second in person:
                start, along = np.array(person[first]), np.array(person[second]) - person[first]
                length = np.linalg.norm(along)
                offset = np.stack([columns, rows], axis=-1) - start
                ahead, beside = offset @ along / length, np.abs(offset @ [-along[1], along[0]]) / length
                on = (ahead > -1) & (ahead < length + 1) & (beside < 1)
                fields[limb, :, on] = along / length
    return heatmaps, fields


# A standing figure in cells, its neck at (0, 0).
FIGURE = {
    0: (0.2, -3.1), 1: (0, 0), 14: (-0.6, -3.8), 15: (1.1, -3.7), 16: (-1.6, -3.4), 17: (2.1, -3.3),
    2: (-2.3, 0.4), 3: (-3.4, 4.2), 4: (-3.1, 7.9), 5: (2.2, 0.3), 6: (3.3, 4.4), 7: (3.2, 8.1),
    8: (-1.4, 8.2), 9: (-1.7, 13.4), 10: (-1.8, 18.1), 11: (1.3, 8.3), 12: (1.6, 13.2), 13: (1.9, 18.3),
}  # fmt: skip


def figure(x: float, y: float, without: tuple[int, ...] = ()) -> dict[int, tuple[float, float]]:
    return {joint: (x + dx, y + dy) for joint, (dx, dy) in FIGURE.items() if joint not in without}


def joints_and_scores(person: dict[int, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    joints = np.zeros((18, 2))
    joints[list(person)] = list(person.values())
    return joints, np.isin(np.arange(18), list(person))


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("distance", [5.5, 7, 9])
def test_the_central_of_two_people_who_overlap_comes_back_whole_and_alone(side, distance):
    """Neither the left wrist nor the right leg of the other stands in for the missing ones."""
    height, width = 32, 40
    middle, other = figure(19.5, 7, without=(7, 9, 10)), figure(19.5 + side * distance, 6)
    found, scores = openpose.everybody(*paint([other, middle], height, width), (height, width), np.ones(2))
    joints, score = openpose.central(found, scores, width)
    truth, present = joints_and_scores(middle)
    assert ((score > 0) == present).all()
    assert np.abs(joints - truth)[present].max() < 0.3  # cells
    assert not joints[~present].any()
    truth, _ = joints_and_scores(other)
    assert min(np.abs(one - truth).max() for one, s in zip(found, scores, strict=True) if (s > 0).all()) < 0.3


def test_people_who_face_each_other_keep_their_own_arms():
    """Both right wrists lie between the two: nearness would swap them, the fields do not."""
    left, right = figure(7, 7), figure(16, 7)
    left[6], left[7] = (10.5, 9.0), (13.2, 10.0)  # reaches over
    right[3], right[4] = (12.5, 12.0), (9.5, 14.0)
    found, scores = openpose.everybody(*paint([left, right], 32, 24), (32, 24), np.ones(2))
    whole = found[(scores > 0).all(axis=1)]
    assert len(whole) == 2
    for one, person in zip(whole[whole[:, 1, 0].argsort()], (left, right), strict=True):
        assert np.abs(one - joints_and_scores(person)[0]).max() < 0.3


def test_nobody_is_eighteen_missing_joints():
    found, scores = openpose.everybody(np.zeros((18, 8, 8)), np.zeros((19, 2, 8, 8)), (64, 64), np.full(2, 8.0))
    assert found.shape == (0, 18, 2)
    joints, score = openpose.central(found, scores, 64)
    assert not joints.any()
    assert not score.any()


def test_central_is_a_matter_of_place_weighted_by_score():
    joints = np.zeros((2, 18, 2))
    joints[0, :, 0], joints[1, :, 0] = 49.5, 20  # of 100 pixels: on the midline; 0.41 of the way from the side
    scores = np.ones((2, 18))
    assert (openpose.central(joints, scores, 100)[0][:, 0] == 49.5).all()
    scores[0, 7:] = 0  # 7 joints on the midline against 18 that count 0.41 each
    assert (openpose.central(joints, scores, 100)[0][:, 0] == 20).all()
    scores[1] = 0.9 * 7 / (18 * 0.41)
    assert (openpose.central(joints, scores, 100)[0][:, 0] == 49.5).all()


def test_peaks_are_the_highest_local_maxima_above_the_threshold():
    maps = np.zeros((2, 12, 9), np.float32)
    for place, value in {(1, 1): 0.5, (1, 2): 0.4, (4, 4): 0.9, (11, 8): 0.3, (7, 0): PEAK - 0.01}.items():
        maps[0][place] = value
    places, heights = openpose.peaks(maps)
    assert places.shape == (2, PEAKS, 2)
    assert heights[0].tolist() == pytest.approx([0.9, 0.5, 0.3, 0, 0, 0])
    assert np.abs(places[0, :3] - [(4, 4), (1, 1), (8, 11)]).max() <= 0.5
    assert places[0, 0].tolist() == [4, 4]
    assert places[0, 1, 0] > 1  # towards its higher neighbour
    assert not places[0, 3:].any()
    assert not heights[1].any()
    maps[1, ::2, ::2] = np.linspace(0.2, 0.9, 30).reshape(6, 5)
    assert openpose.peaks(maps)[1][1].tolist() == pytest.approx(np.linspace(0.9, 0.2, 30)[:PEAKS].tolist())


def test_links_are_the_mean_field_along_the_limb():
    places, heights = np.zeros((18, PEAKS, 2)), np.zeros((18, PEAKS))
    places[1, 0], places[2, 0], places[2, 1] = (2, 3), (8, 3), (2, 9)  # neck; two right shoulders
    heights[1, 0] = heights[2, :2] = 1
    fields = np.zeros((len(LIMBS), 2, 12, 12))

    def linked() -> dict:
        ends, scores = openpose.links(fields, places, heights)
        return {tuple(end): round(float(score), 6) for end, score in zip(ends, scores, strict=True)}

    neck, first, second = PEAKS, 2 * PEAKS, 2 * PEAKS + 1
    assert linked() == {}
    fields[0, 0] = 0.8  # to the right: along the first, across the second
    assert linked() == {(neck, first): 0.8}
    fields[0, 0] = -0.8
    assert linked() == {}
    fields[0, 0], fields[0, 1] = 0.6, np.linspace(0, 1.1, 12)[:, None]  # bilinear in between: y / 10
    assert linked() == {(neck, first): 0.6, (neck, second): 0.6}
    fields[0, 0, :, 6:] = 0  # the last third of the first limb
    assert linked() == {(neck, second): 0.6}


def test_mirrored_maps_are_those_of_the_mirror_image():
    width = 24
    person = figure(9, 7, without=(3,))
    seen = {pose.FLIP[joint]: (width - 1 - x, y) for joint, (x, y) in person.items()}

    def maps(one: dict) -> np.ndarray:
        heatmaps, fields = paint([one], 32, width)
        return np.concatenate([heatmaps, fields.reshape(-1, 32, width)])

    np.testing.assert_allclose(openpose.mirrored(maps(person)), maps(seen), atol=1e-5)
    assert not np.allclose(maps(person), maps(seen))


@pytest.mark.parametrize(("height", "width"), [(128, 64), (256, 256), (256, 176), (64, 33), (90, 601), (700, 333)])
def test_mean_maps_lie_where_the_image_does(colour_network, height, width):
    """Two sizes and their mirror images, padded or shrunk, agree on where a peak is."""
    places = {0: (0.3, 0.2), 1: (0.8, 0.7)}  # network planes blue, green: nose and neck, their own mirror images
    image = np.zeros((height, width, 3), np.uint8)
    for plane, (x, y) in places.items():
        image[..., 2 - plane] = blob(height, width, x * width, y * height, 0.08 * max(height, width / 4))
    heatmaps, fields, pixels_per_cell = OpenPose(colour_network).mean_maps(image)
    cells, heights = highest(heatmaps)
    joints = (cells + 0.5) * pixels_per_cell - 0.5
    for plane, (x, y) in places.items():
        assert np.abs(joints[plane] - (x * width, y * height)).max() < 0.006 * max(height, width / 4)
        assert heights[plane] > 0.9
    assert fields.shape == (19, 2, *heatmaps.shape[1:])
    assert np.abs(np.array(heatmaps.shape[:0:-1]) * pixels_per_cell - (width, height)).max() < 32 * height / 192


def test_an_image_and_its_mirror_image_have_mirrored_maps(colour_network):
    """The mean is over both, left and right joints swapped: not so for a network's own maps."""
    image = np.random.default_rng(0).integers(0, 256, (128, 64, 3), np.uint8)
    network = OpenPose(colour_network)

    def maps(picture: np.ndarray) -> np.ndarray:
        heatmaps, fields, _ = network.mean_maps(picture)
        return np.concatenate([heatmaps, fields.reshape(-1, *heatmaps.shape[1:])])

    there, here = maps(image[:, ::-1]), maps(image)
    np.testing.assert_allclose(there, openpose.mirrored(here), atol=1e-5)
    assert here[2].max() > 0.1  # the right shoulder, half as high, as the left one is not painted


def test_no_link_no_second_joint(colour_network):
    """Two lone peaks are two people; the central of them is returned, at its place, inside the image."""
    image = np.zeros((128, 64, 3), np.uint8)
    image[..., 2] = blob(128, 64, 8, 30, 5)
    image[..., 1] = blob(128, 64, 33, 100, 5)
    joints, scores = OpenPose(colour_network).central_people([image, np.zeros_like(image)])
    assert np.flatnonzero(scores[0]).tolist() == [1]
    assert np.abs(joints[0, 1] - (33, 100)).max() < 1
    assert not scores[1].any()
    assert joints.dtype == scores.dtype == np.float32


@pytest.fixture(scope="module")
def market(mirror) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """100 test crops (RGB) with their published joints (100, 18, 2) and which of them are known."""
    rows = {}
    with (mirror / "market1501/market-annotation-test.csv").open() as handle:
        for row in csv.DictReader(handle, delimiter=":"):
            y, x = (np.array(integers(row[key])) for key in ("keypoints_y", "keypoints_x"))
            if not row["name"].startswith(("-1", "0000")) and (x >= 0).sum() >= 8:
                rows[row["name"]] = np.stack([x, y], axis=1)
    names = sorted(rows)[:: len(rows) // 100][:100]
    with zipfile.ZipFile(mirror / "market1501/Market-1501-v15.09.15.zip") as archive:
        members = {Path(name).name: name for name in archive.namelist() if "bounding_box_test/" in name}
        encoded = [np.frombuffer(archive.read(members[name]), np.uint8) for name in names]
    images = np.stack([cv2.imdecode(picture, cv2.IMREAD_COLOR)[:, :, ::-1] for picture in encoded])
    joints = np.stack([rows[name] for name in names])
    return images, joints, joints[..., 0] >= 0


def integers(text: str) -> list[int]:
    return [int(item) for item in text.strip(" []").split(",")]


@pytest.mark.real
def test_real_network_finds_the_published_joints(market, mirror):
    images, joints, valid = market
    found, scores = OpenPose([mirror / "weights" / name for name in FILES])(images)
    seen = valid & (scores > 0)
    error = np.linalg.norm(found - joints, axis=2)
    assert np.median(error[seen]) < 2.2
    assert (error[seen] < 6.4).mean() > 0.88
    assert seen.sum() / valid.sum() > 0.95
    # Channels are in our order: each is nearest to the annotated joint of the same number.
    distance = np.linalg.norm(found[:, None] - joints[:, :, None], axis=3)
    nearest = [np.median(distance[valid[:, joint], joint], axis=0).argmin() for joint in range(18)]
    assert nearest == list(range(18))


@pytest.mark.real
def test_real_network_gives_an_image_the_same_bytes_in_any_company(market, mirror, monkeypatch):
    images, files = market[0][:12], [mirror / "weights" / name for name in FILES]
    joints, scores = OpenPose(files)(images)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = [OpenPose(files)(images[row : row + 1]) for row in (0, 5, 11)]
    turned = OpenPose(files)(np.ascontiguousarray(images[::-1]))
    assert all(np.array_equal(joints[[row]], single[0]) for row, single in zip((0, 5, 11), alone, strict=True))
    assert np.array_equal(joints, turned[0][::-1])
    assert np.array_equal(scores, turned[1][::-1])


@pytest.mark.real
def test_each_field_belongs_to_its_limb(market, mirror):
    """Of the 19 channel pairs, the one listed for a limb is strongest along it, in its direction."""
    images, joints, valid = market
    network = OpenPose([mirror / "weights" / name for name in FILES])
    maps = np.stack([network._maps(cv2.resize(image, (128, 256)))[18:] for image in images])
    fields = maps.reshape(len(images), len(LIMBS), 2, 32, 16)
    assert len(set(CHANNELS.tolist())) == len(LIMBS)
    cells = (joints + 0.5) / 4 - 0.5
    for limb, (first, second) in enumerate(LIMBS):
        along = cells[:, second] - cells[:, first]
        length = np.linalg.norm(along, axis=1)
        use = valid[:, first] & valid[:, second] & (length > 0)
        middle = np.rint((cells[use, first] + cells[use, second]) / 2).astype(int)
        there = fields[use][np.arange(use.sum()), :, :, middle[:, 1].clip(0, 31), middle[:, 0].clip(0, 15)]
        strength = (there * (along / np.maximum(length, 1e-9)[:, None])[use][:, None]).sum(axis=2).mean(axis=0)
        assert strength.argmax() == limb, (first, second)
        assert strength[limb] > 0.3


@pytest.mark.real
def test_grouping_on_real_crops(market, mirror):
    images, joints, valid = (part[::2] for part in market)
    network = OpenPose([mirror / "weights" / name for name in FILES])
    _, plain_scores = network(images)
    found, scores = network.central_people(images)
    seen = valid & (scores > 0)
    error = np.linalg.norm(found - joints, axis=2)
    assert np.median(error[seen]) < 1.6
    assert (error[seen] < 6.4).mean() > 0.95
    assert seen.sum() / valid.sum() > 0.94
    assert (scores > 0)[~valid].mean() < 0.75 * (plain_scores > 0)[~valid].mean()


@pytest.mark.real
def test_a_neighbour_in_the_crop_changes_little(market, mirror):
    """A person in the middle, and the half of another pasted beside: the joints stay those of the first."""
    images, _, valid = market
    chosen = np.flatnonzero(valid.sum(axis=1) >= 15)[:12]
    canvas = np.full((len(chosen), 128, 128, 3), 127, np.uint8)
    canvas[:, :, 32:96] = images[chosen]
    alone = canvas.copy()
    canvas[:, :, :32] = images[chosen[::-1]][:, :, 16:48]
    network = OpenPose([mirror / "weights" / name for name in FILES])
    (expected, before), (found, after) = network.central_people(alone), network.central_people(canvas)
    both = (before > 0) & (after > 0)
    assert both.sum() > 0.93 * (before > 0).sum()
    assert (np.linalg.norm(found - expected, axis=2)[both] < 4).mean() > 0.98
    assert (found[after > 0][:, 0] > 28).mean() > 0.99  # not the neighbour's


@pytest.mark.real
def test_grouping_depends_on_the_image_alone(market, mirror, monkeypatch):
    images, files = market[0][:6], [mirror / "weights" / name for name in FILES]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    joints, scores = OpenPose(files).central_people(images)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    network = OpenPose(files)
    network.central_people([np.zeros((300, 200, 3), np.uint8)])  # another size before
    for row in (4, 0, 5):
        alone = network.central_people(images[row : row + 1])
        assert np.array_equal(joints[[row]], alone[0])
        assert np.array_equal(scores[[row]], alone[1])
