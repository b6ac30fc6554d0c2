"""The two ways in which SPT's parsing fails: H_S predicts it wrongly, or was taught by a stand-in of other clothes.

Both are picked by a measure that is printed with them, the worst first:

  parsing error   of test pairs: the share of the person's pixels, in the prediction or in the stored parsing of the
                  target, at which the two labels differ
  search error    of training images: the share of the person's pixels that would have to change their label for the
                  stand-in to show as much of each of SPT's ten labels as the image itself (half the sum over labels of
                  the differences of their shares)
"""

from collections.abc import Sequence

import numpy as np

from pipeline import drawing
from pipeline.anatomy import labels
from pipeline.figures import subject
from pipeline.figures.parsing import agree, legend, panel, predicted, require_parsing, shown
from pipeline.loading import runs
from pipeline.loading.runs import Person, Trained

BODY = len(labels.NAMES["spt-10"]) - 1  # labels without the background


def parsing_error(trained: Trained, source: Person, target: Person) -> float:
    logits = require_parsing(trained, runs.look(trained, source, target))
    person = (predicted(logits) > 0) | (target.labels > 0)
    return float((~agree(trained, logits, target))[person].mean()) if person.any() else 0.0


def body_shares(label_map: np.ndarray) -> np.ndarray:
    """The share of the person's pixels that each of SPT's labels but the background has, (9,): lip-cihp-21 ids."""
    ten = labels.to_spt10(labels.relabel(label_map, labels.exchange(labels.EVERY, "lip-20")))
    counts = np.bincount(ten.reshape(-1), minlength=BODY + 1)[1:]
    return counts / max(counts.sum(), 1)


def search_error(label_map: np.ndarray, stand_in: np.ndarray) -> float:
    return float(np.abs(body_shares(label_map) - body_shares(stand_in)).sum() / 2)


def worst(errors: Sequence[float], count: int) -> list[int]:
    """Positions of the largest errors, the largest first, the first of equals first."""
    return np.argsort(-np.asarray(errors), kind="stable")[:count].tolist()


def draw(
    trained: Trained,
    pairs: Sequence[tuple[float, Person, Person]],
    searched: Sequence[tuple[float, dict, Person, Person]],
    looked_at: tuple[int, int],
    rule: str,
) -> np.ndarray:
    """The sheet. pairs: error, source and target; searched: error, row of schema.PSEUDO_LABELS, image and stand-in;
    looked_at: among how many of each they are the worst; rule: by which the stand-ins were chosen.
    """
    rows = [subject.text(f"parsing error: the worst of {looked_at[0]} test pairs")]
    for error, source, target in pairs:
        found = runs.look(trained, source, target)
        guess = shown(trained, require_parsing(trained, found))
        rows.append(
            drawing.beside(
                [
                    drawing.titled(subject.enlarged(source.picture), f"source {source.image_id}"),
                    panel(source.labels, "its parsing"),
                    drawing.titled(subject.skeleton(target, trained.height, trained.width), "target pose"),
                    panel(guess, f"predicted: {100 * error:.1f} % of the person wrong"),
                    panel(target.labels, f"target {target.image_id} (not seen)"),
                    drawing.titled(subject.enlarged(runs.as_picture(found.image)), "generated"),
                    drawing.titled(subject.enlarged(target.picture), "target (not seen)"),
                    legend(source.labels, guess, target.labels),
                ]
            )
        )
    rows.append(subject.text(f"search error: the worst of {looked_at[1]} training images, rule {rule}"))
    for error, row, image, stand_in in searched:
        height, width = stand_in.picture.shape[:2]
        rows.append(
            drawing.beside(
                [
                    drawing.titled(subject.enlarged(image.picture), f"image {image.image_id}"),
                    panel(image.labels, "its parsing"),
                    drawing.titled(subject.skeleton(stand_in, height, width), "stand-in's pose"),
                    panel(stand_in.labels, f"pseudo label: {100 * error:.1f} % other labels, cost {row['cost']:.0f}"),
                    drawing.titled(subject.enlarged(stand_in.picture), f"stand-in {stand_in.image_id}"),
                    legend(image.labels, stand_in.labels),
                ]
            )
        )
    return subject.framed(drawing.below(rows), f"failures: {trained.title}")
