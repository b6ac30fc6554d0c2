import hashlib
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.loading import prepared
from pipeline.stages import keypoints, pairs
from tests.small_project import annotation, contents, enter, joints, jpeg, write_raw


def crowd(seed: int, people: int, most: int, junk: bool) -> list[str]:
    """File names of `people` with 1 to `most` images each, in random order, distractors among them."""
    rng = np.random.default_rng(seed)
    names = [f"{p:04d}_c{v}s1_{v:06d}_01.jpg" for p in range(1, people + 1) for v in range(rng.integers(1, most + 1))]
    if junk:
        names += [f"{p}_c{v}s2_{v:06d}_00.jpg" for p in ("-1", "0000") for v in range(3)]
    return list(rng.permutation(names))


def naive_rule(names, valid, junk=("-1", "0000")) -> list[tuple[str, str]]:
    """The rule as the field's script has it: one loop, one identity at a time."""
    groups: dict[str, list[str]] = {}
    for name, seen in zip(names, valid, strict=True):
        if name.startswith(junk) or not all(seen[joint] for joint in (2, 5, 8, 11)):
            continue
        groups.setdefault(name.split("_")[0], []).append(name)
    return [pair for group in groups.values() for pair in permutations(group, 2)]


@pytest.fixture
def settle(tmp_path, monkeypatch):
    """Enter a project with keypoints of a random crowd; return names and valid flags by split."""

    def settle(seed=0, people=12, official=None, **changes):
        block = {"val_fraction": 0.2, "test_list": "sampled", "test_pairs": 5, "seed": 0} | changes
        enter(tmp_path, monkeypatch, pairs__market1501=block)
        known, lists = {}, {}
        for number, split in enumerate(("train", "test")):
            names = crowd(2 * seed + number, people, 6, junk=split == "test" or seed % 2 == 1)
            if split == "test":
                names = [name.replace("s2", "s3") if "s2" in name else "9" + name[1:] for name in names]
            points, valid = joints(seed, len(names))
            valid[:, [2, 5, 8, 11]] |= np.random.default_rng(seed).random((len(names), 1)) < 0.7
            lists[split] = annotation(names, points, valid)
            known[split] = (names, valid)
        raw = write_raw({"train/a.jpg": jpeg(0)}, lists)
        if official is not None:
            (raw / "pairs-test.csv").write_text("from,to\n" + "".join(f"{a},{b}\n" for a, b in official))
        keypoints.run("market1501")
        return known

    return settle


def written(*splits: str) -> list[dict]:
    table = store.read_table(layout.pairs("market1501"))
    assert table.schema.equals(schema.PAIRS)
    return [row for row in table.to_pylist() if row["split"] in splits]


def names_of(rows) -> list[tuple[str, str]]:
    return [(row["source_id"], row["target_id"]) for row in rows]


@pytest.mark.parametrize("seed", range(8))
def test_training_list_is_the_naive_loop_s_in_any_file_order(settle, seed):
    known = settle(seed)
    pairs.run("market1501")
    rows = written("train", "val")
    assert names_of(rows) == naive_rule(*known["train"])
    assert [row["pair_index"] for row in rows] == list(range(len(rows)))
    assert len(rows) > 20


@pytest.mark.parametrize("sizes", [[], [1], [1, 1], [2], [3, 1, 4], [1, 5, 1, 2, 7]])
@pytest.mark.parametrize("seed", range(3))
def test_ordered_pairs_of_interleaved_groups(sizes, seed):
    owners = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    groups, _ = pairs.groups_by_first_appearance(owners.tolist())
    members: dict[int, list[int]] = {}
    for row, owner in enumerate(owners.tolist()):
        members.setdefault(owner, []).append(row)
    expected = [pair for group in members.values() for pair in permutations(group, 2)]
    assert list(zip(*(rows.tolist() for rows in pairs.ordered_pairs(groups)), strict=True)) == expected


def test_val_people_are_never_trained_on(settle):
    known = settle(1, people=30)
    pairs.run("market1501")
    people = {name.split("_")[0] for pair in naive_rule(*known["train"]) for name in pair}
    ranked = sorted(people, key=lambda person: hashlib.sha256(person.encode()).hexdigest())
    val = set(ranked[: round(0.2 * len(ranked))])
    assert len(val) > 2
    assert {row["source_id"].split("_")[0] for row in written("val")} == val
    assert {row["target_id"].split("_")[0] for row in written("val")} == val
    assert {row["source_id"].split("_")[0] for row in written("train")} == people - val


