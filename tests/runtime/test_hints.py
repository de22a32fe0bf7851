"""Mistyped names and numbers that mean nothing, on the command line and elsewhere."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.cli.arguments import filled, number, whole
from edgekit_runtime.cli.parser import Program
from edgekit_runtime.hints import FEW, did_you_mean, nearest

NAMES = st.lists(st.text("abcdefghij0123_-", min_size=3, max_size=12), min_size=1, max_size=20, unique=True)


@given(names=NAMES, data=st.data())
def test_a_name_is_nearest_to_itself_whatever_its_case(names: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names))
    found = nearest(name.upper(), names)
    assert found is not None
    assert found.replace("_", "-").replace("o", "0") == name.replace("_", "-").replace("o", "0")


@given(name=st.text(max_size=8), names=NAMES)
def test_what_mends_a_name_says_only_names_that_exist(name: str, names: list[str]) -> None:
    hint = did_you_mean(name, names)
    near = nearest(name, names)
    assert near is None or near in names
    if near is None or len(names) <= FEW:
        assert all(each in hint for each in names)


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("Q4_O", ("Q4_1", "Q4_0", "Q5_0"), "Q4_0"),
        ("q4km", ("Q4_K_S", "Q4_K_M"), "Q4_K_M"),
        ("rnu", ("run", "serve"), "run"),
        ("raspbery_pi_5", ("raspberry-pi-5", "raspberry-pi-4"), "raspberry-pi-5"),
        ("--quantise", ("--quantize", "--output"), "--quantize"),
        ("zzz", ("run", "serve"), None),
        ("", ("run",), None),
        (None, ("run",), None),
    ],
)
def test_the_nearest_name(name: object, known: tuple[str, ...], meant: str | None) -> None:
    assert nearest(name, known) == meant


def test_nothing_to_choose_from() -> None:
    assert did_you_mean("x", ()) == "there is none"


@given(text=st.text(max_size=6) | st.integers().map(str) | st.floats().map(str))
@pytest.mark.parametrize("read", [whole(1, 10), number(0, most=10), number(above=0)])
def test_a_number_is_possible_or_refused_in_words(read: Callable[[str], float], text: str) -> None:
    try:
        value = read(text)
    except argparse.ArgumentTypeError as error:
        said = str(error)
    else:
        assert math.isfinite(value)
        assert value >= 0
        return
    assert "use " in said or "is not a" in said


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "x", "", "1e999"])
def test_what_is_no_amount(text: str) -> None:
    for read in (number(0), number(above=0), whole(0)):
        with pytest.raises(argparse.ArgumentTypeError):
            read(text)
    with pytest.raises(argparse.ArgumentTypeError):
        filled("")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wrok"], "there is no command 'wrok': use one of work, rest; did you mean work?"),
        (["work", "--fsat"], "try work has no option --fsat: did you mean --fast?"),
        (["work", "--fsat=3", "a"], "did you mean --fast?"),
        (["work", "--mode", "sloww", "a"], "there is no --mode 'sloww': use one of slow, quick; did you mean slow?"),
        (["work", "a", "b"], "'b' is one argument too many"),
        (["--fast", "work"], "try has no option --fast: put options after the command"),
        (["work"], "what"),
        (["work", "--count", "0", "a"], "argument --count: 0 is not possible, use at least 1"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = Program("try", "Try.", "1")
    parser = program.command("work", "work", "try work", lambda _: None)
    parser.add_argument("what")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--mode", choices=("slow", "quick"))
    parser.add_argument("--count", type=whole())
    program.command("rest", "rest", "try rest", lambda _: None)
    assert program.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert message in said


def test_what_follows_two_dashes_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []
    program = Program("try", "Try.", "1")
    parser = program.command("work", "work", "try work", lambda given: seen.extend(given.what))
    parser.add_argument("what", nargs="*")
    parser.add_argument("--prompt")
    assert program.main(["work", "--prompt", "--- so: -- what", "--", "--odd"]) == 0, capsys.readouterr().err
    assert seen == ["--odd"]
