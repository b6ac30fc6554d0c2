"""What a stage says while it works, where nobody sees a bar."""

import io
import os

import pytest

from pipeline.core import console


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_says_now_and_then_how_far_it_is(clock, capsys, tmp_path):
    with console.logging_to(tmp_path / "stage.log"), console.progress("parsing", 12_000) as advance:
        for _ in range(100):  # ten a second
            clock[0] += 1
            advance(10)
        clock[0] += 1
        advance(10, "loss 0.1")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "parsing: 300 of 12,000, 20 min left",
        "parsing: 600 of 12,000, 19 min left",
        "parsing: 900 of 12,000, 18 min left",
    ]
    assert lines == (tmp_path / "stage.log").read_text().splitlines()[:3]  # where `status` finds the last


def test_what_a_stopped_run_did_is_no_pace(clock, capsys):
    with console.progress("train", 1000) as advance:
        advance(900)
        for _ in range(6):
            clock[0] += 10
            advance(10)
    assert capsys.readouterr().err.splitlines() == ["train: 930 of 1,000, 70 s left", "train: 960 of 1,000, 40 s left"]


def test_quick_work_and_other_processes_say_nothing(clock, capsys, monkeypatch):
    with console.progress("quick", 3) as advance:
        for _ in range(3):
            clock[0] += 9
            advance()
    monkeypatch.setattr(console, "RANK", 1)
    with console.progress("elsewhere", 3) as advance:
        clock[0] += 99
        advance()
    assert capsys.readouterr().err == ""


def test_work_without_a_known_end_says_what_is_done(clock, capsys):
    with console.progress("reading", None) as advance:
        clock[0] += 31
        advance(5, "loss 0.1")
    assert capsys.readouterr().err == "reading: 5, loss 0.1\n"


@pytest.mark.parametrize(("seconds", "said"), [(12.4, "12 s"), (600, "10 min"), (12_600, "3.5 h")])
def test_a_time_left_is_rough(seconds, said):
    assert console._span(seconds) == said


def test_a_name_that_is_not_utf8_is_said_and_logged_with_an_escape(capsys, tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")

    def stage():
        with console.logging_to(tmp_path / "stage.log"):
            console.say(f"left out: {name}")
            raise ValueError(name)

    with pytest.raises(ValueError, match="caf"):
        stage()
    assert capsys.readouterr().err == "left out: caf\\xe9.jpg\n"
    lines = (tmp_path / "stage.log").read_text().splitlines()
    assert lines[:2] == ["left out: caf\\xe9.jpg", "failed: ValueError: caf\\xe9.jpg"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\nb", "a\\x0ab"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\ud800", "\\ud800"),  # JSON can say that, and no file can hold it
        (os.fsdecode(b"\x9b1m"), "\\x9b1m"),
        ("naïve 人 é", "naïve 人 é"),
    ],
)
def test_what_a_terminal_would_obey_or_not_take_is_escaped(capsys, tmp_path, name, said):
    with console.logging_to(tmp_path / "stage.log"):
        console.say(name)
    assert capsys.readouterr().err == f"{said}\n"
    assert (tmp_path / "stage.log").read_text(encoding="utf-8").startswith(f"{said}\n")


@pytest.mark.parametrize(
    "address", ["https://me:pass@h/f", "ftp://me:p@ss@h/f", "http://h/f?sig=pass", "s3://pass@h?pass"]
)
def test_passwords_in_addresses_are_not_said(address):
    said = console.line(f"cannot get {address}: 404")
    assert "ss" not in said
    assert said.startswith("cannot get ")


def test_a_line_is_no_longer_than_one_reads():
    said = console.line("a" * 100_000 + "b")
    assert len(said) < 5000
    assert (said[0], said[-1]) == ("a", "b")


def test_a_name_that_looks_like_markup_does_not_stop_a_bar(monkeypatch):
    monkeypatch.setattr(console.sys, "stderr", Terminal())
    console.terminal.cache_clear()
    with console.progress("[/red].bin", 1) as advance:
        advance(1, "[/red]")
    console.terminal.cache_clear()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
