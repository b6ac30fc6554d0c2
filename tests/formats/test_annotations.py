"""Lines of the field's CSVs as nobody writes them by chance; what is right is tested where it is read and written."""

from pathlib import Path

import pytest

from pipeline.core import foreign
from pipeline.core.errors import UserError
from pipeline.formats import annotations

RIGHT = str([1] * 18)


@pytest.mark.parametrize(
    "list_",
    ["[" * 50_000, str([1] * 17), RIGHT.replace("1", "true", 1), RIGHT.replace("1", "1e999", 1), "NaN", "9" * 5000],
    ids=["deep", "short", "true", "infinite", "nan", "digits"],
)
def test_a_list_that_is_none_is_one_line(tmp_path, list_):
    path = tmp_path / "list.csv"
    path.write_text(f"{annotations.KEYPOINTS_HEADER}\na.jpg: {list_}: {RIGHT}\n")
    with pytest.raises(UserError, match=r"list\.csv: line 2 is not 'name: "):
        annotations.read_keypoints(path)


def test_a_line_without_an_end_is_not_read_to_it(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(annotations.PAIRS_HEADER.encode() + b"\n" + b"a" * (foreign.LINE + 1))
    for given, line in ((path, 2), (Path("/dev/zero"), 1)):
        with pytest.raises(UserError, match=rf"{given}: line {line} is longer than 1 MiB"):
            annotations.read_pairs(given)
