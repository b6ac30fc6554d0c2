"""A small drawn data set, prepared as far as scoring needs: images, joints, pairs, checkpoints and no weights."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from models.detector import JointDetector
from models.variants import VARIANTS
from pipeline.anatomy import pose
from pipeline.core import layout, params, schema, store
from pipeline.loading import checkpoints
from pipeline.metrics.pckh import Joints
from pipeline.scoring.detectors import Detector
from tests.conftest import working_in
from tests.figures import draw
from tests.figures import pose as draw_poses

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
HEIGHT, WIDTH = 64, 32
PEOPLE, VIEWS = 2, 4  # a split


def write_images(dataset: str) -> None:
    """PEOPLE x VIEWS drawn figures a split in the stored form; every second one lacks its left wrist."""
    random = torch.Generator().manual_seed(3)
    images, keypoints = [], []
    for split in ("test", "train"):
        joints = draw_poses(PEOPLE * VIEWS, HEIGHT, WIDTH, random)
        clothes = torch.rand(PEOPLE, 15, 3, generator=random).repeat_interleave(VIEWS, dim=0)
        pictures = (255 * draw(joints, clothes, HEIGHT, WIDTH)).byte().permute(0, 2, 3, 1).numpy()
        for view, picture in enumerate(pictures):
            image_id = f"{split}-{view:02d}.jpg"
            key = {"image_id": image_id, "split": split, "person_id": f"{split}{view // VIEWS}"}
            encoded = cv2.imencode(".jpg", picture)[1].tobytes()
            images.append({**key, "image": {"bytes": encoded, "path": image_id}, "height": HEIGHT, "width": WIDTH})
            valid = np.ones(18, bool)
            valid[7] = view % 2 == 0
            keypoints.append(
                {
                    **key,
                    "row": view,
                    "keypoints": pose.from_array(joints[view].numpy(), valid),
                    "keypoint_scores": valid.astype(np.float32).tolist(),
                    "keypoint_source": "drawn",
                }
            )
    store.write_shards(layout.images(dataset), images, schema.IMAGES)
    store.write_table(layout.keypoints(dataset), keypoints, schema.KEYPOINTS)


def write_pairs(dataset: str, identical: bool) -> None:
    """Every ordered pair of a person's views; only pairs of an image with itself if `identical`."""
    rows = []
    for split, images in (("test", "test"), ("val", "train")):
        views = range(PEOPLE * VIEWS)
        pairs = [(a, b) for a in views for b in views if a // VIEWS == b // VIEWS and (a == b) == identical]
        for index, (a, b) in enumerate(pairs):
            ids = [f"{images}-{view:02d}.jpg" for view in (a, b)]
            rows.append({"split": split, "pair_index": 10 + index, "source_id": ids[0], "target_id": ids[1]})
    store.write_table(layout.pairs(dataset), rows, schema.PAIRS)


def write_weights(net: str, files: dict[str, bytes]) -> None:
    """What the stage `weights` leaves: verified files, or the note that they are missing."""
    folder = layout.weights(net)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    status = {"status": "present" if files else "missing", "files": digests, "reason": None if files else "a test"}
    (folder / "source.json").write_text(json.dumps(status))


def write_checkpoints(dataset: str, name: str, kind: str, module, steps: list[int], marks: list[str]) -> None:
    folder = layout.checkpoints(dataset, name)
    folder.mkdir(parents=True)
    for step in steps:
        checkpoints.save(folder, step, module)
    meta = {"kind": kind, "name": name, "dataset": dataset, "height": HEIGHT, "width": WIDTH, "steps": steps}
    checkpoints.write_meta(folder, {**meta, "settings": {"width": 0.25}, "marks": marks, "features": None})


def build_project(folder: Path) -> None:
    """A project in `folder`, the working directory: two data sets, a detector and reference variants, no weights.

    market1501 here holds the same drawings, paired with themselves, and scores with LPIPS's other network.
    """
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["datasets"] = ["synthetic", "market1501"]
    shared = {"batch": 4, "seed": 5, "device": "cpu"}
    values["reference"] = {  # controls take eight passes of every network: tests/scoring/test_controls.py
        "synthetic": {
            **shared,
            "controls": 0,
            "val_pairs": 3,
            "test_pairs": 7,
            "lpips": "alex",
            "metrics": [],
            "missing_weights": "seeded",
        },
        "market1501": {
            **shared,
            "controls": 0,
            "val_pairs": 2,
            "test_pairs": None,
            "lpips": "squeeze",
            "metrics": [],
            "missing_weights": "seeded",
        },
    }
    score = {**shared, "bootstrap": 200, "samples": 2}
    values["score"] = {"synthetic": score, "market1501": score}
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    shutil.copy(ROOT / "params.schema.yaml", folder)
    params.load.cache_clear()

    for net in ("inception", "alexnet", "squeezenet1_1", "openpose"):
        write_weights(net, {})
    torch.manual_seed(0)
    for dataset in values["datasets"]:
        write_images(dataset)
        write_pairs(dataset, identical=dataset == "market1501")
        write_checkpoints(dataset, "detector", "component", JointDetector(0.25), [20], [])
        copy, mean = (VARIANTS[name].build(HEIGHT, WIDTH, 1.0) for name in ("copy_source", "mean_image"))
        write_checkpoints(dataset, "copy_source", "variant", copy, [0, 5], ["steps", "data"])
        write_checkpoints(dataset, "mean_image", "variant", mean, [0], [])


def stored_images(ids: list[str]) -> np.ndarray:
    reader = store.RandomReader(layout.images("synthetic"), ["image"])
    encoded = [np.frombuffer(reader[image_id]["image"]["bytes"], np.uint8) for image_id in ids]
    return np.stack([cv2.imdecode(item, cv2.IMREAD_COLOR)[:, :, ::-1] for item in encoded])


def seeing(found: dict[bytes, tuple[np.ndarray, np.ndarray]]):
    """A detector that knows the pictures by heart and sees nothing on any other."""

    def find(images: np.ndarray) -> Joints:
        nothing = np.zeros((18, 2), np.float32), np.zeros(18, bool)
        seen = [found.get(image.tobytes(), nothing) for image in images]
        return Joints(np.stack([xy for xy, _ in seen]), np.stack([valid for _, valid in seen]))

    return lambda dataset, where: Detector("a good memory", {"sha256": "0" * 64}, find)


def true_joints(ids: list[str]) -> dict[bytes, tuple[np.ndarray, np.ndarray]]:
    table = {row["image_id"]: row["keypoints"] for row in store.read_table(layout.keypoints("synthetic")).to_pylist()}
    return {image.tobytes(): pose.to_array(table[name]) for name, image in zip(ids, stored_images(ids), strict=True)}


@contextmanager
def entered(folder: Path) -> Iterator[Path]:
    """`build_project` in `folder`, which is the working directory within the block."""
    with working_in(folder):
        build_project(folder)
        yield folder
