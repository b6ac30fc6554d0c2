"""The synthetic data set: its people, and the truth that later tests lean on."""

import hashlib
import math
import re
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.anatomy.labels import LIP20, Lip
from pipeline.core.errors import UserError
from pipeline.datasets import synthetic
from pipeline.datasets.synthetic import person as body
from pipeline.formats import pictures

TAKEN_OFF, SHOES = ("gloves", "scarf", "opening"), (Lip.RIGHT_SHOE, Lip.LEFT_SHOE)  # in plain clothes
ARMS, LEGS = {"r": 15, "l": 14}, {"r": 17, "l": 16}


@pytest.fixture(scope="module")
def drawn():
    """16 persons in 4 views each: the scenes and their renderings."""
    scenes = synthetic.scenes(7, "train", 16, 4)
    return [(scene, synthetic.render(scene)) for scene in scenes]


@pytest.fixture(scope="module")
def pairs(drawn):
    """Source and target renderings: every ordered pair of two views of a person."""
    people = [[r for _, r in drawn[i : i + 4]] for i in range(0, len(drawn), 4)]
    return [(a, b) for views in people for a in views for b in views if a is not b]


def pixel(joint):
    """(row, column) nearest to a joint."""
    column, row = np.floor(joint + 0.5).astype(int)
    return row, column


def looked_up(field, flow, rows, columns):
    """Nearest sample of a source map at the places that the flow names for target pixels."""
    x = np.floor(columns + flow[rows, columns, 0] + 0.5).astype(int)
    y = np.floor(rows + flow[rows, columns, 1] + 0.5).astype(int)
    return field[y, x]


def digest(seed):
    hashed = hashlib.sha256()
    for scene in synthetic.scenes(seed, "test", 2, 2):
        drawing = synthetic.render(scene, 64, 32)
        hashed.update(pictures.encode_png(drawing.image) + pictures.encode_png(drawing.parsing))
        hashed.update(drawing.joints.tobytes() + synthetic.name(scene).encode())
    return hashed.hexdigest()


def still(scene, **camera):
    """The scene upright, facing the viewer, unless told otherwise."""
    return replace(scene, camera=replace(scene.camera, **{"yaw": 0.0, "pitch": 0.0, "roll": 0.0} | camera))


# Naming and randomness.


def test_bytes_depend_on_the_seed_alone():
    assert digest(3) == digest(3)
    assert digest(3) != digest(4)
    code = "from tests.datasets.test_synthetic import digest; print(digest(3))"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == digest(3)


def test_a_scene_does_not_depend_on_how_many_there_are():
    few, many = synthetic.scenes(5, "train", 2, 3), synthetic.scenes(5, "train", 4, 5)
    assert set(few) < set(many)


def test_names_are_unique_and_in_the_published_style():
    scenes = synthetic.scenes(5, "train", 6, 45) + synthetic.scenes(5, "test", 6, 45)
    names = [synthetic.name(scene) for scene in scenes]
    assert len(set(names)) == len(names)
    assert names[0] == "0001_c1s1_000007_00.png"
    assert all(re.fullmatch(r"\d{4}_c[1-6]s[1-6]_\d{6}_00\.png", name) for name in names)
    assert all(name.startswith(f"{scene.person:04d}_") for scene, name in zip(scenes, names, strict=True))


def test_splits_share_no_person():
    people = [{scene.person for scene in synthetic.scenes(5, split, 30, 1)} for split in ("train", "test")]
    assert len(people[0]) == len(people[1]) == 30
    assert not people[0] & people[1]
    assert not {s.identity for s in synthetic.scenes(5, "train", 30, 1)} & {
        s.identity for s in synthetic.scenes(5, "test", 30, 1)
    }


def test_impossible_sets_are_refused():
    with pytest.raises(UserError, match="split 'val'"):
        synthetic.scenes(5, "val", 1, 1)
    for identities, views in ((5000, 1), (0, 1), (1, 0), (1, synthetic.VIEWS + 1)):
        with pytest.raises(UserError, match="identities"):
            synthetic.scenes(5, "train", identities, views)


