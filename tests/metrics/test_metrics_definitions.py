"""Each further definition against a second library, a closed form or brute force; each fails if it is changed."""

import cv2
import lpips as package
import numpy as np
import pytest
import torch
import torchvision
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pipeline.core.errors import UserError
from pipeline.metrics import FEATURES, METRICS, identity, inception_score, standard
from pipeline.metrics.bootstrap import bootstrap_interval, draws, influence_of_pooled, resampled_sums
from pipeline.metrics.fid import frechet_distance, frechet_influence, statistics_of
from pipeline.metrics.inception import inception_features, torchvision_inception
from pipeline.metrics.kid import BLOCK, kid
from pipeline.metrics.lpips import lpips, lpips_network, masked_lpips
from pipeline.metrics.parsing_iou import label_counts, mean_iou
from pipeline.metrics.pckh import Joints
from pipeline.metrics.pose_error import pose_error
from pipeline.metrics.psnr import psnr, psnr_inside
from pipeline.metrics.ssim import ssim, ssim_gaussian, ssim_inside, ssim_maps, ssim_padded, ssim_uniform
from pipeline.metrics.stream import Comparison
from tests.metrics.test_metrics import smooth_images, with_noise

pytestmark = pytest.mark.usefixtures("small_batches_on_one_thread")

GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
GAUSSIAN_12 = GAUSSIAN | {"sigma": 1.2}


