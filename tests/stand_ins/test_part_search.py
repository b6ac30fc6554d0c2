import cv2
import numpy as np
import pytest
import torch

from pipeline.anatomy import labels
from pipeline.stand_ins import body_parts, part_search
from tests.stand_ins.test_body_parts import LIMBS, STANDING, people, rectangle

CPU = torch.device("cpu")
MIRROR = (0, 1, 3, 2, 5, 4, 7, 6, 9, 8)


def drawn(joints: np.ndarray, seed: int, height: int = 128, width: int = 64) -> np.ndarray:
    """An SPT-10 parsing (height, width) uint8: clothes by `seed`, limbs as thick lines, a little of every label."""
    rng = np.random.default_rng(seed)
    canvas, points = np.zeros((height, width), np.uint8), [tuple(int(v) for v in np.rint(p)) for p in joints]

    def line(a, b, label, thickness):
        cv2.line(canvas, points[a], points[b], int(label), thickness)

    cv2.circle(canvas, points[0], 9, 2, -1)
    cv2.circle(canvas, points[0], int(rng.integers(3, 7)), 1, -1)
    for right, arm, leg in ((True, 7, 9), (False, 6, 8)):
        shoulder, elbow, wrist, hip, knee, ankle = (2, 3, 4, 8, 9, 10) if right else (5, 6, 7, 11, 12, 13)
        line(hip, knee, 4 if seed % 3 else leg, 11)
        line(knee, ankle, 4 if seed % 2 else leg, 9)
        line(shoulder, elbow, 3, 9)
        line(elbow, wrist, 3 if seed % 5 == 0 else arm, 7)
    hull = cv2.convexHull(np.array([points[j] for j in (2, 5, 11, 8)]))
    cv2.fillConvexPoly(canvas, hull, 3)
    if seed % 3 == 0:
        cv2.fillConvexPoly(canvas, cv2.convexHull(np.array([points[j] for j in (8, 11, 9, 12)])), 5)
    return canvas


def gathered(joints: np.ndarray, valid: np.ndarray, maps: list[np.ndarray]) -> part_search.People:
    codes, areas = zip(
        *(part_search.encode(m[None], joints[i : i + 1], valid[i : i + 1]) for i, m in enumerate(maps)), strict=True
    )
    height, width = np.array([m.shape for m in maps]).T
    flat = np.concatenate([code.reshape(-1) for code in codes])
    offset = np.cumsum(height * width) - height * width
    return part_search.People(joints, valid, flat, offset, height, width, np.concatenate(areas))


def crowd(
    seed: int, count: int, seen: float = 0.85, spread: float = 5.0
) -> tuple[part_search.People, list[np.ndarray]]:
    """People of two sizes of image."""
    joints, valid = people(seed, count, spread, seen)
    maps = [drawn(p, i, *((128, 64), (140, 70))[i % 2]) for i, p in enumerate(joints)]
    return gathered(joints, valid, maps), maps


def mask(joints, valid, part: int, height: int, width: int) -> np.ndarray:
    """B of one part in plain words."""
    y, x = np.mgrid[:height, :width].astype(float)
    p = joints.astype(float)
    st = np.sqrt((np.sum((p[2] - p[8]) ** 2) + np.sum((p[5] - p[11]) ** 2)) / 2)
    if part == 0:
        torso = p[[2, 5, 8, 11]]
        (x0, y0), (x1, y1) = torso.min(axis=0) - 0.1 * st, torso.max(axis=0) + 0.1 * st
        return (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    if part == 1:
        seen = [j for j in (0, 14, 15, 16, 17) if valid[j]]
        if not seen:
            return np.zeros((height, width), bool)
        cx, cy = p[seen].mean(axis=0)
        return (abs(x - cx) <= 0.4 * st) & (abs(y - cy) <= 0.4 * st)
    if not (valid[LIMBS[part][0]] and valid[LIMBS[part][1]]):
        return np.zeros((height, width), bool)
    corners = rectangle(joints, part)
    inside = np.ones((height, width), bool)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):  # on the inner side of all four edges
        inside &= (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) <= 0
    return inside if inside.any() else mask_other_way(corners, x, y)


def mask_other_way(corners, x, y) -> np.ndarray:
    inside = np.ones(x.shape, bool)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) >= 0
    return inside


def one_hot(parsing: np.ndarray, where: np.ndarray) -> np.ndarray:
    return (parsing == np.arange(10)[:, None, None]) & where


