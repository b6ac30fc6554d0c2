"""The one list of what can be trained and scored: an engine needs nothing else from `models`.

Each family defines its own entries, with their schedules and loss weights, at the end of its file; a new one is a new
file and its lines here.
"""

from models import detector, gfla, patn, reference, spatn, spgnet, spig
from models.blocks import Batch, Output
from models.schedule import Adam, Component, Objective, Phase, Variant

__all__ = ["COMPONENTS", "VARIANTS", "Adam", "Batch", "Component", "Objective", "Output", "Phase", "Variant"]

COMPONENTS: dict[str, Component] = {
    entry.name: entry
    for entry in (*spig.COMPONENTS, *spatn.COMPONENTS, *spgnet.COMPONENTS, *detector.COMPONENTS, *gfla.COMPONENTS)
}

VARIANTS: dict[str, Variant] = {
    entry.name: entry
    for entry in (*reference.VARIANTS, *spig.VARIANTS, *spgnet.VARIANTS, *patn.VARIANTS, *gfla.VARIANTS)
}
