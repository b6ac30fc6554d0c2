"""methods/NAME/method.yaml: what a method of another program is, where it comes from, and how it is called."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from pipeline.core import layout, params, yaml_file
from pipeline.core.errors import UserError
from pipeline.core.settings import construct, schema_of, setting

FILE = "method.yaml"
UV = "uv.lock"  # with pyproject.toml beside it
PLACES = ("pairs", "output", "weights", "code", "here")  # what "{...}" in a command may stand for
DOCS = "docs/methods.md"
_FIELD = re.compile(r"{(\w+)}")
_SIDE = {"minimum": 1, "maximum": 4096}


class Saw(TypedDict):
    training: str
    pretraining: str
    target_parsing: bool
    samples: int


@dataclass(frozen=True, kw_only=True)
class Weights:
    url: str | None = setting("where it is published; null: only in the folder $REPOSE_MIRROR", pattern="^https?://")
    sha256: str = setting("its digest", pattern="^[0-9a-f]{64}$")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The file. `command` is run in the checkout, without a shell; `{pairs}` and so on are paths of this run."""

    title: str = setting("what its row is called, such as PIDM", minLength=1, maxLength=80)
    repository: str = setting(
        "https address, or a git bundle beside this file", pattern=r"^(https://[^\s]+|[\w-][\w.-]*\.bundle)$"
    )
    commit: str = setting("the commit, all 40 digits", pattern="^[0-9a-f]{40}$")
    environment: str = setting(
        "uv.lock, a lock with hashes for pip, or a container by digest",
        pattern=r"^(uv\.lock|[\w-][\w.-]*\.(txt|lock)|[\w./:-]+@sha256:[0-9a-f]{64})$",
    )
    gpu: bool = setting("whether its container is given the GPUs", False)
    weights: Mapping[str, Weights] = setting("its weights, by their path in {weights}", {})
    command: tuple[str, ...] = setting(
        "program and arguments", items={"type": "string", "minLength": 1}, minItems=1, uniqueItems=False
    )
    names: str = setting("of what it writes, without .png: {from} and {to}, or {index}", pattern="^[^/]+$")
    height: int | None = setting("of its images; null: any", None, **_SIDE)
    width: int | None = setting("of its images; null: any", None, **_SIDE)
    licence: str = setting("of code and weights", minLength=1)
    saw: Saw = setting("training set, what came before it, whether the target's parsing, samples a pair")
    citation: str = setting("BibTeX", "")


@dataclass(frozen=True, kw_only=True)
class Method(Manifest):
    name: str

    @property
    def folder(self) -> Path:
        return (layout.METHODS / self.name).resolve()

    @property
    def work(self) -> Path:
        """Where its repository, weights and environment are kept."""
        return layout.work("methods", self.name).resolve()

    @property
    def container(self) -> str | None:
        return self.environment if "@sha256:" in self.environment else None

    @property
    def described(self) -> dict[str, object]:
        """What stands with its scores."""
        keys = ("repository", "commit", "environment", "licence", "saw", "citation")
        weights = {file: one.sha256 for file, one in self.weights.items()}
        return {key: getattr(self, key) for key in keys} | {"weights": weights}

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of its images, if it takes one size alone."""
        return (self.height, self.width) if self.height and self.width else None


def read(name: str) -> Method:
    """Raises UserError if there is no such method, or its file says what cannot be."""
    path = layout.METHODS / name / FILE
    if not path.is_file():
        known = ", ".join(sorted(found.parent.name for found in layout.METHODS.glob(f"*/{FILE}"))) or "none"
        raise UserError(f"{path}: not there; {DOCS} says how to add a method; there are: {known}")
    values, shared = yaml_file.read(path), {}
    params.validate(values, path, {**schema_of(Manifest, shared), "$defs": shared})
    weights = {file: Weights(**one) for file, one in values.get("weights", {}).items()}
    method = construct(Method, values | {"name": name, "weights": weights})
    for problem in _problems(method):
        raise UserError(f"{path}: {problem}")
    return method


def fields(text: str) -> set[str]:
    """The names in braces."""
    return set(_FIELD.findall(text))


def filled(text: str, values: Mapping[str, object]) -> str:
    """With the values of the names in braces."""
    return _FIELD.sub(lambda found: str(values[found[1]]), text)


def _problems(method: Method) -> Iterator[str]:
    if layout.slug(method.title) != method.name:
        yield f"title {method.title!r} is that of a folder {layout.slug(method.title)}; call both alike"
    if fields(method.names) not in ({"from", "to"}, {"index"}):
        yield f"names is {method.names!r}; it needs {{from}} and {{to}}, or {{index}}"
    places = fields(" ".join(method.command))
    if unknown := sorted(places - set(PLACES)):
        yield f"command: {{{unknown[0]}}} is nothing; known: {', '.join(f'{{{place}}}' for place in PLACES)}"
    if lacking := sorted({"pairs", "output"} - places):
        yield f"command lacks {{{lacking[0]}}}"
    if (method.height is None) != (method.width is None):
        yield "height and width are given together or not at all"
    for file in method.weights:
        if Path(file).is_absolute() or ".." in Path(file).parts or not Path(file).name:
            yield f"weights.{file}: is no path within a folder"
    beside = [] if method.container else [method.environment]
    beside += ["pyproject.toml"] * (method.environment == UV)
    beside += [] if method.repository.startswith("https://") else [method.repository]
    for file in beside:
        if not (method.folder / file).is_file():
            yield f"{file} is not beside it"
