"""A trained run at one of its checkpoints, and what it draws of people: the one way to call a generator on a person.

Pictures are (H, W, 3) uint8 RGB, joints (18, 2) float32 as (x, y) in pixels, label maps (H, W) uint8 of lip-cihp-21
ids, from which each variant is given its own set. Ids of LIP-20 are the same in it.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.variants import COMPONENTS, VARIANTS, Batch, Component, Output, Variant
from pipeline.anatomy import labels
from pipeline.core import layout
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints, devices, pixels


@dataclass(frozen=True)
class Pose:
    image_id: str
    joints: np.ndarray
    valid: np.ndarray  # (18,) bool

    @property
    def points(self) -> np.ndarray:
        """The joints, NaN where missing, as `Trained.draw` takes them."""
        return np.where(self.valid[:, None], self.joints, np.float32(np.nan))


@dataclass(frozen=True)
class Person(Pose):
    picture: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Trained:
    """A variant at one of its checkpoints, or a component, whose `generator` is then no generator of images."""

    dataset: str
    variant: str  # the run's name: spig, or spig-seed1
    step: int
    generator: nn.Module  # in eval mode, without gradients
    entry: Variant | Component  # of models.variants
    device: torch.device
    meta: Mapping[str, Any]  # its meta.json

    @property
    def title(self) -> str:
        return f"{self.variant}, step {self.step}, {self.dataset}"

    @property
    def height(self) -> int:
        return self.meta["height"]

    @property
    def width(self) -> int:
        return self.meta["width"]

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it was trained with: nulls of params.yaml replaced by published values."""
        return self.meta["settings"]

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

    def draw(
        self,
        source: np.ndarray,
        source_joints: np.ndarray,
        target_joints: np.ndarray,
        source_labels: np.ndarray | None = None,
        target_labels: np.ndarray | None = None,
    ) -> np.ndarray:
        """The person of `source` in the target's pose, (H, W, 3) uint8 RGB.

        source: (H, W, 3) uint8 RGB, of the size that the run was trained for. Joints: (18, 2) as (x, y) in its pixels,
        in OpenPose's order, NaN where missing. Label maps (H, W) uint8 of lip-cihp-21 ids: the source's where the
        variant reads parsing (`reads_parsing`), the target's where it is given that too (`reads_target_parsing`).
        Raises UserError for a picture of another size, and for a label map that is wanted and not given.
        """
        target = _pose("target", target_joints)
        if target_labels is not None:
            target = Person(target.image_id, target.joints, target.valid, source, target_labels)
        at = _pose("source", source_joints)
        return as_picture(look(self, Person(at.image_id, at.joints, at.valid, source, source_labels), target).image)


def _pose(name: str, joints: np.ndarray) -> Pose:
    joints = np.asarray(joints, np.float32)
    valid = np.isfinite(joints).all(axis=-1)
    return Pose(name, np.where(valid[:, None], joints, np.float32(0)), valid)


def open_run(folder: Path, dataset: str, name: str, step: int, device: torch.device) -> Trained:
    """The checkpoint of `step` in a folder of checkpoints. Raises UserError if there is none."""
    network, meta = checkpoints.load(folder, step)
    entry = {"variant": VARIANTS, "component": COMPONENTS}[meta["kind"]][meta["name"]]
    return Trained(dataset, name, step, network.to(device), entry, device, meta)


def checkpoints_of(folder: Path) -> Path:
    """The folder of a run's checkpoints: `folder` itself, or the one in it. Raises UserError if it is no run."""
    found = next((path for path in (folder / "checkpoints", folder) if (path / checkpoints.META).is_file()), None)
    if found is None:
        there = ", ".join(map(str, _near(folder))) or "none here; train a variant, or give its folder, runs/D/V"
        raise UserError(f"{folder}: no trained run (no checkpoints/{checkpoints.META}); trained variants: {there}")
    return found


def _near(folder: Path) -> list[Path]:
    """Runs of variants in or beside a folder; where there are none, in the project that is the working directory."""
    beside = Path("*", "checkpoints")
    for place, form in ((folder, beside), (folder.parent, beside), (Path(), layout.checkpoints("*", "*"))):
        found = []
        for file in sorted(place.glob(str(form / checkpoints.META))):
            with suppress(UserError):  # a broken one is another matter
                if checkpoints.meta(file.parent)["kind"] == "variant":
                    found.append(file.parents[1])
        if found:
            return found
    return []


def load_run(folder: str | Path, step: int | None = None, device: str = "auto") -> Trained:
    """The run in `folder`, such as runs/synthetic/spig, at its checkpoint `step`, or the last; on cpu, cuda or auto.

    Raises UserError: no run, no such step.
    """
    where = checkpoints_of(Path(folder)).resolve()
    known = checkpoints.steps(where)
    if step is None and not known:
        raise UserError(f"{where}: no checkpoint; train it again")
    run = where.parent if where.name == "checkpoints" else where
    dataset = checkpoints.meta(where).get("dataset", run.parent.name)
    return open_run(where, dataset, run.name, known[-1] if step is None else step, devices.device(device))


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


def batch_of(trained: Trained, source: Person, target: Pose) -> Batch:
    """A batch of one: the source and the target's joints, and its parsing if the variant is given that.

    Raises UserError if the variant reads parsing that is not there.
    """
    if trained.reads_target_parsing and (not isinstance(target, Person) or target.labels is None):
        raise UserError(f"{trained.variant} is given the target's parsing; a pose has none, so choose another variant")
    if trained.reads_parsing and source.labels is None:
        raise UserError(f"{trained.variant} reads the source's parsing; give its label map too")
    return Batch(
        as_input(trained, source),
        None,
        *posed(trained, source),
        *posed(trained, target),
        source_labels=labelled(trained, source.labels) if trained.reads_parsing else None,
        target_labels=labelled(trained, target.labels) if trained.reads_target_parsing else None,
    )


@torch.inference_mode()
def look(trained: Trained, source: Person, target: Pose) -> Output:
    """The source in the target's pose, and what the generator looked at: a batch of one.

    The generator sees the target's joints, and its parsing if the variant is given that. Raises UserError if it is and
    the target is a pose alone, if it is a component, or if the image is not finite.
    """
    if isinstance(trained.entry, Component):
        raise UserError(f"{trained.title}: a component, which draws no pictures; name a variant that starts from it")
    return refuse_nan(trained, trained.generator(batch_of(trained, source, target)))


def refuse_nan(trained: Trained, output: Output) -> Output:
    if not output.image.isfinite().all():
        raise UserError(f"{trained.title}: generates values that are not finite; the training diverged, train again")
    return output


def as_picture(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) in [-1, 1] -> the picture that would be saved and scored."""
    return pixels.as_bytes(image.float())[0].cpu().numpy()
