"""The source's parsing, the target's, and the target's as a variant predicts it from the pose."""

import numpy as np
from torch import Tensor

from pipeline import drawing
from pipeline.anatomy import labels
from pipeline.core.errors import UserError
from pipeline.figures import subject
from pipeline.figures.subject import Person, Trained


def predicted(logits: Tensor) -> np.ndarray:
    """`Output.parsing` (1, C, H, W) -> ids (H, W) uint8 of the variant's set; ten channels are SPT's labels."""
    ids = logits[0].argmax(0).to("cpu").numpy().astype(np.uint8)
    return labels.relabel(ids, labels.TO_LIP20["spt-10"]) if logits.shape[1] == 10 else ids


def panel(label_map: np.ndarray, *lines: str) -> np.ndarray:
    return drawing.titled(subject.enlarged(labels.colour(label_map)), *lines)


def legend(*label_maps: np.ndarray) -> np.ndarray:
    """The labels of the maps, under a title as the panels beside it have."""
    present = np.unique(np.concatenate([one.reshape(-1) for one in label_maps])).tolist()
    return drawing.titled(drawing.legend(present), "labels")


def draw(trained: Trained, source: Person, target: Person) -> np.ndarray:
    """The figure. Raises UserError if the variant predicts no parsing."""
    output = subject.look(trained, source, target)
    if output.parsing is None:
        raise UserError(f"{trained.variant} predicts no parsing of the target; try spgnet, sgw or spt")
    guess = predicted(output.parsing)
    agreed = (guess == subject.in_its_set(trained, target.labels)).mean()
    guess = labels.relabel(guess, labels.exchange(trained.label_set, labels.EVERY))
    panels = [
        drawing.titled(subject.enlarged(source.picture), "source"),
        panel(source.labels, "its parsing"),
        drawing.titled(subject.skeleton(target, trained.height, trained.width), "target pose"),
        panel(guess, "predicted"),
        panel(target.labels, "target (not seen)"),
        legend(source.labels, guess, target.labels),
    ]
    return subject.framed(
        drawing.beside(panels),
        f"parsing: {trained.title}",
        f"{source.image_id} to {target.image_id}; predicted and target agree on {100 * agreed:.1f} % of the pixels",
    )
