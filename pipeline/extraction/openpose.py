"""Lightweight OpenPose: finds the 18 joints of the person in an image that comes without annotations.

The network is Open Model Zoo's human-pose-estimation-0001 (MobileNet v1, INT8), run by openvino on the CPU. It gives 18
heatmaps, one per joint in the order of `pipeline.anatomy.pose`, and 19 part-affinity fields (Cao et al., "Realtime
multi-person 2D pose estimation using part affinity fields", 2017): vectors along the limbs, which tell whose joint a
peak is.

`OpenPose` reads these in two ways:
- calling it takes the highest point of each joint's heatmap, which does not keep two people apart. PCKh re-detects
  joints this way (docs/protocols.md).
- `central_people` groups the peaks into people along the fields and returns the joints of the one in the middle. A
  joint that only another person shows is missing. The stage `keypoints` uses this.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipeline.anatomy import pose
from pipeline.core import environment
from pipeline.core.errors import UserError
from pipeline.core.schema import JOINTS
from pipeline.extraction.openvino_core import REFUSED, core

if TYPE_CHECKING:
    import openvino

STRIDE = 8  # image pixels per heatmap cell
HEIGHT = 256  # crops are resized to it; at 384 the network finds fewer joints of Market-1501 crops (90 % against 97 %)
THRESHOLD = 0.1  # a highest peak below this is no detection (OpenPose's own value)

# For grouping, the maps are the mean over both heights and over the image and its mirror image. Chosen on 1,000
# training crops of Market-1501 and on 188 photographs of DeepFashion (benchmarks/keypoints.md).
HEIGHTS = (256, 192)
MAX_WIDTH = 1024  # at the larger height; a wider image is scaled to it
MULTIPLE = 32  # images are padded to a multiple, so that the cells of both heights cover the same pixels
PEAK = 0.15  # a peak below this is no joint
PEAKS = 6  # candidates per joint: the highest ones
SAMPLES = 10  # points along a limb at which its field is read
ALIGNMENT = 0.05  # a sample supports the limb if the field along it is larger
SUPPORT = 0.8  # share of the samples that must

# The limbs that the fields describe, and the channel of each one's x component (y follows it): OpenPose's COCO order,
# checked on annotated crops (tests/extraction/test_openpose.py).
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (2, 16), (5, 17),
)  # fmt: skip
CHANNELS = np.array((12, 20, 14, 16, 22, 24, 0, 2, 4, 6, 8, 10, 28, 30, 34, 32, 36, 18, 26))

_INPUT = "data"
_FIELDS = "Mconv7_stage2_L1"  # (1, 38, H/8, W/8)
_HEATMAPS = "Mconv7_stage2_L2"  # (1, 19, H/8, W/8): 18 joints and the background

_FIRST, _SECOND = np.array(LIMBS).T
_FLIP = np.array(pose.FLIP)
_LIMB_FLIP = np.array([LIMBS.index((pose.FLIP[a], pose.FLIP[b])) for a, b in LIMBS])


def threads() -> int:
    """How many images to work on at once: OMP_NUM_THREADS, or the cores that this process may use."""
    return environment.number("OMP_NUM_THREADS", 0) or len(os.sched_getaffinity(0))


class Network:
    """An openvino model that is run on one image at a time, on as many images at once as there are threads.

    It is made in one thread, and then used from any. Same image, same bytes out: no image shares an inference with
    another, each inference has one thread, and the arithmetic is float32 even where the CPU would choose bfloat16.
    """

    def __init__(self, model: "openvino.Model"):
        self._threads = threads()
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": self._threads,
        }
        compiled = core().compile_model(model, "CPU", settings)
        self._free: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(self._threads):
            self._free.put(compiled.create_infer_request())

    def infer(self, planes: np.ndarray) -> list[np.ndarray]:
        """One input (1, 3, H, W) float32 -> the outputs in the model's order, float32."""
        request = self._free.get()
        try:
            request.infer({0: planes})
            return [output.data.copy() for output in request.output_tensors]
        finally:
            self._free.put(request)

    def over(self, images: Sequence[np.ndarray], find: Callable) -> tuple[np.ndarray, np.ndarray]:
        """Joints (N, 18, 2), scores (N, 18), float32, of N images; `find(image)` gives one's (18, 2) and (18,)."""
        joints = np.zeros((len(images), JOINTS, 2), dtype=np.float32)
        scores = np.zeros((len(images), JOINTS), dtype=np.float32)
        with ThreadPoolExecutor(self._threads) as pool:
            for row, found in enumerate(pool.map(find, images)):
                joints[row], scores[row] = found
        return joints, scores


