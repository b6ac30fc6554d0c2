"""What others give, taken with care."""

import csv
from pathlib import Path

import pytest

from pipeline.core import foreign
from pipeline.core.errors import UserError


def test_a_file_is_read_up_to_its_bound(tmp_path):
    (tmp_path / "list").write_bytes(bytes(1 << 20))
    assert foreign.read(tmp_path / "list", 1 << 20) == bytes(1 << 20)
    with pytest.raises(UserError, match=r"list: is larger than 0 MiB; is this the right file\?"):
        foreign.read(tmp_path / "list", (1 << 20) - 1)
    with pytest.raises(UserError, match="/dev/zero: is larger than 1 MiB"):
        foreign.read(Path("/dev/zero"), 1 << 20)


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(cell):
    assert foreign.inert(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a", "a=1", "1-1", "é"])
def test_other_cells_stay_what_they_are(cell):
    assert foreign.inert(cell) == cell


def test_a_field_may_be_as_long_as_a_line():
    assert csv.field_size_limit() == foreign.LINE
