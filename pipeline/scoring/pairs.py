"""The pairs of a split that are scored, and what is known of their targets before anything is generated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.loading import pair_lists
from pipeline.loading.arrays import PairData, load_images, pair_up
from pipeline.metrics.pckh import Joints
from pipeline.metrics.pose_mask import pose_masks
from pipeline.scoring.protocol import Reference


@dataclass(frozen=True)
class Split:
    """A split of a data set, as `judged.Pairs`."""

    name: str
    pairs: pa.Table  # of schema.PAIRS
    data: PairData  # the same pairs, with their images
    target_masks: Mapping[int, np.ndarray]  # pose masks of the targets by row of `data.images`: (H, W) uint8 {0, 1}
    # Their parsing by row: (H, W) uint8 LIP-20 ids, the parser's; empty if no metric needs it.
    target_labels: Mapping[int, np.ndarray]

    @property
    def ids(self) -> list[str]:
        return self.data.ids

    @property
    def size(self) -> tuple[int, int]:
        return self.data.height, self.data.width

    @property
    def rows(self) -> np.ndarray:
        return self.data.pairs.numpy()

    @property
    def pair_ids(self) -> list[int]:
        return self.data.pair_index.tolist()

    def __len__(self) -> int:
        return len(self.data)

    def images(self, rows: np.ndarray) -> np.ndarray:
        return images_of(self.data, torch.as_tensor(rows))

    def joints(self, rows: np.ndarray) -> Joints:
        return joints_of(self.data, torch.as_tensor(rows))

    def masks(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self.target_masks[row] for row in rows.tolist()])

    def labels(self, rows: np.ndarray) -> np.ndarray | None:
        return np.stack([self.target_labels[row] for row in rows.tolist()]) if self.target_labels else None

    def subset(self, positions: Sequence[int]) -> "Split":
        """The pairs at some positions, over the same images."""
        rows = list(positions)
        data = replace(self.data, pairs=self.data.pairs[rows], pair_index=self.data.pair_index[rows])
        return replace(self, pairs=self.pairs.take(rows), data=data)

    def with_masks(self) -> "Split":
        """With the masks of its targets: drawn once, not again for every checkpoint."""
        targets = self.data.pairs[:, 1].unique()
        masks = pose_masks(*joints_of(self.data, targets), *self.size)
        return replace(self, target_masks=dict(zip(targets.tolist(), masks, strict=True)))


def images_of(data: PairData, rows: torch.Tensor) -> np.ndarray:
    """Stored images `rows` -> (n, H, W, 3) uint8 RGB, as every metric takes them."""
    return data.images[rows.to(data.images.device)].permute(0, 2, 3, 1).contiguous().cpu().numpy()


def joints_of(data: PairData, rows: torch.Tensor) -> Joints:
    return Joints(data.joints[rows].cpu().numpy(), data.valid[rows].cpu().numpy())


def listed(dataset: str, split: str, limit: int | None) -> pa.Table:
    """The pairs of a split that are scored, in order, as `schema.PAIRS`."""
    return pair_lists.read(dataset, split, limit).replace_schema_metadata().cast(schema.PAIRS)


def load(dataset: str, pairs: pa.Table, where: torch.device, label_set: str | None = None) -> PairData:
    """The images of these pairs, and the pairs over them. label_set: with the label maps, in the generator's set."""
    return pair_up(PairData, load_images(dataset, pair_lists.image_ids(pairs), where, label_set), pairs)


def target_parsing(dataset: str, pairs: pa.Table) -> pa.Table:
    """The stored parsing of the targets in LIP-20, the set of the parser that metrics ask, as `schema.PARSING`.

    Raises UserError if one has none.
    """
    ids = sorted(set(pairs["target_id"].to_pylist()))
    table = store.read_table(layout.parsing(dataset), filters=[("image_id", "in", ids)]).sort_by("image_id")
    lacking = sorted(set(ids) - set(table["image_id"].to_pylist()))
    if lacking:
        raise UserError(
            f"{layout.parsing(dataset)}: no parsing of {len(lacking)} targets, {lacking[0]} the first; run parsing (its"
            f" source must not be none), or take parsing-miou out of reference.{dataset}.metrics in {layout.PARAMS}"
        )
    label_map = pictures.label_decoder(layout.parsing(dataset), "lip-20")
    rows = table.to_pylist()
    for row in rows:
        found = label_map(row["parsing"]["bytes"], f"parsing of {row['image_id']}")
        row["parsing"]["bytes"] = pictures.encode_labels(found)
    return pa.Table.from_pylist(rows, schema.PARSING)


def labels_of(parsing: pa.Table, data: PairData) -> dict[int, np.ndarray]:
    """Rows of `schema.PARSING` -> (H, W) uint8 LIP-20 ids, by the row of `data` with that image."""
    row = {name: number for number, name in enumerate(data.ids)}
    stored = {entry["image_id"]: entry["parsing"]["bytes"] for entry in parsing.to_pylist()}
    return {
        row[name]: pictures.decode_labels(encoded, f"parsing of {name}")
        for name, encoded in stored.items()
        if name in row
    }


def open_split(
    dataset: str, name: str, where: torch.device, reference: Reference, label_set: str | None = None
) -> Split:
    """The pairs that the reference lists for a split, and what metrics need of their targets. label_set: as in `load`.

    Raises UserError if the data set no longer gives these pairs.
    """
    pairs, folder = listed(dataset, name, reference.described["pairs"][name]["limit"]), layout.reference(dataset)
    if not pairs.equals(store.read_table(folder / "pairs.parquet", filters=[("split", "=", name)])):
        raise UserError(f"{folder}: made for other pairs of {name}; run: repose reference --dataset {dataset}")
    stored = folder / "parsing.parquet"
    labelled = store.read_table(stored) if name == "test" and stored.exists() else schema.PARSING.empty_table()
    data = load(dataset, pairs, where, label_set)
    return Split(name, pairs, data, {}, labels_of(labelled, data)).with_masks()
