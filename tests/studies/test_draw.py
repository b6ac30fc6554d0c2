"""Who sees what: fair to the methods, told by the seed, and the same target never where it gives an answer away."""

from collections import Counter

import pytest

from pipeline.core.errors import UserError
from pipeline.studies.draw import FORMS, sheets

METHODS = ("one", "two", "three")
TARGETS = {pair: f"t{pair // 2}" for pair in range(500)}  # 250 targets, each of two pairs


def test_a_paper_form_has_the_papers_numbers():
    for name, real, warm_up, groups in (("spig", 55, 10, 30), ("pidm", 30, 0, 30)):
        sheet = sheets(FORMS[name], METHODS, TARGETS, 1, 0)[0]
        assert sorted(block[0].method for block in sheet.blocks) == sorted(METHODS)
        for block in sheet.blocks:
            assert len({one.method for one in block}) == 1
            assert Counter(one.real for one in block) == {True: real, False: real}
            assert [one.counted for one in block] == [False] * warm_up + [True] * (2 * real - warm_up)
        assert [sorted(group.methods) for group in sheet.groups] == [sorted(METHODS)] * groups
    assert FORMS["spig"].resized(11, None).warm_up == 2
    assert FORMS["spig"].resized(None, 0).warm_up == 10


def test_no_target_comes_twice_before_all_were_shown():
    small = {pair: target for pair, target in TARGETS.items() if int(target[1:]) < 22}
    for sheet in sheets(FORMS["spig"].resized(10, 20), METHODS, small, 20, 1):
        for hand in (*sheet.blocks, sheet.groups):
            assert len({small[item.pair] for item in hand}) == 20
        assert len({small[item.pair] for item in sheet.items[:40]}) == 22
        assert max(Counter(small[item.pair] for item in sheet.items).values()) == 4  # 80 of 22


def test_a_rater_keeps_their_draw_whoever_else_is_asked():
    few, many = (sheets(FORMS["spig"], METHODS, TARGETS, raters, 3) for raters in (2, 4))
    assert few == many[:2]
    assert len({tuple(sheet.items) for sheet in many}) == 4
    assert sheets(FORMS["spig"], METHODS, TARGETS, 2, 4) != few


def test_places_and_order_tell_nothing():
    """Over many raters every method stands as often at each place of a set, and real ones anywhere in a list."""
    drawn = sheets(FORMS["pidm"], METHODS, TARGETS, 60, 0)
    places = Counter((group.methods.index("one")) for sheet in drawn for group in sheet.groups)
    assert all(540 < count < 660 for count in places.values())  # of 1,800: 600, within three deviations
    first = Counter(block[0].real for sheet in drawn for block in sheet.blocks)
    assert 70 < first[True] < 110  # of 180
    assert {sheet.blocks[0][0].method for sheet in drawn} == set(METHODS)


@pytest.mark.parametrize(
    ("methods", "images", "groups", "message"),
    [
        (METHODS, 126, 0, "shows 252 different targets of a method and 0 sets, and all methods have images of 250"),
        (METHODS, 0, 251, "and 251 sets, and all methods have images of 250; ask for less with --images and --groups"),
        (["one"], 5, 5, "the best of 1\\? name 2 to 9, or ask for no sets with --groups 0"),
        ([str(n) for n in range(10)], 5, 5, "the best of 10"),
    ],
    ids=("images", "groups", "one-method", "ten-methods"),
)
def test_what_cannot_be_drawn_is_refused(methods, images, groups, message):
    with pytest.raises(UserError, match=message):
        sheets(FORMS["pidm"].resized(images, groups), methods, TARGETS, 1, 0)
    assert sheets(FORMS["pidm"].resized(5, 0), ["one"], TARGETS, 1, 0)[0].groups == ()
    assert sheets(FORMS["pidm"].resized(0, 5), METHODS, TARGETS, 1, 0)[0].blocks == ()
