"""Methods of other programs: what a method.yaml may say, that only what it names runs, and each check by its fault."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.__main__ import main
from pipeline.core import layout
from pipeline.core.errors import UserError
from pipeline.fetching.download import MIRROR
from pipeline.formats import pictures
from pipeline.methods import call, checks, manifest
from pipeline.methods.ready import ready
from tests.conftest import ROOT
from tests.methods.made import HEIGHT, WIDTH, write_method

WEIGHTS = b"nothing learned"


@pytest.fixture
def method(bundle, tmp_path, monkeypatch):
    """A function that writes methods/mine/ in the working folder, with other values than usual; it gives the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(MIRROR, raising=False)
    return partial(write_method, tmp_path / "methods/mine", bundle)


@pytest.fixture(autouse=True)
def _rendered_once(monkeypatch):
    monkeypatch.setattr(checks, "synthetic_people", people)


people = cache(checks.synthetic_people)


# ---- the checks


def verdicts(capsys) -> dict[str, str]:
    """The first word of each check."""
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line.split()[0] in checks.CHECKS}


def test_a_method_that_keeps_to_the_contract_passes(method, capsys):
    method()
    assert main(["check-method", "mine"]) == 0
    assert verdicts(capsys) == dict.fromkeys(checks.CHECKS, "pass")
    assert not list(Path.cwd().rglob("t0*.png"))


@pytest.mark.parametrize(
    ("fault", "check", "why"),
    [
        ("name", "names", "FAIL: 8 of 8 are not there, s00000_2_t00000.png the first; 8 files too many, s00000.png"),
        ("missing", "names", "FAIL: 1 of 8 are not there, s00002_2_t00002.png the first"),
        ("more", "names", "FAIL: 1 files too many, grid.png the first"),
        ("size", "sizes", "FAIL: s00000_2_t00000.png: 64 x 33, wanted 64 x 32 (height x width)"),
        ("no picture", "sizes", "FAIL: s00000_2_t00000.png: no PNG"),
        ("random", "determinism", "FAIL: 8 of 8 pictures differ"),
        (
            "order",
            "batch",
            "FAIL: in the opposite order: 8 of 8 pictures differ, s00000_2_t00000.png by 70 grey levels",
        ),
        ("batch", "batch", "FAIL: as 3 pairs and 5: 8 of 8 pictures differ"),
        ("eight", "batch", "FAIL: as 3 pairs and 5: it fails: mine: its command: ended with status 3: loading |"),
        ("target", "targets", "FAIL: where files have the targets' names, 8 of 8 pictures differ"),
        ("needs target", "targets", "FAIL: it fails where no files with the targets' names are, and runs where they"),
    ],
)
def test_each_fault_is_caught_by_the_name_of_its_check(method, capsys, fault, check, why):
    method(fault)
    assert main(["check-method", "mine"]) == 1
    found = verdicts(capsys)
    assert found[check].startswith(why)
    assert {name for name, verdict in found.items() if verdict.startswith("FAIL")} == {check}
    judged = {"missing", "more", "size", "order", "batch", "eight", "target"}  # in all checks
    assert ("not judged" in " ".join(found.values())) == (fault not in judged), found


def test_rounding_in_another_batch_is_no_fault():
    grey = np.full((4, 4, 3), 100, np.uint8)

    def verdict(levels: int) -> checks.Verdict:
        def draw(positions, bait):
            more = levels if len(positions) < 2 else 0
            return {f"{one}.png": pictures.encode_png(grey + np.uint8(more)) for one in positions}

        found = {one.check: one for one in checks.check(draw, [f"{one}.png" for one in range(4)], 4, 4)}
        return found["batch"]

    assert verdict(checks.ALIKE).passed
    why = "as 3 pairs and 1: 1 of 4 pictures differ, 3.png by 3 grey levels"
    assert verdict(checks.ALIKE + 1) == ("batch", False, why)


# ---- what it is given


