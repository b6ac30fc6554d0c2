"""What all scores of a data set share: the pairs, the metrics and their networks, and what the real images measured.

The stage `reference` writes it once, to data/D/reference; every score opens it, and carries its digest.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from pipeline.core import layout, schema, seals, store
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.metrics import FORMS, versions
from pipeline.scoring import networks
from pipeline.scoring.detectors import Detector, open_detector

if TYPE_CHECKING:
    import torch

SPLITS = ("val", "test")


@dataclass(frozen=True)
class Reference:
    """What the stage `reference` wrote. `described`: reference.json. sha256: of all of it, "" of none that was written.

    real: "inception" and, if wanted, "inception-tv" and the user's networks "own:NAME": FrechetStatistics;
    "inception-sample", "own:NAME-sample": (m, width) float32; "embeddings-val-reid", "embeddings-test-reid",
    "embeddings-test-own:NAME", ...: (n, width) float32, in the order of the split's images.
    """

    described: dict
    real: Mapping[str, Any]
    sha256: str = ""

    def embeddings(self, split: str) -> dict[str, np.ndarray]:
        """Network -> the vectors of the split's images, by row."""
        start = embeddings_of("", split)
        return {key.removeprefix(start): vectors for key, vectors in self.real.items() if key.startswith(start)}


def embeddings_of(network: str, split: str) -> str:
    """The name among `Reference.real` of what a network gives for the images of a split."""
    return f"embeddings-{split}-{network}"


@dataclass(frozen=True)
class Protocol:
    reference: Reference
    networks: Mapping[str, Any]  # by the names in `Metric.needs`
    detector: Detector


def write(
    dataset: str,
    described: Mapping[str, Any],
    real: Mapping[str, Any],
    pairs: Sequence[pa.Table],
    detected: Sequence[Mapping],
    parsing: pa.Table | None,
) -> None:
    """Write a reference, and its summary beside the scores. `pairs`: a table for each split; `detected`: rows of
    `schema.DETECTED`; `parsing`: the targets', where a metric needs it.
    """
    with atomic_directory(layout.reference(dataset)) as folder:
        (folder / "reference.json").write_text(_json(described), encoding="utf-8")
        (folder / "real.safetensors").write_bytes(to_bytes(_flat(real)))
        store.write_table(folder / "pairs.parquet", pa.concat_tables(pairs), schema.PAIRS)
        store.write_table(folder / "detected.parquet", detected, schema.DETECTED)
        if parsing is not None:
            store.write_table(folder / "parsing.parquet", parsing, schema.PARSING)
    with atomic_file(layout.scored_by(dataset)) as partial:
        partial.write_text(
            seals.json_text(summary(Reference(described, real, sha256(layout.reference(dataset))))), encoding="utf-8"
        )


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def summary(reference: Reference) -> dict[str, Any]:
    """What is written beside scores of the reference they were made by: its digest, and what it is but for its numbers,
    so that it can be said in what another one differs.
    """
    known = {key: value for key, value in reference.described.items() if key not in ("ceilings", "marks")}
    return known | {"sha256": reference.sha256}


def inputs(dataset: str) -> dict[str, str]:
    """The digests of what every score reads beside the reference: images, and the joints that masks are drawn from."""
    return {"images": sha256(layout.images(dataset)), "keypoints": sha256(layout.keypoints(dataset))}


def read(dataset: str) -> Reference:
    """What `write` wrote. Raises UserError if it is not there, or if images, joints or a metric have changed since."""
    folder = layout.reference(dataset)
    try:
        seals.check_all(folder)
        described = seals.read_json(folder / "reference.json")
        real = _unflat(load_file(folder / "real.safetensors"))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: not there; run: repose reference --dataset {dataset}") from None
    made_from, now = described.get("inputs", {}), inputs(dataset)
    changed = [name for name in now if made_from.get(name) != now[name]]
    if changed:
        raise UserError(f"{folder}: made from other {changed[0]}; run: repose reference --dataset {dataset}")
    known = {"versions": versions(described["metrics"]), "forms": FORMS}
    for name in sorted(name for kind in known for name in _other(described.get(kind, {}), known[kind])):
        raise UserError(f"{folder}: made by another version of {name}; run: repose reference --dataset {dataset}")
    return Reference(described, real, sha256(folder))


def _other(made: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """What has another version than when it was made; 1 is that of what had none yet."""
    return [name for name, version in now.items() if made.get(name, 1) != version]


def open_protocol(dataset: str, where: "torch.device") -> Protocol:
    """The reference, its networks and its detector. Raises UserError if one of them is missing or has changed."""
    made = read(dataset)
    opened = networks.open_all(made.described["networks"], where, own=networks.of_user(dataset))
    detector = open_detector(dataset, where)
    if {"name": detector.name, **detector.provenance} != made.described["detector"]:
        raise UserError(
            f"{layout.reference(dataset)}: made with another joint detector; run: repose reference --dataset {dataset}"
        )
    return Protocol(made, opened, detector)


def _flat(real: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """FrechetStatistics as three arrays NAME/KEY; arrays as they are."""
    from pipeline.metrics.fid import FrechetStatistics

    flat = {}
    for name, value in real.items():
        if isinstance(value, FrechetStatistics):
            flat |= {f"{name}/{key}": array for key, array in value.state().items()}
        else:
            flat[name] = np.ascontiguousarray(value)
    return flat


def _unflat(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    from pipeline.metrics.fid import FrechetStatistics

    real: dict[str, Any] = {name: array for name, array in flat.items() if "/" not in name}
    for name in {key.split("/")[0] for key in flat if "/" in key}:
        state = {key.split("/")[1]: array for key, array in flat.items() if key.startswith(f"{name}/")}
        real[name] = FrechetStatistics.from_state(state)
    return real
