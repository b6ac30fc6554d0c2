import numpy as np
import pytest
from skimage.measure import points_in_poly
from skimage.transform import estimate_transform

from pipeline.anatomy import pose
from pipeline.stand_ins import body_parts

# right side at smaller x, as a person seen from the front: nose, neck, arms, legs, eyes, ears
STANDING = np.array(
    [(32, 14), (32, 24), (22, 26), (18, 42), (15, 56), (42, 26), (46, 42), (49, 56), (26, 62), (25, 86), (24, 110),
     (38, 62), (39, 86), (40, 110), (30, 12), (34, 12), (27, 13), (37, 13)], np.float32,
)  # fmt: skip
LIMBS = {  # part: start, end, how far the mask's end and the control rectangle's end are moved out (SPT's table)
    2: (8, 9, 0.1, 0.1), 3: (11, 12, 0.1, 0.1), 4: (9, 10, 0.5, 0.3), 5: (12, 13, 0.5, 0.3),
    6: (2, 3, 0.1, 0.1), 7: (5, 6, 0.1, 0.1), 8: (3, 4, 0.5, 0.3), 9: (6, 7, 0.5, 0.3),
}  # fmt: skip


def people(seed: int, count: int, spread: float = 6.0, seen: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Joints around STANDING (no two coordinates alike), valid with shoulders and hips always there."""
    rng = np.random.default_rng(seed)
    joints = (STANDING + rng.normal(0, spread, (count, 18, 2))).astype(np.float32)
    valid = rng.random((count, 18)) < seen
    valid[:, pose.SHOULDERS_AND_HIPS] = True
    return joints, valid


def rectangle(joints: np.ndarray, part: int, control: bool = False) -> np.ndarray:
    """A limb's rectangle (4, 2), step by step as the released code's order has it."""
    start, end, mask_share, control_share = LIMBS[part]
    joints = joints.astype(float)
    a, b = joints[start], joints[end]
    st = np.sqrt((np.sum((joints[8] - joints[2]) ** 2.0) + np.sum((joints[11] - joints[5]) ** 2.0)) / 2)
    a = a + (a - b) * 0.1
    b = b + (b - a) * (control_share if control else mask_share)
    normal = np.array([-(b - a)[1], (b - a)[0]]) / np.linalg.norm(b - a) * st * 0.2
    return np.array([a + normal, a - normal, b - normal, b + normal])


def test_limb_masks_are_the_polygons_of_a_second_library():
    joints, valid = people(0, 5)
    masks = body_parts.masks(joints, valid, 128, 64)
    y, x = np.mgrid[:128, :64]
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    for one, joint in zip(masks, joints, strict=True):
        for part in LIMBS:
            np.testing.assert_array_equal(one[part], points_in_poly(points, rectangle(joint, part)).reshape(128, 64))


def test_torso_and_head_by_hand():
    valid = np.ones((1, 18), bool)
    st = np.sqrt(36**2 + 4**2)
    masks = body_parts.masks(STANDING[None], valid, 128, 64)[0]
    y, x = np.mgrid[:128, :64]
    wide = 0.1 * st
    torso = (x >= 22 - wide) & (x <= 42 + wide) & (y >= 26 - wide) & (y <= 62 + wide)
    np.testing.assert_array_equal(masks[0], torso)
    head = (abs(x - 32) <= 0.4 * st) & (abs(y - 12.8) <= 0.4 * st)
    np.testing.assert_array_equal(masks[1], head)
    whole = body_parts.masks(STANDING[None], valid, 128, 64, whole_torso=True)[0]
    assert whole[0].all()
    np.testing.assert_array_equal(whole[1:], masks[1:])
    assert body_parts.torso_length(STANDING[None]) == pytest.approx(st)


def test_what_is_missing_has_no_mask():
    joints, valid = people(1, 60, seen=0.6)
    _, present = body_parts.corners(joints, valid)
    masks = body_parts.masks(joints, valid, 128, 64)
    for part, (start, end, *_) in LIMBS.items():
        np.testing.assert_array_equal(present[:, part], valid[:, start] & valid[:, end])
    np.testing.assert_array_equal(present[:, 1], valid[:, [0, 14, 15, 16, 17]].any(axis=1))
    assert not masks[~present].any()
    assert masks[present].any(axis=(1, 2)).mean() > 0.9
    valid[:, 2] = False
    assert not body_parts.usable(joints, valid).any()
    assert not body_parts.masks(joints, valid, 128, 64, whole_torso=True).any()


def test_a_limb_of_no_length_and_a_torso_of_no_length():
    joints, valid = STANDING[None].copy(), np.ones((1, 18), bool)
    joints[0, 9] = joints[0, 8]
    assert not body_parts.corners(joints, valid)[1][0, 2]
    joints[0, [2, 5, 8, 11]] = 7
    assert not body_parts.usable(joints, valid)[0]
    assert np.isfinite(body_parts.frames(body_parts.corners(joints, valid)[0])).all()


def test_limb_maps_are_those_of_a_second_library_on_the_control_rectangles():
    joints_to, valid = people(2, 20)
    joints_from, _ = people(3, 20)
    maps, given, mirrored = body_parts.affine_maps(joints_to, valid, joints_from, valid)
    assert given.all()
    assert not mirrored.any()
    for row in range(20):
        for part in LIMBS:
            source, target = (
                rectangle(joints_to[row], part, control=True),
                rectangle(joints_from[row], part, control=True),
            )
            wanted = estimate_transform("affine", source, target).params[:2]
            np.testing.assert_allclose(maps[row, part], wanted, atol=1e-7)


def test_torso_and_head_maps_are_least_squares():
    joints_to, valid_to = people(4, 40, seen=0.7)
    joints_from, valid_from = people(5, 40, seen=0.7)
    maps, given, _ = body_parts.affine_maps(joints_to, valid_to, joints_from, valid_from)
    for row in range(40):
        head = [j for j in (0, 14, 15, 16, 17) if valid_to[row, j] and valid_from[row, j]]
        assert given[row, 1] == bool(head)
        for part, control in ((0, [2, 5, 8, 11]), (1, [2, 5, *head])):
            if given[row, part]:
                a = np.column_stack([joints_to[row, control].astype(float), np.ones(len(control))])
                wanted = np.linalg.lstsq(a, joints_from[row, control].astype(float), rcond=None)[0].T
                np.testing.assert_allclose(maps[row, part], wanted, atol=1e-6)


def test_a_moved_and_scaled_copy_gives_that_map_for_every_part():
    joints, valid = people(6, 10)
    maps, given, _ = body_parts.affine_maps(joints * 1.5 + np.float32([7, -3]), valid, joints, valid)
    assert given.all()
    wanted = [[1 / 1.5, 0, -7 / 1.5], [0, 1 / 1.5, 3 / 1.5]]
    np.testing.assert_allclose(maps, np.broadcast_to(wanted, maps.shape), atol=1e-4)


def test_a_missing_limb_comes_from_the_other_side():
    joints_to, joints_from = people(7, 1)[0], people(8, 1)[0]
    everything = np.ones((1, 18), bool)
    no_left_wrist = everything.copy()
    no_left_wrist[0, 7] = False
    maps, given, mirrored = body_parts.affine_maps(joints_to, everything, joints_from, no_left_wrist)
    assert given.all()
    assert np.flatnonzero(mirrored[0]).tolist() == [9]
    to, source = rectangle(joints_to[0], 9), rectangle(joints_from[0], 8)  # left forearm from the right one
    np.testing.assert_allclose(maps[0, 9], estimate_transform("affine", to, source).params[:2], atol=1e-7)
    neither = no_left_wrist.copy()
    neither[0, 4] = False
    maps, given, mirrored = body_parts.affine_maps(joints_to, everything, joints_from, neither)
    assert np.flatnonzero(~given[0]).tolist() == [8, 9]
    assert not mirrored.any()
    assert not maps[0, 8:].any()
    _, given, _ = body_parts.affine_maps(joints_to, neither, joints_from, everything)
    assert np.flatnonzero(~given[0]).tolist() == [8, 9]


def test_control_points_on_a_line_give_no_map():
    joints, valid = STANDING[None].copy(), np.ones((1, 18), bool)
    joints[0, [2, 5, 8, 11], 0] = 30
    for pair in ((joints, STANDING[None]), (STANDING[None], joints)):
        maps, given, _ = body_parts.affine_maps(pair[0], valid, pair[1], valid)
        assert not given[0, 0]
        assert not maps[0, 0].any()
        assert given[0, 2:].all()


def test_batch_does_not_matter():
    (to, valid_to), (source, valid_from) = people(9, 17, seen=0.7), people(10, 17, seen=0.7)
    whole = body_parts.affine_maps(to, valid_to, source, valid_from)
    for row in range(17):
        some = slice(row, row + 1)
        single = body_parts.affine_maps(to[some], valid_to[some], source[some], valid_from[some])
        for a, b in zip(whole, single, strict=True):
            np.testing.assert_array_equal(a[some], b)
    assert body_parts.masks(to[:0], valid_to[:0], 8, 8).shape == (0, 10, 8, 8)
