"""The one reader of YAML files. It takes what DVC takes: YAML 1.2 (`1e-4` is a number, `no` a word), no key twice."""

import itertools
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from pipeline.core import foreign
from pipeline.core.errors import UserError

DEEPEST = 500  # levels of nesting, or columns of indentation
MOST = 100_000  # values, each counted as often as aliases repeat it: ten lines can stand for 10^9
LARGEST = 16 << 20  # bytes of a file


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """PyYAML's safe loader with the plain values of YAML 1.2's core schema: no dates, octals, yes and no."""

    yaml_implicit_resolvers: ClassVar[dict] = {}


_NUMBER = list("-+.0123456789")
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", _NUMBER),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", _NUMBER),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", _NUMBER),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)


def _mappings(node: yaml.Node, seen: set[int]):
    """`node` and all below it that are mappings, each once however many aliases it has."""
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            yield from _mappings(part, seen)


def _check_keys(root: yaml.Node, path: Path) -> None:
    for mapping in _mappings(root, set()):
        lines: dict[str, int] = {}
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{path}: line {line}: a list or a mapping cannot be a key")
            if key.value in lines:
                raise UserError(f"{path}: the key {key.value} stands twice, in lines {lines[key.value]} and {line}")
            lines[key.value] = line


def _check_extent(root: yaml.Node, path: Path) -> None:
    """Refuse what aliases make too large, too deep or endless, before anything is made of it."""
    known: dict[int, tuple[int, int] | None] = {}  # node -> values, levels; None: it is within itself

    def extent(node: yaml.Node) -> tuple[int, int]:
        if id(node) not in known:
            known[id(node)] = None
            parts = () if isinstance(node, yaml.ScalarNode) else node.value
            below = [extent(one) for part in parts for one in (part if isinstance(part, tuple) else (part,))]
            known[id(node)] = 1 + sum(size for size, _ in below), 1 + max((deep for _, deep in below), default=0)
        found = known[id(node)]
        if found is None:
            raise UserError(f"{path}: line {node.start_mark.line + 1}: a list or block holds itself by an alias")
        if found[0] > MOST or found[1] > DEEPEST:
            much = f"more than {MOST} values" if found[0] > MOST else f"more than {DEEPEST} levels"
            raise UserError(f"{path}: line {node.start_mark.line + 1}: {much}, with what its aliases repeat")
        return found

    extent(root)


def _is_deep(text: str) -> bool:
    """Whether it may be nested deeper than libyaml's stack reaches, which would end the process without a word."""
    depths = itertools.accumulate(1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", text))
    return max(depths, default=0) > DEEPEST or re.search(rf"^[ ?:-]{{{DEEPEST},}}", text, re.MULTILINE) is not None


def parse(text: str, path: Path) -> Any:
    """The value of a YAML text. Raises UserError, one line that names `path`, if it is no YAML or has a key twice."""
    if _is_deep(text):
        raise UserError(f"{path}: lists or blocks are nested more than {DEEPEST} deep")
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check_extent(root, path)
        _check_keys(root, path)
        return loader.construct_document(root)
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # `!!int x`, `!!float ''`, `!!timestamp x`,
        # or a number with more digits than Python reads
        raise UserError(f"{path}: a value is not of its kind: {str(error).partition(';')[0]}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: not valid YAML{where}: {problem}") from None
    finally:
        loader.dispose()


def read(path: Path) -> Any:
    """The value of a YAML file. Raises UserError (see `parse`; not UTF-8), FileNotFoundError."""
    return parse(text(path), path)


def text(path: Path) -> str:
    """Raises UserError if it is not UTF-8 or too large, FileNotFoundError."""
    data = foreign.read(path, LARGEST)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: line {line} is not UTF-8; save the file in that encoding") from None
