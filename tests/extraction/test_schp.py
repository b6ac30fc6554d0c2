"""SCHP's way through its 473 pixels and back, on networks of the same signature whose answer is known."""

import os
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import zoom

from pipeline.core.errors import UserError
from pipeline.extraction.schp import SIZE, Schp, labels_of, prepare, to_input

CELLS = 119
SIZES = [(128, 64), (256, 256), (256, 176), (64, 33), (100, 160)]


def network(path, channels=20, names=("parsing", "fusion", "edge"), size=SIZE, stride=4):
    """Channel k of `fusion` is high where the input's red plane, at every fourth pixel (`stride`), is k / 20.

    `parsing` is its opposite, so that taking the wrong one shows; `edge` has two channels, as SCHP's.
    """
    levels = np.arange(channels, dtype=np.float32)[None, :, None, None] / 20
    mean, deviation = np.float32(0.485), np.float32(0.229)
    constants = {"starts": [2], "ends": [3], "axes": [1], "two": [0, 1]}
    initial = [numpy_helper.from_array(np.array(value, np.int64), key) for key, value in constants.items()]
    initial += [numpy_helper.from_array(levels, "levels")]
    initial += [numpy_helper.from_array(value, key) for key, value in (("mean", mean), ("deviation", deviation))]
    nodes = [
        helper.make_node("Slice", ["input.1", "starts", "ends", "axes"], ["red"]),
        helper.make_node("Mul", ["red", "deviation"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["share"]),
        helper.make_node("MaxPool", ["share"], ["pooled"], kernel_shape=[1, 1], strides=[stride, stride]),
        helper.make_node("Sub", ["pooled", "levels"], ["apart"]),
        helper.make_node("Abs", ["apart"], [names[0]]),
        helper.make_node("Neg", [names[0]], [names[1]]),
        helper.make_node("Gather", [names[1], "two"], [names[2]], axis=1),
    ]
    cells = (size - 1) // stride + 1
    outputs = [(name, 2 if name == names[2] else channels) for name in names]
    graph = helper.make_graph(
        nodes,
        "schp",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, cells, cells]) for name, count in outputs],
        initial,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def painted(labels: np.ndarray) -> np.ndarray:
    """An image whose red says the label; its blue and green say something else."""
    red = np.round(labels * (255 / 20)).astype(np.uint8)
    return np.stack([red, np.full_like(red, 40), 255 - red], axis=2)


