"""The detector that finds joints again in generated images, for PCKh and the pose error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core import layout
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.extraction.openpose import OpenPose
from pipeline.loading import published_weights
from pipeline.metrics.pckh import Joints
from pipeline.scoring.networks import digests

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Detector:
    """`find` takes images (n, H, W, 3) uint8 RGB; `name` becomes part of PCKh's protocol."""

    name: str
    provenance: dict  # digests of its weights
    find: Callable[[np.ndarray], Joints]


def openpose(network: OpenPose, files: Sequence[Path]) -> Detector:
    """Lightweight OpenPose, opened from `files`."""

    def find(images: np.ndarray) -> Joints:
        joints, scores = network(images)
        return Joints(joints, scores > 0)

    return Detector("Lightweight OpenPose", {"files": digests(files)}, find)


def open_detector(dataset: str, where: "torch.device") -> Detector:
    """The data set's detector: OpenPose, or the last checkpoint of the network trained on its training images."""
    import torch

    from models import detector
    from pipeline.loading import checkpoints
    from pipeline.loading.pixels import as_floats
    from pipeline.metrics.networks import in_batches

    folder = layout.checkpoints(dataset, "detector")
    if checkpoints.meta(folder)["kind"] == "openpose":
        files = published_weights.require("openpose", "stop", f"the detector of {dataset}")
        return openpose(OpenPose(files), files)

    steps = checkpoints.steps(folder)
    if not steps:
        raise UserError(f"{folder}: no checkpoint; run: repose pretrain --dataset {dataset} --component detector")
    trained, _ = checkpoints.load(folder, steps[-1])
    trained.to(where)

    def peaks(images: "torch.Tensor") -> "torch.Tensor":  # (B, H, W, 3) uint8 -> (B, 18, 3): x, y, score
        joints, scores = detector.decode(trained(as_floats(images.permute(0, 3, 1, 2))))
        return torch.cat([joints, scores.unsqueeze(-1)], dim=-1)

    def find_trained(images: np.ndarray) -> Joints:
        found = in_batches(peaks, where, images).cpu().numpy()
        return Joints(found[..., :2], found[..., 2] >= detector.THRESHOLD)

    name = f"our detector, {dataset} step {steps[-1]}"
    return Detector(name, {"sha256": sha256(checkpoints.path(folder, steps[-1]))}, find_trained)
