"""Source, target pose, target, and what every variant makes of them: the papers' comparison figures."""

from collections.abc import Sequence

import numpy as np

from pipeline import drawing
from pipeline.anatomy import labels
from pipeline.figures import subject
from pipeline.figures.parsing import require_parsing, shown
from pipeline.loading import runs
from pipeline.loading.runs import Person, Trained


def draw(variants: Sequence[Trained], pairs: Sequence[tuple[Person, Person]], parsing: bool = False) -> np.ndarray:
    """A row for each pair: source, target pose, target, and what each variant generated.

    parsing: before each generated image, the target's parsing that the variant predicted for it. Raises UserError if
    one predicts none.
    """
    rows = []
    for number, (source, target) in enumerate(pairs):
        height, width = source.picture.shape[:2]
        panels = {
            "source": subject.enlarged(source.picture),
            "target pose": subject.skeleton(target, height, width),
            "target (not seen)": subject.enlarged(target.picture),
        }
        if parsing:
            panels["its parsing (not seen)"] = subject.enlarged(labels.colour(target.labels))
        for trained in variants:
            found = runs.look(trained, source, target)
            if parsing:
                predicted = labels.colour(shown(trained, require_parsing(trained, found)))
                panels[f"{trained.variant}'s parsing"] = subject.enlarged(predicted)
            panels[f"{trained.variant}, {trained.step}"] = subject.enlarged(runs.as_picture(found.image))
        columns = [max(panel.shape[1], drawing.text_width(title)) for title, panel in panels.items()]
        if number == 0:
            titled = [drawing.titled(panel, title) for title, panel in panels.items()]
        else:
            titled = [
                np.pad(panel, ((0, 0), (0, width - panel.shape[1]), (0, 0)), constant_values=drawing.PAPER)
                for panel, width in zip(panels.values(), columns, strict=True)
            ]
        rows.append(drawing.beside(titled))
    dataset = f", {variants[0].dataset}" if variants else ""
    return subject.framed(drawing.below(rows), f"{len(pairs)} test pairs{dataset}; a variant's step is beside its name")
