"""Images of a data set with their joints and parsing, decoded once and kept as uint8: on the device when they fit.

Training and scoring read the same way. Heatmaps, masks, one-hot labels and floats are made per batch, on the device,
from what lies here: an image costs height x width x 3 bytes however often it is used, its parsing height x width.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from models.variants import Batch
from pipeline.anatomy import pose
from pipeline.core import console, layout, store
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.loading import parallel
from pipeline.loading.shard_loader import ShardPictures

SHARE_OF_MEMORY = 0.5  # of the device's free memory that pictures may take; networks need the rest


def device(name: str) -> torch.device:
    """The device a block of `params.yaml` asks for: `auto` takes CUDA where there is one; of several processes on this
    machine each takes its own. Raises UserError.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UserError(f"{layout.PARAMS}: no device {name}; use auto, cpu, cuda or cuda:N") from None
    if chosen == torch.device("cuda") and parallel.local_processes() > 1:
        chosen = torch.device("cuda", parallel.local_rank())
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"{layout.PARAMS}: device {name} is not on this machine; use auto or cpu")
    return chosen


def as_floats(images: torch.Tensor) -> torch.Tensor:
    """uint8 in [0, 255] -> float32 in [-1, 1]: what every network here takes."""
    return images.float().div_(127.5).sub_(1.0)


@dataclass(frozen=True)
class ImageData:
    """N images with their joints.

    images: uint8 (N, 3, H, W), RGB, on the device or in main memory; of the first ids only where the last ones'
    pictures are not wanted.  joints: float32 (N, 18, 2), (x, y) in pixels,
    zeros where missing.  valid: bool (N, 18).  ids: in the order of the rows.
    labels: uint8 (N, H, W), LIP-20 ids, beside the images; None unless parsing was asked for.
    Where they are too many for main memory, both are still in their shards and read batch by batch.
    """

    unit: ClassVar[str] = "images"

    images: torch.Tensor | ShardPictures
    joints: torch.Tensor
    valid: torch.Tensor
    ids: list[str]
    device: torch.device
    labels: torch.Tensor | ShardPictures | None = field(default=None, kw_only=True)

    @property
    def resident(self) -> bool:
        return isinstance(self.images, torch.Tensor)

    @property
    def height(self) -> int:
        return self.images.shape[2]

    @property
    def width(self) -> int:
        return self.images.shape[3]

    def __len__(self) -> int:
        return len(self.ids)

    def pictures(self, rows: torch.Tensor) -> torch.Tensor:
        """Images `rows` (int64) as float32 (B, 3, H, W) in [-1, 1] on the device."""
        return as_floats(self.images[rows.to(self.images.device)].to(self.device, non_blocking=True))

    def parsing(self, rows: torch.Tensor) -> torch.Tensor:
        """LIP-20 ids of images `rows` (int64; of a pair data set: `pairs[...]`) as uint8 (B, H, W) on the device.

        `models.layers.pose_maps.one_hot` makes channels of them. Only after loading with `parsing=True`.
        """
        assert self.labels is not None, "load with parsing=True"
        return self.labels[rows.to(self.labels.device)].to(self.device, non_blocking=True)

    def _batch(self, source: torch.Tensor, target: torch.Tensor, target_images: bool = True) -> Batch:
        return Batch(
            source=self.pictures(source),
            target=self.pictures(target) if target_images else None,
            source_joints=self.joints[source],
            source_valid=self.valid[source],
            target_joints=self.joints[target],
            target_valid=self.valid[target],
            source_labels=None if self.labels is None else self.parsing(source),
            target_labels=None if self.labels is None else self.parsing(target),
        )

    def batch(self, rows: torch.Tensor) -> Batch:
        """Images at positions `rows` (int64 (B,), any device), for networks that look at one image at a time: the
        first half as sources, the rest as targets.
        """
        return self._batch(*rows.to(self.joints.device).tensor_split(2))


