"""A network of the user's: what it is shown, what its numbers are, and which file is refused, with small ONNX files."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.metrics.fid import frechet_distance, statistics_of
from pipeline.metrics.kid import gaussian_kernel, kid
from pipeline.metrics.own_network import OwnNetwork, Settings, boxes, cosine, cut
from pipeline.metrics.pckh import Joints
from pipeline.metrics.stream import PairScores

SIZE = (16, 24)  # height and width of the network's input
WIDTH = 3 * 2 * 3  # numbers of its vector: the means of the three colours in a grid of 2 x 3 cells


def write_network(
    path: Path, output: str = "vector", shape: tuple = ("n", 3, *SIZE), kind: int = TensorProto.FLOAT
) -> Path:
    """An ONNX file that gives each cell's mean colour. shape: of its input, with names for what it leaves open."""
    node = helper.make_node
    constants = {"flat": [-1, WIDTH], "eight": [8, WIDTH], "nothing": np.float32(0), "less": np.float32(-1e9)}
    nodes = [
        node("AveragePool", ["input"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        node("Reshape", ["cells", "eight" if output == "eight" else "flat"], ["vector"]),
        node("Mul", ["vector", "nothing"], ["zeros"]),
        node("Add", ["vector", "less"], ["below"]),
        node("Sqrt", ["below"], ["nan"]),
    ]
    outputs = {"two": ["vector", "zeros"], "beside": ["cells", "vector"], "eight": ["vector"]}.get(output, [output])
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [
            numpy_helper.from_array(np.asarray(value, getattr(value, "dtype", np.int64)), name)
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    onnx.save(model, path)
    return path


def settings(file: Path, **more) -> Settings:
    known = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "0" * 64, "size": SIZE}
    return Settings(**{"file": str(file), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)} | known | more)


def pictures(count: int, height: int = 40, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def by_hand(image: np.ndarray) -> np.ndarray:
    """(WIDTH,): the vector of an image as the network is shown it."""
    normal = (image / 255 - (0.5, 0.4, 0.3)) / (0.2, 0.25, 0.3)
    return normal.reshape(2, 8, 3, 8, 3).mean(axis=(1, 3)).transpose(2, 0, 1).reshape(-1)


@pytest.mark.parametrize("output", ["vector", "beside"])
@pytest.mark.parametrize("shape", [("n", 3, *SIZE), (1, 3, *SIZE), (8, 3, *SIZE), ("n", 3, "h", "w")])
def test_it_is_shown_the_resized_normalised_image_whatever_batch_the_file_says(tmp_path, shape, output):
    network = OwnNetwork("colours", settings(write_network(tmp_path / "net.onnx", output, shape)))
    images = pictures(3)
    found = network(images, None)
    shown = [np.asarray(Image.fromarray(one).resize(SIZE[::-1], Image.Resampling.BICUBIC)) for one in images]
    assert network.width == WIDTH
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [by_hand(one) for one in shown], atol=1e-5)


def test_no_vector_depends_on_the_other_images(tmp_path, monkeypatch):
    file = write_network(tmp_path / "net.onnx")
    images = pictures(7)
    found = OwnNetwork("colours", settings(file))(images, None)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    other = OwnNetwork("colours", settings(file))
    apart = [other(images[start:stop][::-1], None)[::-1] for start, stop in ((0, 1), (1, 7))]
    np.testing.assert_array_equal(np.concatenate(apart), found)
    assert other(images[:0], None).shape == (0, WIDTH)


def joints(**known: tuple[float, float]) -> Joints:
    """One person's, by name."""
    place = {"nose": 0, "neck": 1, "foot": 10, "right_eye": 14, "left_eye": 15, "right_ear": 16, "left_ear": 17}
    xy, valid = np.zeros((1, 18, 2)), np.zeros((1, 18), bool)
    for name, at in known.items():
        xy[0, place[name]], valid[0, place[name]] = at, True
    return Joints(xy, valid)


FRONT = {"nose": (50, 30), "right_eye": (45, 25), "left_eye": (55, 25)}


@pytest.mark.parametrize(
    ("crop", "known", "box"),
    [
        # 60 high and 20 wide, a tenth of 60 more on each side; then as wide as the input, which is square
        ("person", {"neck": (40, 20), "foot": (60, 80)}, (50.5 - 36, 50.5 - 36, 50.5 + 36, 50.5 + 36)),
        ("person", {"neck": (40, 20)}, None),
        ("person", {"neck": (40, 20), "foot": (40, 20)}, None),  # nothing between them
        ("face", FRONT | {"right_ear": (38, 27), "left_ear": (62, 27)}, (50.5 - 18, 28 - 18, 50.5 + 18, 28 + 18)),
        ("face", FRONT, (50.5 - 16, 28 - 16, 50.5 + 16, 28 + 16)),  # no ear: by the eyes
        ("face", {"nose": (50, 30), "left_eye": (48, 25), "left_ear": (30, 26)}, (40.5 - 15, 13, 40.5 + 15, 43)),
        ("face", {"nose": (50, 30), "left_eye": (48, 25)}, None),
        ("face", {"nose": (50, 30), "left_ear": (48, 25), "right_ear": (30, 26)}, None),  # no eye
        ("face", {name: at for name, at in FRONT.items() if name != "nose"} | {"left_ear": (62, 27)}, None),
    ],
)
def test_boxes(crop, known, box):
    found = boxes(crop, joints(**known | {"neck": (40, 90)} if crop == "face" else known), (100, 90), (16, 16), 1)
    np.testing.assert_allclose(found, [box or [np.nan] * 4])
    if box:
        taller = boxes(crop, joints(**known), (100, 90), (32, 16), 1)[0]
        assert taller[3] - taller[1] == pytest.approx(2 * (taller[2] - taller[0]))  # the input's proportions
        assert taller[:2].sum() + taller[2:].sum() == pytest.approx(sum(box))  # about the same middle


def test_the_whole_image_needs_no_joints_and_one_far_outside_moves_no_box_there():
    np.testing.assert_array_equal(boxes("none", None, (40, 30), SIZE, 2), [[0, 0, 30, 40]] * 2)
    near, far = (boxes("person", joints(neck=(5, 5), foot=(20, y)), (40, 30), (8, 8), 1) for y in (39.5, 9000))
    np.testing.assert_array_equal(near, far)


def test_a_box_is_cut_out_and_goes_on_beyond_the_edges():
    image = pictures(1)[0]
    np.testing.assert_array_equal(cut(image, np.array([3.0, 5, 15, 25]), 20, 12), image[5:25, 3:15])
    wider = np.pad(image, ((4, 0), (0, 6), (0, 0)), mode="edge")
    np.testing.assert_array_equal(cut(image, np.array([20.0, -4, 36, 12]), 16, 16), wider[:16, 20:36])
    # four pixels to one are averaged, not picked
    stripes = np.tile(np.array([0, 255], np.uint8)[None, :, None], (32, 16, 3))
    assert np.abs(cut(stripes, np.array([0.0, 0, 32, 32]), 8, 8)[2:-2, 2:-2].astype(int) - 127).max() < 8


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path):
    file = write_network(tmp_path / "net.onnx")

    def line(message: str, file: Path = file, **more) -> None:
        with pytest.raises(UserError, match=message) as error:
            OwnNetwork("colours", settings(file, **more))(pictures(2), None)
        assert "\n" not in str(error.value)
        assert str(file) in str(error.value)

    line("no such file; correct file of networks.colours", tmp_path / "other.onnx")
    line(f"its digest is {settings(file).sha256}; give the right file", sha256="1" * 64)
    line("takes f32 .* x 3 x 16 x 24, want f32 1 x 3 x 32 x 24", size=(32, 24))
    line("gives 1 x 3 x 2 x 3 for one image; want one vector", write_network(tmp_path / "maps.onnx", "cells"))
    line("gives 1 x 18, 1 x 18 for one image", write_network(tmp_path / "two.onnx", "two"))
    line("gives nothing but 0", write_network(tmp_path / "zeros.onnx", "zeros"))
    line("gives values that are not finite", write_network(tmp_path / "nan.onnx", "nan"))
    fixed = write_network(tmp_path / "fixed.onnx", "eight", (8, 3, *SIZE))
    line("cannot be run on one image .*its batch is fixed at 8", fixed)
    (tmp_path / "text.onnx").write_text("no network")
    line("openvino cannot read it", tmp_path / "text.onnx")
    (tmp_path / "bytes.onnx").write_bytes(file.read_bytes().replace(b"AveragePool", b"\xffveragePool"))
    line("openvino cannot read it", tmp_path / "bytes.onnx")  # whose words quote what is no text
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(file), outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    line("with its weights inside", outside)