def test_a_method_is_given_sources_and_joints_and_nothing_of_targets(tmp_path):
    both = people(HEIGHT, WIDTH)
    path = call.write(checks.task(both), tmp_path)
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert tuple(rows[0]) == call.COLUMNS
    assert len(rows) == checks.PAIRS
    files = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file())
    assert files == [*(Path(f"images/s{number:05d}.png") for number in range(8)), Path("pairs.csv")]
    for row, (source, target) in zip(rows, both, strict=True):
        assert np.array_equal(pictures.decode(Path(row["image"]).read_bytes()), source.image)
        for which, one in (("source", source), ("target", target)):
            x, y = (json.loads(row[f"{which}_{axis}"]) for axis in "xy")
            seen = np.isfinite(one.joints).all(axis=1)
            assert np.abs(np.array([x, y]).T - one.joints)[seen].max() <= 0.0051
            assert {*np.array(x)[~seen], *np.array(y)[~seen]} <= {-1}


def test_published_joints_come_as_they_were_published():
    """Whole numbers without a point, y before x, -1 where missing."""
    joints, valid = np.tile(np.float32([3, 7]), (18, 1)), np.arange(18) < 17
    assert call._lists(joints, valid) == (f"[{'7, ' * 17}-1]", f"[{'3, ' * 17}-1]")
    assert call._lists(joints + np.float32(0.126), valid)[0].startswith("[7.13, ")


# ---- only what method.yaml names, once it is verified


def made(name: str = "mine") -> set[str]:
    folder = Path(".work/methods") / name
    return {path.name.partition("-")[0] for path in folder.iterdir()} - {"lock"} if folder.exists() else set()


def test_the_commit_decides_which_code_runs(method, bundle, capsys):
    """Not what is the newest there."""
    method(commit=bundle.later)
    assert main(["check-method", "mine"]) == 2
    assert "mine: its command: ended with status 1: a later version; all of it: " in capsys.readouterr().err
    method()
    assert main(["check-method", "mine"]) == 0
    method(commit="0" * 40)
    assert main(["check-method", "mine"]) == 2
    assert f"theirs.bundle: holds no commit {'0' * 40}; correct `commit`" in capsys.readouterr().err


def test_files_that_are_not_the_commits_never_run(method, monkeypatch, capsys):
    """The repository's objects were changed on the disk."""
    method()
    prepared = ready(manifest.read("mine"), Path("log"))
    packs = next(prepared.repository.rglob("*.pack"))
    content = bytearray(packs.read_bytes())
    content[len(content) // 2] ^= 255
    packs.chmod(0o644)
    packs.write_bytes(content)
    with pytest.raises(UserError, match="mine: checking out"):
        prepared.check_out(Path("code"))


def test_a_checkout_is_compared_with_its_commit(method, monkeypatch):
    method()
    prepared = ready(manifest.read("mine"), Path("log"))
    real = subprocess.run

    def run(command, **options):
        result = real(command, **options)
        if "checkout-index" in command:
            Path("code/draw.py").write_text("print('not this')")
        return result

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match=r"checking out [0-9a-f]{40} gave others"):
        prepared.check_out(Path("code"))


def test_weights_are_verified_before_anything_else_is_done(method, tmp_path, monkeypatch, capsys):
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    method("--weights", "{weights}", weights={"net/g.pth": {"url": None, "sha256": digest}})
    assert main(["check-method", "mine"]) == 2
    said = capsys.readouterr().err
    assert f"put it into the folder ${MIRROR} as methods/mine/net/g.pth" in said
    own = tmp_path / "mirror/methods/mine/net/g.pth"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"another")
    monkeypatch.setenv(MIRROR, str(tmp_path / "mirror"))
    assert main(["check-method", "mine"]) == 2
    assert f"weights.net/g.pth wants {digest}; damaged, or another file" in capsys.readouterr().err
    assert made() == {"weights"}
    own.write_bytes(WEIGHTS)
    assert main(["check-method", "mine"]) == 0
    kept = Path(".work/methods/mine/weights/net/g.pth")
    kept.write_bytes(b"another")
    ready(manifest.read("mine"), Path("log"))
    assert kept.read_bytes() == WEIGHTS


