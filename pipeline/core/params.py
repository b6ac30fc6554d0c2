"""`params.yaml`, checked against `params.schema.yaml`: one line naming the key and what is allowed, or the blocks."""

import math
import os
import re
import sys
from collections.abc import Iterator
from copy import deepcopy
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core import console, layout, yaml_file
from pipeline.core.errors import UserError
from pipeline.core.settings import LARGEST_SEED, Block, construct

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

# A run is called as its variant, or VARIANT-NAME with settings of its own (`named`), and from a further seed
# VARIANT-seed1 or VARIANT-NAME-seed1, beside the run from the seed of its settings.
SEED = "-seed"
_FORM = re.compile("[a-z0-9_]+-[a-z0-9_]+")  # of a data set
# Blocks that are no data set's. In all others each data set has one of its own.
SHARED = ("datasets", "parts", "variants", "named", "methods", "components", "presets", "weights", "tables", "report")
LONGEST = 4096  # characters of a text, as of a path
_OWN_COPY = "is gone: give your own copy as weights.NET.path; addresses and digests: pipeline/fetching/networks.py"
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
_ELSEWHERE = "not here; run from the project's root folder"
_IN_YAML = {"object": "block", "array": "list"}  # JSON Schema's words for what YAML has


def schema() -> dict:
    """To be read only: it is parsed once in a process. Raises UserError if it is missing."""
    try:
        return _parsed(yaml_file.text(layout.PARAMS_SCHEMA))
    except FileNotFoundError:
        raise UserError(f"{layout.PARAMS_SCHEMA}: {_ELSEWHERE}") from None


@lru_cache(maxsize=1)
def _parsed(text: str) -> dict:
    return yaml_file.parse(text, layout.PARAMS_SCHEMA)


def _unknown(error: "ValidationError") -> list[str]:
    """The keys that the schema does not know, if that is what is wrong."""
    names = []
    if error.validator == "additionalProperties":
        patterns = error.schema.get("patternProperties", ())
        unknown = set(error.instance) - set(error.schema["properties"])
        names = sorted(name for name in unknown if not any(re.search(pattern, name) for pattern in patterns))
    elif "propertyNames" in error.absolute_schema_path:
        names = [error.instance]
    return [".".join(map(str, [*error.absolute_path, name])) for name in names]


def _retired(errors: "list[ValidationError]") -> str | None:
    for key in (key for error in errors for key in _unknown(error)):
        for pattern, fate in RETIRED.items():
            if fnmatchcase(key, pattern):
                return f"{key} {fate}"
    return None


def _shown(value: Any) -> str:
    """At most a line of it."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:60]} ... ({len(text)} characters)"


def _explain(error: "ValidationError") -> str:
    key, value = ".".join(map(str, error.absolute_path)) or "(top level)", error.instance
    if error.validator == "pattern" and "propertyNames" in error.absolute_schema_path:
        if "description" in error.schema:
            return f"{key}.{value}: {error.schema['description']}"
        variant = error.validator_value.partition(")")[0].removeprefix("^(").partition("|")[0]
        return f"{key}.{value}: a name is that of a variant, a dash, small letters and digits, such as {variant}-fast"
    if unknown := _unknown(error):
        allowed = error.schema.get("properties") or error.validator_value
        return f"unknown key {unknown[0]}; allowed here: {', '.join(allowed)}"
    if error.validator == "enum":
        allowed = ", ".join("null" if value is None else str(value) for value in error.validator_value)
        return f"{key} is {_shown(value)}; allowed: {allowed}"
    if error.validator == "not":
        return f"{key} is {_shown(value)}, which is taken; allowed: {error.schema['description']}"
    if error.validator == "required":
        return f"{key} lacks the key {next(name for name in error.validator_value if name not in value)}"
    if error.validator == "type":
        wanted = error.validator_value
        if isinstance(value, float) and not math.isfinite(value):
            return f"{key} is {value}; allowed: a finite number"
        wanted = " or ".join(_IN_YAML.get(name, name) for name in (wanted if isinstance(wanted, list) else [wanted]))
        return f"{key} is {_shown(value)}; allowed: a value of type {wanted}"
    return f"{key} is {_shown(value)}; allowed: {error.validator} {_shown(error.validator_value)}"


def _odd(value: Any, key: str = "", around: tuple[int, ...] = ()) -> Iterator[str]:
    """What no setting can be, in words: a name that is no text, text that no path can have, a block within itself."""
    if isinstance(value, str) and ("\0" in value or len(value) > LONGEST):
        yield f"{key or '(top level)'}: text with a zero byte, or longer than {LONGEST} characters"
    elif isinstance(value, int) and abs(value) > sys.maxsize:
        yield f"{key}: a number of {len(str(abs(value)))} digits"
    elif id(value) in around:
        yield f"{key} holds itself"
    elif isinstance(value, dict | list):
        within = (*around, id(value))
        for name, below in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict) and not isinstance(name, str):
                yield f"{key or '(top level)'}: the key {_shown(name)} is no text; put it in quotes"
            yield from _odd(below, f"{key}.{name}".removeprefix("."), within)
    elif not isinstance(value, str | int | float | None):
        yield f"{key} is of YAML's kind {type(value).__name__}; no setting is"


@cache
def _strict() -> Any:
    """JSON Schema's validator, but an integer has no point, a number is finite, and what follows a pattern is one line.

    Raises ImportError if jsonschema is not installed.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def is_integer(_: Any, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def is_number(_: Any, value: Any) -> bool:
        return is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))

    def pattern(_: Any, wanted: str, value: Any, __: Any) -> Iterator[ValidationError]:
        if isinstance(value, str) and ("\n" in value or not re.search(wanted, value)):  # `$` is also before a last \n
            yield ValidationError(f"{_shown(value)} does not match {wanted}")

    types = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": is_integer, "number": is_number})
    return extend(Draft202012Validator, {"pattern": pattern}, type_checker=types)


