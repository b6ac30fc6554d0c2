"""The joints that `keypoints.source: openpose` finds on all Market-1501 test images, beside the published ones.

  REPOSE_MIRROR=<mirror> python benchmarks/keypoints.py [--limit N]

Every method sees every image once. Time is CPU time, so that it holds for one core whatever else runs there; reading
and decoding JPEGs is not in it.
"""

import argparse
import os
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline.core import console
from pipeline.extraction import openpose
from pipeline.formats import annotations, pictures

NEAR = 6.4  # pixels: 5 % of the height
CROWD = 5  # joints that make a second person, where crops with several people are looked at by themselves
SINGLE, MEAN, GROUPED = "arg-max, one pass", "arg-max, mean maps", "grouped, mean maps"


def measure(joints: np.ndarray, found: np.ndarray, truth: np.ndarray, annotated: np.ndarray) -> str:
    """Columns of a table row from joints (N, 18, 2), found (N, 18) and the published truth, annotated."""
    both = found & annotated
    error = np.linalg.norm(joints - truth, axis=2)[both]
    detected, false = both.sum() / annotated.sum(), (found & ~annotated).sum() / (~annotated).sum()
    return f"{np.median(error):.2f} px | {(error < NEAR).mean():.1%} | {detected:.1%} | {false:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="only that many images, evenly spread")
    limit = parser.parse_args().limit
    mirror = Path(os.environ["REPOSE_MIRROR"])
    names, truth, annotated = annotations.read_keypoints(mirror / "market1501/market-annotation-test.csv")
    rows = np.arange(len(names)) if limit is None else np.linspace(0, len(names) - 1, limit).astype(int)
    truth, annotated = truth[rows], annotated[rows]

    net = openpose.OpenPose([mirror / f"weights/human-pose-estimation-0001.{kind}" for kind in ("xml", "bin")])
    joints = {method: np.zeros((len(rows), 18, 2)) for method in (SINGLE, MEAN, GROUPED)}
    scores = {method: np.zeros((len(rows), 18)) for method in joints}
    seconds = dict.fromkeys(joints, 0.0)
    crowded = np.zeros(len(rows), dtype=bool)
    with (
        zipfile.ZipFile(mirror / "market1501/Market-1501-v15.09.15.zip") as archive,
        console.progress("images", len(rows)) as advance,
    ):
        members = {Path(name).name: name for name in archive.namelist() if "bounding_box_test/" in name}
        for place, row in enumerate(rows):
            image = pictures.decode_stored(archive.read(members[names[row]]), names[row])
            size = image.shape[:2]
            times = [time.process_time()]
            single = net(image[None])
            times.append(time.process_time())
            heatmaps, fields, pixels_per_cell = net.mean_maps(image)
            times.append(time.process_time())
            people = openpose.everybody(heatmaps, fields, size, pixels_per_cell)
            central = openpose.central(*people, size[1])
            times.append(time.process_time())
            cells, heights = openpose.highest(heatmaps)
            mean = (cells + 0.5) * pixels_per_cell - 0.5, np.where(heights > openpose.PEAK, heights, 0)
            times.append(time.process_time())
            for method, (places, height) in {
                SINGLE: (single[0][0], single[1][0]),
                MEAN: mean,
                GROUPED: central,
            }.items():
                joints[method][place], scores[method][place] = places, height
            crowded[place] = ((people[1] > 0).sum(axis=1) >= CROWD).sum() > 1
            one, maps, grouping, highest = np.diff(times)
            for method, took in {SINGLE: one, MEAN: maps + highest, GROUPED: maps + grouping}.items():
                seconds[method] += took
            advance()

    print(f"{len(rows)} images, {annotated.sum()} joints annotated, {(~annotated).sum()} not\n")
    for title, some in (("All images", slice(None)), (f"{crowded.sum()} images in which grouping sees several people of"
                        f" at least {CROWD} joints", crowded)):  # fmt: skip
        print(f"{title}\n")
        print("| decoder | median error | within 6.4 px | annotated found | un-annotated found | images/s a core |")
        print("|---|---|---|---|---|---|")
        for method in joints:
            found = scores[method] > 0
            columns = measure(joints[method][some], found[some], truth[some], annotated[some])
            print(f"| {method} | {columns} | {len(rows) / seconds[method]:.0f} |")
        print()
    print(f"{GROUPED}, by the lowest peak that is a joint\n")
    print("| peak above | median error | within 6.4 px | annotated found | un-annotated found |")
    print("|---|---|---|---|---|")
    for threshold in (0.15, 0.2, 0.25, 0.3):
        print(f"| {threshold} | {measure(joints[GROUPED], scores[GROUPED] > threshold, truth, annotated)} |")


if __name__ == "__main__":
    main()
