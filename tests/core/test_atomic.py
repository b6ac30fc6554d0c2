"""An output is the old one or the new one, whole, whatever happens while it is written, and has one writer."""

import errno
import fcntl
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.commands import engines
from pipeline.core import atomic, layout, seals
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.errors import UserError
from tests.conftest import ROOT
from tests.small_project import enter


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
    """The text of a file, or the names in a folder, whose list says the same."""
    if path.is_file():
        return [path.read_text()]
    names = sorted(one.name for one in path.iterdir())
    assert names == sorted([seals.LIST, *seals.read_list(path)])
    return [name for name in names if name != seals.LIST]


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
    assert len(list(tmp_path.iterdir())) == 3  # the lock, and what it was for
    write(path, "new", lambda: None)
    assert held(path) == ["new"]
    assert [one.name for one in tmp_path.iterdir()] == ["output"]


def in_another_process(work: Callable[[Callable[[], None]], None]) -> int:
    """Start `work(pause)` in a process of its own, and return its id once it pauses, for good."""
    ready, tell = os.pipe()
    process = os.fork()
    if not process:
        signal.alarm(20)  # ends it, should the test not come to do so
        work(lambda: (os.write(tell, b"."), signal.pause()))
        os._exit(0)
    os.close(tell)
    assert os.read(ready, 1) == b"."
    os.close(ready)
    return process


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


@writers
def test_a_second_writer_is_refused_and_told_of_the_first(tmp_path, write):
    path = tmp_path / "output"
    write(path, "old", lambda: None)
    first = in_another_process(lambda pause: write(path, "first", pause))
    with pytest.raises(UserError, match=rf"output is being written by process {first} on .* since 2.* \(.*python.*\)"):
        write(path, "second", lambda: None)
    assert held(path) == ["old"]
    kill(first)
    write(path, "second", lambda: None)
    assert held(path) == ["second"]
    assert [one.name for one in tmp_path.iterdir()] == ["output"]


def test_a_lock_goes_with_its_process_though_a_child_of_it_lives(tmp_path):
    path, child = tmp_path / "output", tmp_path / "child"

    def with_a_child(pause):
        worker = in_another_process(lambda pause: pause())
        child.write_text(str(worker))
        pause()

    first = in_another_process(lambda pause: write_file(path, "first", lambda: with_a_child(pause)))
    kill(first)
    try:
        write_file(path, "second", lambda: None)
    finally:
        os.kill(int(child.read_text()), signal.SIGKILL)
    assert held(path) == ["second"]


def test_a_process_may_lock_again_what_it_has(tmp_path):
    path = tmp_path / "folder/output"
    with atomic.lock(path):
        write_directory(path, "a", lambda: None)
        with atomic.lock(tmp_path / "folder/../folder/output"):
            pass
        assert (tmp_path / "folder/.output.lock").exists()
    assert [one.name for one in (tmp_path / "folder").iterdir()] == ["output"]


def test_a_lock_that_was_let_go_just_now_is_taken_anew(tmp_path, monkeypatch):
    """Its file is gone between opening it and having the lock: what is held then is a file that nobody else sees."""
    lockf, taken = atomic.fcntl.lockf, []

    def late(handle, how):
        if not taken:
            (tmp_path / ".output.lock").unlink()
        taken.append(handle)
        lockf(handle, how)

    monkeypatch.setattr(atomic.fcntl, "lockf", late)
    with atomic.lock(tmp_path / "output"):
        assert (tmp_path / ".output.lock").read_text().startswith("process ")
    assert len(taken) == 2


