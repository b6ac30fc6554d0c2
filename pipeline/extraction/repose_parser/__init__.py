"""The parser in the box: a small LIP-20 human parser of our own, its weights, and how it was trained.

`load()` gives a function from images and joints to LIP-20 maps. MODEL_CARD.md says what it can and cannot do;
`python -m pipeline.extraction.repose_parser.train --help` how it was made.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models import parser as network
from pipeline.core.errors import UserError
from pipeline.core.schema import JOINTS

WEIGHTS = Path(__file__).with_name("weights.safetensors")
HEIGHT = 256  # images are resized to it
BATCH = 16  # always: a short batch is filled up, because kernels may round differently for another size


def working_width(height: int, width: int) -> int:
    """The multiple of 16 that comes nearest to an image's width when its height is 256."""
    return max(network.STRIDE, round(width * HEIGHT / height / network.STRIDE) * network.STRIDE)


def _fuse(model: nn.Module) -> nn.Module:
    """Batch norms become part of the convolutions before them: the same function, a tenth faster."""
    for module in model.modules():
        if isinstance(module, network.Block):
            module.conv, module.norm = fuse_conv_bn_eval(module.conv, module.norm), nn.Identity()
    return model


class Parser:
    """Made by `load`. Same image and joints, same map on one machine, whatever else is in the batch."""

    def __init__(self, model: nn.Module, device: torch.device):
        self._model, self._device = model, device

    def __call__(self, images: Sequence[np.ndarray], joints: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Images, N of (H, W, 3) uint8 RGB and one size; joints (N, 18, 2) in pixels, OpenPose-18; valid (N, 18) bool
        -> (N, H, W) uint8 LIP-20. Joints that are not valid are ignored; without any, the maps are worse.

        Raises UserError if sizes differ or counts do not agree.
        """
        count = len(images)
        if np.shape(joints) != (count, JOINTS, 2) or np.shape(valid) != (count, JOINTS):
            raise UserError(
                f"parser: {count} images need joints ({count}, {JOINTS}, 2) and valid ({count}, {JOINTS}), "
                f"got {np.shape(joints)} and {np.shape(valid)}"
            )
        if len({image.shape for image in images}) > 1:
            raise UserError("parser: images of one call must have one size; call it once per size")
        if not count:
            return np.zeros((0, 0, 0), np.uint8)
        height, width, _ = images[0].shape
        parsed = np.empty((count, height, width), np.uint8)
        for first in range(0, count, BATCH):
            rows = slice(first, first + BATCH)
            logits = self.logits(images[rows], joints[rows], valid[rows])
            if logits.shape[2:] != (height, width):
                logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
            parsed[rows] = logits.argmax(1).to(torch.uint8).cpu().numpy()
        return parsed

    @torch.inference_mode()
    def logits(self, images: Sequence[np.ndarray], joints: np.ndarray, valid: np.ndarray) -> Tensor:
        """At most BATCH images -> (n, 20, 128, w) float32 on the device, half the working size."""
        count, (height, width, _) = len(images), images[0].shape
        scaled = working_width(height, width)
        pixels = np.zeros((BATCH, HEIGHT, scaled, 3), np.uint8)
        for row, image in enumerate(images):
            shrinks = height > HEIGHT
            pixels[row] = cv2.resize(
                image, (scaled, HEIGHT), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            )
        places, known = np.zeros((BATCH, JOINTS, 2), np.float32), np.zeros((BATCH, JOINTS), bool)
        scale = np.array([scaled / width, HEIGHT / height], np.float32)
        places[:count] = (np.asarray(joints, np.float32) + 0.5) * scale - 0.5
        known[:count] = valid
        x = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        x = x.float().contiguous(memory_format=torch.channels_last)
        joints_in, known_in = (torch.from_numpy(array).to(self._device) for array in (places, known))
        return self._model(x, joints_in, known_in)[:count]


def load(device: str | torch.device = "cpu", weights: Path = WEIGHTS) -> Parser:
    """The parser with its shipped weights. Raises UserError where the file is missing or is not this network's."""
    where = torch.device(device)
    model = network.Parser()
    try:
        state = {name: tensor.float() for name, tensor in load_file(weights).items()}
        model.load_state_dict(state)
    except FileNotFoundError:
        raise UserError(
            f"{weights}: not there; check the file out again, or train it (pipeline/extraction/repose_parser)"
        ) from None
    except Exception as error:
        raise UserError(f"{weights}: not this parser's weights ({str(error).splitlines()[0]})") from None
    model = _fuse(model.eval()).to(where, memory_format=torch.channels_last)
    return Parser(model, where)
