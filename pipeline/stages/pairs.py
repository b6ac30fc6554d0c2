"""Build the pair lists: data/D/pairs.parquet, columns split (train, val, test), pair_index, source_id, target_id.

Training pairs follow the field's rule, applied to the train keypoint list in file order: leave out images that show
nobody in particular (names starting `-1` or `0000` in Market-1501) and images without both shoulders and both hips,
group the rest by identity in order of first appearance, and take all ordered pairs within an identity. For Market-1501
that is the published list of 263,632 pairs, line for line. Where data/D/raw/pairs-train.csv exists, that list is used
instead.

`val` is cut from it: identities are ranked by the SHA-256 of their id, and the first `val_fraction` of them (at least
one) are kept out of training. `pair_index` is the position in the whole published list.

`pairs.D.test_list`: `official` takes the first `test_pairs` rows of data/D/raw/pairs-test.csv; `sampled` draws that
many from the same rule on the test keypoint list, without replacement, by the SHA-256 of seed and names. `test_pairs`
null takes all there are.

`pairs.D.path`: a folder of your own with pairs-train.csv, pairs-test.csv or both (header from,to), which take the place
of the published lists; pairs-test.csv wants test_list: official.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import datasets
from pipeline.anatomy import pose
from pipeline.core import console, environment, layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.core.settings import COUNT, SEED, SHARE, setting
from pipeline.formats import annotations, plausible

NO_PAIRS = "a pair needs two images of one person, each with both shoulders and both hips"


@dataclass(frozen=True)
class Params:
    val_fraction: float = setting("share of the training identities that is kept for validation", **SHARE)
    test_list: Literal["official", "sampled"] = setting("the published test pairs, or pairs drawn at random")
    test_pairs: int | None = setting(
        "test pairs: the first of the published list, or as many drawn; null: all", **COUNT
    )
    seed: int = setting("of both draws", 0, **SEED)
    path: str | None = setting("a folder with your own pairs-train.csv or pairs-test.csv", None, minLength=1)


def ordered_pairs(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All ordered pairs of two rows with the same group number.

    groups: int (N,), numbered by first appearance. Returns int64 (P,), (P,) rows: group after group, within one in
    the order of itertools.permutations(rows, 2).
    """
    order = np.argsort(groups, kind="stable")  # file order within a group, whatever lies between
    sizes = np.bincount(groups)
    size = sizes[groups[order]]  # of the group of each row, in group order
    start = (np.cumsum(sizes) - sizes)[groups[order]]
    partners = size - 1
    first = np.repeat(np.arange(len(order)), partners)
    runs = np.cumsum(partners) - partners
    within = np.arange(partners.sum()) - np.repeat(runs, partners)  # 0 .. partners - 1 for every first row
    within += within >= (first - start[first])  # step over the row itself
    return order[first], order[start[first] + within]