def test_the_gaussian_kernel_is_cmmds_without_the_images_themselves():
    """CMMD's code takes the mean over all pairs of rows, those of a row with itself among them."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(9, 4)), random.normal(1, 1, size=(7, 4))

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.array([[1000 * np.exp(-((one - other) ** 2).sum() / (2 * 10**2)) for other in b] for one in a])

    np.testing.assert_allclose(gaussian_kernel(x, y), kernel(x, y), rtol=1e-12)
    biased = kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()
    own = (1000 - kernel(x, x).mean()) / 8 + (1000 - kernel(y, y).mean()) / 6
    assert kid(x, y, gaussian_kernel)[0] == pytest.approx(biased - own, rel=1e-9)


METRICS = ["frechet-colours", "kid-colours", "cosine-target-colours", "cosine-source-colours"]


@pytest.mark.parametrize("kernel", ["polynomial", "gaussian"])
def test_pairs_without_a_face_are_left_out_and_counted(tmp_path, kernel):
    file = write_network(tmp_path / "net.onnx")
    network = OwnNetwork("colours", settings(file, crop="face", kernel=kernel))
    generated, real = pictures(12), pictures(24)[12:]
    person = joints(nose=(15, 12), right_eye=(11, 8), left_eye=(19, 8))
    known = Joints(person.xy.repeat(12, axis=0), person.valid.repeat(12, axis=0))
    known.valid[[2, 7], 0] = False  # the targets of two pairs look away
    there = known.valid[:, 0]
    sources = np.roll(network(real, known), 1, axis=0)
    targets = network(real, known)
    assert np.isnan(targets[[2, 7]]).all()
    statistics = {"own:colours": statistics_of(targets[there]), "own:colours-sample": targets[there]}
    scores = PairScores(range(12), METRICS, {"own:colours": network}, statistics)
    assert scores.needs == {"own:colours", "pose", "embeddings"}
    for rows in (np.array([11, 2, 3]), np.array([0, 1, 4, 5, 6, 7, 8, 9, 10])):
        given = {"own:colours": (sources[rows], targets[rows])}
        pose = Joints(known.xy[rows], known.valid[rows])
        scores.update(rows, generated[rows], real[rows], target_joints=pose, embeddings=given)
    table, found = scores.compute(resamples=200)

    vectors = network(generated, known)
    expected = frechet_distance(statistics_of(vectors[there]), statistics["own:colours"])
    assert found["frechet-colours"].value == pytest.approx(expected, rel=1e-9)
    rows = [vectors[there].astype(float), targets[there].astype(float)]
    if kernel == "gaussian":
        rows = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in rows]
    how = {"gaussian": (gaussian_kernel,), "polynomial": ()}[kernel]
    assert found["kid-colours"].value == pytest.approx(kid(*rows, *how)[0], rel=1e-9)
    np.testing.assert_array_equal(np.isnan(table["frechet-colours:influence"]), ~there)
    np.testing.assert_allclose(table["cosine-target-colours"], cosine(vectors, targets))
    assert (found["frechet-colours"].n, found["frechet-colours"].excluded) == (10, 2)
    assert (found["cosine-target-colours"].n, found["cosine-target-colours"].excluded) == (10, 2)
    assert found["cosine-source-colours"].excluded == 4  # two sources look away, too
    assert all(one.low <= one.value <= one.high for one in found.values())
    with pytest.raises(UserError, match="targets' joints"):
        PairScores([0], METRICS[:1], {"own:colours": network}, statistics).update([0], generated[:1], real[:1])


def test_a_set_with_one_face_has_no_distance(tmp_path):
    network = OwnNetwork("colours", settings(write_network(tmp_path / "net.onnx"), crop="face"))
    person = joints(nose=(15, 12), right_eye=(11, 8), left_eye=(19, 8))
    known = Joints(person.xy.repeat(3, axis=0), person.valid.repeat(3, axis=0) & [[True], [False], [False]])
    real = {"own:colours": statistics_of(np.eye(WIDTH)), "own:colours-sample": np.eye(WIDTH)}
    scores = PairScores(range(3), METRICS[:2], {"own:colours": network}, real)
    scores.update(range(3), pictures(3), pictures(3), target_joints=known)
    for score in scores.compute(resamples=100)[1].values():
        assert np.isnan(score.value)
        assert (score.n, score.excluded) == (0, 3)


def test_a_cosine_is_that_of_the_angle():
    np.testing.assert_allclose(cosine(np.array([[2, 0], [3, 3]]), np.array([[5, 0], [0, 1]])), [1, 0.5**0.5])


@pytest.mark.parametrize("location", ["weights.bin", "sub/../weights.bin", "whole"])
def test_weights_that_lie_elsewhere_are_not_read(tmp_path, monkeypatch, location):
    """openvino would take them from the working directory, whatever the digest says."""
    monkeypatch.chdir(tmp_path)
    file = write_network(tmp_path / "net.onnx")
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(file), outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load(outside, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = str(tmp_path / "weights.bin") if location == "whole" else location
    outside.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="with its weights inside"):
        OwnNetwork("colours", settings(outside))
