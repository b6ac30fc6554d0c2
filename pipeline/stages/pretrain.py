"""Train one component: a network that several variants share, or that scoring needs.

reads   data/D/images/, data/D/keypoints.parquet; all but the detector data/D/pairs.parquet; where feature losses need
        it data/weights/NET/, where human parsing is needed data/D/parsing/ (for SPT data/D/pseudo_labels/), for SPATN
        data/D/distance_maps/
writes  runs/D/C/checkpoints/: step-*.safetensors and meta.json; runs/D/C/losses/: the course of the losses, for
        `dvc plots`; logs/pretrain/D-C.jsonl: every loss of every step

A component is trained if a variant in params.yaml starts from it (data/D/needs/), or if `components` there says true;
the folder of one that is not holds a meta.json that says so, and no checkpoint. README has the components that each
variant starts from. The block `pretrain.D.C` has the settings; null is the paper's value.

The detector, which is always there, finds the joints of generated images, for PCKh. source: openpose takes the
published Lightweight OpenPose and trains nothing; source: trained trains a small heatmap network on the data set's own
training images. Every tenth identity is held out, and meta.json records the error on it: the ceiling of PCKh.

Stopped by Ctrl-C, a signal or a crash, the same command continues where it was.
"""

from dataclasses import dataclass
from typing import Literal

from pipeline.core import console, layout, needs, params
from pipeline.core.atomic import atomic_directory
from pipeline.core.errors import UserError
from pipeline.core.settings import BATCH, LARGEST, SEED, device_setting, setting
from pipeline.loading import checkpoints
from pipeline.training import losses


@dataclass(frozen=True)
class DetectorParams:
    """`pretrain.D.detector`."""

    source: Literal["openpose", "trained"] = setting("Lightweight OpenPose, or one trained on this data set")
    seed: int = setting("of weights and batches", 0, **SEED)
    steps: int = setting("optimiser steps of a trained one", 0, minimum=0, maximum=LARGEST)
    batch: int = setting("images a step", 16, **BATCH)
    device: str = device_setting()


def note(dataset: str, component: str, meta: dict[str, str]) -> None:
    """Leave a folder without losses, and one whose meta.json says why it holds no checkpoint. Without torch: most
    components take this way.
    """
    if console.RANK == 0:
        losses.write(None, layout.losses(dataset, component))
        with atomic_directory(layout.checkpoints(dataset, component)) as partial:
            checkpoints.write_meta(partial, meta)


def train_detector(dataset: str, block: DetectorParams) -> None:
    from models.variants import COMPONENTS
    from pipeline.training import detector
    from pipeline.training.fit import Task
    from pipeline.training.settings import Params

    if block.steps < 1:
        raise UserError(f"{layout.PARAMS}: pretrain.{dataset}.detector.steps is 0; a trained detector needs 1 or more")
    schedule = Params(
        seed=block.seed,
        steps=block.steps,
        checkpoint_every=block.steps,
        batch=block.batch,
        device=block.device,
        precision="fp32",
    )
    detector.train(Task(COMPONENTS["detector"], dataset, schedule, "detector"))


def train_component(dataset: str, component: str) -> None:
    from models.variants import COMPONENTS
    from pipeline.training import fit
    from pipeline.training.settings import kind_of

    entry = COMPONENTS[component]
    block = params.block(kind_of(entry), "pretrain", dataset, component)
    fit.train(fit.Task(entry, dataset, block, component))


def run(dataset: str, component: str) -> None:
    folder = layout.checkpoints(dataset, component)
    if component == "detector":
        block = params.block(DetectorParams, "pretrain", dataset, component)
        if block.source == "openpose":
            note(dataset, component, {"kind": "openpose", "net": "openpose"})
        else:
            train_detector(dataset, block)
    elif needs.wanted(params.load(), dataset)[component]:
        train_component(dataset, component)
    else:
        note(dataset, component, {"kind": "untrained", "name": component})
        why = f"no variant in {layout.PARAMS} starts from it, nor is components.{component} true"
        console.say(f"pretrain {dataset} {component}: not trained, {why}")
        return
    console.say(f"pretrain {dataset} {component}: checkpoints in {folder}")
