"""What `meta.json` says of a network that was trained or fitted here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

ONLY_WHERE_SET = ("family", "kappa", "start", "validation")


@dataclass(frozen=True)
class Meta:
    """`pipeline.loading.checkpoints` rebuilds the network from kind, name, height, width, kappa and settings."""

    kind: str  # variant | component
    name: str  # its entry in models.variants
    dataset: str
    height: int  # of the images
    width: int
    settings: Mapping[str, Any]  # what the result depends on: nulls replaced by published values
    family: str | None = None  # of a variant: its block in params.yaml
    features: Mapping[str, str] | None = None  # net, provenance, published: the paper's net
    components: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # those that it started from
    start: Mapping[str, Any] | None = None  # the weights that it started from: digest, and what they were trained on
    marks: Sequence[str] = ()  # how it differs from the paper's: of `marks.MARKS`
    parameters: int = 0
    published: Mapping[str, Any] | None = None  # the paper's schedule
    kappa: float | None = None  # of the distance maps that the network draws
    validation: Mapping[str, Any] | None = None  # of the detector: its error on identities held out

    def as_dict(self) -> dict[str, Any]:
        """The keys of `meta.json`, but `steps`."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {key: value for key, value in values.items() if value is not None or key not in ONLY_WHERE_SET}
