"""The one list of what can be trained and scored.

Each family defines its entries, with their schedules and loss weights, at the end of its file. A new family is a new
file and its name here. The list decides no result: an entry is its family's, whatever else is listed, and a name that
two families use is an error.
"""

from importlib import import_module

from models.layers.blocks import Batch, Output
from models.layers.schedule import Adam, Component, Objective, Phase, Variant

__all__ = ["COMPONENTS", "VARIANTS", "Adam", "Batch", "Component", "Objective", "Output", "Phase", "Variant"]

FAMILIES = tuple(
    import_module(f"models.{name}")
    for name in ("floors", "spig", "spatn", "spgnet", "spt", "sgw_gan", "patn", "gfla", "def_gan", "vunet", "detector")
)


def _by_name(kind: str) -> dict:
    found: dict = {}
    for entry in (entry for family in FAMILIES for entry in getattr(family, kind, ())):
        if found.setdefault(entry.name, entry) is not entry:
            raise ValueError(f"two families have an entry of the name {entry.name}")
    return found


COMPONENTS: dict[str, Component] = _by_name("COMPONENTS")
VARIANTS: dict[str, Variant] = _by_name("VARIANTS")
