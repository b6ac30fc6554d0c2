"""What must hold of every metric whatever the images, masks, poses and features are."""

from statistics import mean, stdev

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.metrics import METRICS
from pipeline.metrics.bootstrap import bootstrap_interval
from pipeline.metrics.fid import frechet_distance, frechet_influence, statistics_of
from pipeline.metrics.identity import similarity
from pipeline.metrics.inception_score import inception_score
from pipeline.metrics.kid import kid
from pipeline.metrics.lpips import lpips_network
from pipeline.metrics.parsing_iou import label_counts, mean_iou
from pipeline.metrics.pckh import Joints, pckh
from pipeline.metrics.pose_error import pose_error
from pipeline.metrics.pose_mask import RADIUS, pose_masks
from pipeline.metrics.stream import Comparison, PairScores
from pipeline.tables.over_seeds import OverSeeds, difference

pytestmark = pytest.mark.usefixtures("small_batches_on_one_thread")

quick = settings(max_examples=25, deadline=None, derandomize=True)
few = settings(max_examples=5, deadline=None, derandomize=True)

HEIGHT, WIDTH = 56, 52  # the least that every window fits into, and no square
PIXELS = [name for name, metric in METRICS.items() if metric.per_pair and set(metric.needs) <= {"masks"}]
PIXELS.remove("ssim-padded")  # of 176 columns only
OUTSIDE_BLIND = [name for name in PIXELS if name.startswith("mask-") or name == "inside-psnr"]
OWN_RANGE = [name for name in PIXELS if name.endswith("own-range")]
SSIM = [name for name in PIXELS if "ssim" in name and name not in OWN_RANGE]
NETWORKS = {"lpips-alex": lpips_network(None, seed=3)}
LPIPS = ["lpips-alex-v0.1", "mask-lpips-alex-v0.1"]

seeds = st.integers(0, 2**32 - 1)


@st.composite
def images(draw, n: int = 3) -> np.ndarray:
    """(n, HEIGHT, WIDTH, 3) uint8: noise, even areas, one grey level, or black and white only."""
    random, rows = np.random.default_rng(draw(seeds)), []
    for _ in range(n):
        kind = draw(st.sampled_from(["noise", "areas", "flat", "black and white"]))
        noise = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        blocks = noise[::8, ::8].repeat(8, 0).repeat(8, 1)[:HEIGHT, :WIDTH]
        flat = np.full_like(noise, draw(st.integers(0, 255)))
        rows.append({"noise": noise, "areas": blocks, "flat": flat, "black and white": 255 * (noise > 127)}[kind])
    return np.stack(rows).astype(np.uint8)


@st.composite
def masks(draw, n: int = 3) -> np.ndarray:
    """(n, HEIGHT, WIDTH) uint8, a rectangle each: never empty, at times everything."""
    found = np.zeros((n, HEIGHT, WIDTH), np.uint8)
    for mask in found:
        top, left = draw(st.integers(0, HEIGHT - 1)), draw(st.integers(0, WIDTH - 1))
        mask[top : draw(st.integers(top + 1, HEIGHT)), left : draw(st.integers(left + 1, WIDTH))] = 1
    return found


@st.composite
def poses(draw, n: int = 4, around: int = 100) -> Joints:
    """Joints inside the image, outside and far away, each known or not."""
    random = np.random.default_rng(draw(seeds))
    known = draw(st.floats(0, 1))
    xy = random.uniform(-around, WIDTH + around, (n, 18, 2)).round(draw(st.sampled_from([0, 3])))
    return Joints(xy, random.random((n, 18)) < known)


