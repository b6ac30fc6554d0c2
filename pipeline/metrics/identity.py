"""Does the generated person look like the same person to a re-identification network?

The network is Open Model Zoo's person-reidentification-retail-0287 (256 numbers; rank-1 93.1 % on Market-1501), run by
openvino on the CPU. It was trained on photographs of people, those of Market-1501's training set among them: on drawn
figures its numbers mean little.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.errors import UserError
from pipeline.extraction.openpose import Network, threads
from pipeline.extraction.openvino_core import REFUSED, core

HEIGHT, WIDTH, DIMENSIONS = 256, 128, 256


class ReId:
    """`network(images)`: embeddings, each of length 1. Same image, same bytes out on one machine.

    files: the network's .xml and .bin. Raises UserError if they are another network's.
    """

    provenance = "published"

    def __init__(self, files: Sequence[Path]):
        xml = next((path for path in files if path.suffix == ".xml"), None)
        try:
            model = core().read_model(xml)
            shapes = [list(port.shape) for port in (*model.inputs, *model.outputs)]
        except (*REFUSED, TypeError) as error:
            raise UserError(f"{xml}: openvino cannot read it ({str(error).splitlines()[0]}); get it again") from None
        if shapes != [[1, 3, HEIGHT, WIDTH], [1, DIMENSIONS]]:
            raise UserError(f"{xml}: not person-reidentification-retail-0287 (shapes {shapes}); get the right file")
        self._network = Network(model)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB -> (N, 256) float32. Images are resized to 256x128 (bilinear)."""
        with ThreadPoolExecutor(threads()) as pool:
            found = list(pool.map(self._embedding, images))
        return np.stack(found) if found else np.zeros((0, DIMENSIONS), np.float32)

    def _embedding(self, image: np.ndarray) -> np.ndarray:
        resized = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        planes = resized[..., ::-1].transpose(2, 0, 1).astype(np.float32)  # BGR, 0..255
        vector = self._network.infer(np.ascontiguousarray(planes)[None])[0].reshape(-1)
        return vector / np.linalg.norm(vector)


def similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Embeddings of length 1, (N, 256) twice -> (N,) float64: the cosine of each pair."""
    return np.einsum("nd,nd->n", one, other, dtype=np.float64)
