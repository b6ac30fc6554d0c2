"""SPT's pseudo labels measured: `python benchmarks/pseudo_labels.py --project DIR --dataset D [--output FOLDER]`.

Reads data/D/keypoints.parquet and data/D/parsing/ of the project folder DIR and prints, as markdown:
how often the chosen image is the one of brute force in image space, as a function of how many candidates are compared
exactly; where the time goes, on one core (CPU seconds) and how it grows; the distribution of costs and of what is
chosen, for both rules. With --output, a contact sheet of label maps (no photographs) for each rule.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline import datasets
from pipeline.anatomy import labels
from pipeline.core import layout, store
from pipeline.stages import pseudo_labels
from pipeline.stand_ins import body_parts, part_search

DEPTHS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 128)
EXCLUDE, SHARED = 0.25, 8
CPU = torch.device("cpu")


def clocked(function, *arguments):
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


def admitted_costs(
    people: part_search.People, sources: np.ndarray, candidates: np.ndarray, rule: str, costs
) -> np.ndarray:
    """What brute force minimises, float64 (S, C): inf where a candidate is not admitted."""
    _, present = body_parts.corners(people.joints, people.valid)
    values = np.empty(costs.shape)
    for row, source in enumerate(sources):
        distance, shared = part_search.pose_distance(people, np.full(len(candidates), source), candidates)
        out = (distance < EXCLUDE) | (shared < SHARED) | (candidates == source)
        values[row] = costs[row]
        if rule == "balanced":
            out |= (present[source] & ~present[candidates]).any(axis=1)
            values[row] /= people.area[candidates]
        values[row, out] = np.inf
    return values


def agreement(people, sources, candidates, frame: int, title: str) -> None:
    """Prints, for both rules and every depth, how often brute force over `candidates` agrees, and by how much not."""
    costs, took = clocked(
        lambda: np.stack([part_search.cost(people, np.full(len(candidates), s), candidates) for s in sources])
    )
    pairs = costs.size
    print(f"\n## {title}\n")
    print(f"Brute force: {pairs:,} pairs in image space, {took:.0f} s CPU ({took / pairs * 1e3:.3f} ms a pair).\n")
    index = part_search.index(people, candidates, frame, CPU)
    print("| rule | " + " | ".join(f"K = {depth}" for depth in DEPTHS) + " |\n|---|" + "---|" * len(DEPTHS))
    for rule in part_search.RULES:
        values = admitted_costs(people, sources, candidates, rule, costs)
        some = np.isfinite(values).any(axis=1)
        ranked = part_search.rank(index, sources, max(DEPTHS), EXCLUDE, SHARED, rule)[some]
        place = np.searchsorted(candidates, np.maximum(ranked, 0))
        found = np.where(ranked >= 0, np.take_along_axis(values[some], place, axis=1), np.inf)
        best = values[some].min(axis=1)
        same, excess = [], []
        for depth in DEPTHS:
            reached = found[:, :depth].min(axis=1)
            lowest = np.where(found[:, :depth] == reached[:, None], ranked[:, :depth], len(people.joints)).min(axis=1)
            same.append(f"{(lowest == candidates[values[some].argmin(axis=1)]).mean():.4f}")
            excess.append(f"{np.max(reached / best - 1):.1%}")
        print(f"| {rule}, same image ({some.sum()} sources) | " + " | ".join(same) + " |")
        print(f"| {rule}, largest excess cost | " + " | ".join(excess) + " |")


def parts_of_the_time(index: part_search.Index, sources: np.ndarray) -> tuple[float, float, float]:
    """CPU seconds for `sources` in the products, in making the candidates' features and in the exclusion."""
    people = index.people
    joints, valid, rows = (torch.from_numpy(array) for array in (people.joints, people.valid, sources))
    ids = torch.arange(part_search.LABELS, dtype=torch.uint8)
    wanted = (index.source_cells[rows][..., None] == ids).to(torch.float32).flatten(1)
    products = features = exclusion = 0.0
    for first in range(0, len(index.candidate), 1024):
        (offered, constant), took = clocked(part_search._offered, index, slice(first, first + 1024), ids)
        features += took
        products += clocked(torch.addmm, constant, wanted, offered.T)[1]
        exclusion += clocked(part_search._apart, joints, valid, rows, index.candidate[first : first + 1024])[1]
    return products, features, exclusion


def growth(people: part_search.People, candidates: np.ndarray, block: pseudo_labels.Params, rule: str) -> None:
    print("\n## Time on one core, and how it grows\n")
    print("CPU seconds for N images as sources and as candidates; the exact comparison is timed on 512 sources.\n")
    print("| N | resample | rank | of it products | features | exclusion | rank, a source | exact, a source |")
    print("|---|---|---|---|---|---|---|---|")
    for share in (4, 2, 1):
        some = candidates[::share]
        index, resample = clocked(part_search.index, people, some, block.frame, CPU)
        split, rank = np.zeros(3), 0.0
        for first in range(0, len(some), pseudo_labels.CHUNK):
            sources = some[first : first + pseudo_labels.CHUNK]
            rank += clocked(part_search.rank, index, sources, block.rerank, EXCLUDE, SHARED, rule)[1]
            split += parts_of_the_time(index, sources)
        few = some[:512]
        ranked = part_search.rank(index, few, block.rerank, EXCLUDE, SHARED, rule)
        number, place = np.nonzero(ranked >= 0)
        compare = clocked(part_search.cost, people, few[number], ranked[number, place])[1] / len(few)
        times = " | ".join(f"{value:.1f}" for value in (resample, rank, *split))
        print(f"| {len(some):,} | {times} | {rank / len(some) * 1e3:.2f} ms | {compare * 1e3:.2f} ms |", flush=True)


