"""What is imported is declared in pyproject.toml, and what is declared is imported."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

OURS = {"pipeline", "models", "tests", "benchmarks"}
# Declared, but run as commands: by Makefile and Snakefile, pytest-xdist by pytest's own `-n`, the plugin by Snakemake,
# ruamel-yaml-clib by DVC, which reads its YAML by it where it is there.
COMMANDS = {"dvc", "snakemake", "ruff", "snakefmt", "pytest-xdist"}
COMMANDS |= {"snakemake-executor-plugin-slurm", "ruamel-yaml-clib"}


def normal(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def imported(source: str) -> set[str]:
    """Top-level names that a module imports, anywhere in it, but for Python's own and this project's."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
    return {name.partition(".")[0] for name in found} - sys.stdlib_module_names - OURS


@cache
def imports(*folders: str) -> dict[str, set[str]]:
    """Distribution -> the files in these folders that import a module of it."""
    provided, found = packages_distributions(), {}
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for module in imported(path.read_text(encoding="utf-8")):
            for name in provided.get(module, [module]):  # one of an extra that is not installed has its own name
                found.setdefault(normal(name), set()).add(str(path.relative_to(ROOT)))
    return found


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def extras(project) -> dict[str, set[str]]:
    return {extra: names(some) for extra, some in project["optional-dependencies"].items()}


def test_every_import_is_declared(project, extras):
    """What pipeline/ and models/ import at runtime, or in an extra that is for users: not in `dev`."""
    runtime, declared = names(project["dependencies"]), set().union(*extras.values())
    for_users = runtime.union(*(some for extra, some in extras.items() if extra != "dev"))
    undeclared = {name: files for name, files in imports("pipeline", "models").items() if name not in for_users}
    assert undeclared == {}
    for name, files in imports("tests", "benchmarks").items():
        assert name in runtime | declared, f"{name}, imported by {sorted(files)}"


def test_every_declared_one_is_imported(project, extras):
    used = imports("pipeline", "models").keys()
    assert names(project["dependencies"]) - used - COMMANDS == set()
    skipped = set(re.findall(r'importorskip\("(\w+)"', "".join(map(Path.read_text, (ROOT / "tests").rglob("*.py")))))
    for extra, some in extras.items():
        assert some - used - imports("tests", "benchmarks").keys() - skipped - COMMANDS == set(), extra
        assert names(project["dependencies"]) & some == set(), "declared twice"


def test_an_import_is_found_wherever_it_stands():
    lines = ("import os.path", "from . import near", "from tests import x", "def late(): import yaml, a.b")
    assert imported("\n".join([*lines, "from c.d import e"])) == {"yaml", "a", "c"}


def test_the_licence_is_one_everywhere(project):
    """The files that the package names are there, and CITATION.cff says the same of licence and version."""
    for name in project["license-files"]:
        assert (ROOT / name).exists()
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["license"], str(cited["version"])) == (project["license"], project["version"])
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # what its schema requires


def test_the_notice_names_what_the_parser_was_trained_on():
    """Every source of the model card's data statement."""
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    card = (ROOT / "pipeline/extraction/repose_parser/MODEL_CARD.md").read_text(encoding="utf-8")
    statement = card.partition("## Data statement")[2].partition("\n\n")[0]
    for name in ("Clothing Co-Parsing", "synthetic people", "SqueezeNet 1.1", "ImageNet", "Lightweight OpenPose"):
        assert name in statement
        assert name in notice
    assert "pipeline/extraction/repose_parser/weights.safetensors" in notice