def noisy_pairs(n: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    target = np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    target[0, :, : width // 2] = 0  # flat: where a variance by difference of squares is least exact
    return with_noise(target, 25), target


# SSIM in other windows


@pytest.mark.parametrize(("window", "size"), [(7, (7, 7)), (7, (48, 33)), (51, (51, 51)), (51, (64, 57))])
def test_uniform_windows_equal_scikit_images_default(window, size):
    generated, target = noisy_pairs(3, *size)
    expected = [
        structural_similarity(x, y, win_size=window, data_range=255, channel_axis=2)
        for x, y in zip(generated, target, strict=True)
    ]
    np.testing.assert_allclose(ssim_uniform(generated, target, window), expected, atol=1e-9)


def test_win51_is_gflas_call_on_floats():
    generated, target = noisy_pairs(2, 64, 60)
    floats = [(images / 255).astype(np.float64) for images in (generated, target)]
    expected = [structural_similarity(y, x, win_size=51, data_range=1, channel_axis=2) for x, y in zip(*floats)]  # noqa: B905
    np.testing.assert_allclose(ssim_uniform(generated, target, 51), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sigma": 1.2}, GAUSSIAN_12 | {"data_range": 255}),
        ({"sigma": 1.2, "sample": True}, GAUSSIAN_12 | {"data_range": 255, "use_sample_covariance": True}),
        ({"sigma": 1.2, "own_range": True}, GAUSSIAN_12),
        ({"own_range": True}, GAUSSIAN),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [(11, 11), (48, 33)])
def test_other_gaussians_and_ranges_are_scikit_images(options, expected, kind, size):
    """By its call as PIDM and PCDMs have it, on 8 bits and on the floats of a resized picture."""
    generated, target = (30 + images // 2 for images in noisy_pairs(3, *size))
    generated, target = generated.astype(kind), target.astype(kind)
    if kind == np.float32:
        generated[..., :3, :] += 0.37
    wanted = [
        structural_similarity(x, y, channel_axis=2, **{"data_range": float(x.max() - x.min())} | expected)
        for x, y in zip(generated.astype(np.float64), target.astype(np.float64), strict=True)
    ]
    np.testing.assert_allclose(ssim_gaussian(generated, target, **options), wanted, atol=1e-9)


def test_the_range_of_an_image_of_one_value_is_none():
    flat, other = np.full((1, 16, 16, 3), 60, np.uint8), smooth_images(1, 16, 16)
    assert np.isnan(ssim_gaussian(flat, other, own_range=True)).all()
    assert np.isnan(ssim_gaussian(flat, flat, own_range=True)).all()
    assert np.isfinite(ssim_gaussian(other, flat, own_range=True)).all()


def test_padded_ssim_adds_forty_white_columns_a_side():
    generated, target = noisy_pairs(2, 32, 24)
    white = np.full((2, 32, 40, 3), 255, np.uint8)
    expected = [
        structural_similarity(x, y, data_range=255, channel_axis=2, **GAUSSIAN)
        for x, y in zip(*(np.concatenate([white, m, white], axis=2) for m in (generated, target)), strict=True)
    ]
    np.testing.assert_allclose(ssim_padded(generated, target), expected, atol=1e-9)
    # the lift by which the papers' two families of numbers differ: 80 of 256 columns agree perfectly
    generated, target = noisy_pairs(3, 64, 176)
    lifted = 0.3125 + 0.6875 * ssim(generated, target)
    np.testing.assert_allclose(ssim_padded(generated, target), lifted, atol=0.03)


def test_inside_ssim_averages_the_map_over_the_mask():
    generated, target = noisy_pairs(3, 40, 36)
    masks = (np.random.default_rng(1).random((3, 40, 36)) < 0.4).astype(np.uint8)
    masks[2] = 0
    masks[2, :5] = 1  # only where no window fits
    values = ssim_inside(ssim_maps(generated, target), masks)
    for row in range(2):
        _, full = structural_similarity(
            generated[row], target[row], data_range=255, channel_axis=2, full=True, **GAUSSIAN
        )
        inner, map_inside = masks[row, 5:-5, 5:-5].astype(bool), full[5:-5, 5:-5]
        assert values[row] == pytest.approx(map_inside[inner].mean(), abs=1e-9)
    assert np.isnan(values[2])
    np.testing.assert_allclose(
        ssim_inside(ssim_maps(generated, target), np.ones_like(masks)), ssim(generated, target), atol=1e-12
    )


@pytest.mark.parametrize("function", [lambda g, t: ssim_uniform(g, t, 7), lambda g, t: ssim_uniform(g, t, 51)])
def test_images_smaller_than_the_window_are_refused(function):
    small = np.zeros((1, 6, 80, 3), np.uint8)
    with pytest.raises(UserError, match="80x6"):
        function(small, small)


def test_inside_psnr_divides_by_the_masks_pixels():
    generated, target = noisy_pairs(3, 16, 12)
    masks = np.zeros((3, 16, 12), np.uint8)
    masks[:2, 4:9, 2:7] = 1
    target[1, 4:9, 2:7] = generated[1, 4:9, 2:7]  # identical inside: one grey level in 25 pixels of three channels
    error = (generated[0, 4:9, 2:7].astype(float) - target[0, 4:9, 2:7]) ** 2
    expected = [10 * np.log10(255**2 / error.mean()), 10 * np.log10(255**2 * 75)]
    values = psnr_inside(generated, target, masks)
    np.testing.assert_allclose(values[:2], expected, rtol=1e-12)
    assert np.isnan(values[2])
    np.testing.assert_allclose(psnr_inside(generated, target, np.ones_like(masks)), psnr(generated, target))


@pytest.mark.parametrize("seed", range(8))
def test_masks_and_ranges_hold_for_any_images(seed):
    """Bounds, symmetry and what a mask may see, on random sizes, images and masks."""
    random = np.random.default_rng(seed)
    height, width = random.integers(11, 40, 2)
    generated, target = random.integers(0, 256, (2, 3, height, width, 3), dtype=np.uint8)
    masks = (random.random((3, height, width)) < random.uniform(0.1, 0.9)).astype(np.uint8)
    for function in (ssim, ssim_padded, lambda x, y: ssim_uniform(x, y, 7)):
        values = function(generated, target)
        assert ((values >= -1) & (values <= 1)).all()
        np.testing.assert_allclose(values, function(target, generated), atol=1e-12)
        np.testing.assert_allclose(function(target, target), 1, atol=1e-12)
    assert (psnr(generated, target) >= 0).all()
    # what lies outside the mask has no say in the masked and in the inside forms
    other = np.where(masks[..., None] == 1, generated, random.integers(0, 256, generated.shape, dtype=np.uint8))
    np.testing.assert_array_equal(psnr_inside(other, target, masks), psnr_inside(generated, target, masks))
    cut = masks[..., None]
    np.testing.assert_array_equal(psnr(other * cut, target * cut), psnr(generated * cut, target * cut))
    # the whole image has more pixels to share the same error
    assert (psnr(generated * cut, target * cut) >= psnr_inside(generated, target, masks) - 1e-9).all()


def test_sizes_decide_which_metrics_there_are():
    small, market, cropped, square = (
        standard("alex", (), *size) for size in ((64, 32), (128, 64), (256, 176), (256, 256))
    )
    assert not {"ssim-win51", "ssim-padded"} & set(small)
    assert "ssim-win51" in market
    assert "ssim-padded" in cropped
    assert "ssim-padded" not in [*market, *square]
    assert [name for name in market if "lpips" in name] == ["lpips-alex-v0.1", "mask-lpips-alex-v0.1"]
    assert set(standard("alex", ("mask-is", "lpips-vgg-v0.1"), 128, 64)) - set(market) == {"mask-is", "lpips-vgg-v0.1"}


def test_every_pixel_metric_is_the_definition_of_its_name():
    """What the registry computes under each name, against scikit-image, on a size that all are defined for."""
    generated, target = (40 + images // 2 for images in noisy_pairs(1, 64, 176))
    own = {"data_range": int(generated.max()) - int(generated.min())}
    mask = np.zeros((64, 176), np.uint8)
    mask[10:50, 60:100] = 1

    def similarity(cut: int, pad: int = 0, **options) -> float:
        pair = [i[0] * mask[..., None] if cut else i[0] for i in (generated, target)]
        pair = [np.pad(i, ((0, 0), (pad, pad), (0, 0)), constant_values=255) for i in pair]
        return structural_similarity(*pair, channel_axis=2, **{"data_range": 255} | options)

    def decibels(one: np.ndarray, other: np.ndarray) -> float:
        return peak_signal_noise_ratio(one, other, data_range=255)

    full = structural_similarity(generated[0], target[0], data_range=255, channel_axis=2, full=True, **GAUSSIAN)[1]
    cut = mask[..., None]
    expected = {
        "ssim": similarity(0, **GAUSSIAN),
        "ssim-uniform7": similarity(0),
        "ssim-win51": similarity(0, win_size=51),
        "ssim-padded": similarity(0, pad=40, **GAUSSIAN),
        "ssim-gauss12": similarity(0, **GAUSSIAN_12),
        "ssim-own-range": similarity(0, **GAUSSIAN, **own),
        "ssim-gauss12-own-range": similarity(0, **GAUSSIAN_12, **own),
        "psnr": decibels(generated, target),
        "mask-ssim": similarity(1, **GAUSSIAN),
        "mask-ssim-uniform7": similarity(1),
        "mask-ssim-win51": similarity(1, win_size=51),
        "mask-psnr": decibels(generated * cut, target * cut),
        "inside-ssim": full[mask == 1].mean(),
        "inside-psnr": decibels(generated[0][mask == 1], target[0][mask == 1]),
    }
    compared = Comparison(generated, target, {}, mask[None])
    found = {n: m.per_pair(compared)[0] for n, m in METRICS.items() if m.per_pair and set(m.needs) <= {"masks"}}
    assert found == pytest.approx(expected, abs=1e-9)
    assert len({round(value, 4) for value in found.values()}) == len(found)  # no two could be exchanged unseen


class Brightness(torch.nn.Module):
    """Stands for Inception: the mean of each channel."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) * self.weight


def test_what_networks_are_shown_under_each_name():
    generated, target = noisy_pairs(2, 24, 16)
    masks = np.zeros((2, 24, 16), np.uint8)
    masks[:, :9] = 1
    joints = [Joints(np.full((2, 18, 2), at), np.ones((2, 18), bool)) for at in (3.0, 8.0)]
    shown = []

    def parser(images, xy, valid):
        shown.append((np.stack(images), xy))
        return np.zeros((2, 24, 16), np.uint8)

    axes = np.eye(256)[:3]
    networks = {
        "inception": Brightness(),
        "inception-tv": Brightness(),
        "parser": parser,
        "reid": lambda i: axes[[0, 0]],
    }
    labels = np.zeros((2, 24, 16), np.uint8)
    compared = Comparison(generated, target, networks, masks, *joints, labels, {"reid": (axes[[0, 1]], axes[[2, 0]])})
    for name, images in (
        ("inception", generated),
        ("inception-tv", generated),
        ("mask-inception", generated * masks[..., None]),
    ):
        np.testing.assert_allclose(FEATURES[name].of(compared), images.mean(axis=(1, 2)) / 255, rtol=1e-5)
    FEATURES["parsing"].of(compared)
    np.testing.assert_array_equal(shown[0][0], generated)
    assert (shown[0][1] == 3).all()  # where the detector found joints, not where the target has them
    assert METRICS["identity-source"].per_pair(compared).tolist() == [1, 0]
    assert METRICS["identity-target"].per_pair(compared).tolist() == [0, 1]
    counts = label_counts(np.array([[[0, 0, 5, 5]]], np.uint8), np.array([[[0, 0, 0, 5]]], np.uint8))
    assert METRICS["parsing-miou"].of_set(counts, {}, None)[0] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert METRICS["parsing-miou-fg"].of_set(counts, {}, None)[0] == pytest.approx(1 / 2)


def test_embeddings_have_length_one_and_come_from_bgr_at_256x128():
    seen = []

    class Network:
        def infer(self, planes):
            seen.append(planes)
            return [np.arange(256, dtype=np.float32)]

    network = identity.ReId.__new__(identity.ReId)
    network._network = Network()
    images = np.zeros((1, 64, 32, 3), np.uint8)
    images[..., 2] = 200
    assert np.linalg.norm(network(images)) == pytest.approx(1)
    assert seen[0].shape == (1, 3, 256, 128)
    assert seen[0].mean(axis=(0, 2, 3)).tolist() == [200, 0, 0]


# LPIPS


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_lpips_equals_the_package_itself(net):
    generated, target = smooth_images(3, 64, 64), with_noise(smooth_images(3, 64, 64), 20)
    network = lpips_network(
        None, seed=1, net=net
    )  # the package's own class, our seeded trunk; what is ours is the input
    with torch.no_grad():
        expected = [
            network(*(package.im2tensor(i) for i in pair)).item() for pair in zip(generated, target, strict=True)
        ]
    np.testing.assert_allclose(lpips(network, generated, target), expected, atol=1e-6)
    masks = np.zeros((3, 64, 64), np.uint8)
    masks[:, 8:40, 16:50] = 1
    with torch.no_grad():
        cut = [
            [package.im2tensor(i) * torch.from_numpy(m) for i in pair]
            for *pair, m in zip(generated, target, masks, strict=True)
        ]
        expected = [network(*pair).item() for pair in cut]
    np.testing.assert_allclose(masked_lpips(network, generated, target, masks), expected, atol=1e-6)


# Frechet distance by the other Inception, and the influence of one image


def test_torchvision_inception_is_gflas_feature_extractor():
    network = torchvision_inception(None, seed=2)
    torch.manual_seed(0)
    theirs = torchvision.models.inception_v3(weights=None, init_weights=False).eval()
    assert theirs.load_state_dict(network.state_dict(), strict=False).unexpected_keys == []
    pooled = []
    theirs.avgpool.register_forward_hook(lambda *args: pooled.append(args[2].flatten(1)))
    images = smooth_images(2, 64, 32)
    with torch.no_grad():  # as its script: resized, then rescaled as if ImageNet-normalised
        x = torch.nn.functional.interpolate(
            torch.from_numpy(images).permute(0, 3, 1, 2) / 255, (299, 299), mode="bilinear"
        )
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        theirs(x * (std / 0.5) + (mean - 0.5) / 0.5)
    torch.testing.assert_close(inception_features(network, images), pooled[0], rtol=1e-4, atol=1e-5)
    full = theirs.state_dict()
    assert torchvision_inception(full).provenance == "published"
    with pytest.raises(UserError, match="torchvision Inception"):
        torchvision_inception({k: v for k, v in full.items() if k != "Mixed_7c.branch1x1.conv.weight"})


@pytest.mark.parametrize(("count", "dimensions"), [(300, 12), (25, 40)])
def test_influence_is_the_derivative_of_the_distance_by_a_weight(count, dimensions):
    """One image gets a little more weight: the distance moves by it times influence. Also for singular covariances."""
    random = np.random.default_rng(0)
    real = random.normal(0.3, 1, (200, dimensions)) @ random.normal(0, 1, (dimensions, dimensions))
    features = random.normal(0, 1, (count, dimensions)) @ random.normal(0, 1, (dimensions, dimensions))
    reference = statistics_of(real)
    value, influence = frechet_influence(features, reference)
    assert value == pytest.approx(frechet_distance(statistics_of(features), reference), rel=1e-8)
    assert influence.mean() == pytest.approx(0, abs=1e-9)

    def distance(weights: np.ndarray) -> float:
        weights = weights / weights.sum()
        mean = weights @ features
        covariance = (features - mean).T @ ((features - mean) * weights[:, None]) * count / (count - 1)
        root = reference.root()
        product = np.linalg.eigvalsh(root.T @ covariance @ root).clip(min=0)
        product[product < 1e-9 * product.max()] = 0
        shift = mean - reference.mean
        return shift @ shift + np.trace(covariance) + np.square(root).sum() - 2 * np.sqrt(product).sum()

    step = 1e-4
    for row in (0, 7, count - 1):
        more, less = np.ones(count), np.ones(count)
        more[row] += step
        less[row] -= step
        slope = (distance(more) - distance(less)) / (2 * step) * count
        assert slope == pytest.approx(influence[row], rel=1e-4, abs=1e-4 * np.abs(influence).max())


def test_fids_interval_is_as_wide_as_new_draws_of_images_spread():
    random = np.random.default_rng(1)
    reference = statistics_of(random.normal(0, 1, (4000, 6)))
    draws = [random.normal(0.4, 1.3, (400, 6)) for _ in range(120)]
    values = np.array([frechet_distance(statistics_of(draw), reference) for draw in draws])
    widths = []
    for draw in draws[:20]:
        value, influence = frechet_influence(draw, reference)
        interval = bootstrap_interval(value + influence, resamples=400)
        widths.append(interval.high - interval.low)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * values.std(), rel=0.15)


# KID and IS


def brute_force_kid(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    among = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    real = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return among + real - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_kid_is_the_unbiased_estimate_of_the_paper():
    random = np.random.default_rng(0)
    x, y = random.normal(0.5, 1, (23, 8)), random.normal(0, 1, (17, 8))
    value, influence = kid(x, y)
    assert value == pytest.approx(brute_force_kid(x, y), rel=1e-12)
    # Leaving a pair out moves a U-statistic by the influence over n, to first order.
    moved = [kid(np.delete(x, row, axis=0), y)[0] for row in range(23)]
    jackknife = 22 * (value - np.array(moved))
    assert np.corrcoef(jackknife, influence)[0, 1] > 0.999
    assert np.std(jackknife) == pytest.approx(np.std(influence), rel=0.15)
    same = [kid(*random.normal(0, 1, (2, 60, 8)))[0] for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(200)  # unbiased: 0 for one law, at 60 images
    assert min(same) < 0
    with pytest.raises(UserError, match="two images"):
        kid(x[:1], y)


def test_kid_in_blocks_equals_kid_at_once(monkeypatch):
    random = np.random.default_rng(3)
    x, y = random.normal(0.2, 1, (37, 5)).astype(np.float32), random.normal(0, 1, (29, 5)).astype(np.float32)
    assert BLOCK > 37
    whole, influence = kid(x, y)
    monkeypatch.setattr("pipeline.metrics.kid.BLOCK", 8)
    parts, other = kid(x, y)
    assert parts == pytest.approx(whole, rel=1e-12)
    np.testing.assert_allclose(other, influence, atol=1e-12)


def test_inception_score_has_its_closed_forms():
    # Ten splits of four images; class probabilities are softmax of the features through an identity classifier.
    classes = 8
    classifier = np.eye(classes)
    certain = 60 * np.eye(classes)[np.tile([0, 1, 2, 3], 10)]  # four sure, different classes in every split: exp(log 4)
    assert inception_score.inception_score(certain, classifier)[0] == pytest.approx(4)
    sorted_classes = 60 * np.eye(classes)[np.repeat(np.arange(10) % classes, 4)]  # one class a split: 1
    assert inception_score.inception_score(sorted_classes, classifier)[0] == pytest.approx(1)
    assert inception_score.inception_score(np.ones((40, classes)), classifier)[0] == pytest.approx(1)
    assert np.isnan(inception_score.inception_score(certain[:9], classifier)[0])


def test_inception_score_is_the_published_script():
    random = np.random.default_rng(0)
    features, classifier = random.normal(0, 1, (47, 20)), random.normal(0, 1, (30, 20))  # 47: unequal splits
    logits = features @ classifier.T
    predictions = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = []
    for i in range(10):
        part = predictions[(i * 47 // 10) : ((i + 1) * 47 // 10)]
        divergence = part * (np.log(part) - np.log(part.mean(axis=0, keepdims=True)))
        scores.append(np.exp(divergence.sum(axis=1).mean()))
    value, influence = inception_score.inception_score(features, classifier)
    assert value == pytest.approx(np.mean(scores), rel=1e-12)
    assert influence.mean() == pytest.approx(0, abs=1e-12)
    # One image twice in its split, as first-order change
    first = np.concatenate([predictions[:4], predictions[2:3]])
    exact = np.exp((first * (np.log(first) - np.log(first.mean(axis=0)))).sum(axis=1).mean())
    weights = np.ones(4)
    weights[2] += 1e-5
    mean = weights @ predictions[:4] / weights.sum()
    divergence = (predictions[:4] * (np.log(predictions[:4]) - np.log(mean))).sum(axis=1)
    moved = np.exp(weights @ divergence / weights.sum())
    slope = (moved - scores[0]) / 1e-5 * 47 / 10
    assert influence[2] == pytest.approx(slope, rel=1e-3)
    assert exact != pytest.approx(scores[0])


# Parsing, identity, pose error


def test_miou_sums_over_pairs_and_averages_over_the_targets_labels():
    target = np.array([[[0, 0, 5, 5]], [[0, 0, 0, 9]]], np.uint8)
    parsed = np.array([[[0, 5, 5, 5]], [[0, 0, 9, 13]]], np.uint8)
    counts = label_counts(parsed, target)
    # background 3 of 5, label 5: 2 of 3, label 9: 0 of 2; 13 is in no target and does not count
    assert mean_iou(counts, background=True)[0] == pytest.approx((3 / 5 + 2 / 3 + 0) / 3)
    assert mean_iou(counts, background=False)[0] == pytest.approx((2 / 3 + 0) / 2)
    assert mean_iou(label_counts(target, target), background=False)[0] == 1
    empty = label_counts(np.zeros((2, 1, 4), np.uint8), np.zeros((2, 1, 4), np.uint8))
    assert np.isnan(mean_iou(empty, background=False)[0])


def test_mious_influence_is_its_derivative():
    random = np.random.default_rng(0)
    target = random.integers(0, 4, (30, 6, 6)).astype(np.uint8)
    parsed = np.where(random.random((30, 6, 6)) < 0.7, target, random.integers(0, 4, (30, 6, 6))).astype(np.uint8)
    counts = label_counts(parsed, target).astype(np.float64)
    value, influence = mean_iou(counts, background=True)
    more = counts.copy()
    more[11] *= 1 + 1e-6
    assert (mean_iou(more, background=True)[0] - value) / 1e-6 * 30 == pytest.approx(influence[11], rel=1e-4)


def test_pose_error_is_the_mean_distance_of_the_joints_found():
    xy, valid = np.zeros((2, 18, 2)), np.zeros((2, 18), bool)
    valid[0, :3] = True
    moved, seen = xy.copy(), valid.copy()
    moved[0, 0], moved[0, 1], moved[0, 2] = (3, 4), (0, 2), (50, 50)
    seen[0, 2] = False  # not detected: no distance
    seen[1, 5] = True  # not in the target: not counted
    found = pose_error(Joints(moved, seen), Joints(xy, valid))
    assert found.joints.tolist() == [2, 0]
    assert found.mean[0] == pytest.approx(3.5)
    assert np.isnan(found.mean[1])


@pytest.fixture(scope="module")
def reid(mirror):
    return identity.ReId(sorted((mirror / "weights").glob("person-reidentification-retail-0287.*")))


@pytest.mark.real
def test_identity_tells_the_same_person_from_others(reid, mirror):
    import io
    import zipfile

    with zipfile.ZipFile(mirror / "market1501/Market-1501-v15.09.15.zip") as images:
        names = sorted(n for n in images.namelist() if "bounding_box_test/" in n and n.split("/")[-1][0] in "12")
        people = {}
        for name in names:
            people.setdefault(name.split("/")[-1][:4], []).append(name)
        pairs = [group[:: len(group) - 1] for group in people.values() if len(group) > 3][:40]
        flat = [
            cv2.imdecode(np.frombuffer(io.BytesIO(images.read(n)).read(), np.uint8), 1)[..., ::-1]
            for p in pairs
            for n in p
        ]
    embedded = reid(np.stack(flat))
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)
    one, other = embedded[::2], embedded[1::2]
    same = identity.similarity(one, other)
    different = identity.similarity(one, np.roll(other, 1, axis=0))
    assert same.mean() > different.mean() + 0.2
    assert np.mean((one @ other.T).argmax(axis=1) == np.arange(len(one))) > 0.6  # finds the same person among forty
    np.testing.assert_array_equal(reid(np.stack(flat[3:5])), embedded[3:5])  # no value depends on the batch
    np.testing.assert_allclose(identity.similarity(one, one), 1, atol=1e-6)


@pytest.mark.real
def test_another_network_is_no_reid_network(mirror):
    with pytest.raises(UserError, match="not person-reidentification"):
        identity.ReId(sorted((mirror / "weights").glob("human-pose-estimation-0001.*")))


# What metrics of a set keep, and resampling


def test_storage_of_features_lies_in_a_file_and_needs_no_order():
    values = np.random.default_rng(0).normal(size=(9, 60)).astype(np.float32)
    kept = FEATURES["parsing"].storage(9)
    for part in np.array_split(np.random.default_rng(1).permutation(9), 4):
        kept[part] = values[part]
    assert isinstance(kept, np.memmap)
    np.testing.assert_array_equal(kept, values)


def test_columns_resampled_apart_are_resampled_together():
    values = np.random.default_rng(0).normal(size=(40, 2))
    both = resampled_sums(values, 100, seed=3)
    draws.cache_clear()
    np.testing.assert_allclose(both[:, 1], resampled_sums(values[:, 1:], 100, seed=3)[:, 0], rtol=1e-12)
    ones = resampled_sums(np.ones((40, 1)), 100, seed=3)
    assert (ones == 40).all()  # as many pairs as there are
    assert len(np.unique(both[:, 0])) > 90
    # The interval of a difference: two noisy methods that share their noise are told apart.
    shared = np.random.default_rng(1).normal(0, 5, 200)
    better, worse = shared + 0.3, shared + np.random.default_rng(2).normal(0, 0.1, 200)
    alone = bootstrap_interval(better)
    assert alone.low < np.mean(worse) < alone.high
    assert bootstrap_interval(better - worse).low > 0.27


def test_influence_of_a_pooled_mean_is_its_derivative():
    values, weights = np.array([0.5, 0.25, np.nan, 1.0]), np.array([4.0, 8.0, 0.0, 2.0])
    influence = influence_of_pooled(values, weights)

    def pooled(times: np.ndarray) -> float:
        kept = weights > 0
        return (times * weights * values)[kept].sum() / (times * weights)[kept].sum()

    for row in range(4):
        more = np.ones(4)
        more[row] += 1e-6
        assert (pooled(more) - pooled(np.ones(4))) / 1e-6 * 4 == pytest.approx(influence[row], rel=1e-4, abs=1e-9)
    assert influence[2] == 0
    assert not influence_of_pooled(np.array([np.nan]), np.zeros(1)).any()


def test_every_metric_of_a_set_has_a_feature():
    assert {m.name for m in METRICS.values() if m.of_set} == {
        "fid", "fid-train-tv", "kid", "is", "mask-is", "parsing-miou", "parsing-miou-fg",
    }  # fmt: skip
