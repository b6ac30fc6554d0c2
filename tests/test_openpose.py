"""The detector on a network whose answer is known in closed form; on the real network where it is at hand."""

import csv
import zipfile
from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from pipeline.errors import UserError
from pipeline.openpose import THRESHOLD, OpenPose, _peaks

FILES = ("human-pose-estimation-0001.xml", "human-pose-estimation-0001.bin")


@pytest.fixture(scope="module")
def colour_network(tmp_path_factory) -> list[Path]:
    """Heatmaps 0, 1, 2 are the first, second and third input plane, averaged over 8 x 8 pixels; the others are 0."""
    data = ops.parameter([1, 3, -1, -1], np.float32, name="data")
    data.output(0).tensor.set_names({"data"})
    pooled = ops.avg_pool(ops.divide(data, np.float32(255)), [8, 8], [0, 0], [0, 0], [8, 8], False)
    rest = ops.pad(pooled, [0, 0, 0, 0], [0, 16, 0, 0], "constant", np.float32(0))
    rest.output(0).tensor.set_names({"Mconv7_stage2_L2"})
    folder = tmp_path_factory.mktemp("network")
    openvino.save_model(openvino.Model([rest], [data]), folder / "colour.xml", compress_to_fp16=False)
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
    found, heights = _peaks(maps)
    np.testing.assert_allclose(found, tops, atol=1e-5)
    assert heights[0] == 2


def test_peaks_of_flat_maps_and_at_borders_stay_in_the_cell():
    maps = np.zeros((3, 6, 4), np.float32)
    maps[0] = 0.7
    maps[1, 0, 0] = 1
    maps[2, 5, 3] = 1
    found, _ = _peaks(maps)
    assert found[0].tolist() == [0, 0]
    assert np.abs(found[1:] - [(0, 0), (3, 5)]).max() <= 0.5


def test_files_that_are_no_network_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"want one \.xml"):
        OpenPose([tmp_path / "net.bin"])
    (tmp_path / "net.xml").write_text("no network")
    with pytest.raises(UserError, match="openvino cannot read it"):
        OpenPose([tmp_path / "net.xml"])


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