def test_at_least_one_person_is_val(settle):
    settle(val_fraction=0.001)
    pairs.run("market1501")
    assert len({row["source_id"].split("_")[0] for row in written("val")}) == 1


def test_val_that_leaves_nobody_to_train_on(settle):
    settle(people=3, val_fraction=0.99, test_pairs=1)
    with pytest.raises(UserError, match="leaves none to train on"):
        pairs.run("market1501")


def test_sampled_test_pairs(settle):
    known = settle(3, test_pairs=20)
    pairs.run("market1501")
    whole = naive_rule(*known["test"])
    rows = written("test")
    assert len(rows) == len(set(names_of(rows))) == 20
    assert set(names_of(rows)) <= set(whole)
    assert [row["pair_index"] for row in rows] == list(range(20))
    first = names_of(rows)
    settle_again = pairs.sample(whole[::-1], 20, 0)  # whatever order the file has
    assert settle_again == first
    assert pairs.sample(whole, 20, 1) != first
    assert pairs.sample(whole, len(whole), 0)[:20] == first  # fewer pairs are the head of more


def test_sampled_list_is_not_the_head_of_the_rule(settle):
    known = settle(3, test_pairs=20)
    pairs.run("market1501")
    assert len({a.split("_")[0] for a, _ in names_of(written("test"))}) > 4
    assert names_of(written("test")) != naive_rule(*known["test"])[:20]


def test_official_test_pairs(settle, tmp_path):
    names = crowd(5, 12, 6, True)
    chosen = [("9" + a[1:], "9" + b[1:]) for a, b in permutations([n for n in names if n[0] == "0" and n[3] != "0"], 2)]
    chosen = [pair for pair in chosen if pair[0][:4] == pair[1][:4]]
    settle(2, official=chosen[:7], test_list="official", test_pairs=4)
    pairs.run("market1501")
    assert names_of(written("test")) == chosen[:4]


def test_a_list_of_training_pairs_is_no_test_list(settle):
    """And one of other endings names what is there."""
    names = [name for name in crowd(4, 12, 6, False) if name[:4] != "0000"]
    chosen = [pair for pair in permutations(names, 2) if pair[0][:4] == pair[1][:4]][:5]
    settle(2, official=chosen, test_list="official", test_pairs=4)
    with pytest.raises(UserError, match=r"4 of 4 test pairs, the first .* have images of the train split"):
        pairs.run("market1501")
    path = layout.raw("market1501") / "pairs-test.csv"
    path.write_text(path.read_text().replace(".jpg", ".png"))
    with pytest.raises(UserError, match=r"5 of 5 pairs have such names.*the nearest name is .*\.jpg$"):
        pairs.run("market1501")


def test_official_pair_of_an_unknown_image(settle):
    settle(2, official=[("nobody.jpg", "no.jpg")], test_list="official", test_pairs=1)
    with pytest.raises(UserError, match=r"pairs-test\.csv: line 2: nobody\.jpg is in no keypoint list"):
        pairs.run("market1501")


@pytest.mark.parametrize("text", ["a.jpg", "a.jpg,", ",b.jpg", "a,b,c", ""])
def test_broken_official_list_names_the_line(settle, text):
    settle(2, official=[], test_list="official", test_pairs=1)
    path = layout.raw("market1501") / "pairs-test.csv"
    path.write_text(f"from,to\n{text}\n")
    with pytest.raises(UserError, match=r"pairs-test\.csv: line 2 is not 'source,target'"):
        pairs.run("market1501")
    path.write_text("source;target\n")
    with pytest.raises(UserError, match="line 1 is 'source;target', not the header 'from,to'"):
        pairs.run("market1501")


def taking_all(test_list: str = "sampled"):
    """The table of pairs with `test_pairs` null."""
    table = store.read_table(layout.keypoints("market1501"))
    return pairs.table(table, layout.raw("market1501"), "market1501", pairs.Params(0.2, test_list, None))


def test_null_takes_every_test_pair(settle):
    known = settle(3)
    whole = naive_rule(*known["test"])
    rows = taking_all().to_pylist()
    assert names_of(row for row in rows if row["split"] == "test") == pairs.sample(whole, len(whole), 0)


