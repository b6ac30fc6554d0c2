"""A form tells its rater nothing of the key: not by words, nor by the names, order or sizes of its pictures."""

import base64
import json
import re

import numpy as np
import pytest

from pipeline.formats import pictures
from pipeline.studies.draw import FORMS, sheets
from pipeline.studies.form import Shown, Words, page

WORDS = Words("photographs of people", "They are from Somewhere", "for research only", "https://example.org/terms")
METHODS = ("gen_net", "other_net")
TARGETS = {pair: f"photo_{pair}.jpg" for pair in range(40)}


def picture(seed: int, noise: int) -> bytes:
    """Noisy ones are several times as large in bytes."""
    random = np.random.default_rng(seed)
    return pictures.encode_webp((100 + random.integers(0, noise + 1, (16, 8, 3))).astype(np.uint8))


def drawn(rater: int, folder: str | None) -> tuple[str, dict[str, bytes], list]:
    """A form of which real pictures are noisy and generated ones smooth; and its items."""
    form = FORMS["spig"].resized(4, 3)
    sheet = sheets(form, METHODS, TARGETS, rater, 5)[-1]
    blocks = [[picture(one.pair, 200 * one.real) for one in block] for block in sheet.blocks]
    groups = [
        Shown({"This person": picture(1, 200), "in this pose": picture(2, 0)}, [picture(3, 0)] * len(group.methods))
        for group in sheet.groups
    ]
    text, beside = page("5tudy", f"{rater}", form, blocks, groups, WORDS, folder)
    return text, beside, sheet.items


def data_of(text: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def contents(text: str) -> list[bytes]:
    return [base64.b64decode(uri.partition(",")[2]) for uri in data_of(text)["pictures"]]


def test_two_raters_forms_differ_in_their_pictures_alone():
    """Though who sees what of whom, and what is real, differs."""
    (one, _, mine), (other, _, theirs) = drawn(1, None), drawn(2, None)
    assert [item[1:] for item in mine] != [item[1:] for item in theirs]
    assert contents(one) != contents(other)
    told = [re.sub(r'"pictures": \[.*?\]|"rater": "\d+"', "", text, flags=re.DOTALL) for text in (one, other)]
    assert told[0] == told[1]


@pytest.mark.parametrize("folder", [None, "rater-1"], ids=("embedded", "beside"))
def test_pictures_are_numbered_and_of_one_size(folder):
    text, beside, items = drawn(1, folder)
    data = data_of(text)
    stored = list(beside.values()) if folder else contents(text)
    assert len({len(one) for one in stored}) == 1
    assert len({len(picture(1, noise)) for noise in (0, 200)}) == 2  # as they were
    assert pictures.decode(stored[0]).shape == (16, 8, 3)  # zeros behind its end do not hurt
    if folder:
        assert data["pictures"] == [f"rater-1/{place:04d}.webp" for place in range(len(stored))]
        assert list(beside) == [f"{place:04d}.webp" for place in range(len(stored))]
    shown = [item["picture"] for part in data["parts"] if part["kind"] == "judge" for item in part["items"]]
    assert shown == list(range(16))
    assert [[place for _, place in item["given"]] + item["options"] for item in data["parts"][-1]["items"]] == [
        [16, 17, 18, 19], [20, 21, 22, 23], [24, 25, 26, 27]
    ]  # fmt: skip
    assert len(items) == 16 + 3


def test_no_name_and_no_address_stands_in_it():
    text, _, _ = drawn(1, None)
    text = re.sub(r"base64,[\w+/=]+", "", text)
    for word in (*METHODS, "photo_", "generated"):
        assert word not in text
    assert re.findall(r"https?://[^\s\"<]+", text) == [WORDS.address] * 2  # the terms, as a link and in words


def test_it_says_whose_licence_binds_the_rater():
    text, _, _ = drawn(1, None)
    assert "They are from Somewhere: for research only." in text
    form = FORMS["pidm"].resized(1, 0)
    plain, _ = page("s", "1", form, [[picture(1, 0), picture(2, 0)]], [], Words("drawings", "", "", None), None)
    assert "real people" in text
    assert "real people" not in plain
    assert "1 sets" not in plain
