"""The locks: hashed, of one version each, free of addresses; and what they lock can be installed where README says."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUNTIME, DEVELOPMENT, SLURM = "requirements.lock", "requirements-dev.lock", "requirements-slurm.lock"
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-manylinux_2_35", "aarch64-apple-darwin")  # 2.35: OpenVINO's wheels


def locked(name: str) -> dict[str, set[str]]:
    """Package -> its versions, a further one for other Pythons or platforms."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return found


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", one)[0].lower() for one in requirements}


def test_the_development_lock_is_the_runtime_lock_and_more():
    runtime, development = locked(RUNTIME), locked(DEVELOPMENT)
    assert {name: development.get(name) for name in runtime} == runtime
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert names(project["dependencies"]) <= runtime.keys()
    assert names(project["optional-dependencies"]["dev"]) <= development.keys() - runtime.keys()


def test_the_plugin_for_slurm_changes_no_version():
    runtime, plugin = locked(RUNTIME), locked(SLURM)
    assert {name: runtime[name] for name in plugin.keys() & runtime.keys()}.items() <= plugin.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert names(project["optional-dependencies"]["slurm"]) <= plugin.keys() - runtime.keys()


@pytest.mark.parametrize("name", [RUNTIME, DEVELOPMENT, SLURM])
def test_every_package_has_hashes_and_none_an_address(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_the_locks_resolve(version, platform, tmp_path):
    """By resolution alone, from the package index: nothing is installed."""
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}  # torch's wheels
    for name in (RUNTIME, DEVELOPMENT, SLURM):
        resolve = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--generate-hashes"]
        target = ["--python-version", version, "--python-platform", platform]
        out = tmp_path / name
        command = [*resolve, *target, str(ROOT / name), "-o", str(out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for package, found in re.findall(r"^([\w.-]+)==(\S+)", out.read_text(encoding="utf-8"), re.MULTILINE):
            assert found in locked(name)[package], f"{package} {found} is not what {name} says"