@dataclass(frozen=True)
class PairData(ImageData):
    """The P pairs over N images, in the order of `pairs.parquet`.

    pairs: int64 (P, 2), rows of `images`: source, target.  pair_index: int64 (P,), as stored. `len` counts pairs.
    """

    unit: ClassVar[str] = "pairs"

    pairs: torch.Tensor
    pair_index: torch.Tensor

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, rows: torch.Tensor) -> Batch:
        """The pairs at positions `rows` (int64 (B,), any device) as a batch on the device."""
        return self._batch(*self.pairs[rows.to(self.pairs.device)].unbind(1))


class UnpairedData(PairData):
    """Pairs of which only the sources' images are there: `target` of every batch is None. A target that is no source
    comes last in `ids` and has no row in `images`.
    """

    def batch(self, rows: torch.Tensor) -> Batch:
        return self._batch(*self.pairs[rows.to(self.pairs.device)].unbind(1), target_images=False)


def chosen_pairs(pairs: pa.Table, limit: int | None) -> pa.Table:
    """The first `limit` pairs of a fixed shuffle, put back into list order; all of them for None.

    Pair lists run identity by identity, so their head would be a few people only. The shuffle sorts the pairs by the
    SHA-256 of "pair_index source_id target_id": it depends on the list alone, so every variant, device and library
    version gets the same pairs.
    """
    if limit is None or limit >= len(pairs):
        return pairs
    columns = (pairs.column(name).to_pylist() for name in ("pair_index", "source_id", "target_id"))
    keys = [hashlib.sha256(f"{i} {s} {t}".encode()).digest() for i, s, t in zip(*columns, strict=True)]
    kept = sorted(sorted(range(len(keys)), key=keys.__getitem__)[:limit])
    return pairs.take(pa.array(kept, pa.int64()))


def stream_images(dataset: str, wanted: pa.Array) -> Iterator[tuple[list[str], torch.Tensor]]:
    """Ids and uint8 (n, 3, H, W) RGB of the stored images in `wanted`, in stored order, at most a row group at a time.

    Raises UserError if they differ in size: networks and joints are in pixels of one size.
    """
    size, first = None, ""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for names, encoded in pictures.encoded(layout.images(dataset), wanted):
            decoded = list(threads.map(pictures.decode, encoded, names))
            for name, picture in zip(names, decoded, strict=True):
                size, first = size or picture.shape[:2], first or name
                if picture.shape[:2] != size:
                    here, there = (f"{height} x {width}" for height, width in (picture.shape[:2], size))
                    raise UserError(
                        f"{layout.images(dataset)}: {name} is {here} but {first} is {there} (height x width); "
                        "training needs images of one size"
                    )
            yield names, torch.from_numpy(np.stack(decoded)[..., ::-1].transpose(0, 3, 1, 2).copy())


def _label_map(data: bytes, image_id: str, size: tuple[int, int]) -> np.ndarray:
    labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.dtype != np.uint8 or labels.shape != size:
        raise UserError(f"parsing of {image_id} is no 8-bit label map of {size[0]} x {size[1]}; run parsing again")
    return labels


def read_labels(dataset: str, ids: list[str], size: tuple[int, int]) -> torch.Tensor:
    """Stored parsing of the images `ids` as LIP-20 ids, uint8 (N, H, W) in main memory; `size`: (H, W).

    Memory is that of the result and one row group. Raises UserError if an image has no parsing, or one of another size.
    """
    folder = layout.parsing(dataset)
    row = {name: number for number, name in enumerate(ids)}
    labels = torch.empty((len(ids), *size), dtype=torch.uint8)
    found = np.zeros(len(ids), bool)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for names, encoded in pictures.encoded(folder, pa.array(ids, pa.string()), "parsing"):
            maps = threads.map(_label_map, encoded, names, [size] * len(names))
            for name, one in zip(names, maps, strict=True):
                labels[row[name]] = torch.from_numpy(one)
                found[row[name]] = True
    _require_parsing(dataset, [name for name, there in zip(ids, found, strict=True) if not there], len(ids))
    return labels


def _require_parsing(dataset: str, missing: list[str], images: int) -> None:
    if missing:
        raise UserError(
            f"{layout.parsing(dataset)}: no parsing of {len(missing)} of {images} images, {missing[0]} the first; set"
            f" parsing.{dataset}.source in {layout.PARAMS} to something other than none and run parsing"
        )