def test_a_failing_command_is_one_error_with_its_last_lines(method, capsys):
    method("fails")
    assert main(["check-method", "mine"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    log = layout.log("check_method", "mine").with_suffix(".out").resolve()
    assert said == (
        f"repose: mine: its command: ended with status 3: loading | no module named theirs; all of it: {log}"
    )
    assert "no module named theirs" in log.read_text()
    method(command=["nothing", "{pairs}", "{output}"])
    assert main(["check-method", "mine"]) == 2
    assert "mine: its command: there is no program nothing that can be run" in capsys.readouterr().err


def test_a_command_finds_its_own_environment_and_none_of_the_users(method, monkeypatch, tmp_path):
    """And a folder to work in that is far from the project."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SECRET", "1")
    code = "import os, sys; open(sys.argv[2] + '/x', 'w').write(repr((sys.prefix, os.getcwd(), {**os.environ})))"
    method(command=["python", "-c", code, "{pairs}", "{output}"])
    prepared = ready(manifest.read("mine"), Path("log"))
    with call.drawn(prepared, checks.task(people(HEIGHT, WIDTH))) as folder:
        prefix, where, environment = eval((folder / "x").read_text())
    assert Path(prefix).is_relative_to(tmp_path / ".work/methods/mine")
    assert not Path(where).is_relative_to(tmp_path)
    assert not Path(where).exists()
    assert not {"SECRET", "PYTHONPATH"} & {*environment}
    assert environment["HOME"].startswith(str(Path(where).parent))


def test_an_environment_is_made_once_for_a_lock(method, tmp_path):
    """Of a wheel that lies beside the lock, by its hash; another lock makes another environment."""
    folder = method()
    first = ready(manifest.read("mine"), Path("log")).environment
    (first / "kept").touch()
    assert (ready(manifest.read("mine"), Path("log")).environment / "kept").exists()
    wheel = folder / "tiny-1.0-py3-none-any.whl"
    write_wheel(wheel)
    line = f"./{wheel.name} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    (folder / "requirements.txt").write_text(line)
    second = ready(manifest.read("mine"), Path("log")).environment
    assert second != first
    said = subprocess.run([second / "bin/python", "-c", "import tiny; print(tiny.N)"], capture_output=True, text=True)
    assert said.stdout == "7\n"
    (folder / "requirements.txt").write_text(line[:-5] + "0000\n")
    with pytest.raises(UserError, match=r"mine: environment of requirements\.txt: ended with status 1"):
        ready(manifest.read("mine"), Path("log"))


def write_wheel(path: Path) -> None:
    import zipfile

    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny.py", "N = 7\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


UV = shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)


@pytest.mark.skipif(not UV, reason="uv is not installed")
def test_an_environment_by_uv(method):
    folder = method()
    (folder / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "0"\nrequires-python = ">=3.8"\n')
    subprocess.run([UV, "lock", "--offline"], cwd=folder, check=True, capture_output=True)
    method(environment="uv.lock")
    assert main(["check-method", "mine"]) == 0


def test_uv_is_held_to_the_lock(method, tmp_path, monkeypatch, capsys):
    folder = method(environment="uv.lock")
    (folder / "uv.lock").write_text("version = 1\n")
    (folder / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere/python"))
    assert main(["check-method", "mine"]) == 2
    assert "there is no program uv that can be run" in capsys.readouterr().err
    stand_in = f'echo "$@" >> {tmp_path}/said; python3 -m venv --without-pip "$UV_PROJECT_ENVIRONMENT"'
    program(tmp_path / "bin/uv", stand_in)
    assert main(["check-method", "mine"]) == 0
    assert (tmp_path / "said").read_text() == f"sync --frozen --no-install-project --project {folder}\n"


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\nset -e\n{text}\n")
    path.chmod(0o755)


def test_a_container_sees_this_calls_folder_and_no_network(method, tmp_path, monkeypatch, capsys):
    """A stand-in for docker writes down what it was asked, and runs the command as it is."""
    image = f"theirs/method@sha256:{'1' * 64}"
    folder = method(environment=image, command=["python3", "draw.py", "--pairs", "{pairs}", "--output", "{output}"])
    stand_in = f"""echo "$@" >> {tmp_path}/said
while [ "$1" != {image} ]; do [ "$1" = --workdir ] && cd "$2"; shift; done
shift; exec "$@" """
    program(tmp_path / "bin/docker", stand_in)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert main(["check-method", "mine"]) == 0
    said = (tmp_path / "said").read_text().splitlines()[0].split()
    assert said[:4] == ["run", "--rm", "--network", "none"]
    mounts = [said[at + 1] for at, word in enumerate(said) if word == "--volume"]
    root = Path(said[said.index("--workdir") + 1]).parent
    weights = tmp_path / ".work/methods/mine/weights"
    assert mounts == [f"{root}:{root}", f"{weights}:{weights}:ro", f"{folder}:{folder}:ro"]
    assert "--gpus" not in said
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["check-method", "mine"]) == 2
    assert "runs in a container, and neither docker nor podman is installed" in capsys.readouterr().err


# ---- what method.yaml may say


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"commit": "abc"}, "commit is 'abc'; allowed: pattern"),
        ({"commit": None}, "(top level) lacks the key commit"),
        ({"licence": None}, "(top level) lacks the key licence"),
        ({"comand": ["x"]}, "unknown key comand; allowed here: title, repository"),
        ({"repository": "git@host:theirs"}, "repository is 'git@host:theirs'; allowed: pattern"),
        ({"repository": "--upload-pack=x.bundle"}, "repository is '--upload-pack=x.bundle'; allowed: pattern"),
        ({"repository": "other.bundle"}, "other.bundle is not beside it"),
        ({"environment": "theirs/image:latest"}, "environment is 'theirs/image:latest'; allowed: pattern"),
        ({"environment": "uv.lock"}, "uv.lock is not beside it"),
        ({"weights": {"g.pth": {"url": None, "sha256": "12345678"}}}, "weights.g.pth.sha256 is '12345678'; allowed"),
        ({"weights": {"../g.pth": {"url": None, "sha256": "0" * 64}}}, "weights.../g.pth: is no path within a folder"),
        ({"command": "python draw.py"}, "command is 'python draw.py'; allowed: a value of type list"),
        ({"command": ["python", "{pairs}"]}, "command lacks {output}"),
        ({"command": ["{pairs}", "{output}", "{data}"]}, "command: {data} is nothing; known: {pairs}, {output}"),
        ({"names": "{to}"}, "names is '{to}'; it needs {from} and {to}, or {index}"),
        ({"height": None}, "height and width are given together or not at all"),
        ({"title": "PIDM"}, "title 'PIDM' is that of a folder pidm; call both alike"),
        ({"saw": {"training": "x"}}, "saw lacks the key pretraining"),
    ],
)  # fmt: skip
def test_what_a_method_cannot_say_is_one_line(method, values, message):
    method(**values)
    with pytest.raises(UserError) as error:
        manifest.read("mine")
    assert str(error.value).startswith(f"methods/mine/method.yaml: {message}")


def test_a_method_that_is_not_there_is_named_with_those_that_are(method):
    method()
    with pytest.raises(UserError, match=r"methods/theirs/method.yaml: not there; docs/methods.md .*; there are: mine"):
        manifest.read("theirs")


def test_images_of_another_size_are_refused_before_anything_runs(method):
    method()
    prepared = ready(manifest.read("mine"), Path("log"))
    task = replace(checks.task(people(HEIGHT, WIDTH)), height=128)
    with (
        pytest.raises(UserError, match=r"mine: takes images of 64 x 32 \(height x width\), these are 128 x 32"),
        call.drawn(prepared, task),
    ):
        pass


def test_the_example_of_the_docs_is_a_method(method):
    """Its method.yaml as it stands there."""
    text = (ROOT / manifest.DOCS).read_text(encoding="utf-8")
    says = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    folder = method()
    for file in ("uv.lock", "pyproject.toml"):
        (folder / file).touch()
    (folder / "method.yaml").write_text(yaml.safe_dump(says | {"title": "mine"}))
    assert manifest.read("mine").command[0] == "python"
    assert {*says} == set(manifest.Manifest.__dataclass_fields__)
