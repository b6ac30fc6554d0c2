"""The metrics against closed forms, second libraries and themselves in other batchings."""

import warnings
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pipeline.core.errors import UserError
from pipeline.metrics import GIVEN, METRICS, OF_PARSING, standard
from pipeline.metrics.bootstrap import bootstrap_interval
from pipeline.metrics.fid import FrechetStatistics, frechet_distance
from pipeline.metrics.inception import inception_features, inception_network, torchvision_inception
from pipeline.metrics.lpips import lpips, lpips_network, masked_lpips
from pipeline.metrics.networks import in_batches
from pipeline.metrics.pckh import Joints, pckh
from pipeline.metrics.pose_mask import MASK_LIMBS, pose_masks
from pipeline.metrics.psnr import psnr
from pipeline.metrics.ssim import ssim
from pipeline.metrics.stream import PairScores

pytestmark = pytest.mark.usefixtures("small_batches_on_one_thread")


@pytest.fixture(scope="module")
def alex():
    return lpips_network(None, seed=3)


@pytest.fixture(scope="module")
def inception():
    return inception_network(None, seed=3)


def smooth_images(n: int, height: int = 48, width: int = 32, seed: int = 0) -> np.ndarray:
    """(n, height, width, 3) uint8 with the large even areas that real images have."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (n, height // 8, width // 8, 3)).astype(np.float32)
    large = [cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) for image in coarse]
    return np.stack(large).clip(0, 255).astype(np.uint8)


def with_noise(images: np.ndarray, sigma: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


def random_poses(n: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Joints anywhere, some outside the image and some missing."""
    random = np.random.default_rng(seed)
    joints = random.uniform((-6, -6), (width + 6, height + 6), (n, 18, 2)).astype(np.float32)
    return joints, random.random((n, 18)) < 0.8


# SSIM and PSNR


