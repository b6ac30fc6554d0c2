"""The pairs of a split that are scored, and what is known of their targets before anything is generated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.loading.arrays import PairData, load_pairs
from pipeline.metrics.pckh import Joints
from pipeline.metrics.pose_mask import pose_masks
from pipeline.scoring.protocol import Reference


@dataclass(frozen=True)
class Split:
    name: str
    data: PairData
    masks: Mapping[int, np.ndarray]  # pose masks of the targets by row of `data.images`: (H, W) uint8 {0, 1}
    labels: Mapping[int, np.ndarray]  # their parsing by row: (H, W) uint8 LIP-20 ids; empty if no metric needs it

    @property
    def pair_ids(self) -> list[int]:
        return self.data.pair_index.tolist()

    def subset(self, positions: Sequence[int]) -> "Split":
        """The pairs at some positions, over the same images."""
        pairs, index = self.data.pairs[list(positions)], self.data.pair_index[list(positions)]
        return replace(self, data=replace(self.data, pairs=pairs, pair_index=index))


def images_of(data: PairData, rows: torch.Tensor) -> np.ndarray:
    """Stored images `rows` -> (n, H, W, 3) uint8 RGB, as every metric takes them."""
    return data.images[rows.to(data.images.device)].permute(0, 2, 3, 1).contiguous().cpu().numpy()


def joints_of(data: PairData, rows: torch.Tensor) -> Joints:
    return Joints(data.joints[rows].cpu().numpy(), data.valid[rows].cpu().numpy())


def table_of(data: PairData, split: str) -> pa.Table:
    """The pairs of `data` in order, as `schema.PAIRS`."""
    pairs = data.pairs.cpu().numpy()
    columns = [
        pa.array([split] * len(data)),
        pa.array(data.pair_index.cpu().numpy(), pa.int32()),
        *(pa.array([data.ids[row] for row in pairs[:, side]]) for side in (0, 1)),
    ]
    return pa.Table.from_arrays(columns, schema=schema.PAIRS)


def target_parsing(dataset: str, data: PairData) -> pa.Table:
    """The stored parsing of the targets, as `schema.PARSING`. Raises UserError if one has none."""
    ids = sorted({data.ids[row] for row in data.pairs[:, 1].tolist()})
    table = store.read_table(layout.parsing(dataset), filters=[("image_id", "in", ids)]).sort_by("image_id")
    lacking = sorted(set(ids) - set(table["image_id"].to_pylist()))
    if lacking:
        raise UserError(
            f"{layout.parsing(dataset)}: no parsing of {len(lacking)} targets, {lacking[0]} the first; run parsing (its"
            f" source must not be none), or take parsing-miou out of reference.{dataset}.metrics in {layout.PARAMS}"
        )
    return table.replace_schema_metadata().cast(schema.PARSING)


def labels_of(parsing: pa.Table, data: PairData) -> dict[int, np.ndarray]:
    """Rows of `schema.PARSING` -> (H, W) uint8 LIP-20 ids, by the row of `data` with that image."""
    row = {name: number for number, name in enumerate(data.ids)}
    stored = {entry["image_id"]: entry["parsing"]["bytes"] for entry in parsing.to_pylist()}
    return {
        row[name]: pictures.decode_labels(data, f"parsing of {name}") for name, data in stored.items() if name in row
    }


def load(dataset: str, split: str, where: torch.device, reference: Reference, parsing: bool = False) -> PairData:
    """The pairs that the reference lists for `split`. Raises UserError if the data set no longer gives them."""
    data = load_pairs(dataset, split, where, reference.described["pairs"][split]["limit"], parsing)
    listed = store.read_table(layout.reference(dataset) / "pairs.parquet", filters=[("split", "=", split)])
    if not table_of(data, split).equals(listed):
        raise UserError(f"{layout.reference(dataset)}: made for other pairs of {split}; run reference again")
    return data


def open_split(dataset: str, name: str, where: torch.device, reference: Reference, parsing: bool = False) -> Split:
    """As `load`, with what metrics need of the targets. parsing: with the label maps that a generator needs."""
    data = load(dataset, name, where, reference, parsing)
    targets = data.pairs[:, 1].unique()
    masks = pose_masks(*joints_of(data, targets), data.height, data.width)  # once, not again for every checkpoint
    stored = layout.reference(dataset) / "parsing.parquet"
    labels = labels_of(store.read_table(stored), data) if name == "test" and stored.exists() else {}
    return Split(name, data, dict(zip(targets.tolist(), masks, strict=True)), labels)
