"""A few files of every kind as a stranger may make them; `python -m tests.hostile.fuzz` counts thousands."""

import pytest

from tests.hostile.fuzz import KINDS, count, judge, right

TRIES = 25


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * kind.heavy) for name, kind in KINDS.items()]
)
def test_a_damaged_file_is_taken_or_refused_in_a_line(name):
    assert judge(name, right(name)) == "taken"
    found = count(name, TRIES)
    assert found.total() >= TRIES
    assert found["refused"] > TRIES / 3
