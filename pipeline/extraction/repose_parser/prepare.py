"""Clothing Co-Parsing as training data: its 59 tags onto LIP-20, left and right by keypoints, the fixed hold-out.

The data set (Yang, Luo, Lin 2014; Apache-2.0) has 1,004 street photographs with a tag at every pixel. It has one tag
for all skin and none for left and right; both come from the joints that Lightweight OpenPose finds in the photograph.
"""

import hashlib
import json
import zipfile
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from pipeline.core import console
from pipeline.core.errors import UserError
from pipeline.extraction.openpose import OpenPose

HOLDOUT = 150
IGNORE = 255
SKIN, SHOES, SUIT, WORN = 100, 101, 102, 103  # decided pixel by pixel below

TAGS = {
    # what LIP does not label, or what is held
    "null": 0, "bag": 0, "purse": 0, "wallet": 0,
    "hat": 1, "hair": 2, "gloves": 3, "glasses": 4, "sunglasses": 4,
    "blouse": 5, "bra": 5, "hoodie": 5, "intimate": 5, "jumper": 5, "shirt": 5, "sweater": 5, "sweatshirt": 5,
    "t-shirt": 5, "top": 5, "vest": 5,
    "dress": 6,
    "blazer": 7, "cape": 7, "cardigan": 7, "coat": 7, "jacket": 7,
    "socks": 8, "stockings": 8, "tights": 8,
    "jeans": 9, "leggings": 9, "panties": 9, "pants": 9, "shorts": 9, "swimwear": 9,
    "bodysuit": 10, "romper": 10,
    "scarf": 11, "skirt": 12,
    "boots": SHOES, "clogs": SHOES, "flats": SHOES, "heels": SHOES, "loafers": SHOES, "pumps": SHOES,
    "sandals": SHOES, "shoes": SHOES, "sneakers": SHOES, "wedges": SHOES,
    "skin": SKIN,
    "suit": SUIT,
    # small things worn on top: they take the label of the nearest pixel of the person
    "belt": WORN, "bracelet": WORN, "earrings": WORN, "necklace": WORN, "ring": WORN, "tie": WORN, "watch": WORN,
    # anything from brooches to umbrellas: not learned, not scored
    "accessories": IGNORE,
}  # fmt: skip

# Label -> the bones (pairs of OpenPose-18 joints) that claim skin for it; forearms are drawn out to the finger tips.
BONES = {
    13: ((1, 0), (0, 14), (0, 15), (14, 16), (15, 17)),
    14: ((5, 6), (6, 7)),
    15: ((2, 3), (3, 4)),
    16: ((11, 12), (12, 13)),
    17: ((8, 9), (9, 10)),
}
HAND = 0.35  # length of a hand in forearms
FOREARMS = ((6, 7), (3, 4))
SHINS = {18: (12, 13), 19: (9, 10)}  # left shoe, right shoe
ASTRAY = 12.0  # pixels; a joint farther from the tagged person is a bystander's
MINORITY = 0.1  # a smaller share of a connected patch of skin joins the rest of its patch


def is_holdout(names: list[str]) -> np.ndarray:
    """File names -> (n,) bool, True for the 150 photographs that are never trained on.

    The rule: the 150 lowest SHA-256 of "repose-parser holdout 0 NAME", NAME as `0001.jpg`.
    """
    digests = [hashlib.sha256(f"repose-parser holdout 0 {name}".encode()).hexdigest() for name in names]
    chosen = set(sorted(digests)[:HOLDOUT])
    return np.array([digest in chosen for digest in digests])


def _segment_distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """points (n, 2) -> their distances (n,) to the segment."""
    along = end - start
    t = np.clip((points - start) @ along / max(along @ along, 1e-9), 0, 1)
    return np.linalg.norm(points - start - t[:, None] * along, axis=1)


