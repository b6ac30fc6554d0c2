"""What a variant or component is trained on: one loader for each kind of `models.schedule.DATA`.

Whoever is in a validation pair is in no kind: checkpoints are chosen on people that no network has seen.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline import console, layout, store
from pipeline.device_data import (
    ImageData,
    UnpairedData,
    load_images,
    load_pairs,
    pair_list,
    pair_up,
    paired_ids,
    usable_images,
)
from pipeline.errors import UserError


def inputs(dataset: str, kind: str, parsing: bool) -> tuple[Path, ...]:
    """The files and folders that `load` reads."""
    read = [layout.images(dataset), layout.keypoints(dataset), layout.pairs(dataset)]
    read += [layout.parsing(dataset)] * parsing + [layout.pseudo_labels(dataset)] * (kind == "pseudo_pairs")
    return tuple(read)


def training_images(dataset: str) -> pa.Array:
    """Ids, sorted, of the training images with joints that were not rejected and show nobody of a validation pair."""
    usable = usable_images(dataset)
    held_out = store.read_table(
        layout.pairs(dataset), columns=["source_id", "target_id"], filters=[("split", "=", "val")]
    )
    people = usable.filter(pc.is_in(usable["image_id"], paired_ids(held_out)))["person_id"].combine_chunks()
    usable = usable.filter(
        pc.and_(pc.equal(usable["split"], "train"), pc.invert(pc.is_in(usable["person_id"], people)))
    )
    return usable["image_id"].combine_chunks()


def stand_in_pairs(dataset: str) -> pa.Table:
    """pair_index, source_id, target_id: every training image that has a stand-in among them, with it.

    How many have none is said. Raises UserError if nothing is left.
    """
    found = store.read_table(layout.pseudo_labels(dataset), columns=["image_id", "pseudo_id"])
    usable = training_images(dataset)
    found = found.filter(pc.is_in(found["image_id"], usable))
    kept = found.filter(pc.is_in(found["pseudo_id"], usable))
    if not len(kept):
        raise UserError(f"{layout.pseudo_labels(dataset)}: no training image has a stand-in; run pseudo_labels again")
    if len(kept) < len(found):
        without = len(found) - len(kept)
        console.say(f"{dataset}: {without} of {len(found)} training images have no stand-in that may be trained on")
    order = pa.array(range(len(kept)), pa.int32())
    return pa.table({"pair_index": order, "source_id": kept["image_id"], "target_id": kept["pseudo_id"]})


def load(dataset: str, kind: str, where: torch.device, parsing: bool) -> ImageData:
    """Data of a kind, on the device where it fits. parsing: with label ids. Raises UserError for what is missing."""
    if kind == "pairs":
        return load_pairs(dataset, "train", where, parsing=parsing)
    if kind == "images":
        return load_images(dataset, training_images(dataset), where, parsing)
    pairs = {"unpaired": lambda: pair_list(dataset, "train"), "pseudo_pairs": lambda: stand_in_pairs(dataset)}[kind]()
    sources = pc.unique(pairs["source_id"])
    targets = pc.unique(pairs["target_id"])
    unseen = targets.filter(pc.invert(pc.is_in(targets, sources)))
    return pair_up(UnpairedData, load_images(dataset, sources, where, parsing, unseen), pairs)
