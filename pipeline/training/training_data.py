"""The data that a variant or component is trained on, of each kind in `models.layers.schedule.DATA`.

People in validation pairs are left out of all kinds: checkpoints are chosen on people whom no network has seen.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.core import console, layout, store
from pipeline.core.errors import UserError
from pipeline.loading import pair_lists, parallel, prepared, shard_loader
from pipeline.loading.arrays import ImageData, PairData, UnpairedData, load_images, pair_up

# The kinds that pair an image with its stand-in, and the rule by which that was chosen.
RULES = {"pseudo_pairs": "equation", "balanced_pseudo_pairs": "balanced"}


def inputs(dataset: str, kind: str, parsing: bool) -> tuple[Path, ...]:
    """The files and folders that `load` reads."""
    read = [layout.images(dataset), layout.keypoints(dataset), layout.pairs(dataset)]
    read += [layout.parsing(dataset)] * parsing
    read += [layout.pseudo_labels(dataset, RULES[kind])] if kind in RULES else []
    return tuple(read)


def require_parsing(dataset: str, wanted_by: str) -> None:
    """Raises UserError if the data set has no human parsing."""
    if prepared.said(layout.parsing(dataset)).get("parsing_source", "none") == "none":
        raise UserError(
            f"{wanted_by}: needs human parsing, but {layout.parsing(dataset)} has none (parsing.{dataset}.source is"
            f" none in {layout.PARAMS}); set another source or take the variant out of variants"
        )


def kappa(dataset: str) -> float:
    """How fast the stored distance maps fall off: a network that draws them itself draws the same."""
    return float(prepared.said(layout.distance_maps(dataset))["kappa"])


def training_images(dataset: str) -> pa.Array:
    """Sorted ids of the training images that have joints, were not rejected, and show nobody from a validation pair."""
    usable = pair_lists.usable_images(dataset)
    held_out = store.read_table(
        layout.pairs(dataset), columns=["source_id", "target_id"], filters=[("split", "=", "val")]
    )
    people = usable.filter(pc.is_in(usable["image_id"], pair_lists.image_ids(held_out)))["person_id"].combine_chunks()
    usable = usable.filter(
        pc.and_(pc.equal(usable["split"], "train"), pc.invert(pc.is_in(usable["person_id"], people)))
    )
    return usable["image_id"].combine_chunks()


def stand_in_pairs(dataset: str, rule: str) -> pa.Table:
    """pair_index, source_id, target_id: each training image paired with its stand-in, if that may be trained on too.

    Says how many are left out. Raises UserError if none is left.
    """
    found = store.read_table(layout.pseudo_labels(dataset, rule), columns=["image_id", "pseudo_id"])
    usable = training_images(dataset)
    found = found.filter(pc.is_in(found["image_id"], usable))
    kept = found.filter(pc.is_in(found["pseudo_id"], usable))
    if not len(kept):
        raise UserError(
            f"{layout.pseudo_labels(dataset, rule)}: no training image has a stand-in; run pseudo_labels again"
        )
    if len(kept) < len(found):
        without = len(found) - len(kept)
        console.say(f"{dataset}: {without} of {len(found)} training images have no stand-in that may be trained on")
    order = pa.array(range(len(kept)), pa.int32())
    return pa.table({"pair_index": order, "source_id": kept["image_id"], "target_id": kept["pseudo_id"]})


def fits(dataset: str, images: int, labels: int) -> bool:
    """Whether so many pictures and label maps, decoded by every process on this machine, take at most
    `shard_loader.SHARE` of its memory. Says so if they do not.
    """
    size = store.read_table(layout.images(dataset), columns=["height", "width"]).slice(0, 1).to_pylist()
    needed = sum(one["height"] * one["width"] for one in size) * (3 * images + labels) * parallel.local_processes()
    memory = shard_loader.main_memory()
    if needed <= shard_loader.SHARE * memory:
        return True
    console.say(f"{dataset}: {needed >> 20} MiB of pictures stay in their shards: main memory is {memory >> 20} MiB")
    return False


def load(dataset: str, kind: str, where: torch.device, label_set: str | None, resident: bool | str = True) -> ImageData:
    """Data of a kind. label_set: with label ids of this set. resident: decode all now (onto the device if it has room),
    else batch by batch; "auto": as memory allows. Raises UserError for missing data.
    """
    pairs, unseen = None, None
    if kind == "images":
        wanted = training_images(dataset)
    elif kind == "pairs":
        pairs = pair_lists.read(dataset, "train")
        wanted = pair_lists.image_ids(pairs)
    else:
        pairs = stand_in_pairs(dataset, RULES[kind]) if kind in RULES else pair_lists.read(dataset, "train")
        wanted, targets = pc.unique(pairs["source_id"]), pc.unique(pairs["target_id"])
        unseen = targets.filter(pc.invert(pc.is_in(targets, wanted)))
    if resident == "auto":
        labels = len(wanted) + (0 if unseen is None else len(unseen)) if label_set is not None else 0
        resident = fits(dataset, len(wanted), labels)
    data = load_images(dataset, wanted, where, label_set, unseen, resident)
    return data if pairs is None else pair_up(PairData if kind == "pairs" else UnpairedData, data, pairs)
