"""Which images and pairs of a data set are used: lists of ids only, read without torch."""

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import console, layout, store
from pipeline.core.errors import UserError


def usable_images(dataset: str) -> pa.Table:
    """`image_id`, `split`, `person_id` of the images that were not rejected and have joints, sorted by id."""
    present = store.read_table(layout.images(dataset), columns=["image_id"])["image_id"].combine_chunks()
    posed = store.read_table(layout.keypoints(dataset), columns=["image_id", "split", "person_id"])
    return posed.filter(pc.is_in(posed["image_id"], present)).sort_by("image_id")


def chosen(pairs: pa.Table, limit: int | None) -> pa.Table:
    """The first `limit` pairs of a fixed shuffle, put back into list order; all of them for None.

    Pair lists run identity by identity, so the head of a list shows only a few people. The shuffle sorts the pairs by
    the SHA-256 of "pair_index source_id target_id": it depends on the list alone, so every variant, device and library
    version gets the same pairs.
    """
    if limit is None or limit >= len(pairs):
        return pairs
    columns = (pairs.column(name).to_pylist() for name in ("pair_index", "source_id", "target_id"))
    keys = [hashlib.sha256(f"{i} {s} {t}".encode()).digest() for i, s, t in zip(*columns, strict=True)]
    kept = sorted(sorted(range(len(keys)), key=keys.__getitem__)[:limit])
    return pairs.take(pa.array(kept, pa.int64()))


def read(dataset: str, split: str, limit: int | None = None) -> pa.Table:
    """The pairs of a split in list order, or `limit` of them by `chosen`.

    A pair whose source or target was rejected, or has no joints, is dropped, and their number is logged.
    Raises UserError if a shard is missing or no pair is left.
    """
    pairs = store.read_table(layout.pairs(dataset), filters=[("split", "=", split)])
    pairs = chosen(pairs.sort_by("pair_index"), limit)
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


def image_ids(pairs: pa.Table) -> pa.Array:
    """The id of every image of a pair list, once."""
    return pc.unique(pa.chunked_array([*pairs["source_id"].chunks, *pairs["target_id"].chunks]))
