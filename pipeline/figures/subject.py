"""What a figure is made of: a trained variant at one checkpoint, and people of a data set.

How such a variant draws a person is in `pipeline.loading.runs`; pictures, joints and label maps are as there.
"""

import difflib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from models.variants import VARIANTS
from pipeline import drawing
from pipeline.anatomy import labels, pose
from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.core.params import variant_of
from pipeline.loading import arrays, checkpoints, pair_lists
from pipeline.loading.runs import Person, Pose, Trained, batch_of, open_run

PANEL = 288  # height in pixels that a panel of a figure is enlarged to, about
_NIGHT = (42, 47, 56)  # behind skeletons, as in the report


# ---- opening


def require_variant(variant: str) -> None:
    """Raises UserError if there is no variant of this name."""
    if variant_of(variant) not in VARIANTS:
        raise UserError(f"unknown variant {variant}; known: {', '.join(VARIANTS)}")


def open_variant(dataset: str, variant: str, step: int, device: torch.device) -> Trained:
    """The variant at a step. Raises UserError if it is unknown, not trained or has no such step."""
    require_variant(variant)
    return open_run(layout.checkpoints(dataset, variant), dataset, variant, step, device)


def open_component(dataset: str, component: str, device: torch.device) -> Trained:
    """The component at its last step, from which variants start. Raises UserError if it is not trained."""
    steps = checkpoints.steps(layout.checkpoints(dataset, component))
    if not steps:
        command = f"repose pretrain --dataset {dataset} --component {component}"
        raise UserError(
            f"{layout.checkpoints(dataset, component)}: no checkpoint; set components.{component} to true in "
            f"{layout.PARAMS} and run: {command}"
        )
    return open_run(layout.checkpoints(dataset, component), dataset, component, steps[-1], device)


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


@torch.inference_mode()
def predict(trained: Trained, source: Person, target: Pose) -> Tensor:
    """The target's parsing as a component predicts it: logits (1, C, H, W). Raises UserError if one is not finite."""
    logits = trained.generator(batch_of(trained, source, target))
    if not logits.isfinite().all():
        raise UserError(f"{trained.title}: predicts values that are not finite; the training diverged, train again")
    return logits


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