def test_what_cannot_be_cleared_away_is_not_called_another_run(tmp_path, monkeypatch):
    """The leftovers of a killed run."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / ".output.lock").write_text("process 1 on a since b (c)\n")
    (tmp_path / ".output.a-1.partial").touch()
    monkeypatch.setattr(atomic, "remove", refuse)
    with pytest.raises(PermissionError), atomic.lock(tmp_path / "output"):
        pass


@writers
def test_without_locks_two_writers_have_a_partial_each(tmp_path, write, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    path = tmp_path / "output"
    first = in_another_process(lambda pause: write(path, "first", pause))
    partial = next(tmp_path.glob("*.partial"))
    write(path, "second", lambda: None)
    assert held(path) == ["second"]
    assert partial.exists()
    kill(first)


def test_the_old_folder_is_gone_from_its_place_before_it_is_deleted(tmp_path, monkeypatch):
    """A kill while a large folder is deleted left half of it, which both engines take for whole."""
    path = tmp_path / "output"
    write_directory(path, "old", lambda: None)
    removed = []
    monkeypatch.setattr(shutil, "rmtree", lambda folder: removed.append((held(folder), held(path))))
    write_directory(path, "new", lambda: None)
    assert removed == [(["old"], ["new"])]


@writers
def test_content_is_synced_before_its_name_and_that_before_the_old_one_goes(tmp_path, write, monkeypatch):
    """Else a power cut leaves an empty file under the final name, or neither the old nor the new one."""
    path, done = tmp_path / "output", []
    write(path, "old", lambda: None)
    fsync, replace, rmtree = os.fsync, Path.replace, shutil.rmtree
    monkeypatch.setattr(
        os, "fsync", lambda file: (done.append(str(Path(f"/proc/self/fd/{file}").readlink())), fsync(file))
    )
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append(f"to {to.name}"), replace(self, to)))
    monkeypatch.setattr(shutil, "rmtree", lambda folder: (done.append("remove"), rmtree(folder)))
    write(path, "new", lambda: None)
    partial = f"{tmp_path}/.output.{socket.gethostname()}-{os.getpid()}.partial"
    old = f"to {Path(partial).with_suffix('.old').name}"
    inside = [f"{partial}/{name}" for name in ("_SHA256SUMS", "new")]
    if write is write_file:
        assert done == [partial, "to output", str(tmp_path)]
    else:
        assert sorted(done[:2]) == inside
        assert done[2:] == [partial, old, "to output", str(tmp_path), "remove"]


@writers
def test_what_an_interrupted_run_could_not_clear_away_the_next_one_does(tmp_path, write):
    """Its lock is gone: it was let go in good order."""
    for ending in ("partial", "old"):
        (tmp_path / f".output.elsewhere-7.{ending}").touch()
    write(tmp_path / "output", "new", lambda: None)
    assert [one.name for one in tmp_path.iterdir()] == ["output"]


@writers
def test_an_error_that_names_no_file_names_the_output(tmp_path, write):
    def fail_with(*error):
        raise OSError(*error)

    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / "output", "new", lambda: fail_with(errno.ENOSPC, "No space left on device"))
    assert caught.value.filename == str(tmp_path / "output")
    with pytest.raises(OSError, match="denied") as caught:
        write(tmp_path / "output", "new", lambda: fail_with(errno.EACCES, "Permission denied", "other"))
    assert caught.value.filename == "other"


def test_what_cannot_be_removed_is_said_with_its_folder(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", "inside")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(PermissionError) as caught:
        atomic.remove(tmp_path)
    assert caught.value.filename == str(tmp_path)


@writers
def test_an_output_behind_a_link_is_written_there(tmp_path, write):
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk/there", "old", lambda: None)
    (tmp_path / "output").symlink_to(tmp_path / "disk/there")
    write(tmp_path / "output", "new", lambda: None)
    assert (tmp_path / "output").is_symlink()
    assert held(tmp_path / "disk/there") == ["new"]


# A stage's outputs are its own from before it reads anything.


@pytest.fixture
def synthetic(tmp_path, monkeypatch) -> Path:
    enter(tmp_path, monkeypatch)
    return layout.raw("synthetic")


def test_a_second_run_of_a_stage_is_one_line_and_leaves_the_firsts_log_alone(synthetic, capsys):
    log = layout.log("fetch", "synthetic")
    log.parent.mkdir(parents=True)
    log.write_text("the first run's\n")

    def first(pause):
        with atomic.lock(synthetic):
            pause()

    process = in_another_process(first)
    assert main(["fetch", "--dataset", "synthetic"]) == 2
    kill(process)
    said = capsys.readouterr().err
    assert said.startswith(f"repose: data/synthetic/raw is being written by process {process} on ")
    assert len(said.splitlines()) == 1
    assert log.read_text() == "the first run's\n"
    assert not synthetic.exists()


def test_a_stage_holds_its_outputs_while_it_runs(synthetic, monkeypatch):
    seen = []
    monkeypatch.setattr("pipeline.stages.index.run", lambda dataset: seen.extend(synthetic.parent.iterdir()))
    assert main(["index", "--dataset", "synthetic"]) == 0
    assert sorted(path.name for path in seen) == [".images.lock", ".rejects.parquet.lock"]
    assert list(synthetic.parent.iterdir()) == []


@pytest.mark.parametrize("folder", ["data", "data/synthetic"])
def test_dvc_and_a_link_to_another_disk_are_one_line_before_anything_runs(synthetic, monkeypatch, capsys, folder):
    """DVC computes a stage, and then says that its output is outside of the git repository."""
    disk = Path("disk").absolute()
    monkeypatch.chdir(disk.parent)
    disk.mkdir()
    Path("project").mkdir()
    for name in (layout.PARAMS, layout.PARAMS_SCHEMA):
        shutil.move(name, "project")
    monkeypatch.chdir("project")
    Path(folder).parent.mkdir(exist_ok=True)
    Path(folder).symlink_to(disk)
    monkeypatch.setenv("DVC_STAGE", "fetch@synthetic")
    monkeypatch.setattr("pipeline.stages.fetch.run", lambda dataset: pytest.fail("ran"))
    assert main(["fetch", "--dataset", "synthetic"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"repose: data/synthetic/raw lies behind a link, in {disk}")
    assert len(said.splitlines()) == 1
    monkeypatch.delenv("DVC_STAGE")
    monkeypatch.setattr("pipeline.stages.fetch.run", lambda dataset: None)
    assert main(["fetch", "--dataset", "synthetic"]) == 0  # by hand, or under Snakemake


def test_what_a_kill_leaves_beside_an_output_is_ignored_by_dvc_and_by_who_reads_its_records(tmp_path):
    path = tmp_path / "data/output"
    write_directory(path, "old", lambda: None)
    before = engines._size(tmp_path / "data"), engines._md5(tmp_path / "data")
    process = in_another_process(lambda pause: write_directory(path, "new", pause))
    kill(process)
    assert len(list(path.parent.iterdir())) == 3
    assert (engines._size(tmp_path / "data"), engines._md5(tmp_path / "data")) == before
    ignored = (ROOT / ".dvcignore").read_text().splitlines()
    assert [line for line in ignored if not line.startswith("#")] == [*engines.IGNORED]
