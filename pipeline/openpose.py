"""Lightweight OpenPose on person crops: where are the 18 joints in an image that nobody annotated?

The network is Open Model Zoo's human-pose-estimation-0001 (MobileNet v1, INT8), run by openvino on the CPU. Its first
18 heatmaps are in OpenPose-18 order, as `pipeline.pose` is (checked on Market-1501: each channel is nearest to the
annotated joint of the same number).

Each joint is the highest point of its own heatmap. That is right for crops with one person. The part-affinity fields,
which keep the joints of several people apart, are not used: on a crowded crop a limb of a bystander can win.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import openvino

from pipeline.errors import UserError

JOINTS = 18
STRIDE = 8  # image pixels a heatmap cell
HEIGHT = 256  # crops are resized to it; at 384 the network finds fewer joints of Market-1501 crops (88 % against 98 %)
THRESHOLD = 0.1  # a lower peak is no detection (OpenPose's own value)

_INPUT = "data"
_HEATMAPS = "Mconv7_stage2_L2"  # (1, 19, H/8, W/8): 18 joints and the background


def _peaks(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heatmaps (J, h, w) -> highest points (J, 2) as (x, y) in cells, refined below one cell, and heights (J,).

    The refinement is the vertex of the parabola through the peak and its two neighbours, each axis by itself.
    """
    joints = len(heatmaps)
    y, x = np.divmod(heatmaps.reshape(joints, -1).argmax(axis=1), heatmaps.shape[2])
    padded = np.pad(heatmaps, ((0, 0), (1, 1), (1, 1)), mode="edge")
    channel = np.arange(joints)

    def at(dx: int, dy: int) -> np.ndarray:
        return padded[channel, y + 1 + dy, x + 1 + dx]

    def vertex(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        bend = 2 * at(0, 0) - before - after  # >= 0 at a maximum; 0 on a plateau, which stays where it is
        return (after - before) / (2 * np.where(bend > 1e-6, bend, np.inf))

    refined = np.stack([x + vertex(at(-1, 0), at(1, 0)), y + vertex(at(0, -1), at(0, 1))], axis=1)
    return refined.astype(np.float32), at(0, 0)


class OpenPose:
    """The detector, ready to run. `files`: its .xml and .bin (`published_weights.require("openpose", ...)`).

    Same image, same bytes out: every image is its own inference, in float32 even where the CPU would rather take
    bfloat16, so neither its neighbours in a batch nor the number of threads matter. OMP_NUM_THREADS limits the threads.
    """

    def __init__(self, files: Sequence[Path]):
        model = [path for path in map(Path, files) if path.suffix == ".xml"]
        if len(model) != 1:
            raise UserError(f"openpose: want one .xml and its .bin, got {', '.join(map(str, files)) or 'nothing'}")
        try:
            self._model = openvino.Core().read_model(model[0])
        except RuntimeError:
            raise UserError(f"{model[0]}: openvino cannot read it; fetch the weights openpose again") from None
        self._queues: dict[tuple[int, int], openvino.AsyncInferQueue] = {}

    def _queue(self, height: int, width: int) -> openvino.AsyncInferQueue:
        if (height, width) not in self._queues:
            self._model.reshape({_INPUT: [1, 3, height, width]})
            settings = {
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": int(os.environ.get("OMP_NUM_THREADS", "0")),  # 0 = all cores
            }
            compiled = openvino.Core().compile_model(self._model, "CPU", settings)
            self._queues[height, width] = openvino.AsyncInferQueue(compiled)
        return self._queues[height, width]

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, H, W, 3) uint8 RGB -> joints (N, 18, 2) float32, scores (N, 18) float32.

        Joints are (x, y) in pixels of the given images, pixel centres at integers. A joint that was not found has
        score 0 and lies at (0, 0).
        """
        count, height, width, _ = images.shape
        joints = np.zeros((count, JOINTS, 2), dtype=np.float32)
        scores = np.zeros((count, JOINTS), dtype=np.float32)
        scaled_width = max(STRIDE, round(width * HEIGHT / height / STRIDE) * STRIDE)
        pixels_per_cell = np.array([width / scaled_width, height / HEIGHT], dtype=np.float32) * STRIDE

        def keep(request: openvino.InferRequest, row: int) -> None:
            cells, peaks = _peaks(request.get_tensor(_HEATMAPS).data[0, :JOINTS])
            found = peaks > THRESHOLD
            joints[row, found] = ((cells + 0.5) * pixels_per_cell - 0.5)[found]  # centres lie half a unit in
            scores[row, found] = peaks[found]

        queue = self._queue(HEIGHT, scaled_width)
        queue.set_callback(keep)
        for row, image in enumerate(images):
            scaled = cv2.resize(image, (scaled_width, HEIGHT), interpolation=cv2.INTER_LINEAR)
            queue.start_async({_INPUT: scaled[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)}, row)
        queue.wait_all()
        return joints, scores