def groups_by_first_appearance(ids: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Group number int64 (N,) of each id, and the id of each group."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(one, len(number)) for one in ids], dtype=np.int64), list(number)


def eligible(keypoints: pa.Table, split: str, junk: tuple[str, ...]) -> pa.Table:
    """Rows of one split, in file order, that the rule admits (columns image_id, person_id)."""
    table = keypoints.filter(pc.equal(keypoints.column("split"), split)).sort_by("row")
    valid = pose.batch_arrays(table.column("keypoints"))[1][:, pose.SHOULDERS_AND_HIPS].all(axis=1)
    if junk:
        valid &= [not name.startswith(junk) for name in table.column("image_id").to_pylist()]
    return table.filter(pa.array(valid)).select(["image_id", "person_id"])


def by_rule(keypoints: pa.Table, split: str, junk: tuple[str, ...]) -> tuple[list[str], list[str], list[str]]:
    """The rule's whole list for one split: person, source and target of every pair."""
    rows = eligible(keypoints, split, junk)
    people = rows.column("person_id").to_pylist()
    source, target = ordered_pairs(groups_by_first_appearance(people)[0])
    ids = rows.column("image_id").to_pylist()
    return [people[i] for i in source.tolist()], [ids[i] for i in source.tolist()], [ids[i] for i in target.tolist()]


def from_file(path: Path, keypoints: pa.Table) -> list[tuple[str, str]]:
    """The (source, target) names in a published list. Raises UserError, naming the line, for an unknown name."""
    pairs = annotations.read_pairs(path)
    names = keypoints.column("image_id").to_pylist()
    known = set(names)
    for number, pair in enumerate(pairs, 2):
        for name in pair:
            if name not in known:
                lost = sum(not known.issuperset(other) for other in pairs)
                near = get_close_matches(name, names[:1000], 1, 0)
                raise UserError(
                    f"{path}: line {number}: {name} is in no keypoint list ({lost} of {len(pairs)} pairs have such"
                    f" names); lists of two data sets, or other endings? the nearest name is {near[0]}"
                )
    return pairs


def own_lists(block: Params, dataset: str) -> dict[str, Path]:
    """Split -> the user's list of its pairs. Raises UserError if `path` has none, or one that is not asked for."""
    if block.path is None:
        return {}
    folder, key = environment.path(block.path), f"pairs.{dataset}.path in {layout.PARAMS}"
    lists = {split: folder / f"pairs-{split}.csv" for split in datasets.SPLITS}
    lists = {split: path for split, path in lists.items() if path.exists()}
    if not lists:
        raise UserError(f"{folder}: no folder with pairs-train.csv or pairs-test.csv; correct {key}")
    if "test" in lists and block.test_list != "official":
        raise UserError(f"{lists['test']}: pairs.{dataset}.test_list is {block.test_list}; set it to official")
    return lists


def training_pairs(keypoints: pa.Table, path: Path, junk: tuple[str, ...]) -> tuple[list[str], list[str], list[str]]:
    """Person, source and target of every training pair, `val` included: as published, or else by the rule."""
    if not path.exists():
        return by_rule(keypoints, "train", junk)
    pairs = from_file(path, keypoints)
    names = (keypoints.column(name).to_pylist() for name in ("image_id", "person_id"))
    person = dict(zip(*names, strict=True))
    return [person[source] for source, _ in pairs], [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def held_out(people: Sequence[str], fraction: float) -> set[str]:
    """The people whose pairs are `val`: the first max(1, round(fraction x number)) by the SHA-256 of their id."""
    ranked = sorted(set(people), key=lambda person: hashlib.sha256(person.encode()).digest())
    return set(ranked[: max(1, round(fraction * len(ranked)))])


def sample(pairs: list[tuple[str, str]], count: int | None, seed: int) -> list[tuple[str, str]]:
    """`count` (None: all) of the pairs without replacement, in the order of SHA-256("seed:source:target")."""
    return sorted(pairs, key=lambda pair: hashlib.sha256(f"{seed}:{pair[0]}:{pair[1]}".encode()).digest())[:count]


def test_pairs(keypoints: pa.Table, origin: Path | str, junk: tuple[str, ...], block: Params, dataset: str) -> list:
    """The (source, target) names to test on. Raises UserError if there is none, or fewer than asked for."""
    if block.test_list == "official":
        chosen = from_file(origin, keypoints)[: block.test_pairs]
    else:
        _, source, target = by_rule(keypoints, "test", junk)
        origin = "the test keypoint list"
        chosen = sample(list(zip(source, target, strict=True)), block.test_pairs, block.seed)
    if not chosen:
        raise UserError(f"{dataset}: no test pair at all from {origin}; {NO_PAIRS}")
    if block.test_pairs is not None and len(chosen) < block.test_pairs:
        raise UserError(
            f"{origin} gives {len(chosen)} pairs, pairs.{dataset}.test_pairs in {layout.PARAMS} asks for"
            f" {block.test_pairs}; lower it"
        )
    return chosen


def table(keypoints: pa.Table, raw: Path, dataset: str, block: Params) -> pa.Table:
    """All pairs as schema.PAIRS: the published training list with `val` marked, then the test list."""
    junk, own = datasets.get(dataset).JUNK, own_lists(block, dataset)
    paths = {split: own.get(split, raw / f"pairs-{split}.csv") for split in datasets.SPLITS}
    people, source, target = training_pairs(keypoints, paths["train"], junk)
    if not people:
        raise UserError(f"{dataset}: no training pair at all; {NO_PAIRS}")
    val = held_out(people, block.val_fraction)
    if len(set(people)) <= len(val):
        raise UserError(f"{dataset}: {len(set(people))} people in the training pairs; val leaves none to train on")
    test = test_pairs(keypoints, paths["test"], junk, block, dataset)
    columns = {
        "split": ["val" if person in val else "train" for person in people] + ["test"] * len(test),
        "pair_index": [*range(len(people)), *range(len(test))],
        "source_id": source + [pair[0] for pair in test],
        "target_id": target + [pair[1] for pair in test],
    }
    return pa.table(columns, schema=schema.PAIRS)


def judge(pairs: pa.Table, keypoints: pa.Table, dataset: str, block: Params) -> list[str]:
    """What is doubtful about the pairs that come from lists. Raises UserError for those that plainly are others."""
    names, splits, people = (keypoints.column(name).to_pylist() for name in ("image_id", "split", "person_id"))
    of_image = dict(zip(names, splits, strict=True)), dict(zip(names, people, strict=True))
    rows = list(zip(*(pairs.column(name).to_pylist() for name in ("split", "source_id", "target_id")), strict=True))
    own, doubts = own_lists(block, dataset), []
    for split in datasets.SPLITS:
        path = own.get(split, layout.raw(dataset) / f"pairs-{split}.csv")
        if path.exists() and (split == "train" or block.test_list == "official"):
            listed = [row[1:] for row in rows if (row[0] == "test") == (split == "test")]
            remedy = f"give the {split} pairs of these images" + (", or set test_list: sampled" * (split == "test"))
            doubts += plausible.settle(plausible.pairs(listed, split, *of_image), str(path), remedy)
    return doubts


def run(dataset: str) -> None:
    """Write `data/D/pairs.parquet`. Raises UserError: too few pairs, a broken list, one of other pairs."""
    block = params.block(Params, "pairs", dataset)
    datasets.refuse_own_files(dataset)
    columns = ["image_id", "split", "person_id", "row", "keypoints"]
    keypoints = store.read_table(layout.keypoints(dataset), columns=columns)
    pairs = table(keypoints, layout.raw(dataset), dataset, block)
    counts = {row["values"]: row["counts"] for row in pc.value_counts(pairs.column("split")).to_pylist()}
    doubts = json.dumps(judge(pairs, keypoints, dataset, block), ensure_ascii=False)
    described = {"training_pairs": str(counts["train"] + counts["val"]), "test_list": block.test_list, "doubts": doubts}
    described |= {("test_list" if split == "test" else "training_pairs"): "own" for split in own_lists(block, dataset)}
    store.write_table(layout.pairs(dataset), pairs, schema.PAIRS, dataset=dataset, **described)
    console.say(f"pairs {dataset}: {counts['train']} train, {counts['val']} val, {counts['test']} test")
