"""One person in poses drawn at random from the data set: SPIG's Figure 8."""

from collections.abc import Sequence

import numpy as np

from pipeline import drawing
from pipeline.core.errors import UserError
from pipeline.figures import subject
from pipeline.loading import runs
from pipeline.loading.runs import Person, Pose, Trained

COLUMNS = 8


def random_poses(poses: Sequence[Pose], source: Pose, count: int, seed: int) -> list[Pose]:
    """`count` of the poses, none twice and none of the source image. Raises UserError if there are fewer."""
    others = [one for one in poses if one.image_id != source.image_id]
    if count > len(others):
        raise UserError(f"--count {count}: only {len(others)} images of the split show both shoulders and hips")
    return [others[row] for row in np.random.default_rng(seed).choice(len(others), count, replace=False)]


def draw(trained: Trained, source: Person, targets: Sequence[Pose], pictures: Sequence[np.ndarray] = ()) -> np.ndarray:
    """The source, then each pose over the image generated in it; below, if given, the pictures whose poses they are."""
    cells = []
    for number, target in enumerate(targets):
        generated = runs.as_picture(runs.look(trained, source, target).image)
        parts = [subject.skeleton(target, trained.height, trained.width), subject.enlarged(generated)]
        if pictures:
            parts.append(drawing.titled(subject.enlarged(pictures[number]), "reference"))
        cells.append(drawing.below(parts))
    first = drawing.titled(subject.enlarged(source.picture), "source")
    rows = [drawing.beside(cells[start : start + COLUMNS]) for start in range(0, len(cells), COLUMNS)]
    return subject.framed(
        drawing.beside([first, drawing.titled(drawing.below(rows), "target pose, and below it the generated image")]),
        f"random poses: {trained.title}",
        source.image_id,
    )
