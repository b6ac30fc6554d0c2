"""YAML is read as DVC reads it, and what DVC refuses is refused, in one line."""

import math
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
