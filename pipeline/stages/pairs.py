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
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import datasets
from pipeline.anatomy import pose
from pipeline.core import console, layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.core.settings import SEED, SHARE, setting
from pipeline.formats import annotations

NO_PAIRS = "a pair needs two images of one person, each with both shoulders and both hips"


@dataclass(frozen=True)
class Params:
    val_fraction: float = setting("share of the training identities that is kept for validation", **SHARE)
    test_list: Literal["official", "sampled"] = setting("the published test pairs, or pairs drawn at random")
    test_pairs: int | None = setting(
        "test pairs: the first of the published list, or as many drawn; null: all", minimum=1
    )
    seed: int = setting("of both draws", 0, **SEED)


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
    known = set(keypoints.column("image_id").to_pylist())
    for number, pair in enumerate(pairs, 2):
        for name in pair:
            if name not in known:
                raise UserError(f"{path}: line {number}: {name} is in no keypoint list; lists of two data sets?")
    return pairs


def training_pairs(keypoints: pa.Table, raw: Path, junk: tuple[str, ...]) -> tuple[list[str], list[str], list[str]]:
    """Person, source and target of every training pair, `val` included: as published, or else by the rule."""
    if not (raw / "pairs-train.csv").exists():
        return by_rule(keypoints, "train", junk)
    pairs = from_file(raw / "pairs-train.csv", keypoints)
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


def test_pairs(keypoints: pa.Table, raw: Path, junk: tuple[str, ...], block: Params, dataset: str) -> list:
    """The (source, target) names to test on. Raises UserError if there is none, or fewer than asked for."""
    if block.test_list == "official":
        origin = raw / "pairs-test.csv"
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
    junk = datasets.get(dataset).JUNK
    people, source, target = training_pairs(keypoints, raw, junk)
    if not people:
        raise UserError(f"{dataset}: no training pair at all; {NO_PAIRS}")
    val = held_out(people, block.val_fraction)
    if len(set(people)) <= len(val):
        raise UserError(f"{dataset}: {len(set(people))} people in the training pairs; val leaves none to train on")
    test = test_pairs(keypoints, raw, junk, block, dataset)
    columns = {
        "split": ["val" if person in val else "train" for person in people] + ["test"] * len(test),
        "pair_index": [*range(len(people)), *range(len(test))],
        "source_id": source + [pair[0] for pair in test],
        "target_id": target + [pair[1] for pair in test],
    }
    return pa.table(columns, schema=schema.PAIRS)


def run(dataset: str) -> None:
    """Write `data/D/pairs.parquet`. Raises UserError: too few pairs, a broken list."""
    block = params.block(Params, "pairs", dataset)
    columns = ["image_id", "split", "person_id", "row", "keypoints"]
    keypoints = store.read_table(layout.keypoints(dataset), columns=columns)
    pairs = table(keypoints, layout.raw(dataset), dataset, block)
    counts = {row["values"]: row["counts"] for row in pc.value_counts(pairs.column("split")).to_pylist()}
    described = {"training_pairs": str(counts["train"] + counts["val"]), "test_list": block.test_list}
    store.write_table(layout.pairs(dataset), pairs, schema.PAIRS, dataset=dataset, **described)
    console.say(f"pairs {dataset}: {counts['train']} train, {counts['val']} val, {counts['test']} test")
