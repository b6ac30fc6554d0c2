"""`repose`, the installed command: from any folder, its version, its completion in a shell."""

import argparse
import errno
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.formats import pictures
from tests.conftest import ROOT
from tests.small_project import enter

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_checkout_installs_editable_without_a_network(tmp_path):
    """As `make env` does it. What runs is the checkout as it is now, from any folder."""
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("pipeline", "models"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    packages = next((tmp_path / "env/lib").glob("python*/site-packages"))
    (packages / "shared.pth").write_text(sysconfig.get_paths()["purelib"])
    install = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run([*install, "--python", tmp_path / "env/bin/python", "-e", checkout], check=True)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([tmp_path / "env/bin/repose", *arguments], cwd=elsewhere, capture_output=True, text=True)

    assert run("--version").stdout == f"repose {VERSION}\n"
    assert run().stdout.startswith("usage: repose STAGE")
    status = run("status")
    assert status.returncode == 2
    assert status.stderr == "repose: params.yaml: not here; run from the project's root folder\n"
    assert run("train", "--help").stderr == status.stderr.replace("params.yaml", "params.schema.yaml")
    project = checkout / "pyproject.toml"
    project.write_text(project.read_text().replace(VERSION, "7.8.9"))
    assert run("--version").stdout == "repose 7.8.9\n"
    assert list(elsewhere.iterdir()) == []


@pytest.fixture(scope="module")
def bash(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "repose.bash"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as handle:
        patch.chdir(ROOT)
        patch.setattr(sys, "stdout", handle)
        assert main(["--print-completion", "bash"]) == 0
    return path


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("repose sta", {"status"}),
        ("repose --ver", {"--version"}),
        ("repose train --dataset synth", {"synthetic"}),
        ("repose train --variant mean", {"mean_image"}),
        ("repose score --im", {"--images"}),
        ("repose figure rel", {"relation-maps"}),
        ("repose status --js", {"--json"}),
    ],
)
def test_bash_completes(bash, line, offered):
    words = line.split()
    script = f"""
source {bash}
complete -p repose | sed 's/.*-F \\([^ ]*\\) .*/\\1/' > {bash}.name
COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}
$(cat {bash}.name) repose {words[-1]} {words[-2]}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert {word.strip() for word in result.stdout.split()} == offered, result.stderr


def test_zsh_has_a_script_and_no_other_shell(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["--print-completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef repose")
    assert main(["--print-completion", "csh"]) == 2
    assert "give one of bash, zsh" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "data/x"), "No space left on device (data/x); free space"),
        (PermissionError(errno.EACCES, "Permission denied", "data/x"), "Permission denied (data/x); permit it"),
        (FileNotFoundError(errno.ENOENT, "No such file", "data/x"), "(data/x); missing, or removed while this ran"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files (data/synthetic/raw); run again when"),
        (MemoryError(), "not enough memory; a smaller batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory; a smaller batch"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "not enough memory; a smaller"),
        (RuntimeError("can't start new thread"), "not enough threads; a smaller batch"),
        (
            UnicodeEncodeError("utf-8", "caf\udce9.jpg", 3, 4, "surrogates"),
            "'caf\\\\xe9.jpg' cannot be written as utf-8; rename",
        ),
        (
            UnicodeEncodeError("ascii", "caf\u00e9", 3, 4, "ordinal"),
            "'caf\\xe9' cannot be written as ascii; set PYTHONUTF8",
        ),
    ],
)
def test_the_systems_errors_are_one_line_with_their_own_remedy(tmp_path, monkeypatch, capsys, error, says):
    def run(dataset):
        raise error

    enter(tmp_path, monkeypatch)
    monkeypatch.setattr("pipeline.stages.fetch.run", run)
    assert main(["fetch", "--dataset", "synthetic"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.startswith("repose: fetch: ")
    assert says in said


@pytest.mark.parametrize("asked", [["list"], ["describe", "fid"], ["cite", "spgnet"], ["train", "--help"]])
def test_without_a_project_the_checkout_answers(tmp_path, asked):
    def said(folder: Path) -> str:
        path = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "pipeline", *asked]
        return subprocess.run(command, cwd=folder, env=path, check=True, capture_output=True, text=True).stdout

    assert said(tmp_path) == said(ROOT) != ""


def test_a_folder_of_a_commands_name_is_that_of_the_working_directory(tmp_path, monkeypatch, capsys):
    for name in ("list", "cite"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(pictures.encode_png(np.zeros((64, 32, 3), np.uint8)))
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "list", "cite", "--metrics", "ssim"]) == 0
    assert "1 identical pairs" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["architecture", "schema"])
def test_what_writes_a_page_of_the_checkout_writes_nowhere_else(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert main([name]) == 2
    assert "params.yaml: not here; run from the project's root folder" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "unbuffered", "status"),
    [(command, unbuffered, 141) for command in ("--help", "--version", "list") for unbuffered in ("", "1")]
    + [("train --help", "", 141), ("no-stage", "", 2)],  # who writes nothing has its own status
)
def test_a_reader_that_has_seen_enough_is_no_fault(command, unbuffered, status):
    """As in `repose list | head`: said nowhere, with the status that a shell has of a command that SIGPIPE ends."""
    reads, writes = os.pipe()
    os.close(reads)
    run = subprocess.run(
        [sys.executable, "-m", "pipeline", *command.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writes)
    assert run.returncode == status
    assert (run.stderr == "") == (status == 141)


def test_another_pipe_that_breaks_is_a_fault(monkeypatch, capfd):
    """Standard output is read here: it is not what broke."""

    def break_down(name: str) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("pipeline.__main__._command", break_down)
    monkeypatch.setattr("pipeline.__main__._parser", lambda name: argparse.ArgumentParser())
    assert main(["list"]) == 2
    assert "Broken pipe" in capfd.readouterr().err
