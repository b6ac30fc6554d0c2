"""Which files count: those of this study as its forms saved them, once a rater; every other one is named with why."""

import json

import pytest

from pipeline.studies import votes
from pipeline.studies.draw import FORMS, Group, sheets
from tests.studies.raters import filled, key_of, saved

METHODS = ("one", "two")
KEY = key_of(sheets(FORMS["pidm"].resized(3, 2), METHODS, {pair: str(pair) for pair in range(12)}, 3, 0))


def trusting(item) -> str:
    return "one" if isinstance(item, Group) else "real"


GOOD = filled(KEY, "1", trusting)
ANSWERS = json.loads(GOOD)["answers"]


def test_the_checksum_is_fnv_1a():
    assert votes.checksum("") == "cbf29ce484222325"
    assert votes.checksum("a") == "af63dc4c8601ec8c"
    assert votes.checksum("foobar") == "85944171f73967e8"


def left_out(**files: bytes) -> dict[str, str]:
    counted, found = votes.gather(files, KEY)
    assert set(counted) <= {"1", "2", "3"}
    return dict(found)


def changed(**values) -> bytes:
    return json.dumps(json.loads(GOOD) | values).encode()


def with_answer(number: int, *answer) -> list:
    return [list(answer) if one[0] == number else one for one in ANSWERS]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "foreign: not a file that a form saves"),
        (b"{}", "foreign: not a file"),
        (b"[1, 2]", "foreign: not a file"),
        (b"\xff\xfe", "foreign: not a file"),
        (b"[" * 100_000, "foreign: not a file"),
        (changed(rater=["1"]), "foreign: not a file"),
        (changed(answers=with_answer(3, 3, "\ud800", 703)), "foreign: not a file"),
        (saved("other", "1", ANSWERS), "foreign: of the study other, this is s"),
        (saved("s", "9", ANSWERS), "foreign: this study has no rater 9"),
        (saved("s", "1", ANSWERS[:5]), "unfinished: 5 of 14 answers"),
        (saved("s", "1", []), "unfinished: 0 of 14 answers"),
        (changed(answers=with_answer(3, 3, "fake", 703)), "edited: it is not as the form saved it"),
        (changed(rater="2"), "edited: "),
        (changed(answers=ANSWERS[:-1]), "edited: "),
        (saved("s", "1", with_answer(2, 2, "perhaps", 702)), "edited: it is not as the form saved it (answer 2)"),
        (saved("s", "1", with_answer(14, 14, 3, 714)), "(answer 14)"),
        (saved("s", "1", with_answer(14, 14, "real", 714)), "(answer 14)"),
        (saved("s", "1", with_answer(4, 5, "real", 704)), "(answer 4)"),
        (saved("s", "1", with_answer(4, 4, "real", -1)), "(time of answer 4)"),
        (saved("s", "1", [*ANSWERS, [15, "real", 1]]), "(more answers than items)"),
    ],
    ids=(
        "empty", "object", "list", "bytes", "nested", "raters", "half-a-letter", "study", "rater", "unfinished",
        "begun", "answer", "owner", "cut", "word", "beyond", "kind", "order", "time", "more",
    ),
)  # fmt: skip
def test_a_file_that_does_not_count_is_named_with_why(content, why):
    counted, found = votes.gather({"a.json": content, "good.json": GOOD}, KEY)
    assert list(counted) == ["1"]
    assert len(found) == 1
    assert found[0][0] == "a.json"
    assert why in found[0][1]


def test_of_equal_files_one_counts_and_of_differing_ones_none():
    again, other = filled(KEY, "2", trusting), filled(KEY, "3", trusting)
    wary = filled(KEY, "2", lambda item: "two" if isinstance(item, Group) else "fake")
    files = {"1.json": GOOD, "1 (1).json": GOOD, "2.json": again, "2b.json": wary, "3.json": other}
    files["3-early.json"] = saved("s", "3", ANSWERS[:2])
    counted, found = votes.gather(files, KEY)
    assert list(counted) == ["1", "3"]
    assert dict(found) == {
        "1.json": "duplicate: of 1 (1).json",
        "2.json": "duplicate: 2 different files of rater 2; keep the one that counts",
        "2b.json": "duplicate: 2 different files of rater 2; keep the one that counts",
        "3-early.json": "unfinished: 2 of 14 answers",
    }


def test_votes_are_told_by_the_key():
    counted, _ = votes.gather({"1": GOOD}, KEY)
    found, items = votes.pool(counted, KEY), votes.items_of(KEY, "1")
    assert len(found) == 14
    for vote, item in zip(found, items, strict=True):
        assert (vote.rater, vote.pair, vote.ms) == ("1", item.pair, 700 + vote.item)
        if isinstance(item, Group):
            assert (vote.kind, vote.method) == ("choose", "one")  # wherever it stood
        else:
            assert (vote.method, vote.real, vote.answer, vote.counted) == (item.method, item.real, "real", item.counted)
    assert {item.methods.index("one") for item in items if isinstance(item, Group)} <= {0, 1}
