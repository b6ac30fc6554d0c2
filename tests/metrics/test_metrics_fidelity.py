"""Inception features, FID, KID and IS against torch-fidelity, which has its own port of TensorFlow's network."""

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from pipeline.metrics.fid import frechet_distance, statistics_of
from pipeline.metrics.inception import inception_network
from pipeline.metrics.inception_score import inception_score
from pipeline.metrics.kid import kid
from tests.metrics.test_metrics import smooth_images

pytestmark = pytest.mark.usefixtures("small_batches_on_one_thread")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Ours and torch-fidelity's network with the same weights, batch norms that do something, in float64: then rounding
    hides nothing, which in float32 reaches 1e-4.
    """
    random = torch.Generator().manual_seed(4)
    state = inception_network(None, seed=4).state_dict()
    for name, tensor in state.items():
        if name.endswith(("running_mean", "bias")):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=random))
        elif name.endswith(("running_var", "bn.weight")):
            tensor.copy_(0.8 + 0.4 * torch.rand(tensor.shape, generator=random))
    state["fc.weight"] = state.pop("classifier")
    state["fc.bias"] = torch.randn(1008, generator=random)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path)
    theirs = FeatureExtractorInceptionV3("shared", ["2048", "logits_unbiased"], feature_extractor_weights_path=path)
    theirs.feature_extractor_internal_dtype = torch.float64  # its own option for this leaves float32 in place
    return inception_network(state).double(), theirs.double()


def test_the_network_is_torch_fidelitys(both):
    """At 299x299, where neither resizes. torch-fidelity scales pixels by (v - 128) / 128, we by v / 127.5 - 1."""
    ours, theirs = both
    images = torch.from_numpy(smooth_images(2, 304, 304)[:, :299, :299]).permute(0, 3, 1, 2).contiguous()
    features, logits = theirs(images)
    with torch.inference_mode():
        own = ours(images.double() / 256)  # 2 v / 256 - 1 = (v - 128) / 128
    assert features.std(dim=0).mean() > 0.01  # two images differ
    torch.testing.assert_close(own.float(), features, rtol=1e-6, atol=1e-7)  # theirs come as float32
    torch.testing.assert_close((own @ ours.classifier.T).float(), logits, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Features of two sets of images, (60, 256) and (50, 256)."""
    random = np.random.default_rng(0)
    mix = random.normal(0, 0.15, (64, 256))
    return tuple(np.maximum(random.normal(shift, 1, (n, 64)) @ mix + 0.3, 0) for n, shift in ((60, 0.3), (50, 0)))


def test_fid_is_torch_fidelitys(sets):
    theirs = [fid_features_to_statistics(torch.from_numpy(features)) for features in sets]
    expected = fid_statistics_to_metric(*theirs, False)["frechet_inception_distance"]
    assert frechet_distance(*map(statistics_of, sets)) == pytest.approx(expected, rel=1e-4)


def test_kid_is_torch_fidelitys_on_one_subset_of_all(sets):
    one, other = (torch.from_numpy(features[:50]) for features in sets)
    options = {"kid_subsets": 1, "kid_subset_size": 50, "rng_seed": 0, "verbose": False}
    expected = kid_features_to_metric(one, other, **options)["kernel_inception_distance_mean"]
    assert kid(one.numpy(), other.numpy())[0] == pytest.approx(expected, rel=1e-9)


def test_inception_score_is_torch_fidelitys_in_the_order_of_the_list(sets):
    classifier = np.random.default_rng(1).normal(0, 0.2, (1008, 256))
    logits = torch.from_numpy(sets[0] @ classifier.T)
    expected = isc_features_to_metric(logits, splits=10, shuffle=False)["inception_score_mean"]
    assert expected > 1.5
    assert inception_score(sets[0], classifier)[0] == pytest.approx(expected, rel=1e-9)
