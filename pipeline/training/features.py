"""The feature net that a training's perceptual losses look through."""

import hashlib
from dataclasses import dataclass

from models.layers import features
from pipeline.core import console, layout
from pipeline.core.errors import UserError
from pipeline.loading import published_weights


@dataclass(frozen=True)
class FeatureSource:
    """A feature net, where its weights are from ("sha256:..." of their files, or "seeded"), and the paper's net."""

    net: features.Features
    provenance: str
    published: str

    def as_dict(self) -> dict[str, str]:
        return {"net": self.net.net, "provenance": self.provenance, "published": self.published}

    @property
    def stands_in(self) -> bool:
        """Whether the losses look through anything but the paper's net with its published weights."""
        return self.provenance == "seeded" or self.net.net != self.published


def load(published: str, chosen: str | None, missing_weights: str, wanted_by: str) -> FeatureSource:
    """The feature net `chosen`, or the `published` one where that is None, with its published weights, or with seeded
    ones where `missing_weights` allows them.
    """
    name = chosen or published
    files = published_weights.require(name, missing_weights, wanted_by)
    if files is None:
        console.say(f"{wanted_by}: weights of {name} are missing, seeded features stand in; results are marked")
        return FeatureSource(features.build(name), "seeded", published)
    try:
        net = features.build(name, published_weights.state_dict(files))
    except ValueError as error:
        raise UserError(f"{files[0]}: {error}; delete {layout.weights(name)} and run weights again") from None
    total = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    return FeatureSource(net, f"sha256:{total.hexdigest()}", published)
