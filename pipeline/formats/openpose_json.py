"""OpenPose's own files: `NAME_keypoints.json` for each image, NAME being its file name without the last extension.

  {"version": 1.3, "people": [{"pose_keypoints_2d": [x, y, confidence, ...], ...}, ...]}

Read are the COCO layout (18 joints, in the order of `pipeline.anatomy.pose`) and BODY_25, from a folder or a zip
archive, sub-folders included; the COCO layout is written. Coordinates are pixels of the image (OpenPose's default,
`--keypoint_scale 0`); confidence 0 means missing.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.core.errors import UserError
from pipeline.core.schema import JOINTS
from pipeline.formats import archive, beside

SUFFIX = "_keypoints.json"
# Joints of a layout, in the order of `pipeline.anatomy.pose`, by the length of its list. In BODY_25 joint 8 is the
# middle of the hips, and feet start at 19.
_LAYOUTS = {
    3 * JOINTS: np.arange(JOINTS),
    3 * 25: np.array((0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)),
}
_OTHER_PARTS = (
    "face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d", "pose_keypoints_3d", "face_keypoints_3d",
    "hand_left_keypoints_3d", "hand_right_keypoints_3d",
)  # fmt: skip


def member(image_id: str) -> str:
    """The file of an image: `0001_c1.jpg` -> `0001_c1_keypoints.json`."""
    return PurePosixPath(image_id).stem + SUFFIX


def people(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The P people of one file: joints (P, 18, 2) float32 as (x, y), scores (P, 18) float32; zeros where missing.

    Raises ValueError, saying what is wrong, for anything that is no such file.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(content, dict) or not isinstance(content.get("people"), list):
        raise ValueError("no list `people`")
    joints = np.zeros((len(content["people"]), JOINTS, 2), dtype=np.float32)
    scores = np.zeros((len(content["people"]), JOINTS), dtype=np.float32)
    for number, person in enumerate(content["people"]):
        values = person.get("pose_keypoints_2d") if isinstance(person, dict) else None
        if not isinstance(values, list) or len(values) not in _LAYOUTS:
            count = len(values) if isinstance(values, list) else "no"
            raise ValueError(f"person {number} has {count} values in pose_keypoints_2d, not 54 (COCO) or 75 (BODY_25)")
        try:
            found = np.array(values, dtype=np.float32).reshape(-1, 3)[_LAYOUTS[len(values)]]
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"person {number} has values in pose_keypoints_2d that are no numbers") from None
        if not np.isfinite(found).all():
            raise ValueError(f"person {number} has values in pose_keypoints_2d that are not finite")
        present = found[:, 2] > 0
        joints[number, present], scores[number, present] = found[present, :2], found[present, 2]
    return joints, scores


def read(path: Path, image_ids: Sequence[str], others: Sequence[str] = ()) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The people of each image in order, as `people` gives them, in the files that `beside.find` finds. others: ids
    of the images that are not wanted.

    Raises UserError for a missing, doubled or broken file.
    """
    with archive.reading(path) as source:
        wanted = [(image_id, "") for image_id in image_ids]
        files, _ = beside.find(source.names, wanted, SUFFIX, str(path), "joints", others)
        for image_id in image_ids:
            name = files[image_id]
            try:
                yield people(source.read(name))
            except ValueError as error:
                raise UserError(f"{path}: {name}: {error}; write it again") from None


def write(joints: np.ndarray, scores: np.ndarray) -> bytes:
    """One file with one person: joints (18, 2), scores (18,) with 0 = missing. No joint at all: no person."""
    rows = np.where((scores > 0)[:, None], np.column_stack([joints, scores]), 0)
    person = {"person_id": [-1], "pose_keypoints_2d": rows.reshape(-1).astype(float).tolist()}
    found = [person | {part: [] for part in _OTHER_PARTS}] if (scores > 0).any() else []
    return (json.dumps({"version": 1.3, "people": found}) + "\n").encode()