def blocks(height: int, width: int, seed: int = 0, size: int = 16) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 20, (height // size + 1, width // size + 1), np.uint8)
    return small.repeat(size, axis=0).repeat(size, axis=1)[:height, :width].copy()


@pytest.fixture(scope="module")
def painted_network(tmp_path_factory):
    return Schp(network(tmp_path_factory.mktemp("schp") / "parsing_lip.onnx"))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_labels_come_back_where_they_were_painted(painted_network, height, width):
    side = max(height, width)
    labels = blocks(height, width, size=side // 4)
    (found,) = painted_network([painted(labels)])
    assert found.dtype == np.uint8
    assert found.shape == (height, width)
    # Between two blocks red passes through other labels' levels, for as long as a cell of the output and a pixel.
    # So it does at the image's edge, where the next cell is black.
    border = cv2.dilate(labels, np.ones((3, 3))) != cv2.erode(labels, np.ones((3, 3)))
    border[[0, -1]] = border[:, [0, -1]] = True
    sure = cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_C, 3) > side / CELLS + 1
    assert sure.mean() > 0.5
    assert (found[sure] == labels[sure]).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_border_is_not_moved(painted_network, height, width):
    """Labels 9 and 10 meet at every place in turn; on average the way there and back must not shift the border."""
    side = max(height, width)
    for axis, length in ((0, height), (1, width)):
        places = np.arange(length // 4, 3 * length // 4, max(1, length // 24))
        moved = []
        for place in places:
            line = np.where(np.arange(length) < place, 9, 10).astype(np.uint8)
            labels = np.broadcast_to(np.expand_dims(line, 1 - axis), (height, width))
            (found,) = painted_network([painted(labels)])
            across = np.moveaxis(found, axis, 0)[:, found.shape[1 - axis] // 2]
            moved.append(np.flatnonzero(across == 10)[0] - place)
            assert (np.diff(across[1:-1].astype(int)) >= 0).all()  # at the edge, black may mix in
        assert np.abs(moved).max() <= 0.5 * side / CELLS + 0.6
        assert abs(np.mean(moved)) < 0.3


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_input_and_output_are_the_released_extractors(height, width):
    """Written again from its description: centre and scale, three point pairs, enlarged logits, warped back."""
    centre = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    side = max(height, width) - 1
    there = np.float32([centre, centre - [0, side / 2], centre - [side / 2, side / 2]])
    middle = np.float32([(SIZE - 1) / 2] * 2)
    here = np.float32([middle, middle - [0, middle[0]], middle - middle])
    assert np.allclose(to_input(height, width), cv2.getAffineTransform(there, here), atol=1e-4)

    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    warped = cv2.warpAffine(image, cv2.getAffineTransform(there, here), (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    wanted = (warped[:, :, ::-1] / 255.0 - [0.406, 0.456, 0.485]) / [0.225, 0.224, 0.229]
    assert np.abs(prepare(image)[0] - wanted.transpose(2, 0, 1)).max() < 0.05

    logits = cv2.GaussianBlur(np.random.default_rng(1).normal(size=(CELLS, CELLS, 20)).astype(np.float32), (0, 0), 3)
    logits = logits.transpose(2, 0, 1)
    large = zoom(logits, (1, SIZE / CELLS, SIZE / CELLS), order=1)  # corners stay corners
    back = cv2.getAffineTransform(here, there)
    warped = [cv2.warpAffine(one, back, (width, height), flags=cv2.INTER_LINEAR) for one in large]
    found = labels_of(logits, height, width)
    # OpenCV interpolates at 1/32 of a pixel: the labels differ where two are about equal.
    assert (found == np.argmax(warped, axis=0)).mean() > 0.995
    full = labels_of(large, height, width)
    assert (found == full).mean() > 0.9999  # an export that enlarges by itself


def test_channels_are_blue_green_red_with_their_means():
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[...] = (0, 128, 255)  # red, green, blue
    blue, green, red = prepare(image)[0, :, 100, 100]
    assert blue == pytest.approx((1 - 0.406) / 0.225, abs=1e-5)
    assert green == pytest.approx((128 / 255 - 0.456) / 0.224, abs=1e-5)
    assert red == pytest.approx(-0.485 / 0.229, abs=1e-5)


def test_outside_the_image_is_black_not_stretched():
    planes = prepare(np.full((100, 50, 3), 255, np.uint8))[0]
    assert (planes[:, 200, 5] < 0).all()
    assert (planes[:, 200, SIZE // 2] > 0).all()


def test_images_of_any_size_one_at_a_time_or_together(painted_network):
    images = [painted(blocks(height, width, seed)) for seed, (height, width) in enumerate([*SIZES, (1, 1), (2, 300)])]
    together = painted_network(images)
    for image, parsing in zip(images, together, strict=True):
        assert (painted_network([image])[0] == parsing).all()
        assert parsing.shape == image.shape[:2]
    assert painted_network([]) == []


@pytest.mark.parametrize("names", [("a", "fusion.3", "b"), ("1601", "1602", "1610")])
def test_fusion_is_read_by_name_or_else_as_the_last_of_20_channels(tmp_path, names):
    parser = Schp(network(tmp_path / "x.onnx", names=names))
    labels = blocks(128, 128, size=32)
    (found,) = parser([painted(labels)])
    assert (found == labels).mean() > 0.6  # of `parsing`, the opposite: next to none
    assert (found[8::32, 8::32] == labels[8::32, 8::32]).mean() > 0.9


def test_an_output_as_large_as_the_input(tmp_path):
    parser = Schp(network(tmp_path / "x.onnx", stride=1))
    labels = blocks(128, 64, size=32)
    (found,) = parser([painted(labels)])
    assert (found == labels).mean() > 0.85


def convolution(path, planes=3, channels=20):
    """One 7 x 7 convolution with random weights."""
    weight = np.random.default_rng(0).normal(size=(channels, planes, 7, 7)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "weight"], ["fusion"], strides=[4, 4], pads=[3, 3, 3, 3])],
        "schp",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", planes, "height", "width"])],
        [helper.make_tensor_value_info("fusion", TensorProto.FLOAT, ["batch", channels, "h", "w"])],
        [numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("other", [{"channels": 18}, {"planes": 4}], ids=["label set", "input"])
def test_another_network_is_one_line(tmp_path, other):
    path = convolution(tmp_path / "parsing_x.onnx", **other)
    with pytest.raises(UserError, match=r"parsing_x\.onnx.*SCHP trained on LIP") as error:
        Schp(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a network", None])
def test_a_broken_file_is_one_line(tmp_path, content):
    path = tmp_path / "parsing_lip.onnx"
    path.write_bytes(network(tmp_path / "whole.onnx").read_bytes()[:600] if content is None else content)
    with pytest.raises(UserError, match=r"parsing_lip\.onnx: openvino cannot read it") as error:
        Schp(path)
    assert "\n" not in str(error.value)


def test_the_number_of_threads_changes_nothing(tmp_path):
    path = convolution(tmp_path / "x.onnx")
    code = (
        "import sys, numpy as np; from pipeline.extraction.schp import Schp\n"
        "image = np.random.default_rng(0).integers(0, 256, (4, 128, 64, 3), np.uint8)\n"
        "sys.stdout.buffer.write(np.stack(Schp(sys.argv[1])(list(image))).tobytes())"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", code, path],
            env=os.environ | {"OMP_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert answers[0] == answers[1]
    assert len(answers[0]) == 4 * 128 * 64
    assert len(set(answers[0])) == 20
