"""What is said of the packages that the locks install: the bill of materials, and the audit."""

import importlib.util
import json
import subprocess
import sys
import tomllib
from types import ModuleType

import pytest

from tests.conftest import ROOT
from tests.test_locks import RUNTIME, locked


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f".ci/{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def bill() -> dict:
    command = [sys.executable, ROOT / ".ci/sbom.py"]
    first, second = (subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2))
    assert first == second
    return json.loads(first)


def test_the_bill_names_all_that_is_locked_with_its_digests(bill):
    libraries = [one for one in bill["components"] if one["type"] == "library"]
    assert {(one["name"], one["version"]) for one in libraries} == {
        (name, version) for name, versions in locked(RUNTIME).items() for version in versions
    }
    listed = (ROOT / RUNTIME).read_text(encoding="utf-8").count("--hash=sha256:")
    assert sum(len(one["externalReferences"][0]["hashes"]) for one in libraries) == listed
    assert all(one["purl"] == one["bom-ref"] == f"pkg:pypi/{one['name']}@{one['version']}" for one in libraries)
    numpy = {one["version"]: one["properties"][0]["value"] for one in libraries if one["name"] == "numpy"}
    assert len(numpy) == 2
    assert all("python_full_version" in marker for marker in numpy.values())


def test_the_bill_says_what_asks_for_what(bill):
    below = {one["ref"]: set(one["dependsOn"]) for one in bill["dependencies"]}
    refs = {one["bom-ref"] for one in bill["components"]}
    assert set().union(*below.values()) == {ref for ref in refs if ref.startswith("pkg:")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = {ref.removeprefix("pkg:pypi/").partition("@")[0] for ref in below[f"repose@{project['version']}"]}
    assert {"dvc", "snakemake", "torch", "numpy"} <= direct
    assert "aiohttp" not in direct
    assert any(ref.startswith("pkg:pypi/multidict@") for ref in next(below[one] for one in below if "/aiohttp@" in one))


def test_the_bill_has_the_weights_that_are_in_the_box(bill):
    weights = {one["name"] for one in bill["components"] if one["type"] == "machine-learning-model"}
    shipped = subprocess.run(["git", "ls-files", "*.safetensors"], cwd=ROOT, capture_output=True, text=True).stdout
    assert set(shipped.split()) <= weights
    assert "vgg19: vgg19-dcbb9e9d.pth" in weights


def said(audit: ModuleType, monkeypatch, output: str) -> tuple[list[str], int]:
    done = subprocess.CompletedProcess((), 0, output, "")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: done)
    return audit.report(audit.asked("some.lock"))


def test_the_audit_says_what_is_known_and_fails_where_it_can_be_mended(monkeypatch):
    audit = module("audit")

    def found(*versions: str) -> str:
        weakness = {"id": "X-1", "fix_versions": versions}
        packages = [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "version": "2", "vulns": [weakness]}]
        return json.dumps({"dependencies": packages})

    lines, status = said(audit, monkeypatch, found("3"))
    assert (lines, status) == (["b 2: X-1; without it: 3", "audit: 2 packages, 1 known weaknesses"], 1)
    assert said(audit, monkeypatch, found())[1] == 0
    assert said(audit, monkeypatch, json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}))[1] == 0


@pytest.mark.parametrize("output", ["", "no answer", '{"dependencies": [{"name": "a", "skip_reason": "not there"}]}'])
def test_an_audit_that_nobody_answers_says_so(monkeypatch, output):
    lines, status = said(module("audit"), monkeypatch, output)
    assert (lines, status) == (["audit: no advisory service answers here; nothing was checked"], 0)
