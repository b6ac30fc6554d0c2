"""Fixtures that several test files share."""

import contextlib
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

# In C: the tests read and write params.yaml more often than they do anything else.
yaml.SafeLoader, yaml.SafeDumper = yaml.CSafeLoader, yaml.CSafeDumper

ROOT = Path(__file__).parent.parent
PROJECT_FILES = ["Snakefile", "dvc.yaml", "params.yaml", "params.schema.yaml", ".dvcignore", ".gitignore"]


# A variant of each method: the demo has SPGNet alone.
METHODS = {
    **{"spig": "spig", "spt": "spt", "sgw_gan": "sgw", "patn": "patn", "gfla": "gfla"},
    **{"def_gan": "def_gan", "vunet": "vunet"},
}


def name_every_method(path: Path) -> None:
    """In the params.yaml at `path`, whose lines stay what they are otherwise."""
    text = path.read_text(encoding="utf-8")
    for family, variant in METHODS.items():
        text = text.replace(f"\n  {family}: []", f"\n  {family}: [{variant}]")
    path.write_text(text, encoding="utf-8")


def copy_project(folder: Path, python: str | Path = sys.executable) -> Path:
    """A working copy of the project's tracked parts in `folder`, as a git repository of its own, without outputs.

    python: what its commands run by; `tests.warm_python` has one that starts quickly.
    """
    for name in PROJECT_FILES:
        shutil.copy(ROOT / name, folder / name)
    name_every_method(folder / "params.yaml")
    compiled = shutil.ignore_patterns("__pycache__")
    made = shutil.ignore_patterns("tables", "metrics", "curves", "html", "scores", "figures")
    for name in ["pipeline", "models", "profiles"]:
        shutil.copytree(ROOT / name, folder / name, ignore=compiled)
    shutil.copytree(ROOT / "reports", folder / "reports", ignore=made)
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs/protocols.md", folder / "docs")  # the report's definitions
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".dvc").mkdir()
    for name in ["config", ".gitignore"]:
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    # The commands look for python in .venv/bin first: give them this one.
    (folder / ".venv/bin").mkdir(parents=True)
    own = folder / ".venv/bin/python"
    own.write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    own.chmod(0o755)
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs of an engine first: they take minutes one after the other, while the other workers do the rest."""
    items.sort(key=lambda item: "engines" not in item.keywords)


def pytest_configure() -> None:
    gc.disable()  # until all tests are collected


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not go through it again and again."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else libraries report as leaked what they find at the end


@pytest.fixture
def one_thread():
    """Torch on one thread and from seed 0: small networks gain nothing from more, and their sums would differ."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    """`folder` is the working directory within the block, and its params.yaml what is read."""
    from pipeline.core import params

    params.load.cache_clear()
    try:
        with contextlib.chdir(folder):
            yield folder
    finally:
        params.load.cache_clear()


@pytest.fixture
def copied(project: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the file's own `project`, which is the working directory: a test may change it."""
    shutil.copytree(project, tmp_path / "copy")
    with working_in(tmp_path / "copy") as folder:
        yield folder


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder of real data, from REPOSE_MIRROR; the tests that need it are marked `real`."""
    folder = os.environ.get("REPOSE_MIRROR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the real data: set REPOSE_MIRROR to a folder with market1501/ and weights/")
    return Path(folder).resolve()


@pytest.fixture(scope="module")
def small_batches_on_one_thread():
    """Metric networks see 4 images at a time, not 16: a tenth of a second of Inception each is most of these tests."""
    import torch

    from pipeline.metrics import networks

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "BATCH", 4)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def small_inception(small_batches_on_one_thread):
    """Inception sees images of 96 pixels, not 299: a tenth of the time, where its features need not be anybody's."""
    from pipeline.metrics import inception

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "SIZE", (96, 96))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """Nothing that a test writes need outlive a power cut. That a file is synced at all is what some of them watch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session", autouse=True)
def _thin_matcher():
    """Where the matcher of Soft-Gated Warping-GAN is at hand, its VGG16 is one of at most 16 channels, from a seed: as
    many layers, a hundredth of the time. For fixtures of any scope, so that a module's checkpoint fits its tests'.
    """
    module = sys.modules.get("models.sgw_gan.geometric_matcher")
    if module is None:
        yield
        return
    import torch
    from torch import nn

    def thin() -> nn.Sequential:
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for width, convolutions in ((3, 2), (16, 2), (16, 3), (16, 3)):
                for number in range(convolutions):
                    layers += [nn.Conv2d(16 if number else width, 16, 3, padding=1), nn.ReLU()]
                layers.append(nn.MaxPool2d(2))
        return nn.Sequential(*layers).requires_grad_(False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "vgg16_to_pool4", thin)
        yield
