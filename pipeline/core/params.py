"""`params.yaml`, checked against `params.schema.json`: one line naming the key and what is allowed, or the blocks."""

import json
import math
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core import console, layout
from pipeline.core.errors import UserError
from pipeline.core.settings import LARGEST_SEED, Block, construct

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

SEED = "-seed"  # spig-seed1: a run of the variant spig from seed 1, beside that from the seed of its `train` block
_OWN_COPY = "is gone: give your own copy as weights.NET.path; addresses and digests stand in pipeline/stages/weights.py"
RETIRED = {  # keys that were renamed or given up, and what to say of them
    "variants.reference": "is called variants.floors now",
    "train.*.reference": "is called train.D.floors now",
    "weights.*.files": _OWN_COPY,
    "weights.*.either": _OWN_COPY,
    "pseudo_labels.*.rule": "is gone: the paper's rule is spt_parsing's, the other one spt_parsing_balanced's",
    "report.times": "is gone: durations are on a page beside the report",
    "train.*.ema": "is gone: no paper uses a running mean of the weights",
    "pretrain.*.ema": "is gone: no paper uses a running mean of the weights",
    "pretrain.*.features": "is gone: this network has no losses on features",
    "pretrain.*.missing_weights": "is gone: this network has no losses on features",
}
_IN_YAML = {"object": "block", "array": "list"}  # JSON Schema's words for what YAML has


def schema() -> dict:
    return json.loads(layout.PARAMS_SCHEMA.read_text(encoding="utf-8"))


def _unknown(error: "ValidationError") -> list[str]:
    """The keys that the schema does not know, if that is what is wrong."""
    names = []
    if error.validator == "additionalProperties":
        names = sorted(set(error.instance) - set(error.schema["properties"]))
    elif "propertyNames" in error.absolute_schema_path:
        names = [error.instance]
    return [".".join(map(str, [*error.absolute_path, name])) for name in names]


def _retired(errors: "list[ValidationError]") -> str | None:
    for key in (key for error in errors for key in _unknown(error)):
        for pattern, fate in RETIRED.items():
            if fnmatchcase(key, pattern):
                return f"{key} {fate}"
    return None


def _explain(error: "ValidationError") -> str:
    key, value = ".".join(map(str, error.absolute_path)) or "(top level)", error.instance
    if unknown := _unknown(error):
        allowed = error.schema.get("properties") or error.validator_value
        return f"unknown key {unknown[0]}; allowed here: {', '.join(allowed)}"
    if error.validator == "enum":
        allowed = ", ".join("null" if value is None else str(value) for value in error.validator_value)
        return f"{key} is {value!r}; allowed: {allowed}"
    if error.validator == "required":
        return f"{key} lacks the key {next(name for name in error.validator_value if name not in value)}"
    if error.validator == "type":
        wanted = error.validator_value
        if isinstance(value, float) and not math.isfinite(value):
            return f"{key} is {value}; allowed: a finite number"
        wanted = " or ".join(_IN_YAML.get(name, name) for name in (wanted if isinstance(wanted, list) else [wanted]))
        return f"{key} is {value!r}; allowed: a value of type {wanted}"
    return f"{key}: {error.message}"


def _check_schema(values: Any, where: Path) -> None:
    """An integer is one without a point, and a number is finite: stricter than JSON Schema."""
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import best_match
        from jsonschema.validators import extend
    except ImportError:
        console.say(f"{where} goes unchecked: jsonschema is not installed")
        return
    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, v: isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v),
        }
    )
    errors = list(extend(Draft202012Validator, type_checker=types)(schema()).iter_errors(values))
    if errors:
        raise UserError(f"{where}: {_retired(errors) or _explain(best_match(errors))}")


def check(values: Any, where: Path = layout.PARAMS) -> dict:
    """Return `values` if they satisfy the schema. Raises UserError (one line) if not."""
    _check_schema(values, where)
    for stage, block in values.items():
        if stage in ("datasets", "variants", "components", "presets", "weights", "tables", "report"):
            continue
        for dataset in values["datasets"]:
            if dataset not in block:
                raise UserError(f"{where}: {stage} lacks a block for the data set {dataset}")
    _check_components(values, where)
    _check_seeds(values, where)
    return values


def _check_components(values: dict, where: Path) -> None:
    needs = schema().get("needs", {})
    for name, runs in values.get("variants", {}).items():
        for run in runs:
            for component in needs.get(variant_of(run), ()):
                if not values["components"][component]:
                    raise UserError(f"{where}: components.{component} is false; variants.{name}: {run} needs it: true")


def _check_seeds(values: dict, where: Path) -> None:
    for name, runs in values.get("variants", {}).items():  # whether it must be there, the schema says
        for run in runs:
            seed, key = seed_of(run), f"{where}: variants.{name}: {run}"
            if seed is None:
                continue
            if variant_of(run) not in runs:
                raise UserError(f"{key} is a further seed of {variant_of(run)}, which must be listed too")
            if seed > LARGEST_SEED:
                raise UserError(f"{key}: a seed is at most {LARGEST_SEED}")
            for dataset in values["datasets"]:
                if seed == values["train"][dataset][name]["seed"]:
                    raise UserError(f"{key} repeats {variant_of(run)}, whose train.{dataset}.{name}.seed is {seed} too")


@cache
def load(path: Path = layout.PARAMS) -> dict:
    """All of `params.yaml`. Raises UserError if it is missing, is no YAML or breaks the schema."""
    from pipeline.core import yaml_file  # `--help` does without

    try:
        return check(yaml_file.read(path), path)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: not here; run from the project's root folder") from None


def block(kind: type[Block], *keys: str) -> Block:
    """The block at `keys` (such as "train", "synthetic", "spig") as the stage's own dataclass `kind`."""
    value: Any = load()
    for key in keys:
        if key not in value:
            raise UserError(f"{layout.PARAMS}: no block {'.'.join(keys)}; known: {', '.join(value)}")
        value = value[key]
    try:
        return construct(kind, value)
    except TypeError as error:  # a key too many or too few, where nothing checks the file
        raise UserError(f"{layout.PARAMS}: {'.'.join(keys)}: {str(error).removeprefix(f'{kind.__name__}.')}") from None


def datasets() -> list[str]:
    return load()["datasets"]


def variants() -> list[str]:
    """All variants in the order of `params.yaml`, each further seed of one by its own name: spig, spig-seed1, ..."""
    return [variant for family in load()["variants"].values() for variant in family]


def variant_of(run: str) -> str:
    """The name in `models.variants` of a name in `params.yaml`: spig of spig-seed1, and of spig."""
    return run.partition(SEED)[0]


def seed_of(run: str) -> int | None:
    """The seed that a name in `params.yaml` states: 1 of spig-seed1; None of spig, whose `train` block states it."""
    _, found, seed = run.partition(SEED)
    return int(seed) if found else None


def family(variant: str) -> str:
    """The family (file in models/) of a variant or a further seed. Raises UserError if `params.yaml` lacks it."""
    for name, members in load()["variants"].items():
        if variant in members:
            return name
    raise UserError(f"unknown variant {variant}; {layout.PARAMS} names: {', '.join(variants())}")
