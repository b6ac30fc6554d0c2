# ruff: noqa: B023  # closures over loop variables are called within the turn of the loop
"""The cost of preparing and loading data beside the field's own way: `python benchmarks/data.py > benchmarks/data.md`.

The peers' way of each step is written again here, plainly, after what their public code does. All ways run in turns, in
one process, on one thread; times are medians of processor time. Takes about 2 minutes.
"""

import argparse
import csv
import json
import math
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.stats
import torch
import yaml
from skimage.draw import disk, polygon
from skimage.morphology import dilation, erosion

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models.layers.pose_maps import heatmaps, one_hot
from pipeline.anatomy import pose
from pipeline.anatomy.distance import limb_distance_maps
from pipeline.core import layout, schema, store
from pipeline.formats import annotations
from pipeline.loading import arrays
from pipeline.metrics.pose_mask import MASK_LIMBS, pose_masks

ROOT = Path(__file__).resolve().parent.parent
SIZES = ((128, 64), (256, 176), (256, 256))
PEOPLE = 16
SIGMA, KAPPA, RADIUS = 6.0, -0.1, 4

# A standing person in shares of width and height, in OpenPose-18 order.
STANDING = np.array([
    (0.50, 0.10), (0.50, 0.20), (0.38, 0.20), (0.33, 0.35), (0.30, 0.48), (0.62, 0.20), (0.67, 0.35), (0.70, 0.48),
    (0.42, 0.50), (0.41, 0.70), (0.40, 0.90), (0.58, 0.50), (0.59, 0.70), (0.60, 0.90),
    (0.47, 0.08), (0.53, 0.08), (0.43, 0.10), (0.57, 0.10),
])  # fmt: skip


def skeletons(seed: int, count: int, height: int, width: int, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """People in various poses: joints float32 (N, 18, 2) at whole pixels, valid bool (N, 18), 12 % missing."""
    random = np.random.default_rng(seed)
    points = (STANDING + random.normal(0, spread, (count, 18, 2))) * (width, height)
    return np.rint(points.clip(0, (width - 1, height - 1))).astype(np.float32), random.random((count, 18)) < 0.88


def in_turns(repeats: int, *ways: Callable[[], object]) -> list[float]:
    """Median processor seconds of each way; every repeat runs all of them, one after the other."""
    for way in ways:
        way()
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats):
        for way, own in zip(ways, times, strict=True):
            start = time.process_time()
            way()
            own.append(time.process_time() - start)
    return [median(own) for own in times]


