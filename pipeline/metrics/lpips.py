"""LPIPS v0.1 (Zhang et al. 2018) by the `lpips` package: its own 1x1 heads, given trunk weights."""

import warnings
from collections.abc import Callable, Mapping

import lpips as package
import numpy as np
import torch

from pipeline.loading.pixels import as_floats
from pipeline.metrics.networks import BATCH, Undrawn, in_batches, load_weights, seed_weights

PIXELS = 16 * 128 * 64  # of a batch on a CPU: layers of more outgrow its caches (benchmarks/scoring.md)


def lpips_network(state_dict: Mapping[str, torch.Tensor] | None, seed: int = 0, net: str = "alex") -> package.LPIPS:
    """The network in eval mode on the CPU; `provenance` is "published" or "seeded".

    net: "alex", "vgg" or "squeeze". state_dict: torchvision's `alexnet`, `vgg16` or `squeezenet1_1` weights, whole or
    only their `features` part, or None for seeded ones. The heads, which weigh the layers' channels, come with the
    package and are always the published ones. Raises UserError if the tensors do not fit.
    """
    with Undrawn(), warnings.catch_warnings():  # the package's constructor draws a whole AlexNet, and warns
        warnings.simplefilter("ignore")
        network = package.LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)
    if state_dict is None:
        seed_weights(network.net, seed)
    else:
        load_weights(network.net, _trunk_state(network.net, state_dict), f"LPIPS {net}")
    network.provenance = "seeded" if state_dict is None else "published"
    return network.eval().requires_grad_(False)


def _trunk_state(trunk: torch.nn.Module, state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # The package cuts torchvision's `features` into slices but keeps the layers' numbers: slice2.3.weight is
    # 3.weight.
    slices = {key.split(".", 1)[1]: key for key in trunk.state_dict()}
    features = {k.removeprefix("features."): v for k, v in state_dict.items() if not k.startswith("classifier.")}
    return {slices.get(key, key): value for key, value in features.items()}


def lpips(network: package.LPIPS, generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB twice -> (N,) float64, 0 for identical images. The network sees [-1, 1]."""
    return _to_float64(_by_size(network, lambda x, y: network(_scale(x), _scale(y)), generated, target))


def masked_lpips(network: package.LPIPS, generated: np.ndarray, target: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """As `lpips`, both images multiplied by masks (N, H, W) uint8 {0, 1} in [-1, 1]: outside is mid-grey."""

    def distance(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return network(_scale(x) * mask[:, None], _scale(y) * mask[:, None])

    return _to_float64(_by_size(network, distance, generated, target, masks))


def lpips_of_floats(network: package.LPIPS, generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """As `lpips`, of (N, H, W, 3) float32 that the network sees as they are."""

    def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return network(x.permute(0, 3, 1, 2), y.permute(0, 3, 1, 2))

    return _to_float64(_by_size(network, distance, generated, target))


def _by_size(
    network: package.LPIPS, distance: Callable[..., torch.Tensor], images: np.ndarray, *arrays: np.ndarray
) -> torch.Tensor:
    """`in_batches` on the network's device, of as many images as are fast there, which depends on their size alone."""
    device = next(network.parameters()).device
    most = max(1, PIXELS // (images.shape[1] * images.shape[2])) if device.type == "cpu" else BATCH
    return in_batches(distance, device, images, *arrays, most=most)


def _scale(images: torch.Tensor) -> torch.Tensor:
    return as_floats(images.permute(0, 3, 1, 2))


def _to_float64(distances: torch.Tensor) -> np.ndarray:
    return distances.flatten().double().cpu().numpy()
