"""The dummy method in a git bundle, as an author might publish it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.methods.made import Bundle

DUMMY = Path(__file__).with_name("dummy.py")


def git(folder: Path, *command: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.check_output(["git", *who, *command], cwd=folder, text=True).strip()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("theirs")
    git(folder, "init", "-q", "-b", "main")
    shutil.copy(DUMMY, folder / "draw.py")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "draws")
    first = git(folder, "rev-parse", "HEAD")
    (folder / "draw.py").write_text("raise SystemExit('a later version')\n")
    git(folder, "commit", "-q", "-a", "-m", "later")
    git(folder, "bundle", "create", "-q", "theirs.bundle", "main")
    return Bundle(folder / "theirs.bundle", first, git(folder, "rev-parse", "HEAD"))
