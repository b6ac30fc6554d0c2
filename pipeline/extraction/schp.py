"""SCHP (Self-Correction for Human Parsing, Li et al. 2019), trained on LIP, as an ONNX file run by openvino.

As the released extractor does it: the image's longer side spans the network's 473 pixels, centred, black
around; BGR, ImageNet's means and deviations in that order; the fused 20-channel output (119 x 119) is enlarged to
473 x 473 with the corners kept, sampled back at the image's pixels, and the highest channel is the label.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipeline.core import environment
from pipeline.core.errors import UserError
from pipeline.extraction.openvino_core import REFUSED, core

if TYPE_CHECKING:
    import openvino

SIZE = 473
LABELS = 20
_MEAN = np.array([0.406, 0.456, 0.485], dtype=np.float32)  # blue, green, red
_DEVIATION = np.array([0.225, 0.224, 0.229], dtype=np.float32)


def to_input(height: int, width: int) -> np.ndarray:
    """(2, 3) float64: the affine map from pixels of an image to pixels of the network's input, both as (x, y)."""
    factor = (SIZE - 1) / max(height - 1, width - 1, 1)
    return np.array(
        [[factor, 0, (SIZE - 1 - factor * (width - 1)) / 2], [0, factor, (SIZE - 1 - factor * (height - 1)) / 2]]
    )


def prepare(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> the network's input (1, 3, 473, 473) float32, planes blue, green, red."""
    scaled = cv2.warpAffine(image, to_input(*image.shape[:2]), (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    normal = (scaled[:, :, ::-1].astype(np.float32) / 255 - _MEAN) / _DEVIATION
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])


def _linear(places: np.ndarray, count: int) -> np.ndarray:
    """(len(places), count) float64: rows that interpolate linearly between `count` samples at 0, 1, 2, ..."""
    places = np.clip(places, 0, count - 1)
    before = np.minimum(places.astype(int), count - 2)
    matrix = np.zeros((len(places), count))
    rows = np.arange(len(places))
    matrix[rows, before] = before + 1 - places
    matrix[rows, before + 1] = places - before
    return matrix


@lru_cache(maxsize=8)
def _back(height: int, width: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, cells) and (W, cells): from `cells` logits along an axis to the image's rows and to its columns."""
    enlarge = _linear(np.linspace(0, cells - 1, SIZE), cells)
    (factor, _, left), (_, _, top) = to_input(height, width)
    rows, columns = factor * np.arange(height) + top, factor * np.arange(width) + left
    return _linear(rows, SIZE) @ enlarge, _linear(columns, SIZE) @ enlarge


def labels_of(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    """Logits (20, n, n), n = 119 or 473 -> the highest label at every pixel of the image, (H, W) uint8."""
    # Both enlargements are linear, so each axis is one matrix. In float64: a label must not depend on a rounding error.
    down, across = _back(height, width, logits.shape[-1])
    return (down @ logits.astype(np.float64) @ across.T).argmax(axis=0).astype(np.uint8)


class Schp:
    """The parser, ready to run. Raises UserError for a file that openvino cannot read or that is no SCHP for LIP.

    Same image, same labels: every image is its own inference, in float32. OMP_NUM_THREADS limits the threads.
    """

    def __init__(self, file: Path):
        import openvino

        try:
            model = core().read_model(file)
        except REFUSED:
            raise UserError(f"{file}: openvino cannot read it; not a whole ONNX file? get it again") from None
        try:
            model.reshape([1, 3, SIZE, SIZE])
            names = [output.names for output in model.outputs]
        except REFUSED:
            raise UserError(f"{file}: does not take (1, 3, {SIZE}, {SIZE}); want SCHP trained on LIP") from None
        found = [
            (number, output)
            for number, output in enumerate(model.outputs)
            if output.partial_shape.rank == 4 and output.partial_shape[1] == LABELS
        ]
        if not found:
            shapes = ", ".join(str(output.partial_shape) for output in model.outputs)
            raise UserError(f"{file}: no output has {LABELS} channels ({shapes}); want SCHP trained on LIP, not on ATR")
        # Exports give parsing, fusion and edge, the first two with 20 channels; the released extractor reads fusion.
        fused = [number for number, output in found if any("fusion" in name for name in names[number])]
        self._output = fused[0] if fused else found[-1][0]
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": environment.number("OMP_NUM_THREADS", 0),  # 0 = all cores
        }
        self._queue = openvino.AsyncInferQueue(core().compile_model(model, "CPU", settings))

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Images (H, W, 3) uint8 RGB of any sizes -> LIP-20 label maps (H, W) uint8."""
        parsings: list[np.ndarray] = [np.empty(0, np.uint8)] * len(images)

        def keep(request: "openvino.InferRequest", number: int) -> None:
            logits = request.get_output_tensor(self._output).data[0]
            parsings[number] = labels_of(logits, *images[number].shape[:2])

        self._queue.set_callback(keep)
        for number, image in enumerate(images):
            self._queue.start_async(prepare(image), number)
        self._queue.wait_all()
        return parsings
