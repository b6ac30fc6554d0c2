"""Every stage and command explains itself with an example, and every example is one that can be typed."""

import re
import shlex

import pytest

from models.variants import COMPONENTS, VARIANTS
from pipeline import __main__ as command_line
from pipeline.__main__ import COMMANDS, STAGES
from pipeline.commands import figure
from pipeline.core import params

HELPS = [[name] for name in (*STAGES, *COMMANDS)] + [["figure", kind] for kind in figure.KINDS]


def help_of(words: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        command_line.main([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def examples(text: str) -> list[list[str]]:
    """The words after `repose` of each line that is a command, indented."""
    return [shlex.split(found) for found in re.findall(r"^ +repose (\S.*)$", text, re.MULTILINE)]


def parsed(words: list[str]) -> dict:
    """What the command line would run with; argparse exits where it does not understand."""
    name, *options = words
    if name == "score" and {"--images", "--method"} & {*options}:
        name = "score_images"
    return vars(command_line._parser(name).parse_args(options))


def check_names(options: dict) -> None:
    """The data set, variants and component of an example exist."""
    assert (options.get("dataset") or "synthetic") in params.load()["fetch"]
    variants = [options.get("variant"), *(options.get("variants") or ())]
    assert {name for name in variants if name} <= set(VARIANTS)
    assert options.get("component", next(iter(COMPONENTS))) in COMPONENTS


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_examples_can_be_typed(words, capsys):
    found = examples(help_of(words, capsys))
    assert found
    own = "score" if words == ["score_images"] else words[0]
    for example in found:
        assert example[0] == own
        assert len(words) == 1 or example[1] == words[1]
        check_names(parsed(example))


@pytest.mark.parametrize("name", STAGES)
def test_a_stages_example_is_of_the_demo(name, capsys):
    """The data set, variant and component are those that `make demo` makes."""
    options = parsed(examples(help_of([name], capsys))[0])
    assert {axis for axis, value in options.items() if value is not None} == {*STAGES[name]}
    for axis in STAGES[name]:
        assert options[axis] in command_line.CHOICES[axis]() or axis == "method"  # the demo has none
    assert params.load()["components"].get(options.get("component"), True)


def test_a_broken_example_is_found(capsys):
    with pytest.raises(SystemExit):
        parsed(["train", "--dataset", "synthetic", "--varient", "spig"])
    with pytest.raises(AssertionError):
        check_names({"dataset": "synthetik"})
    with pytest.raises(AssertionError):
        check_names({"variant": "spigg"})
    assert examples("repose x\n  repose tables\n") == [["tables"]]
    capsys.readouterr()