def _nearest_bone(points: np.ndarray, bones: dict, joints: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """points (n, 2) -> label (n,) of the nearest bone; a bone with one joint is that joint, IGNORE without any bone."""
    labels, distances = [IGNORE], [np.full(len(points), 1e9)]
    for label, pairs in bones.items():
        for first, second in pairs:
            known = [joint for joint in (first, second) if valid[joint]]
            if not known:
                continue
            start, end = joints[known[0]], joints[known[-1]]
            if (first, second) in FOREARMS:
                end = end + HAND * (end - start)
            labels.append(label)
            distances.append(_segment_distance(points, start, end))
    return np.array(labels, np.uint8)[np.argmin(distances, axis=0)]


def near_person(tags: np.ndarray, joints: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Which joints (18, 2) belong to the person with pixels in `tags` (H, W): valid (18,) and at most ASTRAY away."""
    away = cv2.distanceTransform((tags == 0).astype(np.uint8), cv2.DIST_L2, 5)
    x, y = np.clip(joints.round().astype(int), 0, np.array(tags.shape)[::-1] - 1).T
    return valid & (away[y, x] <= ASTRAY)


def to_lip20(tags: np.ndarray, names: list[str], joints: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Tags (H, W) uint8, the tags' names, joints (18, 2) in pixels, valid (18,) -> (H, W) uint8 LIP-20, 255 unknown.

    Raises UserError for a tag name that is not in `TAGS`.
    """
    unknown = [name for name in names if name not in TAGS]
    if unknown:
        raise UserError(f"labels.json: the tags {', '.join(unknown)} have no LIP-20 label; add them to prepare.TAGS")
    out = np.array([TAGS[name] for name in names], np.uint8)[tags]

    # A suit is coat and trousers; below the hips it is trousers, unless the photograph names what is worn there.
    suit = out == SUIT
    if suit.any():
        out[suit] = 7
        hips = joints[[8, 11], 1][valid[[8, 11]]]
        if len(hips) and not np.isin(out, (9, 12, 6, 10)).any():
            below = suit.copy()
            below[: int(hips.max()) + 1] = False
            out[below] = 9

    shoes = out == SHOES
    y, x = np.nonzero(shoes)
    sides = {label: (pair,) for label, pair in SHINS.items()}
    out[shoes] = _nearest_bone(np.stack([x, y], 1), sides, joints, valid)

    count, patches = cv2.connectedComponents((out == SKIN).astype(np.uint8))
    y, x = np.nonzero(patches)
    labels = _nearest_bone(np.stack([x, y], 1), BONES, joints, valid)
    patch = patches[y, x]
    votes = np.zeros((count, 256), np.int64)
    np.add.at(votes, (patch, labels), 1)
    few = votes[patch, labels] < MINORITY * votes[patch].sum(1)
    out[y, x] = np.where(few, votes.argmax(1)[patch], labels)

    worn = out == WORN
    person = (out != 0) & (out != IGNORE) & ~worn
    if worn.any() and person.any():
        _, index = cv2.distanceTransformWithLabels(
            (~person).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        label_of = np.zeros(index.max() + 1, np.uint8)
        label_of[index[person]] = out[person]
        out[worn] = label_of[index[worn]]
    out[worn & (out == WORN)] = IGNORE
    return out


def read_photos(path: Path, openpose: list[Path]) -> list[dict]:
    """The zip of the 384-pixel-high release -> one dict a photograph, in order of names.

    `name`; `image` (H, W, 3) uint8 BGR; `labels` (H, W) uint8 LIP-20 or 255; `joints` (18, 2) float32 pixels; `found`
    (18,) bool, as detected; `valid` (18,) bool, without those that lie off the tagged person; `holdout` bool.
    `openpose`: the detector's .xml and .bin. Raises UserError for a zip of another layout.
    """
    detector, photos = OpenPose(openpose), []
    try:
        archive = zipfile.ZipFile(path)
        tag_names = [tag or "null" for tag in json.loads(archive.read("clothing-co-parsing/labels.json"))]
    except (OSError, zipfile.BadZipFile, KeyError):
        raise UserError(f"{path}: no zip with clothing-co-parsing/labels.json, photos/ and labels/") from None
    members = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
    names = [PurePosixPath(member).name for member in members]
    with archive, console.progress("photographs", len(members)) as advance:
        for member, name, held in zip(members, names, is_holdout(names), strict=True):
            labels = member.replace("photos/", "labels/").replace(".jpg", ".png")
            image = cv2.imdecode(np.frombuffer(archive.read(member), np.uint8), cv2.IMREAD_COLOR)
            tags = cv2.imdecode(np.frombuffer(archive.read(labels), np.uint8), cv2.IMREAD_UNCHANGED)
            joints, scores = detector(np.ascontiguousarray(image[None, :, :, ::-1]))
            found = scores[0] > 0
            valid = near_person(tags, joints[0], found)
            photos.append(
                {
                    "name": name,
                    "image": image,
                    "labels": to_lip20(tags, tag_names, joints[0], valid),
                    "joints": joints[0],
                    "found": found,
                    "valid": valid,
                    "holdout": bool(held),
                }
            )
            advance()
    return photos
