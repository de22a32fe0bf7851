"""Calls are compared by what they do, and nothing that can't be read is right."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data import Row
from edgekit.evaluation.calls import Said, call_reader, call_reader_for, call_shares, mark_calls
from edgekit.evaluation.evaluate import Evaluation
from edgekit.evaluation.scoring import Score, Yardstick, score
from edgekit.evaluation.table import evaluation_table
from edgekit_runtime.prompts.tool_format import DEFAULT_FORMAT, Call, ToolFormat, default_text

OK = "You're welcome."
NOTHING = Said("", (), parsable=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text("ab 1"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=6,
)
calls = st.lists(st.tuples(st.sampled_from(["read", "set"]), st.dictionaries(st.text("xyz", min_size=1), values)))


def call(name: str = "read", **arguments: Any) -> Call:
    return Call(name, arguments)


def said(*made: Call, text: str = "") -> Said:
    return Said(text, made, parsable=True)


def scored(*pairs: tuple[str, str]) -> Score:
    return score(
        [want for want, _ in pairs], [got for _, got in pairs], Yardstick(read_calls=call_reader(DEFAULT_FORMAT))
    )


@pytest.mark.parametrize(
    ("want", "got"),
    [
        (call(n=1), call(n=1.0)),
        (call(a=1, b="x y"), call(b="x  y", a=1)),
        (call(a={"b": [1, {"c": None}]}), call(a={"b": [1, {"c": None}]})),
        (call(), call()),
    ],
)
def test_arguments_are_equal_by_value_and_not_by_text(want: Any, got: Any) -> None:
    marks = mark_calls(said(want), said(got))
    assert (marks.names, marks.arguments, marks.exact, marks.value) == (True, True, True, 1.0)


@pytest.mark.parametrize(
    ("got", "names", "arguments"),
    [
        ([call(n=2)], True, False),
        ([call(n=True)], True, False),
        ([call(n="1")], True, False),
        ([call(n=1, m=1)], True, False),
        ([call()], True, False),
        ([call(n=math.nan)], True, False),
        ([call("set", n=1)], False, True),
        ([call(n=1), call(n=1)], False, False),
        ([], False, False),
    ],
)
def test_name_arguments_and_number_have_to_be_right(got: list[Any], names: bool, arguments: bool) -> None:
    marks = mark_calls(said(call(n=1)), said(*got))
    assert (marks.names, marks.arguments, marks.exact, marks.value) == (names, arguments, False, 0.0)


def test_calls_have_an_order() -> None:
    both = call(n=1), call("set", n=2)
    assert mark_calls(said(*both), said(*both)).exact
    assert not mark_calls(said(*both), said(*both[::-1])).exact


def test_nothing_in_an_answer_that_cannot_be_read_is_right() -> None:
    for reference in (said(call(n=1)), said(text=OK), said(text="")):
        for answer in (NOTHING, Said(reference.text, reference.calls, parsable=False)):
            marks = mark_calls(reference, answer)
            assert (marks.exact, marks.value, marks.names, marks.arguments) == (False, 0, False, False)


@given(calls, calls)
def test_an_answer_is_right_where_it_is_the_reference_and_nowhere_else(want: list[Any], got: list[Any]) -> None:
    one, other = (said(*(call(name, **arguments) for name, arguments in each), text=OK) for each in (want, got))
    assert mark_calls(one, one).exact
    assert mark_calls(one, one).value == 1
    assert mark_calls(one, other).exact == mark_calls(other, one).exact
    if [name for name, _ in want] != [name for name, _ in got]:
        assert mark_calls(one, other).value == 0


def test_a_score_has_the_shares_of_both_kinds_of_rows() -> None:
    right, other = default_text([call(n=1)]), default_text([call(n=2)])
    result = scored((right, right), (right, other), (right, OK), (right, right[:-20]), (OK, OK), (OK, right), (OK, ""))
    assert (result.kind, result.metric, result.rows) == ("calls", "tool_accuracy", 7)
    assert result.per_row == (1, 0, 0, 0, 1, 0, 0)
    assert result.value == result.exact == pytest.approx(2 / 7)
    assert result.calls is not None
    assert (result.calls.whole, result.calls.names, result.calls.arguments) == (1 / 4, 2 / 4, 1 / 4)
    assert (result.calls.parsable, result.calls.false_calls, result.calls.text) == (5 / 7, 1 / 3, 1 / 3)


def test_a_text_where_no_call_is_due_counts_by_its_words() -> None:
    result = scored((OK, "You are welcome."), (default_text([call()]), default_text([call()])))
    assert result.per_row[0] == pytest.approx(0.4)
    assert result.exact == 0.5


def test_a_share_of_no_rows_is_none() -> None:
    shares = call_shares([mark_calls(said(text=OK), said(text=OK))])
    assert (shares.whole, shares.names, shares.arguments, shares.false_calls) == (None, None, None, 0)
    assert call_shares([mark_calls(said(call()), said(call()))]).false_calls is None


def test_reasoning_before_a_call_is_no_part_of_it() -> None:
    right = default_text([call(n=1)])
    assert scored((right, f"<think>\nwhat?\n</think>\n\n{right}")).exact == 1


def test_the_table_of_an_evaluation_shows_each_share() -> None:
    right = default_text([call(n=1)])
    base, trained = scored((right, "no"), (right, "no")), scored((right, right), (right, right[:-20]))
    table = evaluation_table([Evaluation("operator", "torch", "Q4_0", 2, 40, base, trained, [])])
    heading, *rows = (re.split(r"\s{2,}", line.strip()) for line in table.splitlines()[1:])
    named = {cells[0]: dict(zip(heading, cells[1:], strict=False)) for cells in rows}
    assert (named["base"]["calls right"], named["base"]["parsable"]) == ("0.0", "100.0")
    shown = {name: named["operator"][name] for name in ("tool accuracy", "calls right", "names right", "parsable")}
    assert set(shown.values()) == {"50.0"}


def test_calls_of_rows_are_read_where_the_answer_tells_them_and_texts_are_compared_otherwise() -> None:
    reply = {"role": "assistant", "content": None, "tool_calls": [call(n=1).message_form()]}
    asked = ({"role": "user", "content": "?"},)
    row = Row(asked, default_text([call(n=1)]), (), "rows.jsonl:1", (), reply)
    assert call_reader_for([Row(asked, "fine", (), "")], DEFAULT_FORMAT) is None
    read = call_reader_for([row], DEFAULT_FORMAT)
    assert read is not None
    assert read(row.answer, ()).calls == [call(n=1)]
    assert call_reader_for([row], ToolFormat(None, why="strange")) is None
    assert call_reader_for([replace(row, answer=default_text([call(n=2)]))], DEFAULT_FORMAT) is None


@pytest.mark.parametrize(
    ("text", "parsable"),
    [("fine", True), ("", False), (" \n", False), ('{"name": "read", "argum', False), ('see {"name": 1}', True)],
)
def test_without_a_sign_half_a_call_is_told_by_how_calls_begin(text: str, parsable: bool) -> None:
    form = replace(DEFAULT_FORMAT, opening="", closing="", between="")
    assert call_reader(form)(text, ()).parsable == parsable