def chosen(people: part_search.People, index: part_search.Index, block: pseudo_labels.Params, rule: str) -> np.ndarray:
    """Prints what is chosen for all usable sources by one rule; returns rows (M,), -1 for none."""
    usable = np.flatnonzero(body_parts.usable(people.joints, people.valid))
    start = time.process_time()
    found = np.full(len(people.joints), -1)
    paid, away = np.zeros(len(found)), np.zeros(len(found))
    for first in range(0, len(usable), pseudo_labels.CHUNK):
        some = usable[first : first + pseudo_labels.CHUNK]
        found[some], paid[some], away[some] = part_search.search(index, some, block.rerank, EXCLUDE, SHARED, rule)
    some = found >= 0
    other = found[some]
    counts = np.sort(np.unique(other, return_counts=True)[1])[::-1]
    length = body_parts.torso_length(people.joints)
    present = body_parts.corners(people.joints, people.valid)[1].sum(axis=1)
    cuts = (0, 5, 25, 50, 75, 95, 100)
    took = time.process_time() - start
    print(f"\n### {rule}\n")
    print(f"{some.sum():,} of {len(usable):,} usable sources have a stand-in; {took:.0f} s CPU for all.\n")
    print("| percentile | " + " | ".join(str(cut) for cut in cuts) + " |\n|---|" + "---|" * len(cuts))
    for name, values in (
        ("cost", paid[some]),
        ("cost a pixel of the candidate's parts", paid[some] / people.area[other]),
        ("pose distance, torso lengths", away[some]),
    ):
        print(f"| {name} | " + " | ".join(f"{np.percentile(values, cut):.4g}" for cut in cuts) + " |")
    share = counts[:10].sum() / some.sum()
    print(f"\n{len(counts):,} different images chosen; the ten most chosen stand in for {share:.1%}.")
    print(f"Torso length, median: chosen {np.median(length[other]):.1f} px, all {np.median(length[usable]):.1f} px.")
    print(f"Parts shown, mean: chosen {present[other].mean():.2f}, all {present[usable].mean():.2f} of 10.")
    return found


def label_map(people: part_search.People, row: int) -> np.ndarray:
    """(H, W, 3) uint8 BGR."""
    height, width, start = people.height[row], people.width[row], people.offset[row]
    spt = (people.codes[start : start + height * width].reshape(height, width) & 15).astype(np.uint8)
    return labels.colour(labels.relabel(spt, labels.TO_LIP20["spt-10"]))[:, :, ::-1].copy()


def contact_sheet(people: part_search.People, found: np.ndarray, rows: np.ndarray, columns: int = 8) -> np.ndarray:
    """Pairs of label maps beside each other, source left and stand-in right, joints as dots: (H, W, 3) uint8 BGR."""
    height, width = int(people.height.max()), int(people.width.max())
    tiles = []
    for row in rows:
        tile = np.full((height + 6, 2 * width + 8, 3), 255, np.uint8)
        for side, one in enumerate((row, found[row])):
            picture = label_map(people, one)
            for x, y in np.rint(people.joints[one][people.valid[one]]).astype(int):
                cv2.circle(picture, (int(x), int(y)), 1, (255, 255, 255), -1)
            tile[: picture.shape[0], side * (width + 2) : side * (width + 2) + picture.shape[1]] = picture
        tiles.append(tile)
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[first : first + columns]) for first in range(0, len(tiles), columns)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="a project folder with prepared data")
    parser.add_argument("--dataset", default="market1501")
    parser.add_argument("--rerank", type=int, default=64)
    parser.add_argument("--frame", type=int, default=8)
    parser.add_argument("--images", type=int, default=500, help="images of the brute-force comparison")
    parser.add_argument("--sources", type=int, default=25, help="sources compared with every candidate there is")
    parser.add_argument("--output", type=Path, help="folder for contact sheets of label maps")
    options = parser.parse_args()
    output = options.output and options.output.resolve()
    os.chdir(options.project)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keypoints = store.read_table(layout.keypoints(options.dataset), columns=["image_id", "split", "keypoints"])
    with tempfile.TemporaryFile() as file:
        (names, people), took = clocked(pseudo_labels.load, keypoints, layout.parsing(options.dataset), file)
        block = pseudo_labels.Params(options.rerank, EXCLUDE, SHARED, options.frame, "cpu")
        index = pseudo_labels.candidates(names, people, datasets.get(options.dataset).JUNK, block)
        candidates = index.candidate.numpy()
        print(f"# Pseudo labels of {options.dataset}\n")
        print(f"{len(names):,} training images with parsing, {len(candidates):,} candidates.")
        print(f"K = {options.rerank} compared exactly, {options.frame} x {options.frame} cells a part.")
        print(f"Reading, decoding and masking: {took:.1f} s CPU.", flush=True)
        drawn = np.random.default_rng(0).permutation(candidates)
        some = np.sort(drawn[: options.images])
        agreement(people, some, some, options.frame, f"Against brute force among {len(some)} images")
        few = np.sort(drawn[: options.sources])
        agreement(
            people, few, candidates, options.frame, f"{len(few)} sources against brute force among all candidates"
        )
        growth(people, candidates, block, "equation")
        print(f"\nPeak memory of this benchmark: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB.")
        print("\n## What is chosen", flush=True)
        for rule in part_search.RULES:
            found = chosen(people, index, block, rule)
            if output:
                output.mkdir(parents=True, exist_ok=True)
                rows = [row for row in drawn if found[row] >= 0][:48]
                cv2.imwrite(
                    str(output / f"pseudo_labels_{options.dataset}_{rule}.png"), contact_sheet(people, found, rows)
                )


if __name__ == "__main__":
    main()
