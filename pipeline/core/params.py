"""`params.yaml`, checked against `params.schema.yaml`: one line naming the key and what is allowed, or the blocks."""

from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from pipeline.core import layout, yaml_file
from pipeline.core.errors import UserError

Block = TypeVar("Block")

SEED = "-seed"  # spig-seed1: a run of the variant spig from seed 1, beside that from the seed of its `train` block
LARGEST_SEED = 2**32 - 1


def _explain(error: ValidationError, where: Path) -> str:
    key = ".".join(str(part) for part in error.absolute_path) or "(top level)"
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema["properties"])
        unknown = sorted(set(error.instance) - set(allowed))
        prefix = "" if key == "(top level)" else f"{key}."
        return f"{where}: unknown key {prefix}{unknown[0]}; allowed here: {', '.join(allowed)}"
    if "propertyNames" in error.absolute_schema_path:
        return f"{where}: unknown key {key}.{error.instance}; allowed here: {', '.join(error.validator_value)}"
    if error.validator == "enum":
        allowed = ", ".join("null" if value is None else str(value) for value in error.validator_value)
        return f"{where}: {key} is {error.instance!r}; allowed: {allowed}"
    if error.validator == "const":
        return f"{where}: {key} is {error.instance!r}; allowed: {error.validator_value}, for {error.schema['$comment']}"
    if error.validator == "required":
        missing = sorted(set(error.validator_value) - set(error.instance))
        return f"{where}: {key} lacks the key {missing[0]}"
    if error.validator == "type":
        wanted = error.validator_value
        wanted = " or ".join(wanted) if isinstance(wanted, list) else wanted
        return f"{where}: {key} is {error.instance!r}; allowed: a value of type {wanted}"
    return f"{where}: {key}: {error.message}"


def check(values: Any, where: Path = layout.PARAMS) -> dict:
    """Return `values` if they satisfy the schema. Raises UserError (one line) if not."""
    schema = yaml_file.read(layout.PARAMS_SCHEMA)
    error = best_match(Draft202012Validator(schema).iter_errors(values))
    if error is not None:
        raise UserError(_explain(error, where))
    for stage, block in values.items():
        if not isinstance(block, dict) or stage in ("variants", "components", "weights", "tables", "report"):
            continue
        for dataset in values["datasets"]:
            if dataset not in block:
                raise UserError(f"{where}: {stage} lacks a block for the data set {dataset}")
    _check_seeds(values, where)
    return values


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
    try:
        return check(yaml_file.read(path), path)
    except FileNotFoundError:
        raise UserError(f"{path}: not here; run from the project's root folder") from None


def block(kind: type[Block], *keys: str) -> Block:
    """The block at `keys` (such as "train", "synthetic", "spig") as the stage's own dataclass `kind`.

    A key that the schema does not require has its default there.
    """
    value: Any = load()
    for key in keys:
        if key not in value:
            raise UserError(f"{layout.PARAMS}: no block {'.'.join(keys)}; known: {', '.join(value)}")
        value = value[key]
    known = {field.name for field in fields(kind)}
    required = {field.name for field in fields(kind) if field.default is MISSING}
    assert required <= set(value) <= known, f"{keys}: the schema and {kind} disagree: {set(value) ^ known}"
    return kind(**value)


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
