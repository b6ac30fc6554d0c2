"""YAML is read as DVC reads it, and what DVC refuses is refused, in one line."""

import math
import time
from itertools import pairwise
from pathlib import Path

import pytest
from dvc.utils.serialize import loads_yaml

from pipeline.core import params, yaml_file
from pipeline.core.errors import UserError
from tests.conftest import ROOT

PATH = Path("some.yaml")


PLAIN = ("1e-4", "-2.5E+3", "0.0001", "12.0", "12", "-7", "true", "no", "yes", "on", "y", "~", "1:30", "6726825d", "''")


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_value_is_what_dvc_takes_it_for(text):
    ours, theirs = yaml_file.parse(f"a: {text}", PATH)["a"], loads_yaml(f"a: {text}")["a"]
    assert (ours, type(ours)) == (theirs, type(theirs))


@pytest.mark.parametrize("text", ["017", "0x1f", "1_000", "2020-01-01"])
def test_numbers_in_other_notations_are_words(text):
    assert yaml_file.parse(f"a: {text}", PATH) == {"a": text}


def test_what_is_no_number():
    assert math.isnan(yaml_file.parse("a: .nan", PATH)["a"])
    assert yaml_file.parse("a: -.inf", PATH) == {"a": -math.inf}


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml"])
def test_the_projects_files_are_what_dvc_takes_them_for(name):
    assert yaml_file.read(ROOT / name) == loads_yaml((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "some.yaml: the key a stands twice, in lines 1 and 3"),
        ("a: {b: 1,\n    b: 2}", "some.yaml: the key b stands twice, in lines 1 and 2"),
        ("- a:\n    - {b: 1, b: 1}", "some.yaml: the key b stands twice, in lines 2 and 2"),
        ("? [a]\n: 1", "some.yaml: line 1: a list or a mapping cannot be a key"),
        ("a: [1\nb: {", "some.yaml: not valid YAML near line 2: did not find expected ',' or ']'"),
        ("a: *b", "some.yaml: not valid YAML near line 1: found undefined alias"),
        ("a: !!python/object:os.system x", "some.yaml: not valid YAML near line 1: could not determine a constructor"),
        ("a: \x00", "some.yaml: not valid YAML: unacceptable character"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text, says):
    with pytest.raises(UserError) as caught:
        yaml_file.parse(text, PATH)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_a_merged_key_may_be_stated_anew():
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\nd: {<<: *a}"
    assert yaml_file.parse(text, PATH) == {
        "a": {"x": 1, "y": 1},
        "b": {"x": 2, "y": 1},
        "c": {"x": 2, "y": 3},
        "d": {"x": 1, "y": 1},
    }


@pytest.mark.parametrize("data", ["a: 1\n# caf\xe9\n".encode("latin-1"), "a: 1\n".encode("utf-16")])
def test_another_encoding_is_one_line(tmp_path, data):
    path = tmp_path / "params.yaml"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"params\.yaml: line [12] is not UTF-8; save the file in that encoding$"):
        params.load(path)


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes("a: 1\n".encode("utf-8-sig"))
    assert yaml_file.read(path) == {"a": 1}


def bomb(first: str, repeat: str, levels: int = 12) -> str:
    """A few lines in which every level repeats the one before nine times."""
    names = [f"a{level}" for level in range(levels)]
    below = ", ".join(["*{}"] * 9)
    lines = [f"{names[0]}: &{names[0]} {first}"]
    lines += [f"{one}: &{one} {repeat}".replace("...", below.replace("{}", under)) for under, one in pairwise(names)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (bomb("[x]", "[...]"), "line 6: more than 100000 values, with what its aliases repeat"),
        (bomb("{x: y}", "{<<: [...]}"), "values, with what its aliases repeat"),  # copied already when they are merged
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000)), "more than 500 levels"),
        ("a: &a [*a]", "line 1: a list or block holds itself"),
        ("a: &a {b: {c: *a}}", "line 1: a list or block holds itself"),
        ("a: &a {<<: *a}", "line 1: a list or block holds itself"),
    ],
)
def test_what_aliases_make_endless_is_refused_at_once(text, says):
    started = time.monotonic()
    with pytest.raises(UserError, match=rf"^some\.yaml: .*{says}"):
        yaml_file.parse(text, PATH)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("value", ["!!float ''", "!!int ''", "!!timestamp x", "!!bool x", "!!int x", "!!binary é"])
def test_a_value_that_is_not_of_the_kind_that_it_claims_is_one_line(value):
    with pytest.raises(UserError, match=r"^some\.yaml: "):
        yaml_file.parse(f"a: {value}", PATH)


def test_a_file_without_an_end_is_not_read_to_it():
    with pytest.raises(UserError, match="/dev/zero: is larger than 16 MiB"):
        yaml_file.read(Path("/dev/zero"))
