"""What the prepared files of a data set say of how they were made, and how they differ from the papers' by that."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core import layout, params, store

# The papers' data sets: their numbers of training and of test pairs, in any form.
PUBLISHED = {"market1501": (263_632, 12_000), "deepfashion": (101_966, 8_570)}


def said(path: Path) -> dict[str, str]:
    """The metadata that a stage left in a table, or in the shards of a folder. Raises UserError if it is not there."""
    file = path if path.suffix else store.parts(path)[0]
    found = pq.read_schema(file).metadata or {}
    return {key.decode(): value.decode() for key, value in found.items()}


def _complete(dataset: str) -> bool:
    """Whether every image of the published lists is there, by the published digests, and all training pairs."""
    if {"partial", "own_digests"} & said(layout.images(dataset)).keys():
        return False
    listed = store.read_table(layout.keypoints(dataset), columns=["image_id"])["image_id"]
    there = store.read_table(layout.images(dataset), columns=["image_id"])["image_id"].combine_chunks()
    pairs = said(layout.pairs(dataset)).get("training_pairs")
    return pc.all(pc.is_in(listed, there)).as_py() is not False and pairs == str(PUBLISHED[params.parent(dataset)][0])


def marks(dataset: str) -> list[str]:
    """How images and joints differ from those that the papers measure on: of "data" and "joints"."""
    found = [] if params.parent(dataset) in PUBLISHED and _complete(dataset) else ["data"]
    sources = store.read_table(layout.keypoints(dataset), columns=["keypoint_source"])["keypoint_source"]
    return found if pc.all(pc.equal(sources, "annotations")).as_py() else [*found, "joints"]


def other_test_pairs(dataset: str, count: int) -> bool:
    """Whether `count` scored test pairs are not the published list: fewer, or drawn. False where none is published."""
    listed = said(layout.pairs(dataset)).get("test_list") == "official"
    published = PUBLISHED.get(params.parent(dataset))
    return published is not None and not (listed and count == published[1])