@pytest.mark.parametrize("size", [(11, 11), (48, 33)])
def test_ssim_equals_scikit_image(size):
    target = np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    generated = with_noise(target, 25)
    generated[1], target[1] = 250, 255  # flat: where a variance by difference of squares is least exact
    target[2, :, : size[1] // 2] = 0
    expected = [
        structural_similarity(
            x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
        )
        for x, y in zip(generated, target, strict=True)
    ]
    np.testing.assert_allclose(ssim(generated, target), expected, atol=1e-10)


def test_ssim_of_flat_images_is_its_luminance_term():
    dark, light = np.full((1, 16, 16, 3), 60, np.uint8), np.full((1, 16, 16, 3), 180, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(dark, light)[0] == pytest.approx((2 * 60 * 180 + c1) / (60**2 + 180**2 + c1), abs=1e-12)


def test_ssim_refuses_images_smaller_than_its_window():
    small = np.zeros((1, 10, 40, 3), np.uint8)
    with pytest.raises(UserError, match="40x10"):
        ssim(small, small)


def test_psnr_equals_scikit_image_and_closed_form():
    target = smooth_images(5)
    generated = with_noise(target, 20)
    expected = [peak_signal_noise_ratio(y, x, data_range=255) for x, y in zip(generated, target, strict=True)]
    np.testing.assert_allclose(psnr(generated, target), expected, atol=1e-10)
    black, white = np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)
    assert psnr(black, white)[0] == 0
    assert psnr(black, black + 51)[0] == pytest.approx(20 * np.log10(5))


def test_psnr_of_an_identical_pair_is_the_best_finite_value():
    target = smooth_images(1)
    nearly = target.copy()
    nearly[0, 3, 4, 1] ^= 1
    assert psnr(target, target)[0] == psnr(nearly, target)[0] == pytest.approx(10 * np.log10(255**2 * target.size))


# Pose masks


def pixel_mask(joints: np.ndarray, valid: np.ndarray, height: int, width: int) -> np.ndarray:
    """The definition pixel by pixel, with half-planes instead of polygons, and the closing by hand."""
    mask = np.zeros((height, width), bool)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    for a, b in MASK_LIMBS:
        if valid[a] and valid[b]:
            (ax, ay), (bx, by) = joints[a].astype(np.float64), joints[b].astype(np.float64)
            length = np.hypot(bx - ax, by - ay)
            along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length
            across = ((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / length
            mask |= (along >= 0) & (along <= length) & (np.abs(across) <= 4)
    for (jx, jy), known in zip(joints.astype(np.float64), valid, strict=True):
        if known:
            mask |= (x - jx) ** 2 + (y - jy) ** 2 < 16
    grown = np.pad(mask, 4)  # outside the image nothing is set, so a border of zeros dilates alike
    views = np.lib.stride_tricks.sliding_window_view
    grown = views(grown, (5, 5)).any(axis=(2, 3))[2:-2, 2:-2]
    return views(np.pad(grown, 2, constant_values=True), (5, 5)).all(axis=(2, 3)).astype(np.uint8)


def test_mask_limbs_are_the_published_list():
    published = (
        "2-3 2-6 3-4 4-5 6-7 7-8 2-9 9-10 10-11 2-12 12-13 13-14 2-1 1-15 15-17 1-16 16-18 2-17 2-18 "
        "9-12 12-6 9-3 17-18"
    )
    assert published == " ".join(f"{a + 1}-{b + 1}" for a, b in MASK_LIMBS)


@pytest.mark.parametrize("size", [(64, 32), (40, 72)])
def test_pose_masks_follow_the_definition_pixel_by_pixel(size):
    joints, valid = random_poses(12, *size)
    masks = pose_masks(joints, valid, *size)
    assert masks.dtype == np.uint8
    for mask, points, known in zip(masks, joints, valid, strict=True):
        np.testing.assert_array_equal(mask, pixel_mask(points, known, *size))


def test_pose_mask_of_a_single_joint_is_a_disk_and_of_none_is_empty():
    joints, valid = np.full((2, 18, 2), 20.0, np.float32), np.zeros((2, 18), bool)
    valid[0, 4] = True
    masks = pose_masks(joints, valid, 40, 40)
    y, x = np.mgrid[:40, :40]
    disk = ((x - 20) ** 2 + (y - 20) ** 2 < 16).astype(np.uint8)
    assert disk.sum() == 45
    np.testing.assert_array_equal(masks[0], disk)  # convex: closing adds nothing
    assert masks[1].sum() == 0


def test_pose_mask_survives_two_joints_at_one_place():
    joints, valid = np.full((1, 18, 2), 20.0, np.float32), np.ones((1, 18), bool)
    with np.errstate(all="raise"):  # not by dividing by its length of zero
        assert pose_masks(joints, valid, 40, 40).sum() == 45


# LPIPS


def test_lpips_of_identical_images_is_zero_and_grows_with_noise(alex):
    target = smooth_images(4, 64, 64)
    values = [lpips(alex, with_noise(target, sigma), target).mean() for sigma in (0, 4, 12, 40)]
    assert values[0] == 0
    assert 1e-4 < values[1] < values[2] < values[3] < 2


def test_mask_multiplies_in_the_networks_range(alex):
    generated, target = smooth_images(3, 64, 64), smooth_images(3, 64, 64, seed=5)
    masks = np.zeros((3, 64, 64), np.uint8)
    assert (masked_lpips(alex, generated, target, masks) == 0).all()
    np.testing.assert_array_equal(
        masked_lpips(alex, generated, target, np.ones_like(masks)), lpips(alex, generated, target)
    )
    masks[:, 20:40, 10:50] = 1
    # Outside the mask both become 0 in [-1, 1], halfway between the grey levels 127 and 128: not black.
    scaled = [torch.from_numpy(i / 127.5 - 1).permute(0, 3, 1, 2).float() for i in (generated, target)]
    with torch.no_grad():
        expected = alex(*(s * torch.from_numpy(masks)[:, None] for s in scaled)).flatten()
    np.testing.assert_allclose(masked_lpips(alex, generated, target, masks), expected, rtol=1e-5)


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_lpips_network_loads_torchvision_weights(net):
    import torchvision

    builder = {"alex": torchvision.models.alexnet, "squeeze": torchvision.models.squeezenet1_1}[net]
    torch.manual_seed(1)
    given = builder(weights=None)
    network = lpips_network(given.state_dict(), net=net)
    features_only = lpips_network(given.features.state_dict(), net=net)
    assert network.provenance == "published"
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        first = network.net(image)[-1]
        depth = {"alex": 12, "squeeze": 13}[net]
        torch.testing.assert_close(first, given.features[:depth](image))
        torch.testing.assert_close(first, features_only.net(image)[-1])


@pytest.mark.parametrize(
    "build",
    [*(partial(lpips_network, None, net=net) for net in ("alex", "vgg", "squeeze")), partial(inception_network, None),
     partial(torchvision_inception, None)],
    ids=["alex", "vgg", "squeeze", "inception", "inception-tv"],
)  # fmt: skip
def test_a_network_holds_no_number_that_memory_held_and_draws_none_of_the_callers(build):
    before = torch.get_rng_state()
    torch.use_deterministic_algorithms(True)  # new tensors are full of NaN
    try:
        network = build()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(value.isfinite().all() for value in network.state_dict().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"6.weight": None}, "lacks tensor slice3.6.weight"),
        ({"13.weight": torch.zeros(1)}, "has an unknown tensor 13.weight"),
        ({"0.bias": torch.zeros(63)}, r"tensor slice1.0.bias has shape \(63,\) instead of \(64,\)"),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(alex, change, message):
    features = {key.split(".", 1)[1]: value for key, value in alex.net.state_dict().items()}
    state = {key: value for key, value in (features | change).items() if value is not None}
    with pytest.raises(UserError, match=message) as caught:
        lpips_network(state)
    assert "\n" not in str(caught.value)


@pytest.mark.real
def test_lpips_squeeze_gives_the_published_distances(mirror):
    state = torch.load(mirror / "weights/squeezenet1_1.features.pth", weights_only=True)
    network = lpips_network(state, net="squeeze")
    images = [cv2.imread(str(mirror.parent / "real" / f"ex_{name}.png"))[..., ::-1] for name in ("ref", "p0", "p1")]
    reference, near, far = (np.ascontiguousarray(image)[None] for image in images)
    assert lpips(network, reference, near)[0] == pytest.approx(0.7110, abs=5e-5)
    assert lpips(network, reference, far)[0] == pytest.approx(0.1479, abs=5e-5)


# Frechet distance


def statistics(features: np.ndarray, batch: int = 10**9) -> FrechetStatistics:
    result = FrechetStatistics(features.shape[1])
    for start in range(0, len(features), batch):
        result.update(features[start : start + batch])
    return result


def test_frechet_distance_of_shifted_gaussians_is_the_squared_shift():
    features = np.random.default_rng(0).normal(5, 2, (500, 24))
    shift = np.linspace(-1, 2, 24)
    assert frechet_distance(statistics(features + shift), statistics(features)) == pytest.approx(shift @ shift)


def test_frechet_distance_of_scaled_gaussians():
    # Commuting covariances: tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)) = sum (s1 - s2)^2 over the standard deviations.
    features = np.random.default_rng(0).normal(0, 1, (400, 12))
    features -= features.mean(axis=0)
    expected = 9 * np.trace(np.cov(features, rowvar=False))
    assert frechet_distance(statistics(4 * features), statistics(features)) == pytest.approx(expected)


@pytest.mark.parametrize("images", [20, 300])
def test_frechet_distance_of_identical_sets_is_zero(images):
    # Fewer images than dimensions (singular covariance), and more; eigenvalues over eight orders of magnitude.
    features = np.random.default_rng(1).normal(0.4, 1, (images, 64)) * np.logspace(0, -4, 64)
    assert abs(frechet_distance(statistics(features), statistics(features, batch=7))) < 1e-6


@pytest.mark.parametrize("images", [40, 500])
def test_frechet_distance_equals_pytorch_fid(images):
    random = np.random.default_rng(2)
    mix = random.normal(0, 1, (48, 48)) / 7
    one, two = random.normal(0.4, 1, (images, 48)) @ mix, random.normal(0.5, 1.2, (images + 9, 48))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its call of SciPy's sqrtm
        moments = [part for x in (one, two) for part in (x.mean(axis=0), np.cov(x, rowvar=False))]
        try:
            expected = calculate_frechet_distance(*moments)
        except TypeError:
            pytest.skip("pytorch-fid's own Frechet step does not run on SciPy 1.18")
    for a, b in ((one, two), (two, one)):
        # Singular covariances (40 images, 48 dimensions): sqrtm itself is good to about 1e-5 only.
        assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(
            expected, abs=1e-9 if images > 48 else 1e-4
        )


@pytest.mark.parametrize("batch", [1, 7, 64, 100])
def test_streamed_statistics_equal_numpy(batch):
    # A mean a million times the spread: sums of raw products would lose the covariance.
    features = 1000 + 1e-3 * np.random.default_rng(3).normal(size=(100, 10))
    streamed = statistics(features, batch)
    assert streamed.count == 100
    np.testing.assert_allclose(streamed.mean, features.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(streamed.covariance, np.cov(features, rowvar=False), rtol=1e-6, atol=1e-13)


def test_statistics_survive_saving(tmp_path):
    whole = statistics(np.random.default_rng(4).normal(3, 1, (50, 8)), batch=13)
    np.savez(tmp_path / "statistics.npz", **whole.state())
    loaded = FrechetStatistics.from_state(np.load(tmp_path / "statistics.npz"))
    assert loaded.count == 50
    np.testing.assert_array_equal(loaded.mean, whole.mean)
    np.testing.assert_array_equal(loaded.covariance, whole.covariance)


def test_an_update_renews_the_kept_root():
    features = np.random.default_rng(5).normal(size=(60, 6))
    growing = statistics(features[:30])
    growing.root()
    growing.update(features[30:] * 3)
    fresh = statistics(np.concatenate([features[:30], features[30:] * 3]))
    other = statistics(features)
    assert frechet_distance(other, growing) == pytest.approx(frechet_distance(other, fresh))


def test_one_image_has_no_covariance():
    with pytest.raises(UserError, match="at least two images"):
        _ = statistics(np.ones((1, 4))).covariance


# Feature networks


def test_seeded_networks_are_deterministic_and_of_sensible_scale(alex, inception):
    state = torch.random.get_rng_state()
    again, other = lpips_network(None, seed=3), lpips_network(None, seed=4)
    assert torch.equal(state, torch.random.get_rng_state())  # building leaves the caller's random state alone
    assert alex.provenance == inception.provenance == "seeded"
    assert all(torch.equal(a, b) for a, b in zip(alex.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(alex.net.slice1[0].weight, other.net.slice1[0].weight)
    published_head = lpips_network(None, seed=9).lin0.model[-1].weight
    assert torch.equal(alex.lin0.model[-1].weight, published_head)

    features = inception_features(inception, smooth_images(4, 64, 32))
    assert features.shape == (4, 2048)
    assert features.isfinite().all()
    assert 0.05 < features.mean() < 5
    assert features.std(dim=0).mean() > 0.02  # images differ
    assert (features.amax(dim=0) > 0).float().mean() > 0.95  # few dead features
    with torch.no_grad():
        layers = alex.net(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert all(0.05 < layer.std() < 20 for layer in layers)


def test_seeded_fid_orders_noise_levels(inception):
    target = smooth_images(4, 64, 32)
    reference = statistics(inception_features(inception, target).numpy())
    distances = [
        frechet_distance(statistics(inception_features(inception, with_noise(target, s)).numpy()), reference)
        for s in (5, 40)
    ]
    assert 0 < distances[0] < distances[1]


def test_inception_is_pytorch_fids_own_network(tmp_path, monkeypatch, inception):
    # pytorch-fid reads its weights from torch's cache: give it the seeded ones there and run its real constructor.
    from pytorch_fid.inception import FID_WEIGHTS_URL, InceptionV3

    state = inception.state_dict() | {"fc.bias": torch.zeros(1008)}
    state["fc.weight"] = state.pop("classifier")
    checkpoints = tmp_path / "hub/checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(state, checkpoints / FID_WEIGHTS_URL.rsplit("/", 1)[1])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    theirs = InceptionV3().eval()
    images = smooth_images(2, 64, 32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)[0].flatten(1)
    torch.testing.assert_close(inception_features(inception, images), expected, rtol=1e-4, atol=1e-5)

    loaded = inception_network(state)
    assert loaded.provenance == "published"
    assert torch.equal(loaded.Mixed_7c.branch1x1.conv.weight, inception.Mixed_7c.branch1x1.conv.weight)
    assert torch.equal(loaded.classifier, inception.classifier)


def test_networks_see_one_batch_size_and_blanks_are_dropped(monkeypatch):
    monkeypatch.setattr("pipeline.metrics.networks.BATCH", 16)
    seen, rows = [], np.arange(1, 20, dtype=np.float32)[:, None]

    def network(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.append((len(x), len(y), int((x == 0).sum())))
        return x + y

    found = in_batches(network, torch.device("cpu"), rows, 2 * rows)
    assert seen == [(16, 16, 0), (16, 16, 13)]  # 19 images: 13 blanks in the second
    np.testing.assert_array_equal(found, 3 * rows)
    seen.clear()
    np.testing.assert_array_equal(in_batches(network, torch.device("cpu"), rows, 2 * rows, most=8), 3 * rows)
    assert [count for count, _, _ in seen] == [8, 8, 8]


@pytest.mark.parametrize(("height", "width", "rows"), [(64, 32, 16), (128, 64, 16), (256, 256, 2), (600, 400, 1)])
def test_lpips_sees_as_many_pixels_at_a_time_as_its_caches_hold(monkeypatch, height, width, rows):
    monkeypatch.setattr("pipeline.metrics.networks.BATCH", 16)
    network, seen = lpips_network(None, net="squeeze"), []
    monkeypatch.setattr(network, "forward", lambda x, y: seen.append(len(x)) or torch.zeros(len(x)))
    images = np.zeros((3, height, width, 3), np.uint8)
    assert lpips(network, images, images).shape == (3,)
    assert masked_lpips(network, images, images, images[..., 0]).shape == (3,)
    assert set(seen) == {rows}


# PCKh


def standing(n: int = 1) -> Joints:
    """Poses with every joint known and a head box 20 wide and 16 high."""
    xy = np.random.default_rng(0).uniform(30, 60, (n, 18, 2))
    xy[:, [0, 1, 14, 15, 16, 17]] = [[50, 12], [50, 20], [45, 8], [55, 8], [40, 10], [60, 4]]
    return Joints(xy, np.ones((n, 18), bool))


def test_pckh_of_a_perfect_detection_is_one():
    result = pckh(standing(3), standing(3))
    assert result.correct.tolist() == result.joints.tolist() == [18, 18, 18]
    assert result.share.tolist() == [1, 1, 1]
    assert not result.degenerate.any()


def test_pckh_bounds_width_and_height_separately_and_strictly():
    target = standing(4)
    moved = target.xy.copy()
    moved[0, 5] += (10, 0)  # exactly half the width: wrong
    moved[1, 5] += (9.99, 7.99)  # inside both, although farther than either in the plane
    moved[2, 5] += (0, -8)  # exactly half the height: wrong
    moved[3, 5] += (9.5, 0)  # allowed in x, would be wrong in y
    assert pckh(Joints(moved, target.valid), target).correct.tolist() == [17, 18, 17, 18]


def test_pckh_counts_missing_joints():
    target, detected = standing(2), standing(2)
    detected.valid[0, [3, 4]] = False  # not detected: wrong
    target.valid[1, [3, 4]] = False  # not there: not counted, whatever is detected
    result = pckh(detected, target)
    assert result.correct.tolist() == [16, 16]
    assert result.joints.tolist() == [18, 16]


def test_pckh_skips_pairs_without_a_head_box_and_keeps_flat_ones():
    target = standing(3)
    target.valid[0, [0, 1, 14, 15, 16]] = False  # one head joint: no box
    target.valid[1, [0, 1, 16, 17]] = False  # both eyes at one height: a box without height
    target.valid[2, [0, 14, 15, 16]] = False  # neck and one ear: two are enough, and the others do not widen it
    target.xy[2, 14] = (-500, -500)
    result = pckh(standing(3), target)
    assert result.joints.tolist() == [0, 14, 14]
    assert result.correct.tolist() == [0, 0, 14]
    assert result.degenerate.tolist() == [False, True, False]
    np.testing.assert_array_equal(result.share, [np.nan, 0, 1])


# Bootstrap


def test_bootstrap_covers_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    samples = random.exponential(2.0, (300, 80))
    intervals = [bootstrap_interval(values, resamples=400, seed=i) for i, values in enumerate(samples)]
    covered = np.mean([i.low <= 2.0 <= i.high for i in intervals])
    assert (
        0.89 < covered < 0.98
    )  # the percentile interval of a skewed law of 80 is known to fall a little short of 0.95
    width = np.mean([i.high - i.low for i in intervals])
    assert width == pytest.approx(2 * 1.96 * 2.0 / np.sqrt(80), rel=0.06)


def test_bootstrap_is_deterministic_and_leaves_out_nan():
    values = np.random.default_rng(1).normal(size=50)
    holes = np.insert(values, [0, 20, 50], np.nan)
    first = bootstrap_interval(values, seed=5)
    assert first == bootstrap_interval(values, seed=5)
    assert first != bootstrap_interval(values, seed=6)
    assert bootstrap_interval(holes, seed=5) == first._replace(excluded=3)
    assert first.mean == pytest.approx(values.mean())
    assert np.isnan(bootstrap_interval(np.full(4, np.nan)).mean)
    assert bootstrap_interval(np.full(4, np.nan)).excluded == 4


def test_bootstrap_weights_pool_numerators_and_denominators():
    correct, joints = np.array([3, 9, 0, 5]), np.array([10, 10, 0, 5])
    share = np.divide(correct, joints, out=np.full(4, np.nan), where=joints > 0)
    interval = bootstrap_interval(share, joints)
    assert interval.mean == pytest.approx(17 / 25)
    assert (interval.n, interval.excluded) == (3, 1)
    assert 0.3 <= interval.low < 17 / 25 < interval.high <= 1
    assert bootstrap_interval(np.full(9, 0.25), np.arange(1, 10))[:3] == pytest.approx((0.25, 0.25, 0.25))


# One pass over all pairs

ALL = standard("alex", (), 64, 32)
N = 11  # not a multiple of any batch: the last one is partial


@pytest.fixture(scope="module")
def pairs(alex, inception):
    target = smooth_images(N, 64, 32)
    generated = with_noise(target, 15)
    generated[4] = target[4]
    xy, valid = random_poses(N, 64, 32)
    valid[6] = False
    inputs = {
        "generated": generated,
        "target": target,
        "masks": pose_masks(xy, valid, 64, 32),
        "detected": Joints(xy + np.random.default_rng(8).normal(0, 20, xy.shape), valid),
        "target_joints": Joints(xy, valid),
    }
    features = inception_features(inception, smooth_images(4, 64, 32, seed=9)).numpy()
    real = {"inception": statistics(features), "inception-sample": features}
    return inputs, {"networks": {"lpips-alex": alex, "inception": inception}, "real": real}


def seen(pairs, order, batch) -> PairScores:
    inputs, parts = pairs
    scores = PairScores([f"pair{i}" for i in range(N)], ALL, **parts)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        cut = {k: Joints(v.xy[rows], v.valid[rows]) if isinstance(v, Joints) else v[rows] for k, v in inputs.items()}
        scores.update([f"pair{i}" for i in rows], **cut)
    return scores


def score(pairs, order, batch):
    scores = seen(pairs, order, batch)
    return *scores.compute(), scores.counts


def test_scores_do_not_depend_on_batching_or_order(pairs):
    table, scores, counts = score(pairs, np.arange(N), batch=N)
    shuffled = np.random.default_rng(0).permutation(N)
    other_table, other_scores, other_counts = score(pairs, shuffled, batch=3)
    assert counts == other_counts
    for name, values in table.items():
        np.testing.assert_array_equal(values, other_table[name], err_msg=name)  # to the last bit
    assert scores == other_scores


def test_shares_add_up_to_the_whole(pairs):
    """What is counted, too: the pair of equal pictures is in the first share, that without joints in the second."""
    whole, scores = seen(pairs, np.arange(N), batch=4), seen(pairs, np.arange(5), batch=4)
    scores.add(seen(pairs, np.arange(5, N), batch=4).share())
    assert scores.counts == whole.counts
    assert whole.counts["identical_pairs"] == whole.counts["empty_masks"] == 1
    (table, totals), (expected, wanted) = scores.compute(), whole.compute()
    assert totals == wanted
    for name, values in expected.items():
        np.testing.assert_array_equal(values, table[name], err_msg=name)


def test_every_metric_enters_the_scores_as_defined(pairs):
    inputs, parts = pairs
    table, scores, counts = score(pairs, np.arange(N), batch=4)
    generated, target, masks = inputs["generated"], inputs["target"], inputs["masks"]
    has_mask = np.arange(N) != 6
    np.testing.assert_array_equal(table["ssim"], ssim(generated, target))
    cut = masks[..., None]
    np.testing.assert_array_equal(table["mask-psnr"][has_mask], psnr(generated * cut, target * cut)[has_mask])
    np.testing.assert_array_equal(table["mask-ssim"][has_mask], ssim(generated * cut, target * cut)[has_mask])
    np.testing.assert_array_equal(
        table["mask-lpips-alex-v0.1"][has_mask],
        masked_lpips(parts["networks"]["lpips-alex"], generated, target, masks)[has_mask],
    )
    result = pckh(inputs["detected"], inputs["target_joints"])
    assert scores["pckh@0.5"].value == pytest.approx(result.correct.sum() / result.joints.sum())
    features = inception_features(parts["networks"]["inception"], generated)
    expected = frechet_distance(statistics(features.numpy()), parts["real"]["inception"])
    assert scores["fid"].value == pytest.approx(expected, abs=1e-9)
    assert scores["fid"].n == scores["ssim"].n == scores["kid"].n == N
    for name in ("mask-ssim", "mask-psnr", "mask-lpips-alex-v0.1"):
        assert np.isnan(table[name][6])  # no joint, no mask, nothing compared
        assert (scores[name].n, scores[name].excluded) == (N - 1, 1)
    assert (counts["identical_pairs"], counts["empty_masks"]) == (1, 1)
    for name, value in scores.items():
        assert value.marks == (("weights",) if name in ("fid", "kid", "is") or "lpips" in name else ())
        assert value.low <= value.value <= value.high if name == "is" else value.low < value.value < value.high
    column = table["pckh@0.5:influence"]
    assert column.sum() == pytest.approx(0, abs=1e-12)


def test_pairs_are_matched_by_id():
    images = smooth_images(3)
    scores = PairScores(["a", "b", "c"], ["psnr"])
    scores.update(["c", "a"], images[[2, 0]], images[[2, 1]])
    with pytest.raises(UserError, match="pair a was scored before"):
        scores.update(["a"], images[:1], images[:1])
    with pytest.raises(UserError, match="pair x is not in the pair list"):
        scores.update(["x"], images[:1], images[:1])
    with pytest.raises(UserError, match="1 of 3 pairs have no generated image, first b"):
        scores.compute()
    scores.update(["b"], torch.from_numpy(images[:1]), torch.from_numpy(images[:1]))
    table, _ = scores.compute()
    np.testing.assert_array_equal(table["psnr"], psnr(images[[0, 0, 2]], images[[1, 0, 2]]))


@pytest.mark.parametrize(
    ("metrics", "message"),
    [(["ssm"], "no metric is called ssm"), (["lpips-alex-v0.1"], "needs the network"), (["fid"], "needs the network")],
)
def test_a_metric_without_its_parts_is_refused(metrics, message):
    with pytest.raises(UserError, match=message):
        PairScores(["a"], metrics)


def test_bad_batches_are_refused(inception):
    images = smooth_images(2)
    with pytest.raises(UserError, match="twice"):
        PairScores(["a", "a"], ["ssim"])
    with pytest.raises(UserError, match="real images' statistics"):
        PairScores(["a"], ["fid"], networks={"inception": inception})
    for bad in (images.astype(np.float32), images[..., :1], images[0]):
        with pytest.raises(UserError, match="give uint8"):
            PairScores(["a", "b"], ["ssim"]).update(["a", "b"], bad, images)
    with pytest.raises(UserError, match="of equal size"):
        PairScores(["a", "b"], ["ssim"]).update(["a", "b"], images[:, :24], images)
    with pytest.raises(UserError, match="target-pose masks"):
        PairScores(["a", "b"], ["mask-ssim"]).update(["a", "b"], images, images)
    with pytest.raises(UserError, match="detected and target joints"):
        PairScores(["a", "b"], ["pckh@0.5"]).update(["a", "b"], images, images)


def test_the_registry_is_consistent():
    known = {*GIVEN, "lpips-alex", "lpips-vgg", "lpips-squeeze", "inception", "inception-tv", "reid", "parser"}
    for name, metric in METRICS.items():
        assert metric.name == name
        assert set(metric.needs) <= known
        assert (metric.per_pair is None) != (metric.of_set is None)
        assert (metric.of_set is None) == (metric.feature is None)
    protocols = (Path(__file__).parents[2] / "docs/protocols.md").read_text(encoding="utf-8")
    assert not [name for name in METRICS | OF_PARSING if f"`{name}`" not in protocols]
    assert not METRICS.keys() & OF_PARSING.keys()
