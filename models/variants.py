"""The one list of what can be trained and scored: an engine needs nothing else from `models`.

Each family defines its own entries, with their schedules and loss weights, at the end of its file; a new one is a new
file and its name here.
"""

from models import detector, floors, gfla, patn, sgw_gan, spatn, spgnet, spig, spt
from models.layers.blocks import Batch, Output
from models.schedule import Adam, Component, Objective, Phase, Variant

__all__ = ["COMPONENTS", "VARIANTS", "Adam", "Batch", "Component", "Objective", "Output", "Phase", "Variant"]

FAMILIES = (floors, spig, spatn, spgnet, spt, sgw_gan, patn, gfla, detector)

COMPONENTS: dict[str, Component] = {
    entry.name: entry for family in FAMILIES for entry in getattr(family, "COMPONENTS", ())
}

VARIANTS: dict[str, Variant] = {entry.name: entry for family in FAMILIES for entry in getattr(family, "VARIANTS", ())}
