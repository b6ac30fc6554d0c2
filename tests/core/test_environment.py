"""Environment variables are read with care: a cluster sets them to nothing, to lists, and for other programs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core import environment
from pipeline.core.errors import UserError
from pipeline.extraction import openpose
from tests.conftest import ROOT

VALUES = [("", 7), (" ", 7), ("2", 2), (" 3 ", 3), ("2,1", 2), ("4, 2, 1", 4), ("0", 0)]
WORDS = ["auto", "-1", "2(x3)", "1e3", "0x4", "½"]


@pytest.mark.parametrize(("value", "number"), [(None, 7), *VALUES, *((word, 7) for word in WORDS)])
def test_a_number(monkeypatch, value, number):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert environment.number("OMP_NUM_THREADS", 7) == number


def test_threads_are_those_of_the_variable_or_all(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    for value, threads in (("", cores), ("0", cores), ("2,1", 2), ("auto", cores)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert openpose.threads() == threads


@pytest.mark.parametrize("value", ["", "0", "no", "False", " off "])
def test_a_switch_that_is_off(monkeypatch, value):
    monkeypatch.setenv("REPOSE_OFFLINE", value)
    assert not environment.is_on("REPOSE_OFFLINE")
    monkeypatch.setenv("REPOSE_OFFLINE", "1")
    assert environment.is_on("REPOSE_OFFLINE")


@pytest.mark.parametrize(
    ("rank", "size", "found"), [("", "", 0), ("3", "", 0), ("3", "1", 0), ("1", "2", 1), ("x", "2", 0)]
)
def test_a_rank_counts_among_several_processes(monkeypatch, rank, size, found):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert environment.rank() == found


def test_a_command_starts_whatever_the_variables_hold():
    odd = dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "REPOSE_LINES", "OMP_NUM_THREADS"), "")
    command = [sys.executable, "-m", "pipeline", "--version"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | odd, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("home", [True, False])
def test_a_path_from_home_where_there_may_be_none(monkeypatch, home):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    if home:
        monkeypatch.setenv("HOME", "/home/anna")
        assert environment.path("~/photos") == Path("/home/anna/photos")
    else:
        with pytest.raises(UserError, match=r"^~/photos: there is no home folder \(HOME is not set\); write"):
            environment.path("~/photos")
        assert environment.path("photos") == Path("photos")


def test_there_is_one_reader_of_numbers():
    for path in (ROOT / "pipeline").rglob("*.py"):
        assert not re.search(r"(int|bool|float)\(os\.(environ|getenv)", path.read_text(encoding="utf-8")), path
