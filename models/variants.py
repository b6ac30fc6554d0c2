"""The one list of what can be trained and scored: an engine needs nothing else from `models`.

Each family defines its own entries, with their schedules and loss weights, at the end of its file; a new one is a new
file and its lines here.
"""

from models import detector, reference, sgw_gan, spatn, spgnet, spig
from models.blocks import Batch, Output
from models.schedule import Adam, Component, Objective, Phase, Variant

__all__ = ["COMPONENTS", "VARIANTS", "Adam", "Batch", "Component", "Objective", "Output", "Phase", "Variant"]

COMPONENTS: dict[str, Component] = {
    entry.name: entry for family in (spig, spatn, spgnet, sgw_gan, detector) for entry in family.COMPONENTS
}

VARIANTS: dict[str, Variant] = {
    entry.name: entry for family in (reference, spig, spgnet, sgw_gan) for entry in family.VARIANTS
}
