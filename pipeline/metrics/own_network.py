"""A network of the user's as a judge: any ONNX file that gives a vector for an image, run by openvino on the CPU.

DINOv2, CLIP and ArcFace are used so (docs/protocols.md has their settings). It is shown the whole image, or the part
that holds the person or the face as the target's joints have it.
"""

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import cv2
import numpy as np

from pipeline.core import environment
from pipeline.core.errors import UserError
from pipeline.core.settings import setting
from pipeline.extraction.openpose import Network, threads
from pipeline.extraction.openvino_core import REFUSED, core
from pipeline.metrics.kid import gaussian_kernel, kid
from pipeline.metrics.pckh import Joints

PREFIX = "own:"  # of its name among the other networks
NAME = "^[a-z0-9]+([-_][a-z0-9]+)*$"

NOSE, EYES, FACE = 0, (14, 15), (0, 14, 15, 16, 17)
MARGIN = 0.1  # around a person's joints, on each side, by the longer side of their box
BY_EXTENT, BY_EYES = 1.5, 3.2  # side of a face's square: by the extent of its joints, by the distance of its eyes


def _numbers(count: int) -> dict[str, Any]:
    return {"minItems": count, "maxItems": count, "uniqueItems": False}


@dataclass(frozen=True)
class Settings:
    """Block `reference.D.networks.NAME`."""

    file: str = setting("your ONNX file: one image in, float32; a vector out", minLength=1)
    sha256: str = setting("its digest, which is a part of what scores are made by", pattern="^[0-9a-f]{64}$")
    size: tuple[int, int] = setting(
        "height and width of its input", items={"type": "integer", "minimum": 1, "maximum": 4096}, **_numbers(2)
    )
    mean: tuple[float, float, float] = setting(
        "taken from red, green, blue, of values from 0 to 1",
        items={"type": "number", "minimum": -1000, "maximum": 1000},
        **_numbers(3),
    )
    std: tuple[float, float, float] = setting(
        "by which they are divided then", items={"type": "number", "minimum": 1e-6, "maximum": 1000}, **_numbers(3)
    )
    crop: Literal["none", "person", "face"] = setting("what it is shown of an image", "none")
    kernel: Literal["polynomial", "gaussian"] = setting("of kid-NAME: KID's, or CMMD's", "polynomial")

    def described(self) -> dict[str, Any]:
        """All but where the file lies: what decides a number."""
        return {key: value for key, value in asdict(self).items() if key != "file"}

    def in_words(self) -> str:
        """What tells its numbers from those of another file or another crop."""
        height, width = self.size
        part = "whole image" if self.crop == "none" else self.crop
        return f"{self.sha256[:12]}, {part} at {height}x{width}"


class OwnNetwork:
    """`network(images, joints)`: a vector for each image. Same image, same bytes out on one machine.

    name: as in params.yaml. The attribute `width`: numbers of a vector. Raises UserError for a file that is not there,
    has another digest, does not run on one image of the given size or does not give one vector for it.
    """

    def __init__(self, name: str, settings: Settings):
        self._file, self._settings = environment.path(settings.file), settings
        where = f"networks.{name} in params.yaml"
        if not self._file.is_file():
            raise UserError(f"{self._file}: no such file; correct file of {where}")
        content = self._file.read_bytes()  # so that what is run is what was looked at
        digest = hashlib.sha256(content).hexdigest()
        if digest != settings.sha256:
            raise UserError(f"{self._file}: its digest is {digest}; give the right file, or this as sha256 of {where}")
        self._network = self._opened(content, where)
        given = self._network.infer(np.zeros((1, 3, *settings.size), np.float32))
        vectors = [number for number, one in enumerate(given) if 1 < one.size == one.shape[1] and len(one) == 1]
        if len(vectors) != 1:
            shapes = ", ".join(" x ".join(map(str, one.shape)) for one in given)
            raise UserError(f"{self._file}: gives {shapes} for one image; want one vector, 1 x N: export it so")
        self._output = vectors[0]
        self.width = given[self._output].size

    def _opened(self, content: bytes, where: str) -> Network:
        height, width = self._settings.size
        try:
            with TemporaryDirectory() as alone:  # an ONNX file may name others, below its folder: here are none
                copy = Path(alone) / "network.onnx"
                copy.write_bytes(content)
                model = core().read_model(copy)
        except REFUSED:
            raise UserError(
                f"{self._file}: openvino cannot read it; is it an ONNX file, whole, with its weights inside?"
            ) from None
        takes = [(one.get_partial_shape(), one.get_element_type().get_type_name()) for one in model.inputs]
        wanted = (-1, 3, height, width)
        if len(takes) != 1 or takes[0][1] != "f32" or not _fits(takes[0][0], wanted):
            found = ", ".join(f"{kind} {str(shape).strip('[]').replace(',', ' x ')}" for shape, kind in takes)
            raise UserError(
                f"{self._file}: takes {found}, want f32 1 x 3 x {height} x {width}; export it so, or correct size of "
                f"{where}"
            )
        batch = takes[0][0][0]
        try:
            model.reshape([1, 3, height, width])
            return Network(model)
        except REFUSED:
            fixed = f" (its batch is fixed at {batch})" if batch.is_static and batch.get_length() != 1 else ""
            raise UserError(
                f"{self._file}: cannot be run on one image of {height} x {width} pixels{fixed}; export it for one"
            ) from None

    def __call__(self, images: np.ndarray, joints: Joints | None) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB and the joints by which they are cropped -> (N, width) float32, a row of NaN for an
        image without the part that is looked at. Raises UserError for a vector that is not finite, or nothing but 0.
        """
        parts = boxes(self._settings.crop, joints, images.shape[1:3], self._settings.size, len(images))
        with ThreadPoolExecutor(threads()) as pool:
            found = list(pool.map(self._vector, images, parts))
        return np.stack(found) if found else np.zeros((0, self.width), np.float32)

    def _vector(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        if np.isnan(box).any():
            return np.full(self.width, np.nan, np.float32)
        shown = cut(image, box, *self._settings.size).astype(np.float32) / 255
        normal = (shown - np.float32(self._settings.mean)) / np.float32(self._settings.std)
        vector = self._network.infer(np.ascontiguousarray(normal.transpose(2, 0, 1))[None])[self._output].reshape(-1)
        if not np.isfinite(vector).all() or not vector.any():
            what = "nothing but 0" if np.isfinite(vector).all() else "values that are not finite"
            raise UserError(f"{self._file}: gives {what} for an image; check its mean and std, or export it again")
        return vector

    def kernel_distance(self, rows: np.ndarray, real: np.ndarray) -> tuple[float, np.ndarray]:
        """`kid` of vectors (N, width) to those of real images (M, width), by the kernel in the settings."""
        if self._settings.kernel == "gaussian":
            return kid(unit(rows), unit(real), gaussian_kernel)
        return kid(rows, real)


def _fits(shape: Any, wanted: Sequence[int]) -> bool:
    """Whether openvino's partial shape leaves room for these sides; -1 for any."""
    sides = [one.get_length() if one.is_static else -1 for one in shape] if shape.rank.is_static else [-1] * 4
    return len(sides) == 4 and all(-1 in pair or pair[0] == pair[1] for pair in zip(sides, wanted, strict=True))