def with_children() -> float:
    """Processor seconds of this process and of the processes that it started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def table(header: tuple[str, ...], rows: list[tuple]) -> None:
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def say(text: str) -> None:
    print(textwrap.fill(text, 132) + "\n", flush=True)


def ratio(peer: float, ours: float) -> str:
    return f"{peer / ours:.1f}x" if peer / ours < 100 else f"{peer / ours:.0f}x"


# ---- joint heatmaps


def field_heatmaps(joints: np.ndarray, valid: np.ndarray, height: int, width: int) -> np.ndarray:
    """A Gaussian over the full grid for each joint: Def-GAN, PATN, GFLA, SPT and their followers."""
    maps = np.zeros((height, width, len(joints)), np.float32)
    for joint, (x, y) in enumerate(joints):
        if valid[joint]:
            columns, rows = np.meshgrid(np.arange(width), np.arange(height))
            maps[..., joint] = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * SIGMA**2))
    return maps


def measure_heatmaps() -> None:
    rows = []
    for height, width in SIZES:
        joints, valid = skeletons(0, PEOPLE, height, width)
        points, seen = torch.from_numpy(joints), torch.from_numpy(valid)
        memory = torch.empty(PEOPLE, 18, height, width)
        field, fresh, again = in_turns(
            9,
            lambda: [field_heatmaps(*one, height, width) for one in zip(joints, valid, strict=True)],
            lambda: heatmaps(points, seen, height, width, SIGMA),
            lambda: heatmaps(points, seen, height, width, SIGMA, out=memory),
        )
        theirs = np.stack([field_heatmaps(*one, height, width) for one in zip(joints, valid, strict=True)])
        error = np.abs(theirs.transpose(0, 3, 1, 2) - memory.numpy()).max()
        ms = [1e3 * seconds / PEOPLE for seconds in (field, again, fresh)]
        rows.append(
            (f"{height}x{width}", *(f"{t:.2f}" for t in ms), ratio(field, again), ratio(field, fresh), f"{error:.0e}")
        )
    print("## 18 joint heatmaps\n")
    say(f"Milliseconds a person, in batches of {PEOPLE} (ours) or one by one (the field's). To reach: 10x.")
    header = ("size", "field", "ours, memory used again", "ours, fresh memory", "ratio", "ratio, fresh", "difference")
    table(header, rows)
    say(
        "On a device, and wherever an allocator keeps its memory, the first holds. Fresh memory costs more "
        "than the maps: the system clears 4.7 MB a person at 256x256 before anything is written to it."
    )


# ---- limb distance maps


def _ellipse(joints: np.ndarray, limb: tuple[int, int]) -> np.ndarray:
    (xa, ya), (xb, yb) = joints[list(limb)].tolist()
    centre = int((xa + xb) / 2), int((ya + yb) / 2)
    angle = int(math.degrees(math.atan2(ya - yb, xa - xb)))
    return cv2.ellipse2Poly(centre, (int(math.hypot(xa - xb, ya - yb) / 2), RADIUS), angle, 0, 360, 1)


def nted_maps(joints: np.ndarray, valid: np.ndarray, height: int, width: int) -> np.ndarray:
    """NTED and PIDM: each limb drawn as an ellipse, chamfer distances in thirds of a pixel, cut to whole pixels."""
    maps = np.zeros((len(pose.LIMBS), height, width), np.float32)
    for row, limb in enumerate(pose.LIMBS):
        if valid[list(limb)].all():
            outside = np.full((height, width), 255, np.uint8)
            cv2.fillConvexPoly(outside, _ellipse(joints, limb), 0)
            distance = cv2.distanceTransform(outside, cv2.DIST_L1, 3)
            maps[row] = np.clip(distance / 3, 0, 255).astype(np.uint8) / np.float32(255)
    return maps


def nted_label(joints: np.ndarray, valid: np.ndarray, height: int, width: int) -> np.ndarray:
    """The same with the coloured stick figure that their loader draws on the way: (15, height, width)."""
    figure = np.zeros((height, width, 3), np.uint8)
    for joint, (x, y) in enumerate(joints.astype(int).tolist()):
        if valid[joint]:
            cv2.circle(figure, (x, y), RADIUS, (255, 14 * joint, 0), -1)
    for row, limb in enumerate(pose.LIMBS):
        if valid[list(limb)].all():
            with_limb = figure.copy()
            cv2.fillConvexPoly(with_limb, _ellipse(joints, limb), (20 * row, 255, 0))
            figure = cv2.addWeighted(figure, 0.4, with_limb, 0.6, 0)
    picture = figure.transpose(2, 0, 1).astype(np.float32) / 255
    return np.concatenate([picture, nted_maps(joints, valid, height, width)])


def transformed_maps(joints: np.ndarray, valid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Euclidean distance transforms of drawn lines: as near to exp(kappa d) as a distance transform comes."""
    maps = np.zeros((len(pose.LIMBS), height, width), np.float32)
    for row, (a, b) in enumerate(pose.LIMBS):
        if valid[a] and valid[b]:
            outside = np.full((height, width), 255, np.uint8)
            cv2.line(outside, joints[a].astype(int).tolist(), joints[b].astype(int).tolist(), 0)
            maps[row] = np.exp(KAPPA * cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    return maps


def exact_maps(joints: np.ndarray, valid: np.ndarray, height: int, width: int) -> np.ndarray:
    """exp(kappa d) in double precision."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    maps = np.zeros((len(pose.LIMBS), height, width))
    for row, (a, b) in enumerate(pose.LIMBS):
        if valid[a] and valid[b]:
            start, end = joints[[a, b]].astype(np.float64)
            along = end - start
            share = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(along @ along, 1e-12)
            share = share.clip(0, 1)
            maps[row] = np.exp(KAPPA * np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1]))
    return maps


def measure_distance_maps() -> None:
    rows = []
    for height, width in SIZES:
        joints, valid = skeletons(1, PEOPLE, height, width)
        people = list(zip(joints, valid, strict=True))
        label, chamfer, transform, ours = in_turns(
            9,
            lambda: [nted_label(*one, height, width) for one in people],
            lambda: [nted_maps(*one, height, width) for one in people],
            lambda: [transformed_maps(*one, height, width) for one in people],
            lambda: limb_distance_maps(joints, valid, height, width, KAPPA),
        )
        exact = np.stack([exact_maps(*one, height, width) for one in people])
        known = valid[:, np.array(pose.LIMBS)].all(axis=2)
        stored = limb_distance_maps(joints, valid, height, width, KAPPA) / 255
        lines = np.stack([transformed_maps(*one, height, width) for one in people])
        ellipses = np.exp(KAPPA * 255 * np.stack([nted_maps(*one, height, width) for one in people]))
        errors = [np.abs(found - exact)[known].max() for found in (stored, lines, ellipses)]
        ms = [1e3 * seconds / PEOPLE for seconds in (ours, transform, chamfer, label)]
        ratios = [ratio(peer, ours) for peer in (transform, chamfer, label)]
        rows.append((f"{height}x{width}", *(f"{t:.2f}" for t in ms), *ratios, *(f"{e:.4f}" for e in errors)))
    print("## 12 limb distance maps\n")
    say("Milliseconds a person. To reach at 256x256: 8x, and an error of at most 0.01 against exp(-0.1 d).")
    table(
        (
            "size", "ours, uint8", "A exact transform", "B ellipse, chamfer", "C NTED's loader", "ratio A", "ratio B",
            "ratio C", "error, ours", "error A", "error B",
        ),
        rows,
    )  # fmt: skip
    say(
        "A: a line drawn and an exact Euclidean transform for each limb, the nearest to the same maps. B: "
        "NTED's ellipses and L1 chamfer transform with its whole pixels. C: B with the stick figure drawn on "
        "the way, as NTED's loader does."
    )


# ---- pose masks


def looped_mask(joints: np.ndarray, valid: np.ndarray, height: int, width: int, normals: bool) -> np.ndarray:
    """getPoseMask: disks along every limb, pixel by pixel into lists, then closed.

    normals: as SPT has it, with two normal distributions set up for every disk, which disks do not use; PG2 does not.
    """
    places = []

    def add_disk(row: int, column: int) -> None:
        if normals:
            scipy.stats.norm(0, RADIUS)
            scipy.stats.norm(0, RADIUS).pdf(0)
        for i in range(-RADIUS, RADIUS + 1):
            for j in range(-RADIUS, RADIUS + 1):
                inside = 0 <= row + i < height and 0 <= column + j < width
                if inside and np.sqrt(float(i**2 + j**2)) <= RADIUS:
                    places.append((row + i, column + j))

    for a, b in MASK_LIMBS:
        if valid[a] and valid[b]:
            (xa, ya), (xb, yb) = joints[a].tolist(), joints[b].tolist()
            add_disk(int(ya), int(xa))
            add_disk(int(yb), int(xb))
            steps = int(math.hypot(xa - xb, ya - yb) / RADIUS)
            for step in range(1, steps):
                add_disk(int(ya + (yb - ya) * step / steps), int(xa + (xb - xa) * step / steps))
    mask = np.zeros((height, width))
    for row, column in places:
        mask[row, column] = 1
    square = np.ones((5, 5))
    return erosion(dilation(mask, square), square)


def field_mask(joints: np.ndarray, valid: np.ndarray, height: int, width: int) -> np.ndarray:
    """The definition behind the masked metrics (produce_ma_mask of Def-GAN, PATN, GFLA, SPGNet), step by step."""
    points = np.where(valid[:, None], joints[:, ::-1], -1).astype(int)  # (row, column), -1 where missing
    mask = np.zeros((height, width), bool)
    for a, b in MASK_LIMBS:
        if -1 in points[a] or -1 in points[b]:
            continue
        towards = points[a] - points[b]
        across = np.array([-towards[1], towards[0]])
        with np.errstate(invalid="ignore"):
            across = RADIUS * across / np.linalg.norm(across)
        corners = np.array([points[a] + across, points[a] - across, points[b] - across, points[b] + across])
        if np.isfinite(corners).all():
            mask[polygon(corners[:, 0], corners[:, 1], shape=mask.shape)] = True
    for point in points:
        if -1 not in point:
            mask[disk(point, RADIUS, shape=mask.shape)] = True
    square = np.ones((5, 5), bool)
    return erosion(dilation(mask, square), square)


def measure_masks(compared: int) -> None:
    rows = []
    for height, width in SIZES:
        joints, valid = skeletons(2, PEOPLE, height, width)
        people = list(zip(joints, valid, strict=True))
        times = in_turns(
            3,
            lambda: [looped_mask(*one, height, width, normals=True) for one in people],
            lambda: [looped_mask(*one, height, width, normals=False) for one in people],
            lambda: [field_mask(*one, height, width) for one in people],
            lambda: pose_masks(joints, valid, height, width),
        )
        points, seen = skeletons(3, compared, height, width, spread=0.15)
        seen &= np.random.default_rng(4).random(seen.shape) < np.linspace(0, 1, compared)[:, None]  # from 0 to all
        different = sum(
            not np.array_equal(field_mask(point, known, height, width), mask)
            for point, known, mask in zip(points, seen, pose_masks(points, seen, height, width), strict=True)
        )
        ms = [f"{1e3 * seconds / PEOPLE:.2f}" for seconds in times]
        ratios = [ratio(peer, times[-1]) for peer in times[:-1]]
        rows.append((f"{height}x{width}", *ms, *ratios, f"{compared - different} of {compared}"))
    print("## Pose masks\n")
    say("Milliseconds a person. To reach: 50x over getPoseMask, every mask equal to produce_ma_mask's.")
    table(
        (
            "size", "A getPoseMask, SPT", "B getPoseMask, PG2", "C produce_ma_mask", "ours", "ratio A", "ratio B",
            "ratio C", "masks equal to C",
        ),
        rows,
    )  # fmt: skip
    say(
        "A and B are one double loop; SPT's sets up two normal distributions of SciPy for each disk and uses neither. "
        f"Equality: {compared} random skeletons a size, from no joint to all of them, bit for bit."
    )


# ---- pair lists


def measure_pair_list(folder: Path) -> None:
    random = np.random.default_rng(0)
    names = np.array([f"fashionWOMENDressesid{i:08d}01_1front.jpg" for i in range(20_000)])
    source, target = names[random.integers(0, len(names), (2, 101_966))]
    path = folder / "pairs.csv"
    with path.open("w", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([("from", "to"), *zip(source, target, strict=True)])
    columns = {
        "split": ["train"] * len(source),
        "pair_index": np.arange(len(source), dtype=np.int32),
        "source_id": source,
        "target_id": target,
    }
    store.write_table(folder / "pairs.parquet", pa.table(columns).cast(schema.PAIRS), schema.PAIRS)
    images = pa.array(sorted(names.tolist()))

    def looped() -> list:
        """PATN, GFLA, PISE, DPTN, CFLD: one row at a time out of a data frame."""
        frame = pd.read_csv(path)
        return [[frame.iloc[i]["from"], frame.iloc[i]["to"]] for i in range(len(frame))]

    def ours_csv() -> list:
        return annotations.read_pairs(path)

    def ours() -> np.ndarray:
        """What loading does: read, keep a split, put in order, find both images' rows."""
        pairs = store.read_table(folder / "pairs.parquet", filters=[("split", "=", "train")]).sort_by("pair_index")
        rows = [pc.index_in(pairs[name], value_set=images).to_numpy() for name in ("source_id", "target_id")]
        return np.stack(rows, axis=1)

    found = ours()
    assert [tuple(pair) for pair in looped()] == ours_csv()
    assert np.array_equal(np.array(images.to_pylist())[found], np.stack([source, target], axis=1))
    field, parquet, text = in_turns(3, looped, ours, ours_csv)
    print("## A pair list of 101,966 rows\n")
    say("Seconds. To reach: 30x.")
    table(
        ("field: a loop over df.iloc", "ours: parquet, to rows of images", "ratio", "ours: the field's CSV", "ratio"),
        [(f"{field:.2f}", f"{parquet:.3f}", ratio(field, parquet), f"{text:.3f}", ratio(field, text))],
    )


# ---- the loader


def write_data_set(folder: Path, count: int, height: int, width: int) -> list[bytes]:
    """`count` images with joints, parsing and pairs under `folder`; returns the JPEGs."""
    random = np.random.default_rng(0)
    joints, valid = skeletons(5, count, height, width)
    names = [f"{number:06d}.jpg" for number in range(count)]
    jpegs, images, parsing = [], [], []
    for name in names:
        coarse = random.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
        picture = cv2.resize(coarse, (width, height)) // 2 + random.integers(0, 8, (height, width, 3), np.uint8)
        jpegs.append(cv2.imencode(".jpg", picture)[1].tobytes())
        label_map = cv2.resize(
            random.integers(0, 20, (height // 16, width // 16), np.uint8), (width, height), 0, 0, 0, 0
        )
        png = cv2.imencode(".png", label_map)[1].tobytes()
        common = {"image_id": name, "split": "train", "person_id": "1"}
        images.append(common | {"image": {"bytes": jpegs[-1], "path": name}, "height": height, "width": width})
        parsing.append({"image_id": name, "parsing": {"bytes": png, "path": name}, "label_source": "benchmark"})
    keypoints = {
        "image_id": names,
        "split": ["train"] * count,
        "person_id": ["1"] * count,
        "row": np.arange(count, dtype=np.int32),
        "keypoints": pose.to_column(joints, valid),
        "keypoint_scores": pa.FixedSizeListArray.from_arrays(valid.astype(np.float32).reshape(-1), 18),
        "keypoint_source": ["benchmark"] * count,
    }
    pairs = {
        "split": ["train"] * count,
        "pair_index": np.arange(count, dtype=np.int32),
        "source_id": names,
        "target_id": names[1:] + names[:1],
    }
    store.write_shards(folder / layout.images("d"), images, schema.IMAGES)
    store.write_shards(folder / layout.parsing("d"), parsing, schema.PARSING)
    store.write_table(folder / layout.keypoints("d"), pa.table(keypoints), schema.KEYPOINTS)
    store.write_table(folder / layout.pairs("d"), pa.table(pairs), schema.PAIRS)
    return jpegs


class DensePairs(torch.utils.data.Dataset):
    """The field's loader: two JPEGs decoded and two stacks of heatmaps made for each pair, all as float32."""

    def __init__(self, jpegs: list[bytes], joints: np.ndarray, valid: np.ndarray, height: int, width: int):
        self.jpegs, self.joints, self.valid, self.size = jpegs, joints, valid, (height, width)

    def __len__(self) -> int:
        return len(self.jpegs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        pair = {}
        for name, row in (("source", index), ("target", (index + 1) % len(self))):
            picture = cv2.imdecode(np.frombuffer(self.jpegs[row], np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
            pair[name] = torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)
            maps = field_heatmaps(self.joints[row], self.valid[row], *self.size)
            pair[f"{name}_pose"] = torch.Tensor(maps.transpose(2, 0, 1))
        return pair


def measure_loader(folder: Path) -> None:
    rows, costs = [], []
    for height, width, count in ((128, 64, 1024), (256, 256, 384)):
        here = folder / f"{height}x{width}"
        jpegs = write_data_set(here, count, height, width)
        joints, valid = skeletons(5, count, height, width)
        dense = DensePairs(jpegs[:64], joints[:64], valid[:64], height, width)
        os.chdir(here)
        loads = []
        for _ in range(3):
            start = time.process_time()
            data = arrays.load_pairs("d", "train", torch.device("cpu"), label_set="lip-20")
            loads.append((time.process_time() - start) / count)
        order = np.random.default_rng(1).permutation(count)
        batches = [torch.from_numpy(order[i : i + 8]) for i in range(0, count, 8)]
        maps, hot = torch.empty(8, 18, height, width), torch.empty(8, 20, height, width)

        def uint8() -> None:
            """Everything a device needs to build its maps from, 4 bytes a pixel and 18 coordinates an image."""
            for rows in batches:
                for side in data.pairs[rows].unbind(1):
                    _ = data.images[side], data.joints[side], data.valid[side], data.parsing(side)

        def floats() -> None:
            for rows in batches:
                data.batch(rows)

        def heat() -> None:
            for rows in batches:
                for side in data.pairs[rows].unbind(1):
                    heatmaps(data.joints[side], data.valid[side], height, width, out=maps)

        def labels() -> None:
            for rows in batches:
                for side in data.pairs[rows].unbind(1):
                    one_hot(data.parsing(side), 20, out=hot)

        *ours, field = in_turns(5, uint8, floats, heat, labels, lambda: [dense[i] for i in range(64)])
        ours = [seconds / count for seconds in ours]
        field /= 64
        loader = torch.utils.data.DataLoader(dense, batch_size=8, num_workers=2)
        workers = []
        for _ in range(3):
            start = with_children()
            total = sum(len(batch["source"]) for batch in loader)  # the workers have ended when the loop has
            workers.append((with_children() - start) / total)
        load = median(loads)
        first = 1 / (2 * load + ours[0])  # pairs/s of an epoch in which every image is read for one pair only
        rows.append((
            f"{height}x{width}", f"{1 / field:.0f}", f"{1 / median(workers):.0f}", f"{1 / ours[0]:,.0f}",
            f"{1 / ours[1]:,.0f}", f"{first:,.0f}", ratio(field, ours[0]), ratio(field, 1 / first),
        ))  # fmt: skip
        costs.append((f"{height}x{width}", *(f"{1e3 * s:.2f}" for s in (load, *ours)), f"{1e3 * field:.1f}"))
    os.chdir(folder)
    print("## The loader\n")
    say(
        "Pairs a second of processor time (of all processes: on free cores two workers are at best twice as "
        "fast). To reach: 5,000 at 128x64, 10 times GFLA's 40 to 62 at 256x256 (the public loader on another "
        "machine, two workers and one process). The field's way is run here again on the same JPEGs: two "
        "images and two stacks of heatmaps as floats, no augmentation, no parsing."
    )
    table(
        (
            "size", "field, one process", "field, through 2 workers", "ours, resident uint8", "ours, `PairData.batch`",
            "ours, first pass with decoding", "ratio, resident", "ratio, first pass",
        ),
        rows,
    )  # fmt: skip
    say(
        "Resident: source and target images, joints and label ids of random pairs, gathered in batches of 8 "
        "from what was decoded once. `PairData.batch`: the images as floats, without labels. First pass: an "
        "epoch that also pays for reading and decoding every image and label map, each used for one pair."
    )
    say("Where the time goes, milliseconds of one core:")
    table(
        (
            "size", "read and decode, an image, once", "gather uint8, a pair", "`PairData.batch`, a pair",
            "36 heatmaps, a pair", "one-hot labels of 20 classes, a pair", "field's way, a pair",
        ),
        costs,
    )  # fmt: skip


# ---- memory


def write_raw(folder: Path, people: int) -> None:
    """A Market-1501 of `people` people with 8 train images each, and a fixed small test split, as `fetch` leaves it."""
    random = np.random.default_rng(0)
    jpegs = [
        cv2.imencode(".jpg", cv2.resize(random.integers(0, 256, (16, 8, 3), np.uint8), (64, 128)))[1].tobytes()
        for _ in range(64)
    ]
    raw = folder / layout.raw("market1501")
    raw.mkdir(parents=True)
    names = {
        "train": [f"{p:05d}_c{v}s1_{v:06d}_01.jpg" for p in range(1, people + 1) for v in range(8)],
        "test": [f"{p:05d}_c{v}s1_{v:06d}_01.jpg" for p in range(90_001, 90_005) for v in range(8)],
    }
    with zipfile.ZipFile(raw / "images.zip", "w", zipfile.ZIP_STORED) as archive:
        for split, own in names.items():
            for number, name in enumerate(own):
                archive.writestr(f"{split}/{name}", jpegs[number % len(jpegs)])
    for split, own in names.items():
        joints, _ = skeletons(6, len(own), 128, 64)
        whole = np.ones((len(own), 18), bool)
        lines = annotations.keypoint_lines(own, joints, whole)
        (raw / f"annotation-{split}.csv").write_text("".join(lines))
    (raw / "source.json").write_text(json.dumps({"height": 128, "width": 64}))


def peak_memory(folder: Path, people: int) -> tuple[dict[str, float], int]:
    """MiB of each data stage as its own log states it, and the number of pairs."""
    write_raw(folder, people)
    values = yaml.safe_load((ROOT / layout.PARAMS).read_text())
    values["datasets"] = ["market1501"]
    values["keypoints"]["market1501"]["source"] = "annotations"
    values["pairs"]["market1501"] |= {"test_list": "sampled", "test_pairs": 50}
    (folder / layout.PARAMS).write_text(yaml.safe_dump(values))
    (folder / layout.PARAMS_SCHEMA).write_text((ROOT / layout.PARAMS_SCHEMA).read_text())
    found = {}
    for stage in ("index", "keypoints", "pairs", "distance_maps"):
        command = [sys.executable, "-m", "pipeline", stage, "--dataset", "market1501"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=folder, env=environment, check=True, stderr=subprocess.DEVNULL)
        text = (folder / layout.log(stage, "market1501")).read_text()
        found[stage] = float(re.search(r"peak memory (\d+) MiB", text).group(1))
    return found, len(store.read_table(folder / layout.pairs("market1501")))


def measure_memory(folder: Path) -> None:
    small, small_pairs = peak_memory(folder / "small", 250)
    large, large_pairs = peak_memory(folder / "large", 1000)
    print("## Memory of the data stages\n")
    say("Peak of the process, from the stage's log; the same kind of data, four times as much. To reach: flat.")
    rows = [
        (
            f"`{stage}`",
            f"{small[stage]:.0f} MiB",
            f"{large[stage]:.0f} MiB",
            f"{1024 * (large[stage] - small[stage]) / 6000:.1f} KiB",
        )
        for stage in small
    ]
    header = ("stage", f"2,032 images, {small_pairs:,} pairs", f"8,032 images, {large_pairs:,} pairs", "more, an image")
    table(header, rows)
    say("For scale: one decoded image of 128x64 is 24 KiB, its distance maps 96 KiB.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=1000, help="skeletons a size on which masks are compared")
    compared = parser.parse_args().masks
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pa.set_cpu_count(1)
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # two workers on one core are meant
    start = time.perf_counter()
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    libraries = ("numpy", "torch", "opencv-python-headless", "scikit-image", "pandas", "pyarrow")
    print("# Preparing and loading data, beside the field's own way\n")
    say(
        "Made by `taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/data.py > benchmarks/data.md`: one "
        "run, one core, medians of processor time (other work may run on the "
        "machine). The field's way is written again in the script, as plainly as its public code has it. "
        "People: random poses with 12 % of the joints missing."
    )
    print(
        f"{processor}; Python {platform.python_version()}, " + ", ".join(f"{n} {version(n)}" for n in libraries) + ".\n"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("list", "loader", "memory/small", "memory/large"):
            (folder / part).mkdir(parents=True)
        measure_heatmaps()
        measure_distance_maps()
        measure_masks(compared)
        measure_pair_list(folder / "list")
        measure_loader(folder / "loader")
        measure_memory(folder / "memory")
        os.chdir(ROOT)
    print(f"The whole run took {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
