"""What a method needs before its command runs: its weights, its repository with its commit, its environment.

All of it lies in .work/methods/NAME/ and is made once. Weights are held to their digests each time, and files of the
repository to the commit whenever they are checked out; nothing of a method runs, nor is anything installed, before.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import atomic, digests
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.fetching import download
from pipeline.methods.manifest import FILE, UV, Method

LAST = 6  # lines of a failed program's output that its error shows
_LINE = 160  # characters of each


@dataclass(frozen=True)
class Ready:
    """environment: the folder of its virtual environment; of a container nothing. log: what its programs say."""

    method: Method
    weights: Path
    repository: Path
    environment: Path | None
    log: Path

    def check_out(self, folder: Path) -> None:
        """The files of its commit into `folder`, which is made. Raises UserError if they are not what it names."""
        folder = folder.resolve()
        folder.mkdir()
        index = folder.with_name(f"{folder.name}.index")
        git = ["git", f"--git-dir={self.repository}", f"--work-tree={folder}"]
        environment = _of_git() | {"GIT_INDEX_FILE": str(index)}
        what = f"{self.method.name}: checking out {self.method.commit}"
        for steps in (["read-tree", self.method.commit], ["checkout-index", "--all", "--force"]):
            execute([*git, *steps], self.log, what, None, environment)
        index.unlink()  # with it the files' times: git reads every file again to compare it
        execute([*git, "read-tree", self.method.commit], self.log, what, None, environment)
        execute([*git, "diff", "--quiet", "--ignore-submodules"], self.log, f"{what} gave others", None, environment)


def execute(
    command: Sequence[str],
    log: Path,
    what: str,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program, without a shell and with its output at the end of `log`. Raises UserError, with its last lines."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a+b") as output:
        output.write(f"$ {shlex.join(command)}\n".encode())
        output.flush()
        start = output.tell()
        try:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, env=environment
            ).returncode
        except (FileNotFoundError, PermissionError):
            raise UserError(f"{what}: there is no program {command[0]} that can be run") from None
        if status:
            output.seek(start)
            lines = [line.strip()[:_LINE] for line in output.read().decode(errors="replace").splitlines()]
            last = " | ".join([line for line in lines if line][-LAST:]) or "without a word"
            raise UserError(f"{what}: ended with status {status}: {last}; all of it: {log}")


def ready(method: Method, log: Path) -> Ready:
    """Fetch and verify what is not there yet. Raises UserError for what cannot be had or is not what was named."""
    method.work.mkdir(parents=True, exist_ok=True)
    log = log.resolve()
    with _alone(method.work / "lock"):
        weights, repository = _weights(method), _repository(method, log)
        return Ready(method, weights, repository, _environment(method, log), log)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Two data sets may want one method at once: the second waits."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _weights(method: Method) -> Path:
    folder = method.work / "weights"
    folder.mkdir(exist_ok=True)
    for name, one in method.weights.items():
        file, key = folder / name, f"methods/{method.name}/{FILE}: weights.{name}"
        if file.is_file() and digests.sha256(file) == one.sha256:
            continue
        try:
            found = download.obtain(
                download.Download(file=f"methods/{method.name}/{name}", url=one.url, sha256=one.sha256), key
            )
        except download.Unavailable as error:
            raise UserError(
                f"{key}: {error}; put it into the folder ${download.MIRROR} as methods/{method.name}/{name}"
            ) from None
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic.atomic_file(file) as partial:
            download.place(found, partial)
    return folder


def _of_git() -> dict[str, str]:
    """No settings of the user's: they name programs that git would run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0"}


def _repository(method: Method, log: Path) -> Path:
    folder, what = method.work / "repository", f"{method.name}: {method.repository}"
    source = method.repository if method.repository.startswith("https://") else str(method.folder / method.repository)

    def has_commit() -> bool:
        wanted = f"{method.commit}^{{commit}}"
        command = ["git", f"--git-dir={folder}", "cat-file", "-e", wanted]
        return folder.exists() and not subprocess.run(command, env=_of_git(), capture_output=True).returncode

    if not has_commit():
        say(f"{what}: cloning")
        with atomic.atomic_directory(folder, listed=False) as partial:
            execute(["git", "clone", "--quiet", "--bare", "--", source, str(partial)], log, what, None, _of_git())
        if not has_commit():
            raise UserError(f"{what}: holds no commit {method.commit}; correct `commit` in its {FILE}")
    return folder


def _environment(method: Method, log: Path) -> Path | None:
    """Made by uv or pip from the lock, once for each content of it."""
    if method.container:
        return None
    lock = method.folder / method.environment
    described = lock.read_bytes() + ((method.folder / "pyproject.toml").read_bytes() if lock.name == UV else b"")
    key = hashlib.sha256(described + sys.version.encode()).hexdigest()[:16]
    folder, what = method.work / f"environment-{key}", f"{method.name}: environment of {method.environment}"
    made = folder / "made"
    if made.exists():
        return folder
    atomic.remove(folder)
    say(f"{what}: making it")
    if lock.name == UV:
        command = ["uv", "sync", "--frozen", "--no-install-project", "--project", str(method.folder)]
        path = os.pathsep.join(
            [os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)]
        )  # `make env`'s uv
        execute(command, log, what, None, os.environ | {"UV_PROJECT_ENVIRONMENT": str(folder), "PATH": path})
    else:
        execute([sys.executable, "-m", "venv", "--without-pip", str(folder)], log, what)
        if any(line.strip() and not line.startswith("#") for line in lock.read_text(encoding="utf-8").splitlines()):
            pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install"]
            execute([*pip, "--no-deps", "--require-hashes", "-r", lock.name], log, what, lock.parent)
    made.touch()
    return folder


def program(name: str) -> str:
    """Where a container's program is. Raises UserError if neither is installed."""
    found = shutil.which("docker") or shutil.which("podman")
    if found is None:
        raise UserError(f"{name}: runs in a container, and neither docker nor podman is installed")
    return found
