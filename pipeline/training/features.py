"""The feature net that a training's perceptual losses look through."""

import hashlib
from dataclasses import dataclass

from models.layers import features
from pipeline.core import console, layout
from pipeline.core.errors import UserError
from pipeline.loading import published_weights


@dataclass(frozen=True)
class FeatureSource:
    """A feature net, and where its weights are from: "sha256:..." of their files, or "seeded"."""

    net: features.Features
    provenance: str


def load(name: str, missing_weights: str, wanted_by: str) -> FeatureSource:
    """The feature net `name` with its published weights, or with seeded ones where `missing_weights` allows them."""
    files = published_weights.require(name, missing_weights, wanted_by)
    if files is None:
        console.say(f"{wanted_by}: weights of {name} are missing, seeded features stand in; results are marked")
        return FeatureSource(features.build(name), "seeded")
    try:
        net = features.build(name, published_weights.state_dict(files))
    except ValueError as error:
        raise UserError(f"{files[0]}: {error}; delete {layout.weights(name)} and run weights again") from None
    total = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    return FeatureSource(net, f"sha256:{total.hexdigest()}")
