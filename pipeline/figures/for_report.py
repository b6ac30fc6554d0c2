"""The figures of a variant in the report, drawn at its last checkpoint when it is scored."""

from collections.abc import Iterator

import numpy as np
import torch

from models.variants import VARIANTS
from pipeline.anatomy import labels
from pipeline.core.params import variant_of
from pipeline.figures import appearance, flow, parsing, poses, relation_maps, subject
from pipeline.formats import pictures
from pipeline.loading import runs
from pipeline.loading.runs import Person, Trained

PAIRS = 2  # of each kind of figure
POSES = 6
# The first of these clothes that a person wears is edited into the other.
EDITS = (("pants", "skirt"), ("skirt", "pants"), ("dress", "upper-clothes"), ("upper-clothes", "dress"))
WORN = 0.02  # least share of the pixels of clothes that are worn
# A kind of figure of one pair -> the field of `Output` that it shows, where a generator gives it, and how it is drawn.
OF_PAIR = {
    "relation-maps": ("relation_maps", relation_maps.draw),
    "flow": ("flows", flow.draw),
    "parsing": ("parsing", parsing.draw),
}


def rows(dataset: str, variant: str, step: int, device: torch.device) -> list[dict]:
    """Rows of `schema.FIGURES`: every figure that the variant's generator has something to show in. None for a floor,
    which looks at nothing. The pairs are the first of the fixed shuffle of test pairs.
    """
    entry = VARIANTS[variant_of(variant)]
    if entry.phase is None:
        return []
    trained = subject.open_variant(dataset, variant, step, device)
    pairs = subject.pairs(dataset, count=PAIRS)
    ids = [pair[end] for pair in pairs for end in ("source_id", "target_id")]
    people = subject.people(dataset, ids, trained.reads_parsing)
    drawn = [
        figure
        for pair in pairs
        for figure in _of_pair(
            trained, people[pair["source_id"]], people[pair["target_id"]], f"pair {pair['pair_index']}"
        )
    ]
    first = people[pairs[0]["source_id"]]
    others = [one for one in subject.poses(dataset, "test") if one.image_id != first.image_id]
    if entry.paper == "SPIG" and others:
        targets = poses.random_poses(others, first, min(POSES, len(others)), seed=0)
        drawn.append(("poses", first.image_id, poses.draw(trained, first, targets)))
    if appearance.paints(trained):
        drawn += _applications(trained, [people[pair["source_id"]] for pair in pairs])
    return [
        {
            "step": step,
            "kind": kind,
            "caption": caption,
            "picture": {"bytes": pictures.encode_webp(picture), "path": None},
        }
        for kind, caption, picture in drawn
    ]


Drawn = tuple[str, str, np.ndarray]  # kind, caption, picture


def _of_pair(trained: Trained, source: Person, target: Person, which: str) -> Iterator[Drawn]:
    output = runs.look(trained, source, target)
    for kind, (field, draw) in OF_PAIR.items():
        shown = getattr(output, field)
        if shown is not None and len(shown):
            yield kind, which, draw(trained, source, target)


def _applications(trained: Trained, people: list[Person]) -> Iterator[Drawn]:
    if len(people) > 1:
        first, second = people[:2]
        picture = appearance.transfer(trained, first, second)
        yield "texture-transfer", f"{first.image_id} and {second.image_id}", picture
    for person in people:
        for before, after in EDITS:
            if (person.labels == labels.NAMES[labels.EVERY].index(before)).mean() >= WORN:
                edited = appearance.relabel(person.labels, [f"{before}={after}"], person.image_id)
                yield "edit", f"{person.image_id}, {before} made {after}", appearance.edit(trained, person, edited)
                break