def values(name: str, generated: np.ndarray, target: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    return METRICS[name].per_pair(Comparison(generated, target, NETWORKS, masks))


# ---- images and masks


@pytest.mark.parametrize("name", SSIM)
@given(one=images(), other=images(), shape=masks())
@quick
def test_ssim_is_bounded_symmetric_and_one_for_equals_alone(name, one, other, shape):
    found = values(name, one, other, shape)
    known = np.isfinite(found)
    assert known.all() or name == "inside-ssim"  # no window of the mask lies inside the image
    assert (np.abs(found[known]) <= 1 + 1e-9).all()
    np.testing.assert_allclose(values(name, other, one, shape), found, atol=1e-12)
    np.testing.assert_allclose(values(name, one, one, shape)[known], 1, atol=1e-12)
    changed = one.copy()
    changed[:, HEIGHT // 2, WIDTH // 2] ^= 128
    shape[:, HEIGHT // 2, WIDTH // 2] = 1
    assert (values(name, changed, one, shape) < 1 - 1e-9).all()


@pytest.mark.parametrize("name", OWN_RANGE)
@given(one=images(), other=images())
@quick
def test_ssim_by_the_images_own_range_is_ssim_where_that_is_full(name, one, other):
    found, span = values(name, one, other), np.ptp(one, axis=(1, 2, 3))
    np.testing.assert_array_equal(np.isnan(found), span == 0)
    assert (np.abs(found[span > 0]) <= 1 + 1e-9).all()
    np.testing.assert_allclose(values(name, one, one)[span > 0], 1, atol=1e-12)
    by_the_type = values({"ssim-own-range": "ssim"}.get(name, "ssim-gauss12"), one, other)
    np.testing.assert_allclose(found[span == 255], by_the_type[span == 255], atol=1e-12)


@pytest.mark.parametrize("name", ["psnr", "mask-psnr", "inside-psnr"])
@given(one=images(), other=images(), shape=masks())
@quick
def test_psnr_lies_between_nothing_and_the_identical_pairs(name, one, other, shape):
    found, best = values(name, one, other, shape), values(name, one, one, shape)
    assert (found >= -1e-9).all()
    assert (found <= best + 1e-9).all()
    pixels = shape.sum(axis=(1, 2)) if name == "inside-psnr" else np.full(len(one), HEIGHT * WIDTH)
    np.testing.assert_allclose(best, 10 * np.log10(255**2 * 3 * pixels), rtol=1e-12)
    np.testing.assert_array_equal(values(name, other, one, shape), found)


@pytest.mark.parametrize("name", OUTSIDE_BLIND)
@given(generated=images(), target=images(), elsewhere=images(), shape=masks())
@quick
def test_nothing_outside_the_mask_moves_a_masked_metric(name, generated, target, elsewhere, shape):
    outside = shape[..., None] == 0
    found = values(name, generated, target, shape)
    painted = np.where(outside, elsewhere, generated), np.where(outside, 255 - elsewhere, target)
    np.testing.assert_array_equal(values(name, *painted, shape), found)
    inverted = np.where(outside, target, 255 - target)  # what lies inside does
    assert (values(name, inverted, target, shape) < values(name, target, target, shape)).all()


@given(generated=images(), target=images(), elsewhere=images(), shape=masks())
@quick
def test_inside_ssim_sees_no_further_than_its_window(generated, target, elsewhere, shape):
    found = values("inside-ssim", generated, target, shape)
    seen = np.zeros(shape.shape, bool)
    for row, mask in enumerate(shape):
        y, x = np.nonzero(mask)
        seen[row, max(y.min() - 5, 0) : y.max() + 6, max(x.min() - 5, 0) : x.max() + 6] = True
    painted = np.where(seen[..., None], generated, elsewhere), np.where(seen[..., None], target, 255 - elsewhere)
    np.testing.assert_allclose(values("inside-ssim", *painted, shape), found, atol=1e-10)


@pytest.mark.parametrize("name", LPIPS)
@given(one=images(4), other=images(4), elsewhere=images(4), shape=masks(4))
@few
def test_lpips_is_no_less_than_nothing_and_blind_outside_its_mask(name, one, other, elsewhere, shape):
    found = values(name, one, other, shape)
    assert (found >= 0).all()
    assert (values(name, one, one, shape) == 0).all()
    np.testing.assert_allclose(values(name, other, one, shape), found, atol=1e-6)
    if name.startswith("mask-"):
        outside = shape[..., None] == 0
        painted = np.where(outside, elsewhere, one), np.where(outside, 255 - elsewhere, other)
        np.testing.assert_array_equal(values(name, *painted, shape), found)


@given(generated=images(6), target=images(6), shape=masks(6), seed=seeds, batch=st.integers(1, 6))
@quick
def test_scores_are_those_of_the_pairs_in_any_order_and_grouping(generated, target, shape, seed, batch):
    order = np.random.default_rng(seed).permutation(6)

    def scored(rows: np.ndarray, size: int) -> tuple:
        scores = PairScores(range(6), PIXELS)
        for start in range(0, 6, size):
            part = rows[start : start + size]
            scores.update(part.tolist(), generated[part], target[part], shape[part])
        return scores.compute(resamples=100)

    table, totals = scored(np.arange(6), 6)
    other_table, other_totals = scored(order, batch)
    for name in PIXELS:
        np.testing.assert_array_equal(other_table[name], table[name])
        np.testing.assert_array_equal(other_totals[name][:5], totals[name][:5])
        kept = table[name][np.isfinite(table[name])]
        assert len(kept) == totals[name].n == 6 - totals[name].excluded
        if len(kept):
            assert totals[name].value == pytest.approx(kept.mean())


# ---- poses


@given(pose=poses(), height=st.integers(8, 60), width=st.integers(8, 60))
@quick
def test_pose_masks_lie_around_the_known_joints(pose, height, width):
    found = pose_masks(*pose, height, width)
    assert found.shape == (4, height, width)
    assert found.dtype == np.uint8
    assert found.max(initial=0) <= 1
    elsewhere = np.where(pose.valid[..., None], pose.xy, pose.xy[::-1, ::-1] - 7)
    np.testing.assert_array_equal(pose_masks(elsewhere, pose.valid, height, width), found)  # unknown joints say nothing
    for mask, xy, known in zip(found, pose.xy, pose.valid, strict=True):
        rows, columns = np.nonzero(mask)
        if not known.any():
            assert len(rows) == 0
            continue
        low, high = xy[known].min(axis=0) - RADIUS, xy[known].max(axis=0) + RADIUS
        for at, axis in ((columns, 0), (rows, 1)):
            assert ((at >= low[axis]) & (at <= high[axis])).all()
        for x, y in xy[known].round().astype(int):
            if 0 <= x < width and 0 <= y < height:
                assert mask[y, x] == 1


@given(detected=poses(), target=poses(around=10), thresholds=st.tuples(st.floats(0, 2), st.floats(0, 2)), seed=seeds)
@quick
def test_pckh_is_a_share_that_grows_with_its_threshold(detected, target, thresholds, seed):
    detected = Joints(target.xy + np.random.default_rng(seed).normal(0, 15, target.xy.shape), detected.valid)
    low, high = (pckh(detected, target, threshold) for threshold in sorted(thresholds))
    for result in (low, high):
        counted = result.joints > 0
        assert np.isnan(result.share[~counted]).all()
        assert ((result.share[counted] >= 0) & (result.share[counted] <= 1)).all()
        assert (result.joints[counted] == target.valid.sum(axis=1)[counted]).all()
    assert (low.correct <= high.correct).all()
    assert (low.joints == high.joints).all()
    near = pckh(detected, target)
    moved = pckh(Joints(detected.xy * 4 + 16, detected.valid), Joints(target.xy * 4 + 16, target.valid))
    assert (moved.correct == near.correct).all()  # neither place nor scale
    back = pckh(*(Joints(one.xy[::-1], one.valid[::-1]) for one in (detected, target)))
    np.testing.assert_array_equal(back.share[::-1], near.share)


@given(detected=poses(), target=poses())
@quick
def test_pose_error_is_a_distance(detected, target):
    found, back = pose_error(detected, target), pose_error(target, detected)
    np.testing.assert_array_equal(found.joints, back.joints)
    np.testing.assert_allclose(found.distance, back.distance, rtol=1e-12)
    assert (found.distance >= 0).all()
    assert (found.joints <= target.valid.sum(axis=1)).all()
    assert (pose_error(target, target).distance == 0).all()
    known = found.joints > 0
    beside = pose_error(Joints(target.xy + np.array([3, 4]), detected.valid), target)
    np.testing.assert_allclose(beside.mean[known], 5)


# ---- sets of images


@st.composite
def features(draw, dimensions: int = 6) -> np.ndarray:
    """(n, dimensions): fewer images than dimensions or more, spread or nearly flat, at any place."""
    random = np.random.default_rng(draw(seeds))
    n, scale = draw(st.integers(3, 40)), draw(st.sampled_from([1e-3, 1.0, 30.0]))
    mix = random.normal(0, 1, (dimensions, dimensions))
    return random.normal(0, scale, (n, dimensions)) @ mix + draw(st.floats(-5, 5))


@given(one=features(), other=features(), seed=seeds)
@quick
def test_fid_is_a_squared_distance(one, other, seed):
    scale = 1 + np.square(one).mean() + np.square(other).mean()
    found = frechet_distance(statistics_of(one), statistics_of(other))
    assert found >= -1e-6 * scale
    assert frechet_distance(statistics_of(other), statistics_of(one)) == pytest.approx(found, abs=1e-5 * scale)
    assert frechet_distance(statistics_of(one), statistics_of(one)) == pytest.approx(0, abs=1e-6 * scale)
    random = np.random.default_rng(seed)
    turn, shift = np.linalg.qr(random.normal(size=(6, 6)))[0], random.normal(size=6)
    moved = [statistics_of(random.permutation(rows) @ turn + shift) for rows in (one, other)]
    assert frechet_distance(*moved) == pytest.approx(found, abs=1e-5 * scale)  # nor does the images' order say anything
    assert found >= np.square(one.mean(axis=0) - other.mean(axis=0)).sum() - 1e-6 * scale
    assert frechet_influence(one, statistics_of(other))[1].sum() == pytest.approx(0, abs=1e-6 * scale * len(one))


@given(one=features(), other=features(), seed=seeds)
@quick
def test_kid_and_its_influence_go_with_the_images(one, other, seed):
    order = np.random.default_rng(seed).permutation(len(one))
    value, influence = kid(one, other)
    again, moved = kid(one[order], other[::-1])
    assert again == pytest.approx(value, rel=1e-9, abs=1e-9 * np.abs(influence).max())
    np.testing.assert_allclose(moved, influence[order], atol=1e-8 * (1 + np.abs(influence).max()))
    assert kid(other, one)[0] == pytest.approx(value, rel=1e-9, abs=1e-9 * np.abs(influence).max())


@given(rows=features(), classes=st.integers(2, 9), seed=seeds)
@quick
def test_inception_score_lies_between_one_and_the_number_of_classes(rows, classes, seed):
    classifier = np.random.default_rng(seed).normal(0, 1, (classes, 6))
    value, influence = inception_score(rows, classifier)
    if len(rows) < 10:
        assert np.isnan(value)
    else:
        assert 1 - 1e-9 <= value <= classes + 1e-9
    assert influence.sum() == pytest.approx(0, abs=1e-6)


@given(seed=seeds, labels=st.integers(1, 20), agree=st.floats(0, 1))
@quick
def test_miou_is_a_share_and_one_for_equals_alone(seed, labels, agree):
    random = np.random.default_rng(seed)
    target = random.integers(0, labels, (5, 7, 6)).astype(np.uint8)
    other = random.integers(0, 20, target.shape)
    parsed = np.where(random.random(target.shape) < agree, target, other).astype(np.uint8)
    for background in (True, False):
        value, influence = mean_iou(label_counts(parsed, target), background)
        if labels == 1 and not background:
            assert np.isnan(value)
            continue
        assert 0 <= value <= 1
        assert influence.sum() == pytest.approx(0, abs=1e-9)
        order = random.permutation(5)
        again, moved = mean_iou(label_counts(parsed[order], target[order]), background)
        assert again == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(moved, influence[order], atol=1e-12)
        assert mean_iou(label_counts(target, target), background)[0] == 1
        assert value < 1 or (parsed[target > 0] == target[target > 0]).all()


@given(seed=seeds)
@quick
def test_identity_is_a_cosine(seed):
    one, other = np.random.default_rng(seed).normal(size=(2, 5, 256))
    one, other = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (one, other))
    found = similarity(one, other)
    assert (np.abs(found) <= 1 + 1e-12).all()
    np.testing.assert_allclose(similarity(other, one), found)
    np.testing.assert_allclose(similarity(one, one), 1)
    np.testing.assert_allclose(similarity(one, -other), -found)


# ---- statistics


numbers = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


@given(numbers=numbers, missing=st.integers(0, 3), factor=st.floats(0.1, 10), shift=st.floats(-10, 10), seed=seeds)
@quick
def test_an_interval_lies_among_the_values_and_moves_with_them(numbers, missing, factor, shift, seed):
    pairs = np.array([*numbers, *[np.nan] * missing])
    found = bootstrap_interval(pairs, resamples=200, seed=seed)
    assert (found.n, found.excluded) == (len(numbers), missing)
    room = 1e-9 * (1 + max(map(abs, numbers)))
    assert min(numbers) - room <= found.low <= found.high <= max(numbers) + room
    assert found.mean == pytest.approx(np.mean(numbers), abs=room)
    moved = bootstrap_interval(factor * pairs + shift, resamples=200, seed=seed)
    assert moved[:3] == pytest.approx([factor * value + shift for value in found[:3]], abs=20 * room)
    turned = bootstrap_interval(-pairs, resamples=200, seed=seed)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=room)
    narrow = bootstrap_interval(pairs, resamples=200, seed=seed, level=0.5)
    assert found.low <= narrow.low <= narrow.high <= found.high


def pooled(values: list[float]) -> OverSeeds:
    return OverSeeds(len(values), mean(values), stdev(values))


@given(
    one=st.lists(st.floats(-1, 1), min_size=2, max_size=6),
    other=st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    shift=st.floats(-2, 2),
)
@quick
def test_a_difference_over_seeds_turns_with_its_sides(one, other, shift):
    sides = pooled(one), pooled(other) if len(other) > 1 else other[0]
    assume(sides[0].deviation > 1e-6)
    apart, low, high = difference(*sides)
    assert low <= apart <= high
    assert difference(*sides[::-1]) == pytest.approx((-apart, -high, -low), abs=1e-9)
    moved = pooled([value + shift for value in one])
    assert difference(moved, sides[1]) == pytest.approx((apart + shift, low + shift, high + shift), abs=1e-6)
    if isinstance(sides[1], OverSeeds):
        assert difference(*sides, chance=(False, False)) == (apart, low, high)  # seen, not assumed
    else:
        _, narrow, wide = difference(*sides, chance=(True, False))
        assert low < narrow <= wide < high