def place(images: torch.Tensor, where: torch.device) -> torch.Tensor:
    """Move uint8 images (or label ids) to the device if they fit, else pin them in main memory."""
    if where.type != "cuda":
        return images.to(where)
    free, _ = torch.cuda.mem_get_info(where)
    if images.numel() <= SHARE_OF_MEMORY * free:
        return images.to(where)
    console.say(f"images ({images.numel() >> 20} MiB) stay in main memory: the device has {free >> 20} MiB free")
    return images.pin_memory()


def decoded_images(dataset: str, wanted: pa.Array) -> tuple[list[str], torch.Tensor]:
    """Ids and uint8 (N, 3, H, W) of the stored images in `wanted`, in stored order. Raises UserError without any."""
    ids: list[str] = []
    images: torch.Tensor | None = None
    with console.progress(f"reading images of {dataset}", len(wanted)) as advance:
        for names, decoded in stream_images(dataset, wanted):
            if images is None:
                images = torch.empty((len(wanted), *decoded.shape[1:]), dtype=torch.uint8)
            images[len(ids) : len(ids) + len(names)] = decoded
            ids += names
            advance(len(names))
    if images is None:
        raise UserError(f"{layout.images(dataset)}: none of the {len(wanted)} images wanted is there; run index again")
    return ids, images[: len(ids)]


def _rgb(encoded: bytes, image_id: str) -> np.ndarray:
    return pictures.decode(encoded, image_id)[..., ::-1].transpose(2, 0, 1).copy()


def sharded_images(dataset: str, wanted: pa.Array) -> tuple[list[str], ShardPictures]:
    """As `decoded_images`, but nothing is decoded before it is asked for. Raises UserError if they differ in size."""
    folder = layout.images(dataset)
    table = store.read_table(folder, columns=["image_id", "height", "width"])
    table = table.filter(pc.is_in(table["image_id"], wanted))
    sizes = table.group_by(["height", "width"]).aggregate([("image_id", "min")]).to_pylist()
    if len(sizes) != 1:
        found = ", ".join(f"{one['height']} x {one['width']} ({one['image_id_min']})" for one in sizes) or "none at all"
        raise UserError(f"{folder}: training needs images of one size (height x width), these are: {found}")
    ids, shape = table["image_id"].to_pylist(), (len(table), 3, sizes[0]["height"], sizes[0]["width"])
    return ids, ShardPictures(folder, "image", ids, shape, _rgb)


def sharded_labels(dataset: str, ids: list[str], size: tuple[int, int]) -> ShardPictures:
    """As `read_labels`, but nothing is decoded before it is asked for."""
    folder = layout.parsing(dataset)
    there = set(store.read_table(folder, columns=["image_id"])["image_id"].to_pylist())
    _require_parsing(dataset, [name for name in ids if name not in there], len(ids))
    return ShardPictures(folder, "parsing", ids, (len(ids), *size), lambda data, name: _label_map(data, name, size))


def load_images(
    dataset: str,
    wanted: pa.Array,
    where: torch.device,
    parsing: bool = False,
    unseen: pa.Array | None = None,
    resident: bool = True,
) -> ImageData:
    """The stored images in `wanted` with their joints; all must have a row in `keypoints.parquet`.

    parsing: with their label ids, too. unseen: more ids, of which joints and labels are wanted but no picture.
    resident: decode all now; else each batch decodes its own. Raises UserError if one is missing.
    """
    ids, images = (decoded_images if resident else sharded_images)(dataset, wanted)
    ids = ids if unseen is None else [*ids, *unseen.to_pylist()]
    table = store.read_table(layout.keypoints(dataset), columns=["image_id", "keypoints"])
    rows = pc.index_in(pa.array(ids, pa.string()), value_set=table["image_id"].combine_chunks())
    joints, valid = (torch.from_numpy(array).to(where) for array in pose.batch_arrays(table["keypoints"].take(rows)))
    labels = (read_labels if resident else sharded_labels)(dataset, ids, tuple(images.shape[2:])) if parsing else None
    if resident:
        images, labels = place(images, where), None if labels is None else place(labels, where)
    return ImageData(images, joints, valid, ids, where, labels=labels)


