"""Train one component: a network that several variants share, or that scoring needs.

reads   data/D/images/, data/D/keypoints.parquet; all but the detector data/D/pairs.parquet; where feature losses need
        it data/weights/NET/, where human parsing is needed data/D/parsing/ (for SPT data/D/pseudo_labels/), for SPATN
        data/D/distance_maps/
writes  runs/D/C/checkpoints/: step-*.safetensors and meta.json; logs/pretrain/D-C.jsonl: every loss of every step

`components` in params.yaml lists the components and says which of them are trained; the folder of one that is not holds
a meta.json that says so, and no checkpoint. README has the components that each variant starts from. The block
`pretrain.D.C` has the settings; null is the paper's value.

The detector, which is always there, finds the joints of generated images, for PCKh. source: openpose takes the
published Lightweight OpenPose and trains nothing; source: trained trains a small heatmap network on the data set's own
training images. Every tenth identity is held out, and meta.json records the error on it: the ceiling of PCKh.

Stopped by Ctrl-C, a signal or a crash, the same command continues where it was.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch

from models import detector as detector_net
from models.variants import COMPONENTS
from pipeline.core import console, layout, params
from pipeline.core.atomic import atomic_directory
from pipeline.core.errors import UserError
from pipeline.loading import arrays, checkpoints, devices, pair_lists, parallel
from pipeline.loading.arrays import ImageData
from pipeline.stages.train import Params
from pipeline.training import fit
from pipeline.training.fit import Task

HELD_OUT = 10  # one identity in ten
NEAR = 6.0  # pixels: the standard deviation of the field's joint heatmaps


@dataclass(frozen=True)
class DetectorParams:
    """`pretrain.D.detector`."""

    source: str  # openpose | trained
    seed: int
    steps: int
    batch: int  # images
    device: str


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
def validate(network: detector_net.JointDetector, data: ImageData, batch: int) -> dict[str, float]:
    """The detector against known joints; shares are in [0, 1].

    mean_error_px, within_6px: the error of the map's peak over joints that exist, whether or not it passes the
    threshold. found: the share of existing joints above the threshold; false_alarms: of missing ones (null if none is
    missing).
    """
    network = network.eval()
    errors, present, absent = [], [], []
    for rows in torch.arange(len(data)).split(batch):
        joints, scores = detector_net.decode(network(data.pictures(rows)))
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
        "found": share(seen >= detector_net.THRESHOLD),
        "false_alarms": share(unseen >= detector_net.THRESHOLD),
    }


def note(folder: Path, meta: dict[str, str]) -> None:
    """Write a folder whose meta.json says why it holds no checkpoint."""
    if parallel.rank() == 0:
        with atomic_directory(folder) as partial:
            checkpoints.write_meta(partial, meta)


def train_detector(dataset: str, block: DetectorParams) -> None:
    folder = layout.checkpoints(dataset, "detector")
    if block.source == "openpose":
        note(folder, {"kind": "openpose", "net": "openpose"})
        return
    if block.steps < 1:
        raise UserError(f"{layout.PARAMS}: pretrain.{dataset}.detector.steps is 0; a trained detector needs 1 or more")
    where = devices.device(block.device)
    learn, held_out = split_by_identity(pair_lists.usable_images(dataset))
    schedule = Params(block.seed, block.steps, block.steps, block.batch, 1.0, None, block.device, "fp32", None, None)
    task = Task(COMPONENTS["detector"], dataset, schedule, "detector")
    inputs = layout.images(dataset), layout.keypoints(dataset)
    with parallel.joined(where) as group:
        data = arrays.load_images(dataset, learn, where)
        trained, meta = fit.fit(task, data, inputs, None, group)
        result = validate(trained.generator, arrays.load_images(dataset, held_out, where), block.batch)
        console.say(f"pretrain {dataset} detector: on identities held out: {result}")
        fit.publish("pretrain", dataset, "detector", trained, replace(meta, validation=result))


def run(dataset: str, component: str) -> None:
    if component == "detector":
        train_detector(dataset, params.block(DetectorParams, "pretrain", dataset, component))
    elif params.load()["components"][component]:
        block = params.block(Params, "pretrain", dataset, component)
        fit.train(Task(COMPONENTS[component], dataset, block, component))
    else:
        note(layout.checkpoints(dataset, component), {"kind": "untrained", "name": component})
        console.say(f"pretrain {dataset} {component}: not trained, components.{component} is false in {layout.PARAMS}")
        return
    console.say(f"pretrain {dataset} {component}: checkpoints in {layout.checkpoints(dataset, component)}")
