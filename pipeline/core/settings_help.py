"""The settings of a stage as `--help` shows them, from params.schema.yaml: no stage is imported for it."""

import json
import textwrap
from collections import defaultdict
from collections.abc import Iterator

from pipeline.core import params

_LIMITS = {  # words of JSON Schema -> what a reader is told
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "multipleOf": "a multiple of",
}


def _blocks(name: str, block: dict) -> Iterator[tuple[str, str]]:
    """(key of a block, name of its class) for all blocks within `block`, whose key is `name`."""
    if "$ref" in block:
        yield name, block["$ref"].rpartition("/")[2]
    elif isinstance(inner := block.get("additionalProperties"), dict):
        yield from _blocks(f"{name}.DATASET", inner)
    for key, inner in block.get("properties", {}).items():
        yield from _blocks(f"{name}.{key}", inner)


def _allowed(setting: dict, shared: dict) -> str:
    """What a setting may be, and what it is if it is left out."""
    setting = shared.get(setting.get("$ref", "").rpartition("/")[2], {}) | setting
    parts = []
    if "properties" in setting:
        parts.append(f"a block of {', '.join(setting['properties'])}")
    elif choices := setting.get("enum") or setting.get("items", {}).get("enum"):
        parts.append("any of " * ("items" in setting) + " | ".join(map(_text, choices)))
    elif isinstance(inner := setting.get("additionalProperties"), dict):
        parts.append(f"blocks of {', '.join(shared[inner['$ref'].rpartition('/')[2]]['properties'])}")
    else:
        types = setting["type"]
        parts.append(types if isinstance(types, str) else " or ".join(types))
    parts += [f"{word} {setting[key]}" for key, word in _LIMITS.items() if key in setting]
    return ", ".join(parts) + (f"; default {_text(setting['default'])}" if "default" in setting else "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def of_stage(stage: str) -> str:
    """Every setting of its blocks in params.yaml: explanation, type, range, default."""
    schema = params.schema()
    shared, keys = schema.get("$defs", {}), defaultdict(list)
    for key, kind in _blocks(stage, schema.get("properties", {}).get(stage, {})):
        keys[kind].append(key)
    lines, told = [], {}
    for kind, names in keys.items():
        also = "".join(f", {name.rpartition('.')[2]}" for name in names[1:])
        lines += ["", *textwrap.wrap(f"settings in params.yaml, {names[0]}{also}:", 100, subsequent_indent="  ")]
        settings = shared[kind]["properties"]
        if all(told.get(name) == setting for name, setting in settings.items()):
            lines.append(f"  those above, but for {', '.join(name for name in told if name not in settings)}")
            continue
        told = settings
        for name, setting in settings.items():
            text = f"  {name:<18} {setting.get('description', '')} ({_allowed(setting, shared)})"
            lines += textwrap.wrap(text, 100, subsequent_indent=" " * 21, break_on_hyphens=False)
    return "\n".join(lines[1:])
