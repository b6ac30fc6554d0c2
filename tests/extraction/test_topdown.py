"""The top-down detector on small ONNX networks that find painted colours, so that every joint is known."""

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.core.errors import UserError
from pipeline.extraction.topdown import THRESHOLD, TopDown, from_coco

# One colour a COCO joint, RGB, full in at least one channel: a fading spot of one never looks like another.
COLOURS = np.array([c for c in product((0, 128, 255), repeat=3) if max(c) == 255][:17], np.float32)
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def network(path: Path, kind: str, size: tuple = (256, 192), shape: tuple = (1, 3, 256, 192), joints: int = 17) -> Path:
    """An ONNX network whose response of joint j is a bell over the distance to colour j, as `kind` of output.

    size: of its input. shape: as the file declares it, with names for what it leaves open.
    """
    height, width = size
    colours = COLOURS[:joints]
    constants = {
        "std": np.array(STD, np.float32).reshape(1, 3, 1, 1),
        "mean": np.array(MEAN, np.float32).reshape(1, 3, 1, 1),
        "twice": 2 * colours.reshape(joints, 3, 1, 1),
        "norm": (colours**2).sum(axis=1).reshape(1, joints, 1, 1),
        "scale": np.float32(1 / (6000 if kind == "heatmaps" else 1000)),
        "one": np.array([1], np.int64),
        "rows": np.array([2], np.int64),
        "columns": np.array([3], np.int64),
        "double": np.array([1, 1, 2], np.float32),
        "quarter": np.array([1, joints, height // 4, width // 4], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Mul", ["input", "std"], ["spread"]),
        node("Add", ["spread", "mean"], ["colour"]),
        node("Mul", ["colour", "colour"], ["squares"]),
        node("ReduceSum", ["squares", "one"], ["own"]),
        node("Conv", ["colour", "twice"], ["product"]),
        node("Sub", ["product", "norm"], ["part"]),
        node("Sub", ["part", "own"], ["negative"]),
        node("Mul", ["negative", "scale"], ["exponent"]),
        node("Exp", ["exponent"], ["response"]),
    ]
    outputs = []
    if kind == "heatmaps":  # outer cells on outer pixels
        nodes += [
            node("Resize", ["response", "", "", "quarter"], ["heatmaps"], mode="linear",
                 coordinate_transformation_mode="align_corners"),
        ]  # fmt: skip
        outputs = [("heatmaps", (1, joints, height // 4, width // 4))]
    else:
        for name, axis, side in (("simcc_x", "rows", width), ("simcc_y", "columns", height)):
            nodes += [
                node("ReduceMax", ["response", axis], [f"{name}_line"], keepdims=0),
                node("Resize", [f"{name}_line", "", "double"], [name], coordinate_transformation_mode="asymmetric",
                     mode="nearest", nearest_mode="floor"),
            ]  # fmt: skip
            outputs.append((name, (1, joints, 2 * side)))
        if kind == "simcc_y first":
            outputs.reverse()
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in outputs],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def painted(height: int, width: int, seed: int, without: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """An RGB image with a fading spot of each joint's colour, and the spots' centres (17, 2) as (x, y)."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation(28)[:17]  # of a grid of 4 x 7: no spot on another
    centres = (np.stack(np.divmod(cells, 7), axis=1) + 0.5 + rng.uniform(-0.12, 0.12, (17, 2))) / (4, 7)
    centres = centres * (width, height) - 0.5
    rows, columns = np.mgrid[:height, :width]
    image = np.zeros((height, width, 3), np.float32)
    for joint, (x, y) in enumerate(centres):
        if joint not in without:
            squared = ((columns - x) / width * 4) ** 2 + ((rows - y) / height * 7) ** 2
            image += COLOURS[joint] * np.exp(-squared / (2 * 0.16**2))[..., None]
    return np.clip(np.round(image), 0, 255).astype(np.uint8), centres


# OpenPose-18 joint -> COCO joint, by name.
COCO_OF = {
    0: 0, 2: 6, 3: 8, 4: 10, 5: 5, 6: 7, 7: 9, 8: 12, 9: 14, 10: 16, 11: 11, 12: 13, 13: 15, 14: 2, 15: 1, 16: 4, 17: 3,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["simcc", "simcc_y first", "heatmaps"])
def test_painted_joints_come_back_in_pixels_of_the_image(tmp_path, kind):
    detector = TopDown(network(tmp_path / "net.onnx", kind))
    sizes = [(128, 64), (256, 256), (256, 176), (300, 420)]
    pictures, truth = zip(*(painted(*size, seed) for seed, size in enumerate(sizes)), strict=True)
    joints, scores = detector(pictures)
    assert joints.shape == (4, 18, 2)
    assert joints.dtype == scores.dtype == np.float32
    for found, score, centres, (height, width) in zip(joints, scores, truth, sizes, strict=True):
        input_pixel = 1.25 * max(height / 256, width / 192)  # in pixels of the image
        expected = np.stack([centres[COCO_OF[j]] if j != 1 else (centres[5] + centres[6]) / 2 for j in range(18)])
        assert np.abs(found - expected).max() < (1.6 if kind == "heatmaps" else 0.9) * input_pixel
        assert np.abs((found - expected).mean(axis=0)).max() < 0.35 * input_pixel  # no shift
        assert score.min() > THRESHOLD
        assert score[1] == min(score[2], score[5])


@pytest.mark.parametrize(("size", "scale"), [((128, 64), 1.6), ((256, 256), 0.6), ((300, 420), 192 / 420 / 1.25)])
def test_the_box_is_the_image_and_a_quarter(tmp_path, size, scale):
    """A white image fills the middle of the input; its tighter side leaves a tenth at either end."""
    detector = TopDown(network(tmp_path / "net.onnx", "simcc"))
    inputs = []
    infer = detector._network.infer
    detector._network.infer = lambda planes: inputs.append(planes) or infer(planes)
    detector([np.full((*size, 3), 255, np.uint8)])
    red = inputs[0][0, 0] * STD[0] + MEAN[0]
    assert red.shape == (256, 192)
    assert red.sum(axis=0).max() / 255 == pytest.approx(size[0] * scale, abs=0.5)
    assert red.sum(axis=1).max() / 255 == pytest.approx(size[1] * scale, abs=0.5)


def test_missing_joints_and_the_neck(tmp_path):
    detector = TopDown(network(tmp_path / "net.onnx", "simcc"))
    image, _ = painted(128, 64, 0, without=(5, 10))  # left shoulder, right wrist
    joints, scores = detector([image])
    assert np.flatnonzero(scores[0] == 0).tolist() == [1, 4, 5]
    assert not joints[0, [1, 4, 5]].any()


def test_coco_order_and_threshold():
    places = np.stack([np.arange(17.0), -np.arange(17.0)], axis=1)
    values = np.full(17, 0.9)
    values[[5, 6, 16]] = 0.8, 0.7, THRESHOLD
    joints, scores = from_coco(places, values)
    assert {j: int(x) for j, (x, _) in enumerate(joints) if j not in (1, 10)} == {
        j: coco for j, coco in COCO_OF.items() if j != 10
    }
    assert joints[1].tolist() == [5.5, -5.5]
    assert scores[1] == 0.7
    assert scores[10] == 0
    assert not joints[10].any()
    assert places[16].tolist() == [16, -16]  # the given ones stay


@pytest.mark.parametrize("shape", [("batch", 3, 256, 192), ("batch", 3, "height", "width")])
def test_sizes_that_the_file_leaves_open(tmp_path, shape):
    detector = TopDown(network(tmp_path / "net.onnx", "simcc", shape=shape))
    assert (detector.height, detector.width) == (256, 192)
    image, centres = painted(128, 64, 3)
    assert np.abs(detector([image])[0][0, 0] - centres[0]).max() < 0.9 * 0.625


def test_an_image_gives_the_same_bytes_in_any_company(tmp_path, monkeypatch):
    pictures = [painted(128, 64, seed)[0] for seed in range(5)]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    joints, scores = TopDown(network(tmp_path / "net.onnx", "simcc", (128, 96), (1, 3, 128, 96)))(pictures)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    detector = TopDown(tmp_path / "net.onnx")
    for row in (4, 0, 2):
        alone = detector(pictures[row : row + 1])
        assert np.array_equal(alone[0][0], joints[row])
        assert np.array_equal(alone[1][0], scores[row])


def test_files_that_are_no_such_network_are_one_line(tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(UserError, match="openvino cannot read it"):
        TopDown(tmp_path / "text.onnx")
    with pytest.raises(UserError, match="want 17 COCO joints"):
        TopDown(network(tmp_path / "sixteen.onnx", "simcc", joints=16))
    with pytest.raises(UserError, match="want 17 COCO joints"):
        TopDown(network(tmp_path / "sixteen.onnx", "heatmaps", joints=16))
    value = helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 4))
    graph = helper.make_graph([helper.make_node("Exp", ["input"], ["out"])], "g", [value],
                              [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 4))])  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "v.onnx")
    with pytest.raises(UserError, match="want one image"):
        TopDown(tmp_path / "v.onnx")
