"""What a figure is made of: a trained variant at one checkpoint, and people of a data set.

Pictures are (H, W, 3) uint8 RGB, joints (18, 2) float32 as (x, y) in pixels, label maps (H, W) uint8 of lip-cihp-21
ids, from which each variant is given its own set.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from models.variants import COMPONENTS, VARIANTS, Batch, Component, Output, Variant
from pipeline import drawing
from pipeline.anatomy import labels, pose
from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.core.params import variant_of
from pipeline.loading import arrays, checkpoints, pair_lists, pixels

PANEL = 288  # height in pixels that a panel of a figure is enlarged to, about
_NIGHT = (42, 47, 56)  # behind skeletons, as in the report


@dataclass(frozen=True)
class Pose:
    image_id: str
    joints: np.ndarray
    valid: np.ndarray  # (18,) bool


@dataclass(frozen=True)
class Person(Pose):
    picture: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Trained:
    """A variant at one of its checkpoints, or a component, whose `generator` is then no generator of images."""

    dataset: str
    variant: str
    step: int
    generator: nn.Module
    device: torch.device
    height: int
    width: int

    @property
    def title(self) -> str:
        return f"{self.variant}, step {self.step}, {self.dataset}"

    @property
    def entry(self) -> Variant | Component:
        return (VARIANTS | COMPONENTS)[variant_of(self.variant)]

    @property
    def label_set(self) -> str | None:
        return self.entry.labels

    @property
    def reads_parsing(self) -> bool:
        return self.label_set is not None

    @property
    def reads_target_parsing(self) -> bool:
        """Whether it is given the true target's parsing, as some rows of SPT are."""
        return isinstance(self.entry, Variant) and self.entry.given_target_parsing


# ---- opening


def open_variant(dataset: str, variant: str, step: int, device: torch.device) -> Trained:
    """The variant at a step. Raises UserError if it is unknown, not trained or has no such step."""
    if variant_of(variant) not in VARIANTS:
        raise UserError(f"unknown variant {variant}; known: {', '.join(VARIANTS)}")
    return _open(dataset, variant, step, device)


def open_component(dataset: str, component: str, device: torch.device) -> Trained:
    """The component at its last step, from which variants start. Raises UserError if it is not trained."""
    steps = checkpoints.steps(layout.checkpoints(dataset, component))
    if not steps:
        command = f"repose pretrain --dataset {dataset} --component {component}"
        raise UserError(
            f"{layout.checkpoints(dataset, component)}: no checkpoint; set components.{component} to true in "
            f"{layout.PARAMS} and run: {command}"
        )
    return _open(dataset, component, steps[-1], device)


def _open(dataset: str, name: str, step: int, device: torch.device) -> Trained:
    network, meta = checkpoints.load(layout.checkpoints(dataset, name), step)
    return Trained(dataset, name, step, network.to(device), device, meta["height"], meta["width"])


def pairs(dataset: str, wanted: int | None = None, count: int = 1) -> list[dict]:
    """Rows of `schema.PAIRS`: test pair `wanted` (its pair_index) alone, or the first `count` of the fixed shuffle that
    scoring draws from. Raises UserError if there is no such pair.
    """
    if wanted is None:
        return pair_lists.read(dataset, "test", count).to_pylist()
    table = pair_lists.read(dataset, "test")
    found = [row for row in table.to_pylist() if row["pair_index"] == wanted]
    if not found:
        least, most = (end(table["pair_index"].to_pylist()) for end in (min, max))
        raise UserError(f"{layout.pairs(dataset)}: no usable test pair {wanted}; they are numbered {least} to {most}")
    return found


def people(dataset: str, ids: Sequence[str], parsing: bool = False) -> dict[str, Person]:
    """Images by id, with their joints and, if asked for, their parsing. Raises UserError if one is missing."""
    known = pair_lists.usable_images(dataset)["image_id"].to_pylist()
    for name in set(ids) - set(known):
        near = ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0)) or "nothing; run index"
        raise UserError(f"{layout.images(dataset)}: no image {name} with joints; names there look like {near}")
    wanted, label_set = pa.array(sorted(set(ids)), pa.string()), labels.EVERY if parsing else None
    data = arrays.load_images(dataset, wanted, torch.device("cpu"), label_set)
    rows = zip(
        data.ids,
        data.joints.numpy(),
        data.valid.numpy(),
        data.images.permute(0, 2, 3, 1).contiguous().numpy(),
        data.labels.numpy() if parsing else [None] * len(data.ids),
        strict=True,
    )
    return {row[0]: Person(*row) for row in rows}


