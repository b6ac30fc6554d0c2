"""A stage's settings, each said once: a field of the stage's dataclass, with its range, default and explanation.

    @dataclass(frozen=True)
    class Params:
        steps: int = setting("optimiser steps", minimum=1)
        batch: int | None = setting("images a step; null: the paper's", None, minimum=1)

`repose schema` writes these classes as the JSON Schema that params.yaml is checked against; `--help` shows
what that file says. A default is part of its stage's code: a changed one runs the stage again.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

Block = TypeVar("Block")

LARGEST_SEED = 2**32 - 1
SEED = {"minimum": 0, "maximum": LARGEST_SEED}
SHARE = {"exclusiveMinimum": 0, "exclusiveMaximum": 1}
LARGEST = 10**9  # of what is counted: steps, pairs, images
COUNT = {"minimum": 1, "maximum": LARGEST}
BATCH = {"minimum": 1, "maximum": 65_536}
RESAMPLES = {"minimum": 100, "maximum": 100_000}  # of a bootstrap: a byte each for every pair, in memory

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}
_CHOICES = {bool: (True, False), NoneType: (None,)}


def setting(explanation: str, default: Any = MISSING, **limits: Any) -> Any:
    """A field of a stage's dataclass; without a `default` params.yaml must state it.

    `limits` are words of JSON Schema: minimum, exclusiveMaximum, multipleOf, pattern, enum, ...
    """
    kept: Any = {"default_factory": dict} if default == {} else {"default": default}
    return field(**kept, metadata={"description": explanation, **limits})


def device_setting() -> Any:
    pattern = "^(auto|cpu|cuda(:[0-9]+)?)$"
    return setting(
        "auto (cuda where there is one), cpu, cuda, or one of several, such as cuda:1", "auto", pattern=pattern
    )


def gpus_setting(of_what: str) -> Any:
    """As `launch` reads it, beside `device`."""
    explained = f"processes {of_what}, each on a GPU of this machine; with device cpu all on the CPU"
    return setting(explained, 1, minimum=1, maximum=1024)


def _schema_of(hint: Any, shared: dict[str, dict]) -> dict:
    """The schema of a type: of the plain ones, Literal, X | None, tuple[X, ...], dataclasses and typed dictionaries,
    and Mapping[str, dataclass], blocks by any name.
    """
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if any(get_origin(option) is Literal for option in options):
        return {"enum": [value for option in options for value in _CHOICES.get(option) or get_args(option)]}
    if is_dataclass(hint):
        reference = schema_of(hint, shared)
        shared[_name_of(hint)].pop("required", None)  # what is not stated is that of the default
        return reference
    if is_typeddict(hint):
        inner = {name: _schema_of(part, shared) for name, part in get_type_hints(hint).items()}
        return {"type": "object", "additionalProperties": False, "required": [*inner], "properties": inner}
    if get_origin(hint) is Mapping:
        return {"type": "object", "additionalProperties": schema_of(get_args(hint)[1], shared)}
    if get_origin(hint) is tuple:
        return {"type": "array", "uniqueItems": True}
    types = [_TYPES[option] for option in options]
    return {"type": types[0] if len(types) == 1 else types}


def _property(of: Field, hint: Any, shared: dict[str, dict]) -> dict:
    default = {} if of.default is MISSING or is_dataclass(of.default) else {"default": of.default}
    return _schema_of(hint, shared) | dict(of.metadata) | default


def _name_of(kind: type) -> str:
    """Such as stages.train.Params."""
    return f"{kind.__module__.removeprefix('pipeline.')}.{kind.__qualname__}"


def schema_of(kind: type, shared: dict[str, dict]) -> dict:
    """A reference to the JSON Schema of a block, which goes into `shared`, as do those of the dataclasses in it."""
    hints = get_type_hints(kind)
    required = [one.name for one in fields(kind) if one.default is one.default_factory is MISSING]
    shared[_name_of(kind)] = {
        "type": "object",
        "additionalProperties": False,
        **({"required": required} if required else {}),
        "properties": {one.name: _property(one, hints[one.name], shared) for one in fields(kind)},
    }
    return {"$ref": f"#/$defs/{_name_of(kind)}"}


def construct(kind: type[Block], values: Mapping[str, Any]) -> Block:
    """A block of params.yaml as the stage's dataclass. A block within it changes some fields of its default."""
    defaults = {one.name: one.default for one in fields(kind) if is_dataclass(one.default)}
    return kind(**{key: replace(defaults[key], **v) if key in defaults else v for key, v in values.items()})
