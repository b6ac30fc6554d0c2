"""An output is the old one or the new one, whole, whatever happens while it is written."""

import os
from pathlib import Path

import pytest

from pipeline.core.atomic import atomic_directory, atomic_file


def write_file(path: Path, text: str, halfway) -> None:
    with atomic_file(path) as partial:
        partial.write_text(text)
        halfway()


def write_directory(path: Path, text: str, halfway) -> None:
    with atomic_directory(path) as partial:
        (partial / text).write_text(text)
        halfway()


def fail() -> None:
    raise KeyboardInterrupt


def held(path: Path) -> list[str]:
    """The text of a file, or the names in a folder."""
    return [path.read_text()] if path.is_file() else sorted(one.name for one in path.iterdir())


writers = pytest.mark.parametrize("write", [write_file, write_directory])


@writers
def test_a_new_output_takes_the_old_ones_place(tmp_path, write):
    path = tmp_path / "folder/output"
    for text in ("old", "new"):
        write(path, text, lambda: None)
        assert held(path) == [text]
    assert [one.name for one in path.parent.iterdir()] == ["output"]


@writers
def test_an_exception_leaves_the_old_output_and_nothing_else(tmp_path, write):
    path = tmp_path / "output"
    write(path, "old", lambda: None)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            write(path, "new", fail)
        assert held(path) == ["old"]
        assert [one.name for one in tmp_path.iterdir()] == ["output"]


@writers
def test_a_kill_leaves_the_old_output_and_the_next_run_a_whole_one(tmp_path, write):
    path = tmp_path / "output"
    write(path, "old", lambda: None)
    process = os.fork()
    if not process:
        write(path, "half", lambda: os._exit(9))
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    assert held(path) == ["old"]
    write(path, "new", lambda: None)
    assert held(path) == ["new"]
