import numpy as np
import pytest
from rich.console import Console

from pipeline import drawing
from pipeline.anatomy import labels, pose


def picture(height=20, width=12):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_enlarged_repeats_every_pixel():
    small = picture()
    large = drawing.enlarged(small, 3)
    assert large.shape == (60, 36, 3)
    for y, x in [(0, 0), (7, 11), (19, 5)]:
        assert (large[3 * y : 3 * y + 3, 3 * x : 3 * x + 3] == small[y, x]).all()


@pytest.mark.parametrize("scale", [1, 4])
def test_skeleton_draws_each_known_limb_in_its_colour_and_nothing_else(scale):
    ground = np.zeros((40, 40, 3), np.uint8)
    for limb, (a, b) in enumerate(pose.SKELETON):
        joints, valid = np.full((18, 2), 3.0), np.zeros(18, bool)
        joints[a], joints[b] = (10, 20), (30, 20)
        valid[[a, b]] = True
        drawn = drawing.skeleton(ground, joints, valid, scale)
        assert drawn.shape == (40 * scale, 40 * scale, 3)
        middle = round(20.5 * scale - 0.5)
        assert tuple(drawn[middle, middle]) == drawing.LIMB_COLOURS[limb]
        rows, columns = np.nonzero(drawn.any(axis=2))
        assert (rows.min() // scale, rows.max() // scale) in ((19, 20), (19, 21), (20, 20))
        assert 8 <= columns.min() // scale <= 10
        assert 30 <= columns.max() // scale <= 32
        assert tuple(drawn[middle, round(10.5 * scale - 0.5)]) == (255, 255, 255)
        valid[b] = False  # half a limb is none: the dot of its one end remains
        alone = drawing.skeleton(ground, joints, valid, scale)
        assert set(map(tuple, alone.reshape(-1, 3).tolist())) == {(0, 0, 0), (255, 255, 255)}
    assert len(set(drawing.LIMB_COLOURS)) == len(pose.SKELETON)
    assert not ground.any()


@pytest.mark.parametrize("scale", [1, 3, 5])
def test_a_joint_lies_in_the_middle_of_its_enlarged_pixel(scale):
    valid = np.arange(18) == 0
    drawn = drawing.skeleton(np.zeros((12, 10, 3), np.uint8), np.full((18, 2), (4.0, 6.0)), valid, scale)
    middle = [coordinate.mean() for coordinate in np.nonzero(drawn.any(axis=2))]
    assert middle == [6 * scale + (scale - 1) / 2, 4 * scale + (scale - 1) / 2]


def test_skeleton_of_joints_outside_and_of_none():
    ground = picture()
    far = np.full((18, 2), -500.0)
    np.testing.assert_array_equal(drawing.skeleton(ground, far, np.ones(18, bool)), ground)
    np.testing.assert_array_equal(drawing.skeleton(ground, np.zeros((18, 2)), np.zeros(18, bool)), ground)


def test_parsing_shows_the_labels_colours():
    label_map = np.arange(240, dtype=np.uint8).reshape(20, 12) % 20
    np.testing.assert_array_equal(drawing.parsing(picture(), label_map, 1.0), labels.COLOURS[label_map])
    np.testing.assert_array_equal(drawing.parsing(picture(), label_map, 0.0), picture())
    mixed = drawing.parsing(picture(), label_map, 0.5).astype(float)
    np.testing.assert_allclose(mixed, (labels.COLOURS[label_map].astype(float) + picture()) / 2, atol=0.5)


def test_level_tells_all_256_values_apart_in_order():
    colours = drawing.level(np.arange(256, dtype=np.uint8)[None])[0].astype(int)
    assert tuple(colours[0]) == (0, 0, 0)
    assert tuple(colours[-1]) == (255, 255, 255)
    assert (np.diff(colours.sum(axis=1)) == 3).all()


def test_sheets_hold_their_panels_unchanged():
    a, b = picture(20, 12), picture(30, 7)
    row = drawing.beside([a, b])
    assert row.shape[0] == 30
    np.testing.assert_array_equal(row[:20, :12], a)
    np.testing.assert_array_equal(row[:30, 20:27], b)
    assert (row[20:, :12] == drawing.PAPER).all()
    column = drawing.below([a, b])
    np.testing.assert_array_equal(column[:20, :12], a)
    np.testing.assert_array_equal(column[28:58, :7], b)
    titled = drawing.titled(a, "a", "a title wider than the picture")
    assert titled.shape[1] == drawing.text_width("a title wider than the picture") > 12
    np.testing.assert_array_equal(titled[-20:, :12], a)
    assert (titled[:-20] != drawing.PAPER).any()  # something is written


def test_legend_shows_the_colours_of_what_is_there():
    sheet = drawing.legend([0, 13])
    swatches = {tuple(pixel) for pixel in sheet[:, 5].tolist()}
    assert swatches == {tuple(labels.COLOURS[0].tolist()), tuple(labels.COLOURS[13].tolist()), (255, 255, 255)}
    assert drawing.legend([]).shape[2] == 3


def test_half_blocks_carry_two_pixels_each():
    colours = picture(6, 4)
    text = drawing.half_blocks(colours, 4)
    assert text.plain == ("▀" * 4 + "\n") * 3
    styles = [span.style for span in text.spans]
    r, g, b = colours[2, 1]
    s, h, c = colours[3, 1]
    assert styles[4 + 1] == f"rgb({r},{g},{b}) on rgb({s},{h},{c})"
    console = Console(color_system="truecolor", force_terminal=True, width=10)
    with console.capture() as shown:
        console.print(text)
    assert "\x1b[38;2;" in shown.get()
