"""The twelve distance maps of one pose: Figure A of SPGNet's supplement."""

import numpy as np

from pipeline import drawing
from pipeline.figures import subject
from pipeline.loading.runs import Person


def draw(person: Person, maps: np.ndarray, kappa: float) -> np.ndarray:
    """The image, its pose, all maps in one (the largest at each pixel), and each: maps (12, H, W) uint8."""
    height, width = person.picture.shape[:2]
    panels = [
        drawing.titled(subject.enlarged(person.picture), "image"),
        drawing.titled(subject.skeleton(person, height, width), f"pose, {subject.seen(person)}"),
        drawing.titled(subject.enlarged(drawing.level(maps.max(axis=0))), "the largest of all maps"),
    ]
    return subject.framed(
        drawing.below([drawing.beside(panels), *drawing.limb_maps(maps)]),
        f"distance maps of {person.image_id}",
        f"exp({kappa:g} d), d the distance to the limb in pixels, white on the limb; none of a limb with a missing end",
    )
