"""Any top-down pose network with the 17 COCO joints, as an ONNX file: RTMPose, ViTPose, HRNet. Run by openvino.

A top-down network looks at one person's box. The images here are crops of one person, so the box is the whole image,
enlarged by a quarter as these networks were trained (MMPose's top-down affine). Its input is 1 x 3 x H x W, red, green,
blue, normalised as ImageNet is; its output is one of

  simcc_x (1, 17, W r), simcc_y (1, 17, H r)   SimCC (RTMPose): a score for each r-th of a pixel of the input; r is 2
  (1, 17, h, w)                                heatmaps (ViTPose, HRNet): outer cells on the input's outer pixels

COCO has no neck: it is the middle of the shoulders, with the lower of their scores, and missing where either is
missing.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.errors import UserError
from pipeline.extraction import openpose
from pipeline.extraction.openvino_core import REFUSED, core

COCO_JOINTS = 17
PADDING = 1.25  # of the box
THRESHOLD = 0.3  # a score below this is no detection (MMPose's own value)
SIZE = (256, 192)  # of the input, where the file leaves it open
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

# OpenPose-18 joint -> COCO joint; the neck, 1, is derived from the shoulders, 5 and 6.
_COCO = np.array((0, 0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3))
_NECK, _SHOULDERS = 1, (5, 6)


def from_coco(joints: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """COCO joints (17, 2), scores (17,) -> OpenPose-18 joints (18, 2), scores (18,): zeros up to THRESHOLD."""
    joints18, scores18 = joints[_COCO], scores[_COCO]
    joints18[_NECK] = joints[list(_SHOULDERS)].mean(axis=0)
    scores18[_NECK] = scores[list(_SHOULDERS)].min()
    found = scores18 > THRESHOLD
    return np.where(found[:, None], joints18, 0), np.where(found, scores18, 0)


class TopDown:
    """The detector, ready to run. `file`: the .onnx file. Raises UserError if openvino cannot read it or if its inputs
    and outputs are not as described above.

    An image's joints depend on nothing but the image: see `openpose.Network`. OMP_NUM_THREADS limits the threads.
    """

    def __init__(self, file: Path):
        try:
            model = core().read_model(file)
        except REFUSED:
            raise UserError(f"{file}: openvino cannot read it; is it an ONNX file, and whole?") from None
        inputs = [one.get_partial_shape() for one in model.inputs]
        if len(inputs) != 1 or len(inputs[0]) != 4 or (inputs[0][1].is_static and inputs[0][1].get_length() != 3):
            raise UserError(f"{file}: takes {', '.join(map(str, inputs))}, want one image, 1 x 3 x H x W")
        self.height, self.width = (
            side.get_length() if side.is_static else default for side, default in zip(inputs[0][2:], SIZE, strict=True)
        )
        try:
            model.reshape([1, 3, self.height, self.width])
            outputs = [tuple(one.get_partial_shape().to_shape()) for one in model.outputs]
        except REFUSED:
            raise UserError(f"{file}: cannot be run on one image of {self.height} x {self.width} pixels") from None
        self._simcc = self._simcc_outputs(file, outputs)
        # The box in pixels of the input. Heatmap networks count from pixel centre to pixel centre (Huang et al., "The
        # devil is in the details", 2020), SimCC networks from edge to edge.
        self._extent = np.array([self.width, self.height]) - (0 if self._simcc else 1)
        self._network = openpose.Network(model)

    def _simcc_outputs(self, file: Path, shapes: list[tuple[int, ...]]) -> tuple[int, int] | None:
        """Which outputs are SimCC's x and y (square inputs: in this order), or None for one output of heatmaps."""
        if len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][1] == COCO_JOINTS:
            return None
        if len(shapes) == 2 and all(len(shape) == 3 and shape[1] == COCO_JOINTS for shape in shapes):
            for x, y in ((0, 1), (1, 0)):
                if shapes[x][2] * self.height == shapes[y][2] * self.width:
                    return x, y
        found = ", ".join(" x ".join(map(str, shape)) for shape in shapes)
        raise UserError(
            f"{file}: gives {found} for an input of {self.height} x {self.width}; want 17 COCO joints as SimCC"
            " (1 x 17 x W r and 1 x 17 x H r) or as heatmaps (1 x 17 x h x w)"
        )

    def _places(self, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The network's outputs -> joints (17, 2) as (x, y) in pixels of its input, scores (17,)."""
        if self._simcc is None:
            heatmaps = outputs[0][0]
            cells, scores = openpose.highest(heatmaps)
            return cells * (self._extent / np.maximum(1, np.array(heatmaps.shape[:0:-1]) - 1)), scores
        x, y = (outputs[number][0] for number in self._simcc)
        bins = np.stack([x.argmax(axis=1), y.argmax(axis=1)], axis=1)
        return bins * (self._extent / (x.shape[1], y.shape[1])), np.minimum(x.max(axis=1), y.max(axis=1))

    def __call__(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """N images (H, W, 3) uint8 RGB of any sizes, one person in each -> joints (N, 18, 2), scores (N, 18), float32.

        Joints are (x, y) in pixels of the image given, pixel centres at integers. A joint that was not found has score
        0 and lies at (0, 0).
        """
        return self._network.over(images, self._joints)

    def _joints(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width, _ = image.shape
        # The box has the input's proportions, and the image in its middle: input pixel = scale * image pixel + shift.
        box = PADDING * max(height / self.height, width / self.width) * np.array([self.width, self.height])
        scale = self._extent / box
        shift = scale * (box / 2 - np.array([width, height]) / 2)
        matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
        crop = cv2.warpAffine(image, matrix, (self.width, self.height), flags=cv2.INTER_LINEAR)
        planes = ((crop.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)[None]
        places, scores = self._places(self._network.infer(np.ascontiguousarray(planes)))
        return from_coco((places - shift) / scale, scores)
