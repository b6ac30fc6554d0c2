import hashlib
import os
import subprocess

import pytest

from pipeline.core import digests, graph, params
from pipeline.core.errors import UserError

SOURCE = '''"""A module."""

import math  # for pi


def area(radius: float) -> float:
    """Of a circle."""
    # the formula is old
    return math.pi * radius**2


class Empty:
    """Nothing."""

    text = "no docstring"
    size: int = setting("of the disc", 3, minimum=1)
'''


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder in the place of the project's, with one module; `root(old, new)` edits it and returns its digests."""
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(digests, "ROOT", tmp_path)

    def edited(old="", new=""):
        assert old in SOURCE
        (tmp_path / "models/circle.py").write_text(SOURCE.replace(old, new))
        return digests.code(["models"])

    return edited


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# the formula is old", "# the formula is very old\n    # and known"),
        ("  # for pi", ""),
        ('"""A module."""\n\n', ""),
        ('"""Of a circle."""', '"""Of a disc.\n\n    Its area.\n    """'),
        ('"""Nothing."""', "'''Nothing at all.'''"),
        ("(radius: float)", "(\n    radius: float,\n)"),
        ("radius**2", "(radius ** 2)"),
        ('"of the disc"', '"of the disc, in pixels"'),
    ],
)
def test_what_is_not_parsed_does_not_count(root, old, new):
    assert root() == root(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("radius**2", "radius**3"),
        ("radius**2", "radius**2.0"),
        ("radius**2", "radius*2"),
        ("return math", "return -math"),
        ('"no docstring"', '"another text"'),
        ("math.pi", "math.e"),
        ("def area", "async def area"),
        ("radius: float", "radius: float = 1"),
        ("class Empty", "class Full"),
        ("    text = ", "text = "),
        ('"of the disc", 3', '"of the disc", 4'),
        ("minimum=1", "minimum=2"),
        ("(radius: float)", "(radius: float, *, kind=None)"),
    ],
)
def test_what_is_parsed_counts(root, old, new):
    before, after = root(), root(old, new)
    assert before.keys() == after.keys() == {"models/circle.py"}
    assert before != after


def test_other_files_and_broken_python_count_by_their_bytes(root, tmp_path):
    root()
    (tmp_path / "models/weights.bin").write_bytes(b"1")
    (tmp_path / "models/broken.py").write_bytes(b"def \xff (")
    (tmp_path / "models/__pycache__").mkdir()
    (tmp_path / "models/__pycache__/circle.pyc").write_bytes(b"compiled")
    (tmp_path / "models/.snakemake_timestamp").touch()
    found = digests.code(["models", "models/circle.py"])
    assert set(found) == {"models/broken.py", "models/circle.py", "models/weights.bin"}
    assert found["models/weights.bin"] == hashlib.sha256(b"1").hexdigest()
    assert found["models/broken.py"] == hashlib.sha256(b"def \xff (").hexdigest()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with the project's params.yaml and no more: the graph is found beside the package."""
    for name in ("params.yaml", "params.schema.yaml"):
        (tmp_path / name).write_bytes((digests.ROOT / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    params.load.cache_clear()
    yield
    params.load.cache_clear()


@pytest.mark.parametrize(
    ("job", "files"),
    [
        (("train", "synthetic", "spgnet"), ("stages/train.py", "loading/arrays.py", "training/order.py")),
        (("pretrain", "synthetic", "spig_flow"), ("stages/pretrain.py", "training/order.py", "training/states.py")),
        (("score", "synthetic", "spgnet"), ("stages/score.py", "metrics/fid.py", "metrics/stream.py")),
        (("keypoints", "synthetic"), ("stages/keypoints.py", "extraction/openpose.py", "extraction/topdown.py")),
        (("parsing", "synthetic"), ("stages/parsing.py", "extraction/repose_parser/weights.safetensors")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_the_code_of_a_job_is_what_the_graph_names(elsewhere, job, files):
    found = digests.code_of(*job)
    assert {f"pipeline/{name}" for name in files} <= found.keys()
    named = graph.find(*job).code
    assert all(any(name == path or name.startswith(f"{path}/") for path in named) for name in found)
    if job[0] in ("pretrain", "train", "score"):
        assert f"models/{job[2].partition('_')[0]}.py" in found


def test_a_digest_of_a_file_is_that_of_sha256sum(tmp_path):
    for name, content in (("b", b"two"), ("a", b"one")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".snakemake_timestamp").touch()
    lines = subprocess.run(["sha256sum", "a", "b"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert digests.sha256(tmp_path / "a") == lines[:64].decode()
    assert digests.sha256(tmp_path) == hashlib.sha256(lines).hexdigest()
    with pytest.raises(UserError, match="missing: not there; no stage writes it"):
        digests.sha256(tmp_path / "missing")


def test_a_file_that_changed_is_read_again(tmp_path):
    """Of the same size: within a tick of its clock, and later."""
    path, found = tmp_path / "x", []
    path.write_bytes(b"one")
    just_now = path.stat().st_mtime
    for content, time in ((b"one", just_now), (b"two", just_now), (b"six", 1e9), (b"ten", 1.1e9)):
        path.write_bytes(content)
        os.utime(path, (time, time))
        found.append(digests.sha256(path))
    assert found == [hashlib.sha256(content).hexdigest() for content in (b"one", b"two", b"six", b"ten")]
