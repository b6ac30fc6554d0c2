"""SPT's two applications: exchange two people's clothes, and change a person's clothes by editing their parsing.

Both need a generator with

    appearance(source, source_labels, source_joints, source_valid, target_labels, target_joints, target_valid) -> image

images (B, 3, H, W) in [-1, 1], labels (B, H, W) uint8 of the variant's label set, joints (B, 18, 2), valid (B, 18): the
source's appearance in the given parsing and pose.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from models.variants import Batch, Output
from pipeline import drawing
from pipeline.anatomy import labels
from pipeline.core import foreign
from pipeline.core.errors import UserError
from pipeline.figures import subject
from pipeline.figures.parsing import legend, panel
from pipeline.formats import pictures
from pipeline.loading import runs
from pipeline.loading.runs import Person, Trained

# Names for --relabel: those of LIP-20 and CIHP-20, and SPT's own for the same (trousers).
NAMES = dict(zip(labels.NAMES["spt-10"], labels.TO_LIP20["spt-10"].tolist(), strict=True)) | {
    name: label for label, name in enumerate(labels.NAMES[labels.EVERY])
}


def paints(trained: Trained) -> bool:
    """Whether the generator can draw a given parsing: it reads parsing and has the method above (SPGNet's `appearance`
    is a submodule).
    """
    return trained.reads_parsing and hasattr(type(trained.generator), "appearance")


def require(trained: Trained) -> None:
    """Raises UserError if the variant cannot put an appearance into a given parsing."""
    if not paints(trained):
        raise UserError(f"{trained.variant} cannot draw a given parsing (no method appearance); SPT's variants can")


@torch.inference_mode()
def render(trained: Trained, source: Person, target_labels: np.ndarray, target: runs.Pose) -> np.ndarray:
    """The source's appearance in another parsing and pose, as a picture."""
    maps = (runs.labelled(trained, one) for one in (source.labels, target_labels))
    poses = *runs.posed(trained, source), *runs.posed(trained, target)
    image = trained.generator.appearance(Batch(runs.as_input(trained, source), None, *poses, *maps))
    return runs.as_picture(runs.refuse_nan(trained, Output(image)).image)


def transfer(trained: Trained, first: Person, second: Person) -> np.ndarray:
    """Each person's texture in the other's shape and pose, a row for each direction."""
    require(trained)
    rows = []
    for (texture, name), (shape, other) in (((first, "A"), (second, "B")), ((second, "B"), (first, "A"))):
        rows.append(
            drawing.beside(
                [
                    drawing.titled(subject.enlarged(texture.picture), f"texture: {name}"),
                    panel(texture.labels, f"parsing of {name}"),
                    drawing.titled(subject.enlarged(shape.picture), f"shape: {other}"),
                    panel(shape.labels, f"parsing of {other}"),
                    drawing.titled(
                        subject.enlarged(render(trained, texture, shape.labels, shape)), f"{name} as {other}"
                    ),
                ]
            )
        )
    sheet = drawing.beside([drawing.below(rows), legend(first.labels, second.labels)])
    names = f"A: {first.image_id}; B: {second.image_id}"
    return subject.framed(sheet, f"texture transfer: {trained.title}", names)


def edit(trained: Trained, person: Person, edited: np.ndarray) -> np.ndarray:
    """The person in their own pose, drawn from their own parsing and from the edited one."""
    require(trained)
    changed = (edited != person.labels).mean()
    rows = [
        (person.labels, "own parsing", "generated from it"),
        (edited, "edited parsing", "generated from it"),
    ]
    panels = [drawing.titled(subject.enlarged(person.picture), "source")]
    for label_map, title, outcome in rows:
        panels.append(panel(label_map, title))
        panels.append(drawing.titled(subject.enlarged(render(trained, person, label_map, person)), outcome))
    panels.append(legend(person.labels, edited))
    return subject.framed(
        drawing.beside(panels),
        f"edited parsing: {trained.title}",
        f"{person.image_id}; {100 * changed:.1f} % of the pixels have another label",
    )


# ---- edited label maps


def present(label_map: np.ndarray) -> str:
    return ", ".join(labels.NAMES[labels.EVERY][label] for label in np.unique(label_map))


def read_parsing(path: Path, person: Person) -> np.ndarray:
    """An edited label map: 8-bit PNG of lip-cihp-21 ids, or in the legend's colours, of the person's size ->
    (H, W) uint8.

    Raises UserError: not there, no picture, another size or depth, an unknown id or colour.
    """
    if not path.exists():
        raise UserError(
            f"--parsing {path}: not there; --save-parsing {path} writes the image's own parsing to start from"
        )
    data = foreign.read(path, foreign.PICTURE)
    found = None if pictures.refused(data) else pictures.decode(data, cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint8 or (found.ndim == 3 and found.shape[2] not in (3, 4)):
        raise UserError(f"--parsing {path}: no 8-bit PNG of label ids or of their colours")
    if found.shape[:2] != person.labels.shape:
        sizes = [f"{size[0]} x {size[1]}" for size in (found.shape, person.labels.shape)]
        raise UserError(f"--parsing {path}: {sizes[0]} (height x width), but {person.image_id} is {sizes[1]}")
    if found.ndim == 3:
        try:
            return labels.from_colours(found[:, :, 2::-1])
        except UserError as error:
            raise UserError(f"--parsing {path}: {error}") from None
    last = len(labels.NAMES[labels.EVERY]) - 1
    if found.max() > last:
        raise UserError(f"--parsing {path}: id {found.max()} is no label; {labels.EVERY} has 0 to {last}")
    return found


def write_parsing(label_map: np.ndarray) -> bytes:
    """PNG of the map in the legend's colours, which a paint program shows and `read_parsing` reads."""
    return pictures.encode_png(labels.colour(label_map))


def relabel(label_map: np.ndarray, changes: Sequence[str], image_id: str) -> np.ndarray:
    """The map (H, W) with all changes "FROM=TO" (names) made at once. Raises UserError for a label that does not exist
    or that the map does not show.
    """
    table = np.arange(len(labels.NAMES[labels.EVERY]), dtype=np.uint8)
    for change in changes:
        ends = [name.strip() for name in change.split("=")]
        if len(ends) != 2:
            raise UserError(f"--relabel {change}: write FROM=TO, such as pants=skirt")
        unknown = [name for name in ends if name not in NAMES]
        if unknown:
            raise UserError(f"--relabel {change}: no label {unknown[0]}; {image_id} has: {present(label_map)}")
        before, after = (NAMES[name] for name in ends)
        if not (label_map == before).any():
            raise UserError(f"--relabel {change}: {image_id} has no {ends[0]}; it has: {present(label_map)}")
        table[before] = after
    return labels.relabel(label_map, table)