def equation(source: tuple, candidate: tuple) -> int:
    """The sum over ten parts, image by image with one-hot maps: (joints, valid, parsing) of both."""
    (joints_s, valid_s, parsing_s), (joints_c, valid_c, parsing_c) = source, candidate
    maps, given, mirrored = body_parts.affine_maps(joints_c[None], valid_c[None], joints_s[None], valid_s[None])
    y, x = np.mgrid[: parsing_c.shape[0], : parsing_c.shape[1]].astype(float)
    height, width = parsing_s.shape
    total = 0
    for part in range(10):
        wanted = one_hot(parsing_c, mask(joints_c, valid_c, part, *parsing_c.shape))
        taken = MIRROR[part] if mirrored[0, part] else part
        offered = one_hot(parsing_s, mask(joints_s, valid_s, taken, height, width))
        if mirrored[0, part]:
            offered = offered[[0, 1, 2, 3, 4, 5, 7, 6, 9, 8]]
        (a, b, c), (d, e, f) = maps[0, part]
        from_x, from_y = np.rint(a * x + b * y + c).astype(int), np.rint(d * x + e * y + f).astype(int)
        there = (from_x >= 0) & (from_y >= 0) & (from_x < width) & (from_y < height) & given[0, part]
        moved = offered[:, from_y.clip(0, height - 1), from_x.clip(0, width - 1)] & there
        total += int(((wanted.astype(int) - moved) ** 2).sum())
    return total


def all_costs(everyone: part_search.People) -> np.ndarray:
    count = len(everyone.joints)
    source, candidate = (grid.reshape(-1) for grid in np.mgrid[:count, :count])
    return part_search.cost(everyone, source, candidate).reshape(count, count)


def test_cost_is_the_equation():
    everyone, maps = crowd(0, 8, seen=0.7)
    joints = everyone.joints.copy()
    joints[0] -= np.float32([22, 10])  # over the corner of the image
    maps[0] = drawn(joints[0], 0)
    everyone = gathered(joints, everyone.valid, maps)
    rows = [(everyone.joints[i], everyone.valid[i], maps[i]) for i in range(8)]
    wanted = [[equation(source, candidate) for candidate in rows] for source in rows]
    np.testing.assert_array_equal(all_costs(everyone), wanted)
    assert np.ptp(wanted) > 1000


def test_cost_of_a_moved_copy_counts_changed_pixels():
    joints = np.repeat(STANDING[None], 2, axis=0) * np.float32(0.8) + np.float32([6, 8])  # well inside the image
    joints[1] += np.float32([5, 3])
    first = drawn(joints[0], 1)
    second = np.roll(first, (3, 5), axis=(0, 1))
    valid = np.ones((2, 18), bool)
    one, two = np.array([0]), np.array([1])
    assert part_search.cost(gathered(joints, valid, [first, second]), one, two) == [0]
    y, x = 50 + 3, 32 + 5  # in the middle of the torso: in no other part
    assert body_parts.masks(joints[1:], valid[1:], 128, 64)[0, :, y, x].tolist() == [True] + [False] * 9
    second[y, x] = 5
    assert part_search.cost(gathered(joints, valid, [first, second]), one, two) == [2]
    valid[1, 4] = False  # the candidate's right forearm: neither mask nor map, so no cost
    assert part_search.cost(gathered(joints, valid, [first, second]), one, two) == [2]
    assert part_search.cost(gathered(joints, valid, [first, second]), two, one)[0] > 2  # from the left one instead
    valid[1, 7] = False  # nothing to move there: every pixel of both forearms is without a partner
    forearms = body_parts.masks(joints[:1], valid[:1], 128, 64)[0, 8:].sum()
    assert part_search.cost(gathered(joints, valid, [first, second]), two, one) == [2 + forearms]


def test_a_mirrored_limb_has_its_label_mirrored():
    joints, valid = np.repeat(STANDING[None], 2, axis=0), np.ones((2, 18), bool)
    joints[:, :, 0] = np.where(np.arange(18) == 7, 64 - joints[:, 4, 0, None], joints[:, :, 0])
    joints[:, 7, 1] = joints[:, 4, 1]
    parsing = np.zeros((128, 64), np.uint8)
    parsing[:, :32], parsing[:, 32:] = 7, 6  # right arm, left arm
    other = parsing.copy()
    valid[0, 7] = False
    everyone = gathered(joints, valid, [parsing, other])
    terms = part_search._cost(everyone, np.array([0]), np.array([1]))[0]
    assert terms[9] <= 0.1 * body_parts.masks(joints[1:], valid[1:], 128, 64)[0, 9].sum()  # edges alone
    assert labels.NAMES["spt-10"][6:8] == ("left-arm", "right-arm")