def usable_images(dataset: str) -> pa.Table:
    """`image_id`, `split`, `person_id` of the images that were not rejected and have joints, sorted by id."""
    present = store.read_table(layout.images(dataset), columns=["image_id"])["image_id"].combine_chunks()
    posed = store.read_table(layout.keypoints(dataset), columns=["image_id", "split", "person_id"])
    return posed.filter(pc.is_in(posed["image_id"], present)).sort_by("image_id")


def pair_list(dataset: str, split: str, limit: int | None = None) -> pa.Table:
    """The pairs of a split in list order, or `limit` of them by `chosen_pairs`.

    A pair whose source or target was rejected, or has no joints, is dropped; how many is said. Raises UserError if a
    shard is missing or no pair is left.
    """
    pairs = store.read_table(layout.pairs(dataset), filters=[("split", "=", split)])
    pairs = chosen_pairs(pairs.sort_by("pair_index"), limit)
    usable = usable_images(dataset)["image_id"].combine_chunks()
    kept = pc.and_(pc.is_in(pairs["source_id"], usable), pc.is_in(pairs["target_id"], usable))
    dropped = len(pairs) - (pc.sum(kept).as_py() or 0)
    if dropped:
        why = "an image was rejected or has no joints"
        console.say(f"{dataset} {split}: {dropped} of {len(pairs)} pairs dropped: {why}")
    pairs = pairs.filter(kept)
    if not len(pairs):
        raise UserError(f"{layout.pairs(dataset)}: no usable pair in split {split}; see {layout.rejects(dataset)}")
    return pairs


def paired_ids(pairs: pa.Table) -> pa.Array:
    """Every image of a pair list, once."""
    return pc.unique(pa.chunked_array([*pairs["source_id"].chunks, *pairs["target_id"].chunks]))


def load_pairs(
    dataset: str, split: str, where: torch.device, limit: int | None = None, parsing: bool = False
) -> PairData:
    """The images of `pair_list(dataset, split, limit)` and the pairs over them. Split: train | val | test.

    parsing: the images' label ids, too (`PairData.parsing`).
    """
    pairs = pair_list(dataset, split, limit)
    return pair_up(PairData, load_images(dataset, paired_ids(pairs), where, parsing), pairs)


def pair_up(kind: type[PairData], data: ImageData, pairs: pa.Table) -> PairData:
    """`data` with `pairs` (pair_index, source_id, target_id) over its images."""
    ids, where = pa.array(data.ids, pa.string()), data.device
    rows = [pc.index_in(pairs[name], value_set=ids).to_numpy() for name in ("source_id", "target_id")]
    return kind(
        **vars(data),
        pairs=torch.from_numpy(np.stack(rows, axis=1).astype(np.int64)).to(where),
        pair_index=torch.from_numpy(pairs["pair_index"].to_numpy().astype(np.int64)).to(where),
    )


class BatchOrder:
    """Which pairs each training step sees: a pure function of (seed, step), so a resumed run sees the same.

    Every epoch is its own seeded permutation of all pairs. Epochs follow each other without a gap: the pairs left over
    at the end of one open the next step's batch, none is dropped or seen twice.
    """

    def __init__(self, pairs: int, batch: int, seed: int):
        self.pairs, self.batch, self.seed = pairs, batch, seed
        self._epochs: dict[int, np.ndarray] = {}

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            self._epochs = {k: v for k, v in self._epochs.items() if k == epoch - 1}
            self._epochs[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.pairs)
        return self._epochs[epoch]

    def rows(self, step: int) -> torch.Tensor:
        """Positions of step `step` = 1, 2, ... as int64 (batch,)."""
        positions = np.arange((step - 1) * self.batch, step * self.batch)
        epochs, offsets = np.divmod(positions, self.pairs)
        rows = np.empty(self.batch, dtype=np.int64)
        for epoch in np.unique(epochs):
            rows[epochs == epoch] = self._permutation(int(epoch))[offsets[epochs == epoch]]
        return torch.from_numpy(rows)