def validate(values: Any, where: Path, wanted: dict) -> None:
    """Raises UserError (one line), naming the file `where`, if `values` do not satisfy the JSON Schema `wanted`."""
    for problem in _odd(values):
        raise UserError(f"{where}: {problem}")
    try:
        errors = list(_strict()(wanted).iter_errors(values))
    except ImportError:
        console.say(f"{where} goes unchecked: jsonschema is not installed")
        return
    if errors:
        from jsonschema.exceptions import best_match

        raise UserError(f"{where}: {_retired(errors) or _explain(best_match(errors))}")


def parent(dataset: str) -> str:
    """The data set of which one is a form, itself if it is none: deepfashion of deepfashion-resize176."""
    return dataset.partition("-")[0]


def _over(below: Any, own: Any) -> Any:
    """A block with the settings of another one instead of its own, and what that does not state as it was."""
    if isinstance(below, dict) and isinstance(own, dict):
        return below | {key: _over(below.get(key), value) for key, value in own.items()}
    return own


def with_forms(values: Any) -> Any:
    """Values of params.yaml, perhaps not checked yet, with a whole block for every form of a data set that is named in
    `datasets` or has some settings there: those of its parent, but for its own.
    """
    if not isinstance(values, dict):
        return values
    asked, filled = values.get("datasets"), dict(values)
    for stage, block in values.items():
        if stage not in SHARED and isinstance(block, dict):
            named = dict.fromkeys(map(str, [*block, *(asked if isinstance(asked, list) else ())]))
            forms = [name for name in named if _FORM.fullmatch(name) and parent(name) in block]
            filled[stage] = block | {name: _over(deepcopy(block[parent(name)]), block.get(name, {})) for name in forms}
    return filled


def check(values: Any, where: Path = layout.PARAMS) -> dict:
    """Return `values`, those of forms filled in, if they satisfy the schema. Raises UserError (one line) if not."""
    values = with_forms(values)
    validate(values, where, schema())
    for stage, block in values.items():
        if stage in SHARED:
            continue
        for dataset in values["datasets"]:
            if dataset not in block:
                raise UserError(f"{where}: {stage} lacks a block for the data set {dataset}")
    _check_components(values, where)
    _check_seeds(values, where)
    _check_paths(values, where)
    if values["parts"] != (numbered := [*range(len(values["parts"]))]):
        raise UserError(f"{where}: parts is {values['parts']}; number them from 0 on: {numbered}")
    return values


def runs(values: dict) -> Iterator[tuple[str, str, str]]:
    """Key, family and name of every run that the blocks `variants` and `named` ask for."""
    for key in ("variants", "named"):
        for name, listed in values.get(key, {}).items():
            yield from ((f"{key}.{name}", name, run) for run in listed)