def test_index_counts_exactly():
    """What `rank` minimises is the sum over cells, to the last step: told by brute force over integers."""
    everyone, _ = crowd(1, 9, seen=0.7)
    found = part_search.index(everyone, np.arange(9), 5, CPU)
    source, candidate, weight = found.source_cells.numpy(), found.candidate_cells.numpy(), found.weights.numpy()
    ids = torch.arange(10, dtype=torch.uint8)
    wanted = (found.source_cells[..., None] == ids).float().flatten(1)
    offered, constant = part_search._offered(found, slice(0, 9), ids)
    products = torch.addmm(constant, wanted, offered.T).numpy()
    for s in range(9):
        for c in range(9):
            total = 0
            for part in range(10):
                for a, b in zip(source[s, part], candidate[c, part], strict=True):
                    if b != 11 and a != b:
                        total += int(weight[c, part]) * (1 if 10 in (a, b) else 2)
            assert products[s, c] == total
    assert np.abs(weight * found.step - part_search.cells(everyone, np.arange(9), 5)[2]).max() <= found.step / 2


def test_ranking_is_the_same_in_any_blocks_and_on_any_threads():
    everyone, _ = crowd(2, 60)
    found = part_search.index(everyone, np.arange(0, 60, 2), 6, CPU)
    for rule in part_search.RULES:
        whole = part_search.rank(found, np.arange(60), 12, 0.25, 8, rule)
        for block in (1, 7, 64):
            np.testing.assert_array_equal(part_search.rank(found, np.arange(60), 12, 0.25, 8, rule, block), whole)
        single = [part_search.rank(found, np.array([i]), 12, 0.25, 8, rule)[0] for i in range(60)]
        np.testing.assert_array_equal(single, whole)
        threads = torch.get_num_threads()
        torch.set_num_threads(2 if threads == 1 else 1)
        np.testing.assert_array_equal(part_search.rank(found, np.arange(60), 12, 0.25, 8, rule), whole)
        torch.set_num_threads(threads)


def test_what_is_left_out():
    everyone, _ = crowd(3, 40, seen=0.6, spread=4.0)
    found = part_search.index(everyone, np.arange(40), 4, CPU)
    ranked = part_search.rank(found, np.arange(40), 40, 0.25, 8, "equation")
    balanced = part_search.rank(found, np.arange(40), 40, 0.25, 8, "balanced")
    _, present = body_parts.corners(everyone.joints, everyone.valid)
    kinds = set()
    for s in range(40):
        st = np.sqrt(
            np.mean([np.sum((everyone.joints[s, a] - everyone.joints[s, b]) ** 2) for a, b in ((2, 8), (5, 11))])
        )
        for c in range(40):
            both = np.flatnonzero(everyone.valid[s] & everyone.valid[c])
            apart = np.mean([np.hypot(*(everyone.joints[s, j] - everyone.joints[c, j])) for j in both]) / st
            distance, shared = part_search.pose_distance(everyone, np.array([s]), np.array([c]))
            assert distance[0] == pytest.approx(apart, rel=1e-6)
            assert shared[0] == len(both)
            admitted = s != c and len(both) >= 8 and apart >= 0.25
            assert (c in ranked[s]) == admitted
            shows_all = not (present[s] & ~present[c]).any()
            assert (c in balanced[s]) == (admitted and shows_all)
            kinds.add((s != c, len(both) >= 8, bool(apart >= 0.25), shows_all))
    assert len(kinds) >= 6


@pytest.mark.parametrize("rule", part_search.RULES)
def test_with_all_reranked_it_is_brute_force(rule):
    everyone, _ = crowd(4, 36)
    costs = all_costs(everyone)
    _, present = body_parts.corners(everyone.joints, everyone.valid)
    found = part_search.index(everyone, np.arange(36), 8, CPU)
    chosen, paid, away = part_search.search(found, np.arange(36), 36, 0.25, 8, rule)
    for s in range(36):
        distance, shared = part_search.pose_distance(everyone, np.full(36, s), np.arange(36))
        value = costs[s] / everyone.area if rule == "balanced" else costs[s].astype(float)
        out = (distance < 0.25) | (shared < 8) | (np.arange(36) == s)
        if rule == "balanced":
            out |= (present[s] & ~present).any(axis=1)
        value[out] = np.inf
        if np.isinf(value).all():
            assert chosen[s] == -1
        else:
            assert chosen[s] == value.argmin()
            assert (paid[s], away[s]) == (costs[s, chosen[s]], distance[chosen[s]])
    assert len(set(chosen)) > 10 if rule == "balanced" else len(set(chosen)) > 3