def poses(dataset: str, split: str) -> list[Pose]:
    """The poses of a split that show both shoulders and hips, by image id; no image is read."""
    table = store.read_table(layout.keypoints(dataset), filters=[("split", "=", split)]).sort_by("image_id")
    joints, valid = pose.batch_arrays(table["keypoints"])
    rows = zip(table["image_id"].to_pylist(), joints, valid, strict=True)
    return [Pose(*row) for row in rows if row[2][list(pose.SHOULDERS_AND_HIPS)].all()]


# ---- generating


def as_input(trained: Trained, person: Person) -> Tensor:
    """The picture as (1, 3, H, W) in [-1, 1] on the device. Raises UserError if it was trained for another size."""
    if person.picture.shape[:2] != (trained.height, trained.width):
        sizes = [f"{size[0]} x {size[1]}" for size in ((trained.height, trained.width), person.picture.shape)]
        raise UserError(f"{trained.title}: trained for images of {sizes[0]}, {person.image_id} is {sizes[1]}")
    return pixels.as_floats(torch.tensor(person.picture, device=trained.device).permute(2, 0, 1)[None])


def posed(trained: Trained, at: Pose) -> tuple[Tensor, Tensor]:
    """Joints (1, 18, 2) and valid (1, 18) on the device."""
    return torch.tensor(at.joints, device=trained.device)[None], torch.tensor(at.valid, device=trained.device)[None]


def in_its_set(trained: Trained, label_map: np.ndarray) -> np.ndarray:
    """A label map in the variant's own set."""
    return labels.relabel(label_map, labels.exchange(labels.EVERY, trained.label_set))


def labelled(trained: Trained, label_map: np.ndarray) -> Tensor:
    """Label ids (1, H, W) uint8 in the variant's own set, on the device."""
    return torch.tensor(in_its_set(trained, label_map), device=trained.device)[None]


def _batch(trained: Trained, source: Person, target: Pose) -> Batch:
    """A batch of one: the source and the target's joints, and its parsing if the variant is given that."""
    given = trained.reads_target_parsing
    return Batch(
        as_input(trained, source),
        None,
        *posed(trained, source),
        *posed(trained, target),
        source_labels=labelled(trained, source.labels) if trained.reads_parsing else None,
        target_labels=labelled(trained, target.labels) if given else None,
    )


@torch.inference_mode()
def predict(trained: Trained, source: Person, target: Pose) -> Tensor:
    """The target's parsing as a component predicts it: logits (1, C, H, W). Raises UserError if one is not finite."""
    logits = trained.generator(_batch(trained, source, target))
    if not logits.isfinite().all():
        raise UserError(f"{trained.title}: predicts values that are not finite; the training diverged, train again")
    return logits


@torch.inference_mode()
def look(trained: Trained, source: Person, target: Pose) -> Output:
    """The source in the target's pose, and what the generator looked at: a batch of one.

    The generator sees the target's joints, and its parsing if the variant is given that. Raises UserError if it is and
    the target is a pose alone, or if the image is not finite.
    """
    if trained.reads_target_parsing and not isinstance(target, Person):
        raise UserError(f"{trained.variant} is given the target's parsing; a pose has none, so choose another variant")
    return refuse_nan(trained, trained.generator(_batch(trained, source, target)))


def refuse_nan(trained: Trained, output: Output) -> Output:
    if not output.image.isfinite().all():
        raise UserError(f"{trained.title}: generates values that are not finite; the training diverged, train again")
    return output


def as_picture(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) in [-1, 1] -> the picture that would be saved and scored."""
    return pixels.as_bytes(image.float())[0].cpu().numpy()


# ---- panels that several figures share


def enlarged(picture: np.ndarray) -> np.ndarray:
    """A panel of about PANEL pixels height."""
    return drawing.enlarged(picture, max(1, round(PANEL / picture.shape[0])))


def skeleton(at: Pose, height: int, width: int) -> np.ndarray:
    """A panel of the pose alone."""
    ground = np.full((height, width, 3), _NIGHT, np.uint8)
    return drawing.skeleton(ground, at.joints, at.valid, max(1, round(PANEL / height)))


def text(line: str) -> np.ndarray:
    """A line of text alone."""
    return drawing.titled(np.empty((0, 1, 3), np.uint8), line)


def seen(at: Pose) -> str:
    return f"{at.valid.sum()} of {schema.JOINTS} joints"


def framed(sheet: np.ndarray, *lines: str) -> np.ndarray:
    """The whole figure: lines of text over the sheet, paper around."""
    return np.pad(drawing.titled(sheet, *lines), ((8, 0), (8, 8), (0, 0)), constant_values=drawing.PAPER)
