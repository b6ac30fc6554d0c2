"""Write params.schema.yaml anew, after a setting of a stage, a variant or a data set was added or changed.

Editors complete and check params.yaml by that file, and every run does, without importing the stages.

  repose schema
"""

from argparse import ArgumentParser
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import yaml

from models.variants import COMPONENTS, FAMILIES, VARIANTS
from pipeline import datasets
from pipeline.core import layout
from pipeline.core.atomic import atomic_file
from pipeline.core.console import say
from pipeline.core.settings import schema_of
from pipeline.fetching.networks import NETS
from pipeline.metrics import METRICS
from pipeline.scoring.networks import WEIGHTS
from pipeline.stages import weights
from pipeline.stages.pretrain import DetectorParams
from pipeline.training.settings import kind_of

_PER_DATA_SET = (
    "index", "keypoints", "parsing", "pairs", "pseudo_labels", "distance_maps", "describe", "reference", "score",
    "score_components",
)  # fmt: skip
_FORM = f"^({'|'.join(datasets.NAMES)})-[a-z0-9_]+$"  # deepfashion-resize176: deepfashion in another form
_DATA_SET = {"if": {"not": {"type": "string", "pattern": _FORM}}, "then": {"enum": [*datasets.NAMES]}}
_METHOD = {
    "description": "a folder of methods/ that is called as no variant and no component",  # its images lie beside theirs
    "type": "string",
    "pattern": "^[a-z0-9][a-z0-9_]*$",
    "not": {"enum": [*VARIANTS, *COMPONENTS]},
}
_FURTHER_SEED = {"type": "string", "pattern": "^[^-]+-seed(0|[1-9][0-9]{0,9})$"}  # spig-seed1: spig again, from seed 1


def add_arguments(parser: ArgumentParser) -> None:
    """None."""


def _object(properties: dict[str, Any], required: bool = True) -> dict:
    needed = {"required": [*properties]} if required else {}
    return {"type": "object", "additionalProperties": False, **needed, "properties": properties}


def _per_data_set(block: dict, keys: Iterable[str]) -> dict:
    """`keys`: what a block holds, which an editor shows."""
    about = f"for each data set: {', '.join(keys)}"
    return {"type": "object", "description": about, "propertyNames": _DATA_SET, "additionalProperties": block}


def _names(family: list) -> dict:
    """What may stand in the list of a family's variants; one that is not trained has no further seeds."""
    names = {"enum": [variant.name for variant in family]}
    trained = any(variant.phase for variant in family)
    items = {"if": {"not": _FURTHER_SEED}, "then": names} if trained else names
    return {"type": "array", "uniqueItems": True, "items": items}


def _named(family: list, settings: dict, shared: dict[str, dict]) -> dict:
    """Runs of a family's variants with some settings of their own; `settings` refers to all of them in `shared`."""
    some = {key: part for key, part in shared[settings["$ref"].rpartition("/")[2]].items() if key != "required"}
    name = f"^({'|'.join(variant.name for variant in family)})-(?!seed[0-9])[a-z0-9_]+(-seed(0|[1-9][0-9]{{0,9}}))?$"
    return {"type": "object", "propertyNames": {"pattern": name}, "additionalProperties": some}


def _needs() -> dict[str, list[str]]:
    """What each variant, component and metric needs by itself: components, "parsing", and published networks. For a
    training's losses that is the paper's network, which its block may replace.
    """

    def of_training(entry: Any) -> list[str]:
        network = [entry.features] if entry.features else []
        return [*entry.components, *getattr(entry, "judges", {}).values(), *["parsing"] * entry.needs_parsing, *network]

    called = WEIGHTS | {"labels": "parsing"}
    found = {name: of_training(entry) for name, entry in (VARIANTS | COMPONENTS).items() if entry.phase}
    found |= {name: [called[need] for need in metric.needs if need in called] for name, metric in METRICS.items()}
    return {name: needs for name, needs in found.items() if needs}


def _parts() -> dict[str, list[str]]:
    """The components that are a part of each variant or component, and so are as wide as it is; others judge it."""
    return {name: [*entry.components] for name, entry in (VARIANTS | COMPONENTS).items() if entry.components}


def _entries() -> dict[str, dict[str, Any]]:
    """What each variant and component says of itself, so that it can be told without importing torch."""
    keys = ("paper", "row", "data", "labels", "given_target_parsing", "departs")
    found: dict[str, dict[str, Any]] = {}
    for name, entry in (VARIANTS | COMPONENTS).items():
        said = {key: value for key in keys if (value := getattr(entry, key, None))}
        found[name] = said | ({"departs": [*entry.departs]} if "departs" in said else {})
    return found


def schema() -> dict:
    """The JSON Schema of params.yaml. `needs`, `parts` and `entries` are words of our own."""
    shared: dict[str, dict] = {}

    def stage(name: str) -> dict:
        return schema_of(import_module(f"pipeline.stages.{name}").Params, shared)

    def data_stage(name: str) -> dict:
        return _per_data_set(stage(name), shared[f"stages.{name}.Params"]["properties"])

    families = {family.__name__.rpartition(".")[2]: [*getattr(family, "VARIANTS", ())] for family in FAMILIES}
    families = {name: variants for name, variants in families.items() if variants}
    trained = {name: schema_of(kind_of(*variants), shared) for name, variants in families.items()}
    pretrained = {name: schema_of(kind_of(component), shared) for name, component in COMPONENTS.items()}
    fetched = {name: schema_of(datasets.get(name).Fetch, shared) for name in datasets.NAMES}
    properties = {
        "datasets": {"type": "array", "minItems": 1, "uniqueItems": True, "items": _DATA_SET},
        "parts": {"type": "array", "maxItems": 10_000, "items": {"type": "integer"}},
        "variants": _object({name: _names(variants) for name, variants in families.items()}, required=False),
        "named": _object(
            {name: _named(families[name], own, shared) for name, own in trained.items() if families[name][0].phase},
            required=False,
        ),
        "methods": {"type": "array", "uniqueItems": True, "items": _METHOD},
        "components": _object(
            {name: {"enum": ["auto", True, False]} for name in COMPONENTS if name != "detector"}, required=False
        ),
        "presets": {"type": "object"},
        "fetch": _object(fetched, required=False)
        | {"patternProperties": {f"^{name}-[a-z0-9_]+$": block for name, block in fetched.items()}},
        "weights": _object(dict.fromkeys(NETS, schema_of(weights.Params, shared))),
        **{name: data_stage(name) for name in _PER_DATA_SET},
        "pretrain": _per_data_set(_object(pretrained | {"detector": schema_of(DetectorParams, shared)}), COMPONENTS),
        "train": _per_data_set(_object(trained), trained),
        "tables": stage("tables"),
        "report": stage("report"),
    }
    whole = _object(properties)
    whole["required"] = [key for key in whole["required"] if key not in ("presets", "named", "methods")]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "needs": _needs(),
        "parts": _parts(),
        "entries": _entries(),
        "$defs": shared,
    }


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):
    """What stands twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text() -> str:
    return yaml.dump(schema(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def run() -> None:
    with atomic_file(layout.PARAMS_SCHEMA) as partial:
        partial.write_text(text(), encoding="utf-8")
    say(f"wrote {layout.PARAMS_SCHEMA}")