def _vertices(heatmaps: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Local maxima refined below one cell: heatmaps (J, h, w), cells y, x int (J, K) -> (J, K, 2) as (x, y).

    The vertex of the parabola through the maximum and its two neighbours, each axis by itself.
    """
    padded = np.pad(heatmaps, ((0, 0), (1, 1), (1, 1)), mode="edge")
    channel = np.arange(len(heatmaps))[:, None]

    def at(dx: int, dy: int) -> np.ndarray:
        return padded[channel, y + 1 + dy, x + 1 + dx]

    def vertex(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        bend = 2 * at(0, 0) - before - after  # >= 0 at a maximum; 0 on a plateau, which stays where it is
        return (after - before) / (2 * np.where(bend > 1e-6, bend, np.inf))

    return np.stack([x + vertex(at(-1, 0), at(1, 0)), y + vertex(at(0, -1), at(0, 1))], axis=-1)


def highest(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heatmaps (J, h, w) -> highest points (J, 2) float32 as (x, y) in cells, refined below one, and heights (J,)."""
    flat = heatmaps.reshape(len(heatmaps), -1)
    cell = flat.argmax(axis=1)[:, None]
    places = _vertices(heatmaps, *np.divmod(cell, heatmaps.shape[2]))[:, 0]
    return places.astype(np.float32), np.take_along_axis(flat, cell, axis=1)[:, 0]


def peaks(heatmaps: np.ndarray, threshold: float = PEAK) -> tuple[np.ndarray, np.ndarray]:
    """Heatmaps (J, h, w) -> the local maxima above `threshold`, at most PEAKS of each map, the highest first.

    Places (J, PEAKS, 2) as (x, y) in cells, refined below one; heights (J, PEAKS), 0 where there is no further peak.
    """
    padded = np.pad(heatmaps, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    columns = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    around = np.maximum(np.maximum(columns[:, :, :-2], columns[:, :, 1:-1]), columns[:, :, 2:])
    heights = np.where((heatmaps == around) & (heatmaps > threshold), heatmaps, 0).reshape(len(heatmaps), -1)
    cells = np.argsort(-heights, axis=1, kind="stable")[:, :PEAKS]
    heights = np.take_along_axis(heights, cells, axis=1)
    places = _vertices(heatmaps, *np.divmod(cells, heatmaps.shape[2]))
    if cells.shape[1] < PEAKS:  # a map of fewer cells
        missing = PEAKS - cells.shape[1]
        heights, places = np.pad(heights, ((0, 0), (0, missing))), np.pad(places, ((0, 0), (0, missing), (0, 0)))
    return np.where(heights[..., None] > 0, places, 0), heights


def _bilinear(fields: np.ndarray, limb: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Fields (L, 2, h, w) of limbs (M,) at points (M, SAMPLES, 2) in cells -> vectors (M, SAMPLES, 2)."""
    height, width = fields.shape[2:]
    padded = np.pad(fields.transpose(0, 2, 3, 1), ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    x, y = np.clip(at[..., 0], 0, width - 1), np.clip(at[..., 1], 0, height - 1)
    left, top = x.astype(int), y.astype(int)
    dx, dy = (x - left)[..., None], (y - top)[..., None]
    limb = limb[:, None]
    upper = padded[limb, top, left] * (1 - dx) + padded[limb, top, left + 1] * dx
    lower = padded[limb, top + 1, left] * (1 - dx) + padded[limb, top + 1, left + 1] * dx
    return upper * (1 - dy) + lower * dy


def links(fields: np.ndarray, places: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The limbs that the fields (L, 2, h, w) support between the peaks: ends int (M, 2), scores (M,).

    Peaks are numbered joint * PEAKS + rank. The score is the mean over SAMPLES points of the field's component along
    the limb (Cao et al., equation 11).
    """
    limb, first, second = np.nonzero((heights[_FIRST] > 0)[:, :, None] & (heights[_SECOND] > 0)[:, None, :])
    start, stop = places[_FIRST[limb], first], places[_SECOND[limb], second]
    along = stop - start
    unit = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    at = start[:, None] + np.linspace(0, 1, SAMPLES)[:, None] * along[:, None]
    component = (_bilinear(fields, limb, at) * unit[:, None]).sum(axis=2)
    kept = (component > ALIGNMENT).mean(axis=1) >= SUPPORT
    ends = np.stack([_FIRST[limb] * PEAKS + first, _SECOND[limb] * PEAKS + second], axis=1)
    return ends[kept], component.mean(axis=1)[kept]


def people(ends: np.ndarray, scores: np.ndarray, heights: np.ndarray) -> list[list[int]]:
    """Peaks grouped into people: the numbers of each one's peaks, at most one per joint.

    At first every peak is by itself. Links are taken from the strongest to the weakest; each joins the two groups of
    its ends, unless both have the same joint already: then its ends belong to two people.
    """
    groups = {int(peak): {int(peak) // PEAKS: int(peak)} for peak in np.flatnonzero(heights)}
    owner = {peak: peak for peak in groups}
    for first, second in ends[np.argsort(-scores, kind="stable")].tolist():
        one, other = owner[first], owner[second]
        if one != other and groups[one].keys().isdisjoint(groups[other]):
            moved = groups.pop(other)
            groups[one] |= moved
            owner |= dict.fromkeys(moved.values(), one)
    return [list(group.values()) for group in groups.values()]


def _planes(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (1, 3, H, W) float32, planes blue, green, red."""
    return image[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)


def _padded(image: np.ndarray, height: int, width: int, multiple: int) -> np.ndarray:
    """The image scaled to (height, width), black added below and to the right up to a multiple."""
    shrinks = height < image.shape[0]
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return cv2.copyMakeBorder(scaled, 0, -height % multiple, 0, -width % multiple, cv2.BORDER_CONSTANT)


class OpenPose:
    """The detector, ready to run. `files`: its .xml and .bin (`published_weights.require("openpose", ...)`).

    An image's joints depend on nothing but the image: see `Network`. OMP_NUM_THREADS limits the threads.
    """

    def __init__(self, files: Sequence[Path]):
        found = [path for path in map(Path, files) if path.suffix == ".xml"]
        if len(found) != 1:
            raise UserError(f"openpose: want one .xml and its .bin, got {', '.join(map(str, files)) or 'nothing'}")
        try:
            model = core().read_model(found[0])
        except REFUSED:
            raise UserError(f"{found[0]}: openvino cannot read it; fetch the weights openpose again") from None
        model.reshape({_INPUT: [1, 3, -1, -1]})
        names = [output.get_names() for output in model.outputs]
        self._heatmaps, self._fields = (
            next(number for number, known in enumerate(names) if name in known) for name in (_HEATMAPS, _FIELDS)
        )
        self._network = Network(model)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, H, W, 3) uint8 RGB -> the highest peaks: joints (N, 18, 2) float32, scores (N, 18) float32.

        Joints are (x, y) in pixels of the given images, pixel centres at integers. A joint that was not found has
        score 0 and lies at (0, 0).
        """
        return self._network.over(images, self._highest_peaks)

    def _highest_peaks(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width, _ = image.shape
        scaled_width = max(STRIDE, round(width * HEIGHT / height / STRIDE) * STRIDE)
        scaled = cv2.resize(image, (scaled_width, HEIGHT), interpolation=cv2.INTER_LINEAR)
        cells, scores = highest(self._network.infer(_planes(scaled))[self._heatmaps][0, :JOINTS])
        pixels_per_cell = np.array([width / scaled_width, height / HEIGHT], dtype=np.float32) * STRIDE
        found = scores > THRESHOLD
        joints = (cells + 0.5) * pixels_per_cell - 0.5  # centres lie half a unit in
        return np.where(found[:, None], joints, 0), np.where(found, scores, 0)

    def central_people(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """N images (H, W, 3) uint8 RGB of any sizes -> the central person of each: joints (N, 18, 2), scores (N, 18).

        Both float32. Joints are (x, y) in pixels of the image given, pixel centres at integers, inside it. A joint that
        was not found has score 0 and lies at (0, 0).
        """
        return self._network.over(images, self._central_person)

    def _central_person(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        heatmaps, fields, pixels_per_cell = self.mean_maps(image)
        return central(*everybody(heatmaps, fields, image.shape[:2], pixels_per_cell), image.shape[1])

    def mean_maps(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB -> heatmaps (18, h, w), fields (19, 2, h, w) and the image's pixels per cell,
        (2,) as x, y.

        The mean over HEIGHTS and over the image and its mirror image, at the resolution of the first height.
        """
        height, width, _ = image.shape
        scale = min(HEIGHTS[0] / height, MAX_WIDTH / width)
        total, shape = 0, None
        for each in HEIGHTS:
            part = each / HEIGHTS[0]
            size = [max(1, round(side * scale * part)) for side in (height, width)]
            padded = _padded(image, *size, round(MULTIPLE * part))
            maps = self._maps(padded) + mirrored(self._maps(padded[:, ::-1]))
            if shape is None:
                shape = maps.shape
                pixels_per_cell = STRIDE * np.array([width / size[1], height / size[0]])
            total = total + cv2.resize(maps.transpose(1, 2, 0), shape[:0:-1], interpolation=cv2.INTER_CUBIC)
        mean = (total / (2 * len(HEIGHTS))).transpose(2, 0, 1)
        return mean[:JOINTS], mean[JOINTS:].reshape(len(LIMBS), 2, *shape[1:]), pixels_per_cell

    def _maps(self, image: np.ndarray) -> np.ndarray:
        """Image (H, W, 3), sides multiples of 8 -> (18 + 38, H/8, W/8): heatmaps, then (x, y) of each limb's field."""
        outputs = self._network.infer(_planes(image))
        fields = outputs[self._fields][0][np.stack([CHANNELS, CHANNELS + 1], axis=1).reshape(-1)]
        return np.concatenate([outputs[self._heatmaps][0, :JOINTS], fields])


def mirrored(maps: np.ndarray) -> np.ndarray:
    """Maps (56, h, w) as in `OpenPose._maps` of an image -> those of its mirror image."""
    heatmaps = maps[:JOINTS][_FLIP]
    fields = maps[JOINTS:].reshape(len(LIMBS), 2, *maps.shape[1:])[_LIMB_FLIP]
    fields = fields * np.array([-1, 1], dtype=maps.dtype)[:, None, None]  # what points left points right
    return np.concatenate([heatmaps, fields.reshape(-1, *maps.shape[1:])])[:, :, ::-1]


def everybody(
    heatmaps: np.ndarray, fields: np.ndarray, size: tuple[int, int], pixels_per_cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Heatmaps (18, h, w), fields (19, 2, h, w) of an image of `size` (H, W) -> its P people: joints (P, 18, 2) as (x,
    y) in its pixels, scores (P, 18). A joint that a person lacks has score 0 and lies at (0, 0). A single peak is a
    person.
    """
    places, heights = peaks(heatmaps)
    groups = people(*links(fields, places, heights), heights)
    joints = np.zeros((len(groups), JOINTS, 2))
    scores = np.zeros((len(groups), JOINTS))
    pixels = np.clip((places + 0.5) * pixels_per_cell - 0.5, 0, np.array(size[::-1]) - 1).reshape(-1, 2)
    for person, numbers in enumerate(groups):
        joint = np.array(numbers) // PEAKS
        joints[person, joint] = pixels[numbers]
        scores[person, joint] = heights.reshape(-1)[numbers]
    return joints, scores


def central(joints: np.ndarray, scores: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Joints (18, 2), scores (18,) of the one of P people who is in the middle of an image `width` pixels wide; zeros
    if P is 0.

    joints (P, 18, 2) as (x, y) in pixels, scores (P, 18) with 0 for a missing joint. In the middle is the person with
    the largest sum of scores, each weighted by how near its joint lies to the vertical midline: 1 on it, 0 at the
    sides.
    """
    if len(joints) == 0:
        return np.zeros((JOINTS, 2)), np.zeros(JOINTS)
    nearness = 1 - np.abs(joints[..., 0] - (width - 1) / 2) / (width / 2)
    chosen = (scores * np.clip(nearness, 0, 1)).sum(axis=1).argmax()
    return joints[chosen], scores[chosen]
