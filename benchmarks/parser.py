"""How good and how fast is the parser in the box?

    python -m benchmarks.parser --photos clothing-co-parsing-384.zip \\
        --openpose human-pose-estimation-0001.xml human-pose-estimation-0001.bin > table.md

Prints IoU of every label on the 150 hold-out photographs of Clothing Co-Parsing, whole at 384 pixels and as person
crops of 128 x 64, and on synthetic test people of 128 x 64; each with joints and with every joint missing. IoU is over
all pixels of a set together, pixels of unknown label left out. mIoU is the mean over the labels that the set's truth
has, background included; that of SPT-10 is over SPT's ten labels, where garments are merged. Then images/s on 128 x 64
crops.

Joints: what Lightweight OpenPose finds (photographs; crops use the joints of the whole photograph), the renderer's own
(synthetic). The truth of the photographs is their own pixel labels, mapped by extraction/repose_parser/prepare.py; left
and right in it come from the same detector's joints, so they are consistent with the joints given, not independent.
"""

import argparse
import csv
import json
import os
import time
import zipfile
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import openvino

from pipeline.anatomy.labels import FROM_LIP20, LIP20
from pipeline.datasets import synthetic
from pipeline.extraction import repose_parser
from pipeline.extraction.repose_parser import prepare
from pipeline.formats import pictures

TEST_PEOPLE, TEST_VIEWS = 60, 4


