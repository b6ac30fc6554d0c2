import math

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.anatomy import pose
from pipeline.anatomy.distance import limb_distance_maps
from pipeline.core import layout, schema, store
from pipeline.stages import distance_maps, index, keypoints
from tests.small_project import NAMES, annotation, contents, enter, joints, jpeg, write_raw


def skeletons(seed: int, count: int, height: int, width: int):
    rng = np.random.default_rng(seed)
    points = rng.uniform((-0.3 * width, -0.3 * height), (1.3 * width, 1.3 * height), (count, 18, 2)).astype(np.float32)
    return points, rng.random((count, 18)) < 0.85


def distance_to_segment(x, y, start, end) -> float:
    """Through the case distinction of a geometry book: beside the segment, before it or past it."""
    (x0, y0), (x1, y1) = start, end
    length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2
    if length2 == 0:
        return math.hypot(x - x0, y - y0)
    share = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length2
    if share <= 0:
        return math.hypot(x - x0, y - y0)
    if share >= 1:
        return math.hypot(x - x1, y - y1)
    return abs((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) / math.sqrt(length2)


def exact(points, valid, height, width, kappa) -> np.ndarray:
    """255 exp(kappa d) before rounding, pixel by pixel in double precision."""
    maps = np.zeros((12, height, width))
    for limb, (a, b) in enumerate(pose.LIMBS):
        if valid[a] and valid[b]:
            ends = [tuple(map(float, points[joint])) for joint in (a, b)]
            for y in range(height):
                for x in range(width):
                    maps[limb, y, x] = 255 * math.exp(kappa * distance_to_segment(x, y, *ends))
    return maps


@pytest.mark.parametrize(("height", "width"), [(16, 8), (9, 23), (1, 1)])
@pytest.mark.parametrize("kappa", [-0.1, -0.013, -1.7])
def test_brute_force(height, width, kappa):
    points, valid = skeletons(height, 6, height, width)
    maps = limb_distance_maps(points, valid, height, width, kappa)
    assert maps.shape == (6, 12, height, width)
    assert maps.dtype == np.uint8
    for one, point, seen in zip(maps, points, valid, strict=True):
        wanted = exact(point, seen, height, width, kappa)
        # Half a level, half a step of the table (0.013), and float32's share.
        assert np.abs(one - wanted).max() <= 0.513 + 255 * abs(kappa) * 1e-5 * max(height, width)
        assert (one == np.floor(wanted + 0.5)).mean() > 0.99


def test_every_level_is_rounded_right():
    """One upright limb, 4,000 distances: all 256 levels occur, each where round(255 exp(kappa d)) has it, to half a
    step of the table.
    """
    points = np.zeros((1, 18, 2), np.float32)
    points[0, 1], points[0, 2] = (-0.37, -5), (-0.37, 5)
    valid = np.zeros((1, 18), bool)
    valid[0, [1, 2]] = True
    row = limb_distance_maps(points, valid, 1, 4000, -0.002)[0, 0, 0]
    distance = np.arange(4000) + np.float64(np.float32(0.37))
    wanted = 255 * np.exp(-0.002 * distance)
    sure = np.abs(wanted % 1 - 0.5) > 0.013
    assert sure.mean() > 0.95
    np.testing.assert_array_equal(row[sure], np.rint(wanted[sure]))
    assert set(row.tolist()) == set(range(256))


def test_agrees_with_the_distance_transform_of_a_drawn_line():
    points, valid = np.zeros((1, 18, 2), np.float32), np.zeros((1, 18), bool)
    points[0, 1], points[0, 5] = (10, 20), (50, 100)
    valid[0, [1, 5]] = True
    canvas = np.full((128, 64), 255, np.uint8)
    cv2.line(canvas, (10, 20), (50, 100), 0)
    wanted = 255 * np.exp(-0.1 * cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    found = limb_distance_maps(points, valid, 128, 64, -0.1)[0, 1].astype(float)
    assert np.abs(found - wanted).max() < 25.5  # drawn pixels lie up to half a pixel beside the line
    assert np.abs(found - wanted).mean() < 3


def test_limb_is_255_and_missing_ends_are_zero():
    points, valid = skeletons(3, 50, 32, 32)
    points = np.rint(points.clip(0, 31))
    maps = limb_distance_maps(points, valid, 32, 32, -0.1)
    for one, point, seen in zip(maps, points.astype(int), valid, strict=True):
        for limb, (a, b) in enumerate(pose.LIMBS):
            if seen[a] and seen[b]:
                assert one[limb, point[a, 1], point[a, 0]] == one[limb, point[b, 1], point[b, 0]] == 255
            else:
                assert not one[limb].any()


def test_limb_of_no_length_is_a_point():
    points, valid = np.full((1, 18, 2), 4, np.float32), np.ones((1, 18), bool)
    maps = limb_distance_maps(points, valid, 9, 9, -0.1)
    y, x = np.mgrid[:9, :9]
    wanted = np.rint(255 * np.exp(-0.1 * np.hypot(x - 4, y - 4)))
    np.testing.assert_array_equal(maps[0], np.broadcast_to(wanted, (12, 9, 9)))


@pytest.mark.parametrize("kappa", [-0.1, -0.9])
def test_only_the_box_around_a_limb_is_computed_and_nothing_is_cut_off(kappa):
    """Limbs in, across and far beside a large image: a map is the same as on a canvas where its box is elsewhere."""
    rng = np.random.default_rng(8)
    points = rng.integers(-400, 700, (6, 18, 2)).astype(np.float32)
    valid = np.ones((6, 18), bool)
    maps = limb_distance_maps(points, valid, 260, 300, kappa)
    assert (maps.reshape(72, -1).max(axis=1) == 0).any()
    y, x = np.mgrid[:260, :300].astype(np.float64)
    for one, point in zip(maps, points.astype(np.float64), strict=True):
        for limb, (a, b) in enumerate(pose.LIMBS):
            along = point[b] - point[a]
            share = (((x - point[a, 0]) * along[0] + (y - point[a, 1]) * along[1]) / (along @ along)).clip(0, 1)
            distance = np.hypot(x - point[a, 0] - share * along[0], y - point[a, 1] - share * along[1])
            assert np.abs(one[limb] - 255 * np.exp(kappa * distance)).max() < 0.51


def test_batch_does_not_matter():
    points, valid = skeletons(0, 7, 40, 24)
    whole = limb_distance_maps(points, valid, 40, 24, -0.1)
    single = [limb_distance_maps(points[i : i + 1], valid[i : i + 1], 40, 24, -0.1)[0] for i in range(7)]
    np.testing.assert_array_equal(whole, single)
    assert limb_distance_maps(points[:0], valid[:0], 40, 24, -0.1).shape == (0, 12, 40, 24)


@pytest.mark.parametrize("kappa", [0.0, 0.1, float("nan")])
def test_kappa_must_be_negative(kappa):
    with pytest.raises(ValueError, match="must be negative"):
        limb_distance_maps(*skeletons(0, 1, 8, 8), 8, 8, kappa)


@pytest.fixture
def settle(tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)
    images = {f"{split}/{name}": jpeg(seed) for split in NAMES for seed, name in enumerate(NAMES[split])}
    lists = {split: annotation(names, *joints(5, len(names))) for split, names in NAMES.items()}
    raw = write_raw(images, lists)
    index.run("market1501")
    keypoints.run("market1501")
    return raw


def test_stage_stores_what_the_function_gives(settle):
    distance_maps.run("market1501")
    reader = store.RandomReader(layout.distance_maps("market1501"))
    for split, names in NAMES.items():
        points, valid = joints(5, len(names))
        for name, point, seen in zip(names, points, valid, strict=True):
            row = reader[name]
            stored = np.frombuffer(row["distance_maps"], np.uint8).reshape(12, row["height"], row["width"])
            np.testing.assert_array_equal(stored, limb_distance_maps(point[None], seen[None], 128, 64, -0.1)[0], split)
    table = store.read_table(layout.distance_maps("market1501"))
    assert table.schema.equals(schema.DISTANCE_MAPS)
    assert len(table) == sum(map(len, NAMES.values()))
    metadata = pq.read_schema(layout.distance_maps("market1501") / "part-00000.parquet").metadata
    assert metadata[b"kappa"] == b"-0.1"
    first = contents(layout.distance_maps("market1501"))
    distance_maps.run("market1501")
    assert contents(layout.distance_maps("market1501")) == first


def test_images_of_mixed_size_and_images_without_keypoints(settle):
    images = {f"test/{name}": jpeg(0, *size) for name, size in zip("abcdef", [(128, 64), (64, 64)] * 3, strict=True)}
    for path in (settle / "images.zip", *settle.glob("annotation-*.csv")):
        path.unlink()
    settle.joinpath("source.json").unlink()
    settle.rmdir()
    raw = write_raw(images, {})
    (raw / "source.json").write_text('{"height": null, "width": null}')
    index.run("market1501")
    points, valid = joints(0, 5)
    points[..., 1] //= 2  # inside the smaller images, too
    for split, text in (("train", annotation([], points[:0], valid[:0])), ("test", annotation("fedcb", points, valid))):
        (raw / f"annotation-{split}.csv").write_text(text)
    keypoints.run("market1501")
    distance_maps.run("market1501")
    rows = list(store.iter_rows(layout.distance_maps("market1501")))
    assert [row["image_id"] for row in rows] == list("bcdef")
    for row in rows:
        number = "fedcb".index(row["image_id"])
        size = (64, 64) if row["image_id"] in "bdf" else (128, 64)
        assert (row["height"], row["width"]) == size
        wanted = limb_distance_maps(points[number][None], valid[number][None], *size, -0.1)
        assert row["distance_maps"] == wanted.tobytes()


def test_a_resumed_run_begins_where_the_finished_shards_end(settle):
    images, table = layout.images("market1501"), store.read_table(layout.keypoints("market1501"))
    whole = list(distance_maps.rows(images, table, -0.1))
    assert len(whole) > 4
    for first in (1, 4, len(whole)):
        assert list(distance_maps.rows(images, table, -0.1, first)) == whole[first:]
