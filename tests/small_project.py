"""A project folder of its own for stage tests, with small raw data in the published formats."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from pipeline.core import params, seals
from pipeline.formats import archive
from tests.conftest import ROOT


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes) -> None:
    """Make `folder` the project root, with the repository's params.yaml; `changes`: stage__dataset__key=value."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["datasets"] = ["synthetic", "market1501"]
    for key, value in changes.items():
        *path, last = key.split("__")
        block = values
        for part in path:
            block = block.setdefault(part, {})
        block[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    shutil.copy(ROOT / "params.schema.yaml", folder)
    monkeypatch.chdir(folder)
    params.load.cache_clear()


def jpeg(seed: int, height: int = 128, width: int = 64) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(noise, (width, height)))[1].tobytes()


# Joints in the order of `pipeline.anatomy.pose`, as (x, y).
PERSON = np.array(
    [(32, 14), (32, 25), (22, 26), (18, 42), (16, 56), (42, 26), (46, 42), (48, 56), (26, 60), (26, 86), (26, 112),
     (38, 60), (38, 86), (38, 112), (29, 11), (35, 11), (26, 13), (38, 13)]
)  # fmt: skip


def joints(seed: int, count: int, always: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Whole-pixel joints float32 (N, 18, 2) of people in the middle of 128 x 64 pixels, a few outside, and valid bool
    (N, 18); zeros where missing, which the joints `always` never are.
    """
    rng = np.random.default_rng(seed)
    points = (PERSON + rng.integers(-4, 5, (count, 18, 2))).astype(np.float32)
    points[..., 0] -= 60 * (rng.random((count, 18)) < 0.02)
    valid = rng.random((count, 18)) < 0.8
    valid[:, list(always)] = True
    return np.where(valid[:, :, None], points, np.float32(0)), valid


def annotation(names: list[str], points: np.ndarray, valid: np.ndarray) -> str:
    """PATN's keypoint file, spelled out by hand: not by the code under test."""
    text = "name:keypoints_y:keypoints_x\n"
    for name, point, seen in zip(names, points, valid, strict=True):
        y = [int(v) if s else -1 for (_, v), s in zip(point, seen, strict=True)]
        x = [int(v) if s else -1 for (v, _), s in zip(point, seen, strict=True)]
        text += name + ": [" + ", ".join(map(str, y)) + "]: [" + ", ".join(map(str, x)) + "]\n"
    return text


NAMES = {
    "train": [f"{p:04d}_c{v}s1_{v:06d}_01.jpg" for v in (1, 2, 3) for p in (7, 2, 30, 11, 5)],
    "test": ["-1_c1s1_000001_01.jpg", "0000_c1s1_000001_02.jpg"]
    + [f"{p:04d}_c{v}s1_{v:06d}_01.jpg" for p in (9, 3) for v in (1, 2)],
}


def published_market(folder: Path) -> dict:
    """A small Market-1501 as published, unpacked under `folder`; return the `fetch.market1501` block that fits it."""
    block = {}
    for split, names in NAMES.items():
        images = folder / f"Market-1501-v15.09.15/bounding_box_{split}"
        images.mkdir(parents=True)
        lines = []
        for seed, name in enumerate(sorted(names)):
            data = jpeg(seed)
            (images / name).write_bytes(data)
            lines.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
        (images / "Thumbs.db").write_bytes(b"not an image")
        block[f"{split}_sha256"] = hashlib.sha256("".join(lines).encode()).hexdigest()
        points, valid = joints(1, len(names), [2, 5, 8, 11])
        (folder / f"market-annotation-{split}.csv").write_text(annotation(names, points, valid))
    test = NAMES["test"]
    (folder / "market-pairs-test.csv").write_text(f"from,to\n{test[2]},{test[3]}\n{test[5]},{test[4]}\n")
    fetch = {"images": {"path": str(folder / "Market-1501-v15.09.15"), "file": "market.zip", "url": None, **block}}
    for key in ("annotation_train", "annotation_test", "pairs_test"):
        path = folder / f"market-{key.replace('_', '-')}.csv"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        fetch[key] = {"path": str(path), "file": path.name, "url": None, "sha256": digest}
    return fetch


def write_raw(images: dict[str, bytes], lists: dict[str, str], dataset: str = "market1501") -> Path:
    """data/D/raw/ in the current folder, from `split/NAME` -> bytes and split -> text of the keypoint list."""
    raw = Path("data") / dataset / "raw"
    raw.mkdir(parents=True)
    archive.write(raw / "images.zip", sorted(images.items()))
    for split, text in lists.items():
        (raw / f"annotation-{split}.csv").write_text(text)
    (raw / "source.json").write_text(json.dumps({"height": 128, "width": 64}))
    return raw


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones included."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != seals.LIST)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
