"""The detector of joints in generated images: trained on some of the identities, validated on the others."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import torch

from models import detector as networks
from pipeline.core import console, layout
from pipeline.core.errors import UserError
from pipeline.loading import arrays, devices, pair_lists, parallel
from pipeline.loading.arrays import ImageData
from pipeline.training import fit

HELD_OUT = 10  # one identity in ten
NEAR = 6.0  # pixels: the standard deviation of the field's joint heatmaps


def split_by_identity(people: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Ids of the training images to learn from, and of those to validate on, every tenth identity's.

    people: `image_id`, `split`, `person_id`. Raises UserError unless both have images.
    """
    people = people.filter(pc.equal(people["split"], "train"))
    identities = pc.unique(people["person_id"]).sort()
    held_out = pc.is_in(people["person_id"], identities.take(pa.array(range(0, len(identities), HELD_OUT), pa.int64())))
    if not pc.any(held_out).as_py() or pc.all(held_out).as_py():
        raise UserError("pretrain detector: needs training images of at least two identities; see keypoints.parquet")
    ids = people["image_id"]
    return ids.filter(pc.invert(held_out)).combine_chunks(), ids.filter(held_out).combine_chunks()


@torch.no_grad()
def validate(network: networks.JointDetector, data: ImageData, batch: int) -> dict[str, float]:
    """The detector against known joints; shares are in [0, 1].

    mean_error_px, within_6px: the error of the map's peak over joints that exist, whether or not it passes the
    threshold. found: the share of existing joints above the threshold; false_alarms: of missing ones (null if none is
    missing).
    """
    network = network.eval()
    errors, present, absent = [], [], []
    for rows in torch.arange(len(data)).split(batch):
        joints, scores = networks.decode(network(data.pictures(rows)))
        valid = data.valid[rows.to(data.valid.device)]
        distance = (joints - data.joints[rows.to(data.joints.device)]).norm(dim=-1)
        errors.append(distance[valid].cpu())
        present.append(scores[valid].cpu())
        absent.append(scores[~valid].cpu())
    error, seen, unseen = (torch.cat(parts).double() for parts in (errors, present, absent))

    def share(hits: torch.Tensor) -> float | None:
        return round(hits.double().mean().item(), 4) if len(hits) else None

    return {
        "images": len(data),
        "joints": len(error),
        "mean_error_px": round(error.mean().item(), 3) if len(error) else None,
        "within_6px": share(error <= NEAR),
        "found": share(seen >= networks.THRESHOLD),
        "false_alarms": share(unseen >= networks.THRESHOLD),
    }


def train(task: fit.Task) -> None:
    """Train and publish the detector; `meta.json` records its error on the identities that were held out."""
    dataset, block, where = task.dataset, task.block, devices.device(task.block.device)
    learn, held_out = split_by_identity(pair_lists.usable_images(dataset))
    inputs = layout.images(dataset), layout.keypoints(dataset)
    with parallel.joined(where) as group:
        data = arrays.load_images(dataset, learn, where)
        trained, meta = fit.fit(task, data, inputs, None, group)
        result = validate(trained.generator, arrays.load_images(dataset, held_out, where), block.batch)
        console.say(f"{task.title}: on identities held out: {result}")
        fit.publish(dataset, task.name, trained, replace(meta, validation=result))