def boxes(crop: str, joints: Joints | None, size: tuple[int, int], shape: Sequence[int], count: int) -> np.ndarray:
    """(count, 4) float64: left, top, right, bottom of what is shown of each image, in pixels from its corner; NaN for
    an image without it. docs/protocols.md says how they are found.

    joints: of `count` images of `size` (height, width). shape: (height, width) of the network's input.
    """
    height, width = size
    if crop == "none":
        return np.tile(np.array([0, 0, width, height], np.float64), (count, 1))
    valid = np.asarray(joints.valid, dtype=bool)
    xy = np.clip(np.asarray(joints.xy, dtype=np.float64) + 0.5, 0, (width, height))  # a centre lies half a pixel in
    if crop == "face":
        there = valid[:, NOSE] & valid[:, EYES].any(axis=1) & (valid[:, FACE].sum(axis=1) >= 3)
        apart = np.where(valid[:, EYES].all(axis=1), np.linalg.norm(xy[:, EYES[0]] - xy[:, EYES[1]], axis=1), 0)
        xy, valid = xy[:, FACE], valid[:, FACE]
    else:
        there = valid.sum(axis=1) >= 2
    known = valid[..., None]
    low, high = np.where(known, xy, np.inf).min(axis=1), np.where(known, xy, -np.inf).max(axis=1)
    low[~there], high[~there] = np.nan, np.nan
    sides = high - low
    if crop == "face":
        sides[:] = np.maximum(BY_EXTENT * sides.max(axis=1), BY_EYES * apart)[:, None]
    else:
        sides += 2 * MARGIN * sides.max(axis=1, keepdims=True)
    sides = np.maximum(sides, sides[:, ::-1] * (shape[1] / shape[0], shape[0] / shape[1]))  # the input's proportions
    sides[~(sides > 0).all(axis=1)] = np.nan  # all joints at one place
    middle = (low + high) / 2
    return np.concatenate([middle - sides / 2, middle + sides / 2], axis=1)


def cut(image: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """A box of an image (H, W, 3) uint8, as `boxes` gives it -> (height, width, 3) uint8: bicubic with antialias, as
    Pillow resizes. Beyond its edges the image goes on as it ends there.
    """
    from PIL import Image

    left, top, right, bottom = box.tolist()
    over = max(0, *map(math.ceil, (-left, -top, right - image.shape[1], bottom - image.shape[0])))
    wider = cv2.copyMakeBorder(image, over, over, over, over, cv2.BORDER_REPLICATE)
    part = (left + over, top + over, right + over, bottom + over)
    return np.asarray(Image.fromarray(wider).resize((width, height), Image.Resampling.BICUBIC, box=part))


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, d) twice -> (N,) float64: the cosine of each pair, NaN where either row is."""
    return np.einsum("nd,nd->n", unit(one), unit(other))


def unit(rows: np.ndarray) -> np.ndarray:
    """(N, d) -> the same in float64, each row of length 1."""
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