def test_few_reranked_are_enough():
    everyone, _ = crowd(5, 120)
    found = part_search.index(everyone, np.arange(120), 8, CPU)
    deep, deep_cost, _ = part_search.search(found, np.arange(40), 120, 0.25, 8, "equation")
    chosen, cost, _ = part_search.search(found, np.arange(40), 24, 0.25, 8, "equation")
    assert (chosen == deep).mean() > 0.98
    assert (cost >= deep_cost).all()


@pytest.mark.parametrize("rule", part_search.RULES)
def test_a_planted_answer_is_found(rule):
    """Among strangers lies each source's own parsing, warped to a far pose part by part by a second library."""
    everyone, maps = crowd(6, 40, seen=1.0, spread=3.0)
    for source in range(8):  # clothes of no one else
        maps[source] = np.where(maps[source] > 0, (maps[source] + source) % 9 + 1, 0).astype(np.uint8)
    joints, valid = list(everyone.joints), list(everyone.valid)
    for source in range(8):
        target = people(100 + source, 1, 3.0)[0][0]
        target[[3, 6]] += np.float32([[-6, -8], [6, -8]])  # arms up: far in pose
        target[[4, 7]] += np.float32([[-8, -30], [8, -30]])
        target += np.float32([0, 10])
        every = np.ones((1, 18), bool)
        warp, _, _ = body_parts.affine_maps(target[None], every, joints[source][None], every)
        canvas = np.zeros((128, 64), np.uint8)
        for part, where in enumerate(body_parts.masks(target[None], every, 128, 64)[0]):
            flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            moved = cv2.warpAffine(maps[source], warp[0, part], (64, 128), flags=flags)
            canvas = np.where(where & (moved > 0), moved, canvas)
        joints.append(target)
        valid.append(np.ones(18, bool))
        maps.append(canvas)
    everyone = gathered(np.array(joints), np.array(valid), maps)
    found = part_search.index(everyone, np.arange(48), 8, CPU)
    chosen, _, distance = part_search.search(found, np.arange(8), 16, 0.25, 8, rule)
    assert chosen.tolist() == list(range(40, 48))
    assert (distance > 0.25).all()


def test_a_moved_copy_is_found_and_ties_go_to_the_lower_row():
    joints, valid = people(7, 20, 5.0)
    joints = joints * np.float32(0.8) + np.float32([6, 4])
    maps = [drawn(p, i) for i, p in enumerate(joints)]
    copy = joints[4] + np.float32([3, 12])
    joints = np.concatenate([joints, [copy, copy]])
    valid = np.ones((22, 18), bool)
    shifted = np.roll(maps[4], (12, 3), axis=(0, 1))
    shifted[:12], shifted[:, :3] = 0, 0
    everyone = gathered(joints, valid, [*maps, shifted, shifted])
    found = part_search.index(everyone, np.arange(22), 8, CPU)
    for rule in part_search.RULES:
        chosen, paid, away = part_search.search(found, np.array([4]), 4, 0.25, 8, rule)
        assert chosen[0] == 20
        assert away[0] == pytest.approx(np.hypot(3, 12) / body_parts.torso_length(joints[4:5])[0])
        assert paid[0] < 150  # what the image's edge cut off
    near, _, _ = part_search.search(found, np.array([20]), 4, 0.25, 8, "equation")
    assert near[0] != 21  # the same pose


def test_nobody_left():
    everyone, _ = crowd(8, 5)
    found = part_search.index(everyone, np.arange(5), 4, CPU)
    chosen, paid, away = part_search.search(found, np.arange(5), 9, 100.0, 8, "equation")
    assert (chosen == -1).all()
    assert not paid.any()
    assert not away.any()
    with pytest.raises(ValueError, match="no rule best"):
        part_search.search(found, np.arange(5), 9, 0.25, 8, "best")


@pytest.mark.parametrize("rule", part_search.RULES)
def test_nobody_stands_in_for_himself_even_where_no_pose_is_too_near(rule):
    everyone, _ = crowd(8, 12)
    found = part_search.index(everyone, np.arange(12), 8, CPU)
    assert not (part_search.rank(found, np.arange(12), 12, 0.0, 1, rule) == np.arange(12)[:, None]).any()
    chosen, _, _ = part_search.search(found, np.arange(12), 12, 0.0, 1, rule)
    assert (chosen >= 0).any()
    assert not (chosen == np.arange(12)).any()