def write_list(path: Path, chosen) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("from,to\n" + "".join(f"{a},{b}\n" for a, b in chosen))


def test_a_training_list_of_ones_own_is_taken_as_it_is_and_known_for_it(settle):
    known = settle(3, path="own")
    chosen = naive_rule(*known["train"])[::-3]
    write_list(Path("own/pairs-train.csv"), chosen)
    pairs.run("market1501")
    rows = written("train", "val")
    assert names_of(rows) == chosen
    people = {split: {row["target_id"].split("_")[0] for row in written(split)} for split in ("train", "val")}
    assert people["val"]
    assert people["train"]
    assert not people["train"] & people["val"]
    assert prepared.said(layout.pairs("market1501"))["training_pairs"] == "own"
    write_list(Path("own/pairs-train.csv"), [("nobody.jpg", "no.jpg")])
    with pytest.raises(UserError, match=r"pairs-train\.csv: line 2: nobody\.jpg is in no keypoint list"):
        pairs.run("market1501")


def test_a_test_list_of_ones_own_is_never_taken_for_the_published(settle, monkeypatch):
    known = settle(2, path="own", test_list="official", test_pairs=None, official=[("a.jpg", "b.jpg")])
    chosen = naive_rule(*known["test"])[:7]
    write_list(Path("own/pairs-test.csv"), chosen)
    pairs.run("market1501")
    assert names_of(written("test")) == chosen
    monkeypatch.setitem(prepared.PUBLISHED, "market1501", (1, 7))
    assert prepared.other_test_pairs("market1501", 7)


def test_own_lists_that_are_not_there_or_not_asked_for_are_one_line(settle):
    settle(path="own")
    with pytest.raises(UserError, match=r"own: no folder with .*; correct pairs\.market1501\.path in params\.yaml"):
        pairs.run("market1501")
    write_list(Path("own/pairs-test.csv"), [("a.jpg", "b.jpg")])
    with pytest.raises(UserError, match=r"pairs\.market1501\.test_list is sampled; set it to official"):
        pairs.run("market1501")


@pytest.mark.parametrize("test_list", ["official", "sampled"])
def test_too_few_test_pairs(settle, test_list):
    known = settle(official=[], test_list=test_list, test_pairs=100_000)
    some = naive_rule(*known["test"])[:3]
    path = layout.raw("market1501") / "pairs-test.csv"
    path.write_text("from,to\n" + "".join(f"{a},{b}\n" for a, b in some))
    with pytest.raises(UserError, match=r"pairs\.market1501\.test_pairs in params\.yaml asks for 100000; lower it"):
        pairs.run("market1501")
    assert not layout.pairs("market1501").exists()


def test_no_official_pair_at_all(settle):
    settle(official=[])
    with pytest.raises(UserError, match=r"no test pair at all from .*pairs-test\.csv; a pair needs two images"):
        taking_all("official")


@pytest.mark.parametrize("split", ["train", "test"])
def test_nobody_with_two_images(settle, split):
    settle()
    table = store.read_table(layout.keypoints("market1501"))
    single = [row for row in table.to_pylist() if row["split"] != split or row["row"] == 0]
    store.write_table(layout.keypoints("market1501"), single, schema.KEYPOINTS)
    what = {"train": "no training pair at all; ", "test": "no test pair at all from the test keypoint list; "}[split]
    with pytest.raises(UserError, match=what + "a pair needs two images of one person"):
        taking_all()


def test_nobody_to_train_on(settle):
    settle(people=1, test_pairs=1)
    with pytest.raises(UserError):
        pairs.run("market1501")


def test_same_keypoints_same_bytes(settle):
    settle(4)
    pairs.run("market1501")
    first = contents(layout.pairs("market1501").parent)
    pairs.run("market1501")
    assert contents(layout.pairs("market1501").parent) == first


@pytest.mark.parametrize(("dataset", "number"), [("market1501", 12_000), ("deepfashion", 8_570)])
def test_params_yaml_asks_for_the_whole_official_list(dataset, number):
    params.load.cache_clear()
    block = params.load()["pairs"][dataset]
    assert (block["test_list"], block["test_pairs"]) == ("official", number)