def test_png_round_trips():
    drawing = synthetic.render(synthetic.scenes(5, "train", 1, 1)[0])
    image = cv2.imdecode(np.frombuffer(pictures.encode_png(drawing.image), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(image[..., ::-1], drawing.image)
    parsing = cv2.imdecode(np.frombuffer(pictures.encode_png(drawing.parsing), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(parsing, drawing.parsing)


# What is drawn.


def test_shapes_and_types(drawn):
    drawing = drawn[0][1]
    assert (drawing.image.shape, drawing.image.dtype) == ((128, 64, 3), np.uint8)
    assert (drawing.parsing.shape, drawing.parsing.dtype) == ((128, 64), np.uint8)
    assert (drawing.joints.shape, drawing.joints.dtype) == ((18, 2), np.float32)
    assert (drawing.occluded.shape, drawing.occluded.dtype) == ((18,), bool)


def test_every_label_occurs(drawn):
    count = np.bincount(np.concatenate([r.parsing.ravel() for _, r in drawn]), minlength=20)
    assert len(count) == 20
    assert not [LIP20[k] for k in np.nonzero(count < 30)[0]]


def test_skin_of_neck_and_chest_is_told_from_the_face(drawn):
    """CIHP-20's label 10, which LIP-20 calls face. It is on the chest bone, the face on the head."""
    count = 0
    for _, r in drawn:
        torso_skin = r.labels == 20
        assert (r.part[torso_skin] == body.CHEST).all()
        assert (r.part[r.labels == 13] == body.HEAD).all()
        np.testing.assert_array_equal(np.where(torso_skin, 13, r.labels), r.parsing)
        count += torso_skin.sum()
    assert count > 30 * len(drawn) / 4


def test_a_person_fills_the_frame(drawn):
    share = [np.mean(r.parsing > 0) for _, r in drawn]
    assert 0.2 < np.mean(share) < 0.5
    assert min(share) > 0.08
    assert np.mean([np.isfinite(r.joints).all(1).mean() for _, r in drawn]) > 0.9


def test_raster_hits_the_nearest_surface(drawn):
    """Against the implicit equations: hits satisfy them, and no ellipsoid has a point before a hit."""
    scene, drawing = drawn[5]
    shape = body.dress(scene.identity)
    parts = body.compose(drawing.bones[shape.bone], shape.local)
    index, depth = body.raster(parts, shape, 0.0, 1.0, (128, 64))
    np.testing.assert_array_equal(index >= 0, drawing.parsing > 0)
    rows, columns = np.nonzero(index >= 0)
    k = index[rows, columns]
    hit = np.stack([columns, rows, depth[rows, columns]], 1) - parts[k, :, 3]
    x, y, z = np.linalg.solve(parts[k, :, :3], hit[..., None])[..., 0].T
    alpha, beta, gamma = shape.profile[k].T
    scale = np.abs(alpha) + np.abs(beta) + np.abs(gamma)
    np.testing.assert_allclose((x * x + z * z - alpha - beta * y - gamma * y * y) / scale, 0, atol=1e-8)
    assert np.all((y >= shape.span[k, 0] - 1e-9) & (y <= shape.span[k, 1] + 1e-9))

    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 128, 1500), rng.integers(0, 64, 1500)
    steps = np.linspace(-60, 60, 481)
    for part in np.nonzero((shape.span[:, 0] < 0) & (shape.span[:, 1] == 1))[0]:
        points = np.stack(np.broadcast_arrays(columns[:, None], rows[:, None], steps), -1) - parts[part, :, 3]
        inside = ((points @ np.linalg.inv(parts[part, :, :3]).T) ** 2).sum(-1) < 1
        first = np.where(inside.any(1), steps[inside.argmax(1)], np.inf)
        assert np.all(depth[rows, columns] <= first)


def test_garments_open_in_front_alone():
    """An open coat shows the shirt in a strip down its front and nowhere on its back; a neckline shows skin."""
    upright = body.Pose(0, (0, 0, 0), (0, 0, 0), ((20, 0, 0, 5, 0),) * 2, ((0, 0, 0, 2, 0),) * 2)
    coats = 0
    for scene in synthetic.scenes(5, "train", 16, 1):
        who = replace(scene.identity, opening=0.03, scarf=False)
        if who.top != 7:
            continue
        coats += 1
        for yaw, seen in ((0.0, 5), (180.0, 7)):
            shown = still(replace(scene, identity=who, pose=upright), yaw=yaw, scale=0.8, shift=(0.0, 0.0))
            drawing = synthetic.render(shown)
            chest = drawing.joints[[1, 1, 8, 11]].mean(0)
            row, column = pixel(chest)
            assert drawing.parsing[row, column] == seen
            assert set(drawing.parsing[row, [column - 7, column + 7]]) == {7}
    assert coats >= 3


def test_light_and_background_leave_the_truth_alone(drawn):
    scene, drawing = drawn[2]
    other = drawn[-1][0]
    lit = synthetic.render(replace(scene, light=other.light, background=other.background))
    assert (lit.image != drawing.image).mean() > 0.5
    np.testing.assert_array_equal(lit.parsing, drawing.parsing)
    np.testing.assert_array_equal(lit.joints, drawing.joints)


def test_edges_are_antialiased():
    """The mean image equals the mean of a 4x larger rendering to a level or two; truth is a subset of its samples."""
    scene = synthetic.scenes(5, "train", 1, 1)[0]
    small, large = synthetic.render(scene), synthetic.render(scene, 512, 256)
    shrunk = cv2.resize(large.image, (64, 128), interpolation=cv2.INTER_AREA).astype(float)
    person = cv2.dilate((small.parsing > 0).astype(np.uint8), np.ones((3, 3))) > 0
    assert np.abs(shrunk - small.image)[person].mean() < 6
    hard = large.image[2::4, 2::4].astype(float)
    assert np.abs(shrunk - small.image)[person].mean() < np.abs(hard - small.image)[person].mean()


# Joints.


def test_joints_have_the_lengths_of_the_bones():
    scene = still(synthetic.scenes(5, "train", 1, 1)[0], scale=0.8, shift=(0.0, 0.0))
    pose = body.Pose(0, (0, 0, 0), (0, 0, 0), ((0, 0, 0, 0, 0), (90, 0, 0, 0, 0)), ((0,) * 5, (0, 90, 0, 0, 0)))
    joints = synthetic.render(replace(scene, pose=pose), 200, 400).joints
    size, unit = body.sizes(scene.identity), 0.8 * 200
    straight = joints[4] - joints[2]
    np.testing.assert_allclose(straight, (0, unit * (size["arm"] + size["forearm"])), atol=1e-3)
    aside = joints[7] - joints[5]  # the left arm points to the person's left, our right
    np.testing.assert_allclose(aside, (unit * (size["arm"] + size["forearm"]), 0), atol=1e-3)
    np.testing.assert_allclose(joints[9] - joints[8], (0, unit * size["thigh"]), atol=1e-3)
    np.testing.assert_allclose(joints[12] - joints[11], (0, 0), atol=1e-3)  # the left thigh points at the viewer
    np.testing.assert_allclose(joints[[8, 11]].mean(0), (199.5, 99.5), atol=1e-3)
    assert joints[2, 0] < joints[5, 0]
    assert joints[14, 0] < joints[0, 0] < joints[15, 0]


def test_joints_lie_on_their_parts(drawn):
    face, legs = {13, 4}, {5, 6, 7, 8, 9, 10, 12}
    trunk = {5, 6, 7, 10, 11, 13}
    allowed = {0: face, 1: trunk, 14: face, 15: face, 16: {13, 2, 1, 4}, 17: {13, 2, 1, 4}}
    for first, side in ((2, "r"), (5, "l")):
        allowed |= {first: {2, 5, 6, 7, 10, 11, ARMS[side]}}  # long hair falls over the shoulders
        allowed |= {first + k: {3, 5, 6, 7, 10, ARMS[side]} for k in (1, 2)}
    for first, side in ((8, "r"), (11, "l")):
        allowed |= {first + k: legs | {LEGS[side], LEGS[side] + 2} for k in range(3)}
    seen, on = np.zeros(18), np.zeros(18)
    for _, drawing in drawn:
        for k in np.nonzero(np.isfinite(drawing.joints[:, 0]) & ~drawing.occluded)[0]:
            seen[k] += 1
            on[k] += int(drawing.parsing[pixel(drawing.joints[k])]) in allowed[k]
    assert seen.min() >= 15
    assert np.all(on >= seen - 1), (on, seen)  # a joint at the outline may round to the background
    assert on.sum() > 0.995 * seen.sum()


def test_occlusion_follows_the_turn():
    """From the front the face shows; from behind it does not; from a side the far limbs hide behind the near ones."""
    pose = body.Pose(0, (0, 0, 0), (0, 0, 0), ((6, 0, 0, 5, 0),) * 2, ((0, 0, 0, 2, 0),) * 2)
    for scene in synthetic.scenes(5, "train", 8, 1):
        if scene.identity.hat:  # a brim may hide the eyes
            continue
        occluded = {}
        for yaw in (0.0, 90.0, 180.0, 270.0):
            shown = still(scene, yaw=yaw, scale=0.8, shift=(0.0, 0.0))
            occluded[yaw] = synthetic.render(replace(shown, pose=pose)).occluded
        assert not occluded[0.0][:16].any()
        assert occluded[180.0][[0, 14, 15]].all()
        assert not occluded[180.0][1:14].any()
        right, left = [2, 3, 4, 8, 9, 14, 16], [5, 6, 7, 11, 12, 15, 17]
        assert occluded[90.0][right].all()  # at 90 degrees the left side is near
        assert not occluded[90.0][[5, 6, 7, 12, 15]].any()
        assert occluded[90.0][11]  # the near hip, behind the hanging arm
        assert occluded[270.0][left].all()
        assert not occluded[270.0][[2, 3, 4, 9, 14]].any()


def test_joints_outside_are_missing(drawn):
    scene = replace(drawn[0][0], camera=replace(drawn[0][0].camera, shift=(0.0, 0.6)))
    drawing = synthetic.render(scene)
    missing = np.isnan(drawing.joints).all(1)
    assert missing[[10, 13]].all()
    assert not missing[1]
    assert not drawing.occluded[missing].any()


@pytest.mark.parametrize(("height", "width"), [(256, 256), (256, 176), (64, 32), (131, 67)])
def test_any_size(drawn, height, width):
    """Joints scale with the height about the centre of the image."""
    scene, small = drawn[1]
    large = synthetic.render(scene, height, width)
    assert large.image.shape == (height, width, 3)
    moved = (small.joints - (31.5, 63.5)) * height / 128 + ((width - 1) / 2, (height - 1) / 2)
    both = np.isfinite(small.joints[:, 0]) & np.isfinite(large.joints[:, 0])
    assert both.sum() >= 10
    np.testing.assert_allclose(large.joints[both], moved[both], atol=1e-2)
    if height == 256:  # the person covers four times the pixels
        inside = slice((width - 128) // 2, (width + 128) // 2)
        assert math.isclose((large.parsing[:, inside] > 0).sum(), 4 * (small.parsing > 0).sum(), rel_tol=0.02)


# Flow.


def test_flow_to_itself_is_zero_and_visible(drawn):
    for _, drawing in drawn[:8]:
        flow, visibility = synthetic.flow(drawing, drawing)
        assert (flow.dtype, visibility.dtype) == (np.float32, np.uint8)
        np.testing.assert_allclose(flow, 0, atol=1e-3)
        np.testing.assert_array_equal(visibility, np.where(drawing.parsing > 0, 0, 2))


def test_flow_under_a_known_motion_of_the_camera(drawn):
    """A shift, a zoom, a roll and a turn have closed forms in the target's pixel and depth."""
    scene = still(drawn[1][0], shift=(0.0, 0.0), scale=0.8)
    target = synthetic.render(scene)
    rows, columns = np.nonzero(target.parsing)
    p = np.stack([columns - 31.5, rows - 63.5, target.depth[rows, columns]])
    turn = math.radians(25)
    c, s = math.cos(turn), math.sin(turn)
    for camera, expected in (
        ({"shift": (3 / 128, -5 / 128)}, [p[0] + 3, p[1] - 5]),
        ({"scale": 0.6}, p[:2] * 0.75),
        ({"roll": 25.0}, [c * p[0] - s * p[1], s * p[0] + c * p[1]]),
        ({"yaw": 25.0}, [c * p[0] + s * p[2], p[1]]),
        ({"pitch": 25.0}, [p[0], c * p[1] - s * p[2]]),
    ):
        source = synthetic.render(replace(scene, camera=replace(scene.camera, **camera)))
        flow, visibility = synthetic.flow(source, target)
        np.testing.assert_allclose(flow[rows, columns], (expected - p[:2]).T, atol=1e-3, err_msg=str(camera))
        assert (visibility[rows, columns] == 0).mean() > 0.7
    moved = synthetic.render(replace(scene, camera=replace(scene.camera, shift=(3 / 128, -5 / 128))))
    _, visibility = synthetic.flow(moved, target)
    inside = (rows >= 5) & (columns < 61)
    np.testing.assert_array_equal(visibility[rows, columns], np.where(inside, 0, 1))


def test_flow_is_zero_on_the_background_alone(pairs):
    for source, target in pairs[::9]:
        flow, visibility = synthetic.flow(source, target)
        np.testing.assert_array_equal(visibility == 2, target.parsing == 0)
        assert not flow[visibility == 2].any()
        assert flow[visibility < 2].any()


def test_parsing_follows_the_flow(pairs):
    """At least 97 % of the visible pixels find their own label; the rest lie at borders between labels."""
    same, visible, person = 0, 0, 0
    for source, target in pairs:
        flow, visibility = synthetic.flow(source, target)
        rows, columns = np.nonzero(visibility == 0)
        same += (looked_up(source.parsing, flow, rows, columns) == target.parsing[rows, columns]).sum()
        visible, person = visible + len(rows), person + (visibility < 2).sum()
    assert same / visible > 0.975
    assert 0.25 < visible / person < 0.75  # most pairs turn much of the person away


def test_image_follows_the_flow():
    """Under a light that comes from everywhere, the warped source is the target but for resampling.

    The turn of 20 degrees also changes the darkening towards the outline: 8 levels of mean difference are allowed.
    """
    errors, wrong = [], []
    for scene in synthetic.scenes(9, "train", 6, 1):
        scene = replace(scene, light=synthetic.Light((0.0, 0.0, -1.0), 1.0, 0.0, (1.0, 1.0, 1.0)))
        target = synthetic.render(scene, 256, 128)
        camera = replace(scene.camera, yaw=scene.camera.yaw + 20, roll=scene.camera.roll + 5)
        source = synthetic.render(replace(scene, camera=camera), 256, 128)
        flow, visibility = synthetic.flow(source, target)
        x, y = np.meshgrid(np.arange(128, dtype=np.float32), np.arange(256, dtype=np.float32))
        for shift, into in ((0, errors), (4, wrong)):
            warped = cv2.remap(source.image, x + flow[..., 0] + shift, y + flow[..., 1], cv2.INTER_LINEAR)
            into.append(np.abs(warped.astype(float) - target.image)[visibility == 0].mean())
    assert np.mean(errors) < 8
    assert np.mean(wrong) > 1.6 * np.mean(errors)


def test_flow_takes_joints_to_joints(pairs):
    """The surface before a joint moves rigidly with it: the two stay as far apart as they are in the target."""
    checked = 0
    for source, target in pairs:
        bone, _ = body.skeleton(target.identity)
        flow, _ = synthetic.flow(source, target)
        for k in np.nonzero(np.isfinite(target.joints[:, 0]) & ~target.occluded)[0]:
            row, column = pixel(target.joints[k])
            if target.part[row, column] != bone[k] or not np.isfinite(source.joints[k, 0]):
                continue
            place = target.bones[bone[k], :, :3] @ body.skeleton(target.identity)[1][k] + target.bones[bone[k], :, 3]
            apart = np.hypot(place[2] - target.depth[row, column], 0.75)
            ratio = np.linalg.norm(source.bones[0, :, 0]) / np.linalg.norm(target.bones[0, :, 0])
            reached = np.array([column, row]) + flow[row, column]
            assert np.linalg.norm(reached - source.joints[k]) <= ratio * apart + 1e-2
            checked += 1
            if apart < 4 and ratio < 1.3:
                assert np.linalg.norm(reached - source.joints[k]) < 6
    assert checked > 500


def test_hidden_points_are_invisible():
    """Seen from behind, nothing of the front is visible: only the rim within the tolerance is shared."""
    for scene in synthetic.scenes(5, "train", 4, 1):
        front = synthetic.render(still(scene, scale=0.8, shift=(0.0, 0.0)))
        back = synthetic.render(still(scene, scale=0.8, shift=(0.0, 0.0), yaw=180.0))
        _, visibility = synthetic.flow(back, front)
        assert (visibility == 0).sum() < 0.12 * (visibility < 2).sum()


def test_flow_between_sizes(drawn):
    """The source may have another size: the flow then names its pixels."""
    scene, small = drawn[1]
    large = synthetic.render(scene, 256, 128)
    flow, visibility = synthetic.flow(large, small)
    rows, columns = np.nonzero(visibility < 2)
    x = columns + flow[rows, columns, 0]
    np.testing.assert_allclose(x, 2 * (columns - 31.5) + 63.5, atol=1e-3)
    assert (visibility[rows, columns] == 0).mean() > 0.9


def test_flow_of_two_persons_is_refused(drawn):
    with pytest.raises(ValueError, match="different persons"):
        synthetic.flow(drawn[0][1], drawn[4][1])


def test_plain_clothes_have_one_colour_each_and_the_same_outlines():
    """But for what is taken off: gloves, scarves, the view into an open coat. Shoes are dark."""
    varied, plain = (synthetic.scenes(7, "train", 24, 1, plain) for plain in ((), ("clothes",)))
    repainted = 0
    for scene, other in zip(varied, plain, strict=True):
        assert {paint.pattern for paint in other.identity.materials} == {body.PLAIN}
        assert [getattr(other.identity, what) for what in TAKEN_OFF] == [False, False, 0]
        one, two = (synthetic.render(each, 128, 64) for each in (scene, other))
        assert not np.isin(two.labels, (Lip.GLOVE, Lip.SCARF)).any()
        if not any(getattr(scene.identity, what) for what in TAKEN_OFF):
            assert np.array_equal(one.labels, two.labels)
        shoes = np.isin(two.labels, SHOES)
        inside = cv2.erode(shoes.astype(np.uint8), np.ones((3, 3))) > 0  # edges are antialiased
        assert two.image[inside].max(initial=0) < 80
        differs = (one.image != two.image).any(axis=2)
        assert not differs[one.labels == 0].all()
        repainted += differs[shoes].any()
    assert all(any(getattr(scene.identity, what) for scene in varied) for what in TAKEN_OFF)
    assert repainted > 12


def test_a_plain_background_is_the_same_behind_everybody():
    """And everything else is as it is before a varied one."""
    varied, plain = (synthetic.scenes(7, "train", 3, 2, plain) for plain in ((), ("background",)))
    assert [replace(scene, background=varied[0].background) for scene in plain] == [
        replace(scene, background=varied[0].background) for scene in varied
    ]
    drawn = [synthetic.render(replace(scene, light=plain[0].light), 64, 32) for scene in plain]
    empty = np.all([one.labels == 0 for one in drawn], axis=0)
    empty = cv2.erode(empty.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0  # edges are antialiased
    empty[44:] = False  # shadows and stools lie on the ground
    assert empty.sum() > 100
    for one in drawn:
        np.testing.assert_array_equal(one.image[empty], drawn[0].image[empty])
