"""Affine flow: closed forms for poses moved in a known way, and the synthetic data's exact flow."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.layers import affine_flow
from models.layers.affine_flow import BACKGROUND, INVISIBLE, PARTS, VISIBLE, AffineFlow
from pipeline.anatomy import pose
from pipeline.datasets import synthetic
from tests import figures

HEIGHT, WIDTH = 128, 64
EVERY = torch.ones(1, 18, dtype=torch.bool)
TRUNK = [2, 5, 8, 11]  # shoulders, hips


def poses(count: int, seed: int = 0) -> Tensor:
    return figures.pose(count, HEIGHT, WIDTH, torch.Generator().manual_seed(seed))


def run(source: Tensor, target: Tensor, source_valid: Tensor = EVERY, target_valid: Tensor = EVERY):
    """Flow (2, H, W) and visibility (H, W) of one pair."""
    flow, visibility = AffineFlow()(source, source_valid, target, target_valid, HEIGHT, WIDTH)
    return flow[0], visibility[0, 0]


def without(*joints: int) -> Tensor:
    valid = EVERY.clone()
    valid[:, list(joints)] = False
    return valid


def middle(points: Tensor, a: int, b: int) -> tuple[int, int]:
    """Row and column of the pixel halfway between two joints."""
    x, y = ((points[0, a] + points[0, b]) / 2).round().int().tolist()
    return y, x


def test_the_limbs_are_those_of_the_pose_module():
    names = {"right-thigh": "right_hip", "left-shin": "left_knee", "right-upper-arm": "right_shoulder"}
    joints = torch.arange(18).view(1, 18)
    start, end = (side[0].tolist() for side in affine_flow.limbs(joints))
    assert start == [8, 11, 9, 12, 2, 5, 3, 6]
    assert end == [9, 12, 10, 13, 3, 6, 4, 7]
    for part, joint in names.items():
        assert pose.JOINT_NAMES[start[PARTS.index(part) - 2]] == joint
    assert affine_flow.trunk(joints).tolist() == [TRUNK]
    assert affine_flow.head(joints).tolist() == [[0, 14, 15, 16, 17]]
    for part, other in zip(PARTS[2:], affine_flow.other_side(torch.arange(8).view(1, 8))[0].tolist(), strict=True):
        swapped = part.replace("right", "?").replace("left", "right").replace("?", "left")
        assert PARTS[2 + other] == swapped


def test_the_same_pose_stays_where_it_is():
    points = poses(1)
    flow, visibility = run(points, points)
    assert flow.abs().max() < 1e-3
    assert set(visibility.unique().tolist()) == {VISIBLE, BACKGROUND}
    columns, rows = points[0].round().long().unbind(-1)
    framed = (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
    assert framed.sum() > 12
    assert (visibility[rows[framed], columns[framed]] == VISIBLE).all()


def test_a_similar_pose_is_found_by_its_similarity():
    """Every part of a pose scaled, turned and moved as a whole maps by that very map."""
    target = poses(1)
    angle, size, shift = 0.2, 0.9, torch.tensor([4.0, 3.0])
    turn = size * torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float32)
    source = target @ turn.T + shift
    flow, visibility = run(source, target)
    here = torch.stack(torch.broadcast_tensors(*affine_flow.grid(HEIGHT, WIDTH, target)))
    expected = torch.einsum("ij,jhw->ihw", turn, here) + shift[:, None, None] - here
    person = visibility != BACKGROUND
    assert person.sum() > 500
    assert torch.allclose(flow[:, person], expected[:, person], atol=1e-3)
    assert (flow[:, ~person] == 0).all()
    there = (here + flow)[:, person]
    framed = (there >= -0.5).all(0) & (there[0] < WIDTH - 0.5) & (there[1] < HEIGHT - 0.5)
    assert torch.equal(visibility[person] == VISIBLE, framed)


def test_a_bent_forearm_moves_with_its_ends():
    target = poses(1)
    source = target.clone()
    source[0, 4] = source[0, 3] + torch.tensor([-9.0, 2.0])
    flow, visibility = run(source, target)
    y, x = middle(target, 3, 4)
    moved = (source[0, 3] + source[0, 4]) / 2 - (target[0, 3] + target[0, 4]) / 2
    assert (flow[:, y, x] - moved).norm() < 1.0  # the pixel is up to 0.7 from the middle
    assert visibility[y, x] == VISIBLE
    y, x = middle(target, 9, 10)
    assert flow[:, y, x].norm() < 1e-3


def test_a_limb_missing_in_the_source_takes_the_other_sides_place_and_is_invisible():
    points = poses(1)
    flow, visibility = run(points, points, source_valid=without(10))
    y, x = middle(points, 9, 10)
    other = (points[0, 12] + points[0, 13]) / 2 - (points[0, 9] + points[0, 10]) / 2
    assert (flow[:, y, x] - other).norm() < 1.0
    assert visibility[y, x] == INVISIBLE
    flow, visibility = run(points, points, source_valid=without(10, 13))
    assert flow[:, y, x].norm() == 0
    assert visibility[y, x] == INVISIBLE
    y, x = middle(points, 8, 9)
    assert visibility[y, x] == VISIBLE


def test_who_turned_round_is_invisible():
    points = poses(1)
    mirrored = points[:, list(pose.FLIP)]  # left and right joints exchanged: seen from behind
    _, visibility = run(mirrored, points)
    assert set(visibility.unique().tolist()) == {INVISIBLE, BACKGROUND}


def test_a_pose_without_hips_or_shoulders_has_no_parts():
    points = poses(1)
    flow, visibility = run(points, points, target_valid=without(8))
    assert (visibility == BACKGROUND).all()
    assert (flow == 0).all()
    flow, visibility = run(points, points, source_valid=without(5))
    assert set(visibility.unique().tolist()) == {INVISIBLE, BACKGROUND}
    assert (flow == 0).all()


def test_overlapping_parts_by_the_nearer_middle_line():
    """A wrist on the hips: pixels on the forearm's line are the forearm's."""
    target = poses(1)
    target[0, 3], target[0, 4] = target[0, 2] + torch.tensor([-3.0, 14.0]), (target[0, 8] + target[0, 11]) / 2
    source = target.clone()
    source[0, 4] = source[0, 3] + torch.tensor([-8.0, 8.0])
    flow, _ = run(source, target)
    inside = affine_flow.place(target, EVERY, HEIGHT, WIDTH)[1]
    for share in (0.3, 0.75):
        x, y = (target[0, 3] + share * (target[0, 4] - target[0, 3])).round().int().tolist()
        assert inside[0, PARTS.index("torso"), y, x]
        moved = share * (source[0, 4] - target[0, 4])
        assert (flow[:, y, x] - moved).norm() < 1.5


def test_missing_joints_are_not_looked_at_and_pairs_do_not_mix():
    source, target = poses(3), poses(3, seed=1)
    valid = torch.rand(2, 3, 18, generator=torch.Generator().manual_seed(2)) > 0.2
    valid[..., TRUNK] = True
    valid[1, 1, 5] = False
    whole = AffineFlow()(source, valid[0], target, valid[1], HEIGHT, WIDTH)
    holes = [
        points.masked_fill(~seen.unsqueeze(-1), torch.nan) for points, seen in ((source, valid[0]), (target, valid[1]))
    ]
    holed = AffineFlow()(holes[0], valid[0], holes[1], valid[1], HEIGHT, WIDTH)
    alone = [
        AffineFlow()(*(x[k : k + 1] for x in (source, valid[0], target, valid[1])), HEIGHT, WIDTH) for k in range(3)
    ]
    for which in range(2):
        assert whole[which].isfinite().all()
        assert torch.equal(whole[which], holed[which])
        assert torch.allclose(whole[which], torch.cat([pair[which] for pair in alone]), atol=1e-4)


@pytest.mark.parametrize("size", [(128, 64), (256, 256)])
def test_autocast_moves_no_pixel(size):
    """bfloat16 would: with 8 bits the pixels 255 and 256 are in the same place."""
    generator = torch.Generator().manual_seed(0)
    source, target = figures.pose(4, *size, generator), figures.pose(4, *size, generator)
    valid = torch.rand(2, 4, 18, generator=generator) > 0.1
    pair = target, valid[1], source, valid[0]
    calls = {
        "masks": lambda: affine_flow.place(*pair[:2], *size),
        "maps": lambda: affine_flow.affine_maps(*pair),
        "flow": lambda: AffineFlow()(*pair[2:], *pair[:2], *size),
    }
    for name, call in calls.items():
        plain = call()
        with torch.autocast("cpu", torch.bfloat16):
            mixed = call()
        for before, after in zip(plain, mixed, strict=True):
            assert torch.equal(before, after), name  # the precision too


def test_fit_is_least_squares():
    """Against numpy's, with points weighed out, several fits at once."""
    generator = torch.Generator().manual_seed(0)
    target, source = (torch.randn(3, 1, 7, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    control = torch.rand(3, 2, 7, generator=generator) > 0.3
    control[..., :3] = True
    maps, good = affine_flow.fit(target, source, control)
    assert good.all()
    for b in range(3):
        for k in range(2):
            x, y = (points[b, 0][control[b, k]].numpy() for points in (target, source))
            expected = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
            np.testing.assert_allclose(maps[b, k].numpy(), expected.T, atol=1e-12)


def test_fit_needs_three_points_that_span_a_plane():
    line = torch.stack([torch.arange(4.0), 2 * torch.arange(4.0)], dim=-1).unsqueeze(0)
    square = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    every = torch.ones(1, 4, dtype=torch.bool)
    for target, source, control in ((line, square, every), (square, line, every), (square, square, every.clone())):
        if target is source:
            control[0, 2:] = False
        maps, good = affine_flow.fit(target, source, control)
        assert not good
        assert (maps == 0).all()
    maps, good = affine_flow.fit(square, 3 * square + 1, every)
    assert good
    assert torch.allclose(maps, torch.tensor([[[3.0, 0.0, 1.0], [0.0, 3.0, 1.0]]]), atol=1e-6)


def test_agrees_with_the_numpy_form():
    from pipeline.stand_ins import body_parts

    source, target = poses(20).double(), poses(20, seed=1).double()
    valid = torch.rand(2, 20, 18, generator=torch.Generator().manual_seed(2)) > 0.2
    valid[:, 2:, TRUNK] = True
    maps = affine_flow.affine_maps(target, valid[1], source, valid[0])
    theirs = body_parts.affine_maps(target.numpy(), valid[1].numpy(), source.numpy(), valid[0].numpy())
    for ours, other in zip(maps, theirs, strict=True):
        np.testing.assert_allclose(ours.numpy(), other, atol=1e-9)
    masks = affine_flow.place(target, valid[1], HEIGHT, WIDTH)[1]
    assert (masks.numpy() != body_parts.masks(target.numpy(), valid[1].numpy(), HEIGHT, WIDTH)).mean() < 1e-5


def synthetic_pairs() -> tuple[list[Tensor], Tensor, Tensor]:
    """Eight people, three pairs each: joints and validity of source and target, exact flow and visibility."""
    inputs, flows, visibilities = [], [], []
    scenes = synthetic.scenes(0, "test", 8, 4)
    for person in range(8):
        views = [synthetic.render(scene, HEIGHT, WIDTH) for scene in scenes[4 * person : 4 * person + 4]]
        for source, target in ((0, 1), (1, 2), (2, 3)):
            source, target = views[source], views[target]
            sides = [torch.from_numpy(side.joints) for side in (source, target)]
            inputs.append([value for side in sides for value in (side, ~side.isnan().any(-1))])
            flow, visibility = synthetic.flow(source, target)
            flows.append(torch.from_numpy(flow).permute(2, 0, 1))
            visibilities.append(torch.from_numpy(visibility))
    return [torch.stack(side) for side in zip(*inputs, strict=True)], torch.stack(flows), torch.stack(visibilities)


def test_against_the_exact_flow_of_synthetic_people(capsys):
    """End-point error where the source shows the point, and share of pixels in the right class of visibility.

    People stand at any angle to the camera, so nearly half of the pairs see another side of the person. Zero flow that
    calls everything visible is the floor.
    """
    inputs, truth, classes = synthetic_pairs()
    flow, visibility = AffineFlow()(*inputs, HEIGHT, WIDTH)
    shown = classes == 0
    error = (flow - truth).norm(dim=1)[shown].mean().item()
    zero = truth.norm(dim=1)[shown].mean().item()
    accuracy = (visibility.squeeze(1) == classes).float().mean().item()
    found = (visibility.squeeze(1) < 2) & (classes < 2)
    overlap = (found.sum() / ((visibility.squeeze(1) < 2) | (classes < 2)).sum()).item()
    with capsys.disabled():
        print(
            f"\n  affine flow: {error:.2f} px (zero: {zero:.2f}), visibility {accuracy:.3f}, person IoU {overlap:.3f}"
        )
    assert error < 0.65 * zero
    assert accuracy > 0.72
    assert overlap > 0.6
