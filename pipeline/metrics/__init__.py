"""The metrics: one line each. `docs/protocols.md` defines every protocol in full.

To add a metric, write its module beside the others (pure functions on a batch) and add its line here:
`stream.PairScores` then feeds it in the same pass as the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.metrics import fid, lpips, pckh, psnr, ssim

if TYPE_CHECKING:
    from pipeline.metrics.stream import Batch


@dataclass(frozen=True)
class Metric:
    """What a metric is called, how it is defined, and how one batch of pairs enters it.

    needs: names among "masks", "joints" and the networks "lpips-alex", "lpips-squeeze", "inception".
    Exactly one of two functions is set. `per_pair` gives (N,) float64, one value a pair: the metric is their
    mean, weighted by `weight` if set. `features` gives (N, d): the metric is the Frechet distance to a
    reference.
    """

    name: str
    protocol: str
    higher_is_better: bool
    needs: tuple[str, ...]
    per_pair: "Callable[[Batch], np.ndarray] | None" = None
    weight: "Callable[[Batch], np.ndarray] | None" = None
    features: "Callable[[Batch], torch.Tensor] | None" = None


def _lpips(net: str) -> Metric:
    key = f"lpips-{net}"
    protocol = f"lpips 0.1 {net}, uint8 scaled to [-1,1]"
    return Metric(f"{key}-v0.1", protocol, False, (key,), lambda b: lpips.lpips(b.networks[key], *b.pair))


def _masked_lpips(net: str) -> Metric:
    key = f"lpips-{net}"
    protocol = f"lpips 0.1 {net}, [-1,1] x pose mask"
    needs = (key, "masks")
    return Metric(
        f"mask-{key}-v0.1", protocol, False, needs, lambda b: lpips.masked_lpips(b.networks[key], *b.pair, b.masks)
    )


def _inception(batch: "Batch") -> torch.Tensor:
    return fid.inception_features(batch.networks["inception"], batch.generated)


def _pckh(batch: "Batch") -> np.ndarray:
    return pckh.pckh(batch.detected, batch.target_joints).share


def _head_joints(batch: "Batch") -> np.ndarray:
    return pckh.pckh(batch.detected, batch.target_joints).joints


_ALL = (
    Metric("ssim", "gaussian 1.5, uint8, range 255", True, (), lambda b: ssim.ssim(*b.pair)),
    Metric("psnr", "uint8, range 255, per image", True, (), lambda b: psnr.psnr(*b.pair)),
    Metric("mask-ssim", "ssim of uint8 x pose mask, whole image", True, ("masks",), lambda b: ssim.ssim(*b.masked)),
    Metric("mask-psnr", "psnr of uint8 x pose mask, whole image", True, ("masks",), lambda b: psnr.psnr(*b.masked)),
    _lpips("alex"),
    _lpips("squeeze"),
    _masked_lpips("alex"),
    _masked_lpips("squeeze"),
    Metric("fid", "pytorch-fid Inception 2048-d, test targets", False, ("inception",), features=_inception),
    Metric("pckh@0.5", "PATN head box, joints re-detected", True, ("joints",), _pckh, weight=_head_joints),
)

METRICS = {metric.name: metric for metric in _ALL}
