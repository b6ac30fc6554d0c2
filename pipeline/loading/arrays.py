"""Images of a data set with their joints and parsing, and the pairs over them: what training and scoring read.

Pictures are decoded once and kept as uint8, on the device where they fit; else batches of them go there by pinned
memory. Heatmaps, masks, one-hot labels and floats are made per batch, on the device: an image costs height x width x 3
bytes however often it is used, its parsing height x width.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from models.variants import Batch
from pipeline.anatomy import pose
from pipeline.core import layout, store
from pipeline.loading import pair_lists, stored_images, stored_labels
from pipeline.loading.devices import place, send
from pipeline.loading.pixels import as_floats
from pipeline.loading.shard_loader import ShardPictures


@dataclass(frozen=True)
class ImageData:
    """N images with their joints.

    images: uint8 (N, 3, H, W), RGB, on the device or in main memory; only of the
    first ids where the last ones' pictures are not wanted.  joints: float32 (N, 18, 2), (x, y) in pixels, zeros where
    missing.  valid: bool (N, 18).  ids: in the order of the rows.
    labels: uint8 (N, H, W), ids of the set that was asked for, beside the images; None if none was.
    Where main memory is too small for them, both stay in their shards and are read batch by batch.
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
        """Whether the pictures are where they are used: nothing has to be decoded or copied ahead."""
        return isinstance(self.images, torch.Tensor) and self.images.device.type == self.device.type

    @property
    def height(self) -> int:
        return self.images.shape[2]

    @property
    def width(self) -> int:
        return self.images.shape[3]

    def __len__(self) -> int:
        return len(self.ids)

    def _of(self, stored: torch.Tensor | ShardPictures, rows: torch.Tensor) -> torch.Tensor:
        return send(stored[send(rows, stored.device)], self.device)

    def pictures(self, rows: torch.Tensor) -> torch.Tensor:
        """Images `rows` (int64) as float32 (B, 3, H, W) in [-1, 1] on the device."""
        return as_floats(self._of(self.images, rows))

    def parsing(self, rows: torch.Tensor) -> torch.Tensor:
        """Label ids of images `rows` (int64; of a pair data set: `pairs[...]`) as uint8 (B, H, W) on the device.

        `models.layers.pose_maps.one_hot` makes channels of them. Only after loading with a label set.
        """
        assert self.labels is not None, "load with a label set"
        return self._of(self.labels, rows)

    def _batch(self, source: torch.Tensor, target: torch.Tensor, target_images: bool = True) -> Batch:
        """The host waits for nothing, if the rows are on its side: each kind of data is gathered once for both."""
        rows, first = torch.cat([source, target]), len(source)
        here = send(rows, self.device)  # once, for all that lies on the device

        def at(stored: torch.Tensor | ShardPictures) -> torch.Tensor:
            return here if stored.device.type == self.device.type else rows

        seen = at(self.images) if target_images else at(self.images)[:first]
        pictures, labels = self.pictures(seen), None if self.labels is None else self.parsing(at(self.labels))
        joints, valid = self.joints[here], self.valid[here]
        return Batch(
            source=pictures[:first],
            target=pictures[first:] if target_images else None,
            source_joints=joints[:first],
            source_valid=valid[:first],
            target_joints=joints[first:],
            target_valid=valid[first:],
            source_labels=None if labels is None else labels[:first],
            target_labels=None if labels is None else labels[first:],
        )

    def batch(self, rows: torch.Tensor) -> Batch:
        """Images at positions `rows` (int64 (B,), in main memory), for networks that look at one image at a time: the
        first half as sources, the rest as targets.
        """
        return self._batch(*rows.tensor_split(2))


@dataclass(frozen=True)
class PairData(ImageData):
    """The P pairs over N images, in the order of `pairs.parquet`.

    pairs: int64 (P, 2), rows of `images`: source, target.  pair_index: int64 (P,), as stored. Both are in main memory,
    where batches are looked up. `len` counts pairs.
    """

    unit: ClassVar[str] = "pairs"

    pairs: torch.Tensor
    pair_index: torch.Tensor

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, rows: torch.Tensor) -> Batch:
        """The pairs at positions `rows` (int64 (B,), in main memory) as a batch on the device."""
        return self._batch(*self.pairs[rows].unbind(1))


class UnpairedData(PairData):
    """Pairs of which only the sources' images are there: `target` of every batch is None. A target that is no source
    comes last in `ids` and has no row in `images`.
    """

    def batch(self, rows: torch.Tensor) -> Batch:
        return self._batch(*self.pairs[rows].unbind(1), target_images=False)


def load_images(
    dataset: str,
    wanted: pa.Array,
    where: torch.device,
    label_set: str | None = None,
    unseen: pa.Array | None = None,
    resident: bool = True,
) -> ImageData:
    """The stored images in `wanted` with their joints; all must have a row in `keypoints.parquet`.

    label_set: their label ids in this set, too. unseen: more ids, of which joints and labels are wanted but no picture.
    resident: decode all now; else each batch decodes its own. Raises UserError if one is missing.
    """
    ids, images = (stored_images.decoded if resident else stored_images.in_shards)(dataset, wanted)
    ids = ids if unseen is None else [*ids, *unseen.to_pylist()]
    table = store.read_table(layout.keypoints(dataset), columns=["image_id", "keypoints"])
    rows = pc.index_in(pa.array(ids, pa.string()), value_set=table["image_id"].combine_chunks())
    joints, valid = (torch.from_numpy(array).to(where) for array in pose.batch_arrays(table["keypoints"].take(rows)))
    labels = None
    if label_set is not None:
        read = stored_labels.decoded if resident else stored_labels.in_shards
        labels = read(dataset, ids, tuple(images.shape[2:]), label_set)
    if resident:
        images, labels = place(images, where), None if labels is None else place(labels, where)
    return ImageData(images, joints, valid, ids, where, labels=labels)


def load_pairs(
    dataset: str, split: str, where: torch.device, limit: int | None = None, label_set: str | None = None
) -> PairData:
    """The images of `pair_lists.read(dataset, split, limit)` and the pairs over them. Split: train | val | test.

    label_set: also the images' label ids in this set (`PairData.parsing`).
    """
    pairs = pair_lists.read(dataset, split, limit)
    return pair_up(PairData, load_images(dataset, pair_lists.image_ids(pairs), where, label_set), pairs)


def pair_up(kind: type[PairData], data: ImageData, pairs: pa.Table) -> PairData:
    """`data` with `pairs` (pair_index, source_id, target_id) over its images."""
    ids = pa.array(data.ids, pa.string())
    rows = [pc.index_in(pairs[name], value_set=ids).to_numpy() for name in ("source_id", "target_id")]
    return kind(
        **vars(data),
        pairs=torch.from_numpy(np.stack(rows, axis=1).astype(np.int64)),
        pair_index=torch.from_numpy(pairs["pair_index"].to_numpy().astype(np.int64)),
    )