def _paths(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Key and path of all that a block names of the user's; the `file` of a download is its name in a mirror."""
    for name, below in value.items():
        if isinstance(below, dict):
            yield from _paths(below, f"{key}.{name}")
        elif below and (name in ("path", "csv") or (name == "file" and key.startswith("reference."))):
            yield f"{key}.{name}", below


def _check_paths(values: dict, where: Path) -> None:
    """Nothing of the user's may lie where stages write: it would be deleted."""
    written = (*values.get("fetch", ()), "weights")
    for stage in ("fetch", "weights", "keypoints", "parsing", "pairs", "reference"):
        for key, path in _paths(values.get(stage, {}), stage):
            parts = Path(os.path.relpath(path)).parts or (".",)
            if parts[0] == "runs" or (parts[0] == "data" and parts[1:2] and parts[1] in written):
                folder = Path(*parts[: 1 + (parts[0] == "data")])
                raise UserError(
                    f"{where}: {key}: {path} lies in {folder}/, which stages write anew and `make clean` deletes; move"
                    " what is yours elsewhere"
                )


def _check_components(values: dict, where: Path) -> None:
    needs = schema().get("needs", {})
    for key, _, run in runs(values):
        for component in needs.get(variant_of(run), ()):
            if values["components"].get(component) is False:
                raise UserError(f"{where}: components.{component} is false; {key}: {run} needs it: auto")


def _check_seeds(values: dict, where: Path) -> None:
    listed = {run: name for _, name, run in runs(values)}
    for key, name, run in runs(values):
        seed, first, key = seed_of(run), without_seed(run), f"{where}: {key}: {run}"
        if seed is None:
            continue
        if first not in listed:
            raise UserError(f"{key} is a further seed of {first}, which must be listed too")
        if seed > LARGEST_SEED:
            raise UserError(f"{key}: a seed is at most {LARGEST_SEED}")
        named = values.get("named", {}).get(name, {})
        if named.get(run) != named.get(first):
            raise UserError(f"{key} is a further seed of {first}, and must have the same settings")
        for dataset in values["datasets"]:
            source = f"named.{name}.{first}" if "seed" in named.get(first, {}) else f"train.{dataset}.{name}"
            if seed == (values["train"][dataset][name] | named.get(first, {}))["seed"]:
                raise UserError(f"{key} repeats {first}, whose {source}.seed is {seed} too")


_taken: dict[Path, str] = {}  # the text behind what `load` gave


@cache
def load(path: Path = layout.PARAMS) -> dict:
    """All of `params.yaml`. Raises UserError if it is missing, is no YAML or breaks the schema."""
    try:
        _taken[path] = yaml_file.text(path)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: {_ELSEWHERE}") from None
    return check(yaml_file.parse(_taken[path], path), path)


def text() -> str:
    """What `params.yaml` said when its values were loaded, whatever it says by now. Raises what `load` raises."""
    load()
    return _taken[layout.PARAMS]


def block(kind: type[Block], *keys: str) -> Block:
    """The block at `keys` (such as "score", "synthetic") as the stage's own dataclass `kind`."""
    value: Any = load()
    for key in keys:
        if key not in value:
            raise UserError(f"{layout.PARAMS}: no block {'.'.join(keys)}; known: {', '.join(value)}")
        value = value[key]
    return as_block(kind, value, *keys)


def as_block(kind: type[Block], value: dict[str, Any], *keys: str) -> Block:
    """Settings at `keys` as the stage's own dataclass `kind`."""
    try:
        return construct(kind, value)
    except TypeError as error:  # a key too many or too few, where nothing checks the file
        raise UserError(f"{layout.PARAMS}: {'.'.join(keys)}: {str(error).removeprefix(f'{kind.__name__}.')}") from None


def datasets() -> list[str]:
    return load()["datasets"]


def methods() -> list[str]:
    """The folders in methods/ whose code is run."""
    return load().get("methods", [])


def variants() -> list[str]:
    """All runs in the order of `params.yaml`, `variants` before `named`: spig, spig-seed1, patn, spig-fast, ..."""
    return [run for _, _, run in runs(load())]


def variant_of(run: str) -> str:
    """The name in `models.variants` of a name in `params.yaml`: spig of spig-seed1, spig-fast and spig."""
    return run.partition("-")[0]


def without_seed(run: str) -> str:
    """The name of a run and its further seeds: spig-fast of spig-fast-seed1, and of spig-fast."""
    return run.partition(SEED)[0]


def named(run: str) -> str:
    """What settings of its own are called: fast of spig-fast-seed1; "" of a run without."""
    return without_seed(run).partition("-")[2]


def seed_of(run: str) -> int | None:
    """The seed that a name in `params.yaml` states: 1 of spig-seed1; None of spig, whose settings state it."""
    _, found, seed = run.partition(SEED)
    return int(seed) if found else None


def family(run: str) -> str:
    """The family (file in models/) of a run. Raises UserError if `params.yaml` lacks it."""
    for _, name, known in runs(load()):
        if run == known:
            return name
    raise UserError(f"unknown variant {run}; {layout.PARAMS} names: {', '.join(variants())}")


def training(dataset: str, run: str) -> dict[str, Any]:
    """The settings that a run is trained with: of its family's block in `train`, what it has of its own in `named`, and
    the seed that its name states. Raises UserError if `params.yaml` lacks it.
    """
    name, seed = family(run), seed_of(run)
    own = load().get("named", {}).get(name, {}).get(run, {}) | ({} if seed is None else {"seed": seed})
    return load()["train"][dataset][name] | own