def confusion(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Two label maps of one shape -> (20, 20) pixel counts, rows the truth; truth above 19 is left out."""
    known = truth < 20
    return np.bincount(20 * truth[known].astype(int) + found[known], minlength=400).reshape(20, 20)


def iou(counts: np.ndarray) -> np.ndarray:
    """Confusion (n, n) -> IoU (n,), NaN for a label that the truth does not have."""
    both, truth = np.diag(counts), counts.sum(1)
    return np.where(truth > 0, both / np.maximum(truth + counts.sum(0) - both, 1), np.nan)


def person_crop(photo: dict, height: int = 128, width: int = 64) -> dict:
    """The photograph's person as a detector's box would show it: 1.1 persons high, 2:1, resized."""
    y, x = np.nonzero((photo["labels"] > 0) & (photo["labels"] < 20))
    tall = 1.1 * (y.max() - y.min())
    scale = height / tall
    corner = np.array([(x.max() + x.min() - tall / 2) / 2, (y.max() + y.min() - tall) / 2])
    affine = np.column_stack([np.eye(2) * scale, (-corner) * scale - 0.5])
    fine = affine * 4  # drawn at four times the size, then averaged: no aliasing
    fine[:, 2] += 1.5
    size = (4 * width, 4 * height)
    image = cv2.warpAffine(photo["image"], fine, size, None, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    labels = cv2.warpAffine(
        photo["labels"], affine, (width, height), None, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT, prepare.IGNORE
    )
    joints = (photo["joints"] @ affine[:, :2].T + affine[:, 2]).astype(np.float32)
    inside = (joints > -0.5).all(1) & (joints < (width - 0.5, height - 0.5)).all(1)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return {"image": image, "labels": labels, "joints": joints, "found": photo["found"] & inside}


def synthetic_people() -> list[dict]:
    people = []
    for scene in synthetic.scenes(0, "test", TEST_PEOPLE, TEST_VIEWS):
        drawn = synthetic.render(scene, 128, 64)
        found = ~np.isnan(drawn.joints).any(1)
        joints = np.where(found[:, None], drawn.joints, 0)
        people.append({"image": drawn.image, "labels": drawn.parsing, "joints": joints, "found": found})
    return people


def measure(parser: repose_parser.Parser, samples: list[dict], with_joints: bool) -> np.ndarray:
    """Confusion (20, 20) over all samples."""
    counts = np.zeros((20, 20), int)
    samples = sorted(samples, key=lambda sample: sample["image"].shape)
    for _, group in groupby(samples, key=lambda sample: sample["image"].shape):
        group = list(group)
        images, joints, found = ([sample[key] for sample in group] for key in ("image", "joints", "found"))
        parsed = parser(images, np.stack(joints), np.stack(found) & with_joints)
        for sample, labels in zip(group, parsed, strict=True):
            counts += confusion(sample["labels"], labels)
    return counts


# BodyPix's 24 parts -> 0 left arm, 1 right arm, 2 left leg, 3 right leg, -1 neither. Hands are arms, feet nothing.
BODYPIX_SIDES = np.array([-1, -1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 1, -1, -1, 2, 2, 3, 3, 2, 2, 3, 3, -1, -1])


def market_test(images: Path, annotations: Path) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """500 test images that have at least 8 joints, evenly over the names: images RGB, joints, valid."""
    rows = {}
    with annotations.open() as handle:
        for row in csv.DictReader(handle, delimiter=":"):
            points = np.array([json.loads(row["keypoints_x"]), json.loads(row["keypoints_y"])], np.float32).T
            if not row["name"].startswith(("-1", "0000")) and (points[:, 0] >= 0).sum() >= 8:
                rows[row["name"]] = points
    names = sorted(rows)[:: len(rows) // 500][:500]
    with zipfile.ZipFile(images) as archive:
        members = {Path(name).name: name for name in archive.namelist() if "bounding_box_test/" in name}
        encoded = [archive.read(members[name]) for name in names]
    joints = np.stack([rows[name] for name in names])
    return [pictures.decode(data) for data in encoded], joints, joints[..., 0] >= 0


def sides_at_joints(sides: np.ndarray, joints: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Sides (N, 128, 64) as above -> counts (2, 2) of elbows and wrists, of knees and ankles: where the limb is seen on
    the joint's own side, and on any side.
    """
    counts = np.zeros((2, 2), int)
    x, y = np.clip(joints.astype(int), 0, (63, 127)).transpose(2, 0, 1)
    at = sides[np.arange(len(sides))[:, None], y, x]  # (N, 18)
    for own, group in enumerate(((6, 7), (3, 4), (12, 13), (9, 10))):
        limb, here = own // 2, np.where(valid, at, -1)[:, group]
        counts[limb] += (here == own).sum(), np.isin(here, (2 * limb, 2 * limb + 1)).sum()
    return counts


def cross_check(parser: repose_parser.Parser, market: tuple, bodypix: Path) -> str:
    """What the parser and BodyPix say of the same images: a table and a line."""
    compiled = openvino.Core().compile_model(openvino.Core().read_model(bodypix), "CPU")
    wanted = [next(o for o in compiled.outputs if name in o.get_names()) for name in ("segments", "part_heatmaps")]
    images, joints, valid = market
    parsed = parser(images, joints, valid)
    ours = np.where((parsed >= 14) & (parsed <= 17), parsed.astype(int) - 14, -1)
    theirs, alike = [], []
    for image, labels in zip(images, parsed, strict=True):
        answer = compiled(cv2.resize(image, (128, 256))[None] / np.float32(127.5) - 1)
        inside, parts = (cv2.resize(answer[output][0].squeeze(), (64, 128)) for output in wanted)
        inside = inside > 0
        theirs.append(np.where(inside, BODYPIX_SIDES[parts.argmax(2)], -1))
        if inside.mean() > 0.1:  # else BodyPix has lost the person
            alike.append((inside & (labels > 0)).sum() / (inside | (labels > 0)).sum())
    theirs = np.stack(theirs)
    at_joints = [sides_at_joints(sides, joints, valid) for sides in (ours, theirs)]
    lines = ["| Market-1501, share on the same side | arms | legs |", "|---|---:|---:|"]
    both = [(ours // 2 == limb) & (theirs // 2 == limb) for limb in (0, 1)]
    rows = {
        "parser and BodyPix, pixels where both see the limb": [
            ((ours == theirs)[seen].sum(), seen.sum()) for seen in both
        ],
        "parser and the annotated joints, at the joints": at_joints[0],
        "BodyPix and the annotated joints, at the joints": at_joints[1],
    }
    for what, counts in rows.items():
        lines.append(
            f"| {what} | " + " | ".join(f"{100 * same / seen:.1f} % of {seen}" for same, seen in counts) + " |"
        )
    lines.append(
        f"\nMedian IoU of the parser's outline and BodyPix's: {np.median(alike):.2f}, on the {len(alike)} of "
        f"{len(images)} images where BodyPix sees a person."
    )
    return "\n".join(lines)


def main() -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--photos", type=Path, required=True, help="zip of Clothing Co-Parsing, 384 pixels high")
    about.add_argument("--openpose", type=Path, nargs=2, required=True, help="Lightweight OpenPose, .xml and .bin")
    about.add_argument("--weights", type=Path, default=repose_parser.WEIGHTS)
    about.add_argument("--device", default="cpu")
    about.add_argument("--market", type=Path, help="the zip of Market-1501")
    about.add_argument("--annotations", type=Path, help="market-annotation-test.csv")
    about.add_argument("--bodypix", type=Path, help="BodyPix as ONNX")
    arguments = about.parse_args()
    parser = repose_parser.load(arguments.device, arguments.weights)

    photos = prepare.read_photos(arguments.photos, arguments.openpose)  # BGR, as the parser's training has them
    holdout = [one | {"image": cv2.cvtColor(one["image"], cv2.COLOR_BGR2RGB)} for one in photos if one["holdout"]]
    crops, people = [person_crop(photo) for photo in holdout], synthetic_people()
    sets = {"photographs, 384": holdout, "photographs, 128x64": crops, "synthetic, 128x64": people}
    columns = {
        f"{name}{'' if joints else ', no joints'}": measure(parser, samples, joints)
        for name, samples in sets.items()
        for joints in (True, False)
    }
    print("| label | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    scores = np.stack([iou(counts) for counts in columns.values()], axis=1)
    for label, row in zip(LIP20, scores, strict=True):
        print(f"| {label} | " + " | ".join("-" if np.isnan(score) else f"{100 * score:.1f}" for score in row) + " |")
    print("| **mIoU** | " + " | ".join(f"**{score:.1f}**" for score in 100 * np.nanmean(scores, axis=0)) + " |")
    parts = FROM_LIP20["spt-10"].astype(int)  # garments merged: what SPT's pseudo labels compare
    merged = [np.bincount((10 * parts[:, None] + parts).ravel(), counts.ravel(), 100) for counts in columns.values()]
    coarse = [100 * np.nanmean(iou(counts.reshape(10, 10))) for counts in merged]
    print("| mIoU of SPT-10 | " + " | ".join(f"{score:.1f}" for score in coarse) + " |")
    right = [np.diag(counts).sum() / counts.sum() for counts in columns.values()]
    print("| right pixels | " + " | ".join(f"{100 * share:.1f}" for share in right) + " |")

    images = [crop["image"] for crop in crops] * 2
    joints = np.stack([crop["joints"] for crop in crops] * 2)
    found = np.stack([crop["found"] for crop in crops] * 2)
    parser(images[:32], joints[:32], found[:32])  # the first call prepares kernels
    rounds = []
    for _ in range(5):
        start = time.perf_counter(), time.process_time()
        parser(images, joints, found)
        rounds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = len(images) / np.median(rounds, axis=0)
    if arguments.bodypix:
        market = market_test(arguments.market, arguments.annotations)
        print("\n" + cross_check(parser, market, arguments.bodypix))
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"\n128x64, {arguments.device}, threads: {threads}, medians of 5 rounds: ", end="")
    print(f"{wall:.0f} images/s of wall time, {cpu:.0f} a second of CPU time (they differ on a shared core)")


if __name__ == "__main__":
    main()
