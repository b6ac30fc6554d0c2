"""The source's parsing, the target's, and the target's as networks predict it from the pose."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from models.variants import Output
from pipeline import drawing
from pipeline.anatomy import labels
from pipeline.core.errors import UserError
from pipeline.figures import subject
from pipeline.loading import runs
from pipeline.loading.runs import Person, Trained


def predicted(logits: Tensor) -> np.ndarray:
    """`Output.parsing` (1, C, H, W) -> ids (H, W) uint8 of the network's set, of which C = 10 are SPT's."""
    return logits[0].argmax(0).to("cpu").numpy().astype(np.uint8)


def shown(trained: Trained, logits: Tensor) -> np.ndarray:
    """The predicted labels in the set of all figures, (H, W) uint8; of SPT's ten, a label that stands for each."""
    ids = predicted(logits)
    if logits.shape[1] == len(labels.NAMES["spt-10"]):
        ids = labels.relabel(ids, labels.TO_LIP20["spt-10"])
    return labels.relabel(ids, labels.exchange(trained.label_set, labels.EVERY))


def agree(trained: Trained, logits: Tensor, target: Person) -> np.ndarray:
    """(H, W) bool: where the predicted labels are the target's, both in the set of the prediction."""
    truth = runs.in_its_set(trained, target.labels)
    if logits.shape[1] == len(labels.NAMES["spt-10"]):
        truth = labels.to_spt10(truth)
    return predicted(logits) == truth


def panel(label_map: np.ndarray, *lines: str) -> np.ndarray:
    return drawing.titled(subject.enlarged(labels.colour(label_map)), *lines)


def legend(*label_maps: np.ndarray) -> np.ndarray:
    """The labels of the maps, under a title as the panels beside it have."""
    present = np.unique(np.concatenate([one.reshape(-1) for one in label_maps])).tolist()
    return drawing.titled(drawing.legend(present), "labels")


def require_parsing(trained: Trained, output: Output) -> Tensor:
    """What the network predicts, (1, C, H, W). Raises UserError if it predicts no parsing."""
    if output.parsing is None:
        raise UserError(f"{trained.variant} predicts no parsing of the target; try spgnet, sgw or spt")
    return output.parsing


def draw(trained: Trained, source: Person, target: Person) -> np.ndarray:
    """The figure of one variant. Raises UserError if it predicts no parsing."""
    logits = require_parsing(trained, runs.look(trained, source, target))
    right = agree(trained, logits, target).mean()
    return subject.framed(
        _sheet(source, target, {"predicted": shown(trained, logits)}),
        f"parsing: {trained.title}",
        f"{source.image_id} to {target.image_id}; predicted and target agree on {100 * right:.1f} % of the pixels",
    )


def compare(predictors: Sequence[Trained], titles: Sequence[str], source: Person, target: Person) -> np.ndarray:
    """What several networks predict of one target, side by side, and on how many pixels each agrees with it."""
    maps, lines = {}, []
    for trained, title in zip(predictors, titles, strict=True):
        logits = subject.predict(trained, source, target)
        maps[title] = shown(trained, logits)
        right = 100 * agree(trained, logits, target).mean()
        lines.append(f"{title} ({trained.title}): agrees with the target on {right:.1f} % of the pixels")
    return subject.framed(_sheet(source, target, maps), f"parsing, {source.image_id} to {target.image_id}", *lines)


def _sheet(source: Person, target: Person, maps: dict[str, np.ndarray]) -> np.ndarray:
    """Source, pose, `maps` by their titles, and the target's own parsing, which no network saw."""
    height, width = source.picture.shape[:2]
    panels = [
        drawing.titled(subject.enlarged(source.picture), "source"),
        panel(source.labels, "its parsing"),
        drawing.titled(subject.skeleton(target, height, width), "target pose"),
        *(panel(one, title) for title, one in maps.items()),
        panel(target.labels, "target (not seen)"),
        legend(source.labels, *maps.values(), target.labels),
    ]
    return drawing.beside(panels)
