"""JSON answers: which fields are free text, and how much of a field is right."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.evaluation.answers import ITEM, agreement, free_text_fields, json_object, same, token_f1
from edgekit.evaluation.scoring import Yardstick, score

REPORTS = [
    "scratch of 190 µm within 0.20 mm on underside: scrap",
    "dent of 2 mm beyond tolerance on the flange: rework",
    "no defect was found on the bracket at all",
    "burr of 0.1 mm on the inner edge: pass",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def _rows(**fields: list[Any]) -> list[str]:
    return [json.dumps(dict(zip(fields, values, strict=True))) for values in zip(*fields.values(), strict=True)]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": [-Infinity]}',
        "[1]",
        '"a"',
        "",
        '{"a": 1} and more',
        '{"a": ' + "[" * 100_000,
    ],
)
def test_what_is_no_json_object_is_none(text: str) -> None:
    assert json_object(text) is None


def test_an_answer_with_nan_is_wrong_even_where_the_reference_has_it() -> None:
    assert score(['{"a": 1}'], ['{"a": NaN}']).valid_json == 0
    result = score(['{"a": 1e999}'], ['{"a": 1e999}'])  # overflows to infinity when read
    assert (result.field_accuracy, result.exact) == (0, 0)


def test_a_key_that_is_there_twice_with_two_values_is_never_right() -> None:
    result = score(['{"a": 1, "b": 2}'], ['{"a": 2, "a": 1, "b": 2}'])
    assert (result.fields, result.exact) == ({"a": 0, "b": 1}, 0)
    assert score(['{"a": 1}'], ['{"a": 1, "a": 1.0}']).exact == 1  # the same value twice leaves no doubt


def test_free_text_is_told_from_the_references() -> None:
    references = _rows(
        report=REPORTS,
        part=["valve body", "bracket", "flange", "housing"],  # short
        action=["check the bearing today please"] * 4,  # one value
        count=[1, 2, 3, 4],
        ok=[True, False, True, True],
    )
    assert free_text_fields(references) == {("report",)}


def test_a_text_of_few_values_is_no_free_text() -> None:
    references = _rows(action=["check the bearing today"] * 5 + ["stop the line at once"])
    assert free_text_fields(references) == frozenset()
    schema = {"type": "object", "properties": {"action": {"type": "string"}}}
    assert free_text_fields(references, schema) == {("action",)}  # anything may stand there


@pytest.mark.parametrize(
    "limit",
    [{"enum": REPORTS}, {"const": REPORTS[0]}, {"pattern": ".*"}, {"format": "date"}],
    ids=lambda limit: next(iter(limit)),
)
def test_what_a_schema_limits_is_no_free_text(limit: dict[str, Any]) -> None:
    schema = {"properties": {"report": {"type": "string"} | limit}}
    assert free_text_fields(_rows(report=REPORTS), schema) == frozenset()
    either = {"properties": {"report": {"anyOf": [{"type": "string"}, {"type": "string"} | limit]}}}
    assert free_text_fields(_rows(report=REPORTS), either) == frozenset()


def test_a_schema_is_followed_into_objects_lists_and_references() -> None:
    references = _rows(found=[[{"note": text, "kind": text}] for text in REPORTS])
    schema = {
        "$defs": {"item": {"properties": {"note": {"type": ["string", "null"]}, "kind": {"enum": REPORTS}}}},
        "properties": {"found": {"type": "array", "items": {"$ref": "#/$defs/item"}}},
    }
    assert free_text_fields(references, schema) == {("found", ITEM, "note")}


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {"properties": {"inner": {"$ref": "#"}, "note": {"type": "string"}}}
    assert free_text_fields(_rows(note=REPORTS), schema) == {("note",)}


def test_answers_that_are_not_all_json_have_no_fields() -> None:
    assert free_text_fields([*_rows(report=REPORTS), "plain"]) == frozenset()


def test_free_text_is_scored_as_text_and_exact_stays_exact() -> None:
    references = _rows(report=REPORTS, verdict=["scrap", "rework", "pass", "pass"])
    answers = [
        json.dumps({"report": each["report"].replace("mm", "cm"), "verdict": each["verdict"]})
        for each in map(json.loads, references)
    ]
    result = score(references, answers)
    assert result.fields["verdict"] == 1
    assert 0.8 < result.fields["report"] < 1
    assert result.exact == 0.25  # one of the reports has no mm
    assert score(references, answers, Yardstick()).fields["report"] == 0.25


def test_free_text_that_is_no_text_is_wrong() -> None:
    assert agreement(REPORTS[0], 5, frozenset({("report",)}), ("report",)) == 0
    assert agreement(None, REPORTS[0], frozenset({("report",)}), ("report",)) == 0


@pytest.mark.parametrize(
    ("want", "got", "right"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, 0.5),
        ({"a": 1}, {"a": 1, "b": 2}, 0.5),
        ({"a": 1}, [1], 0),
        ({}, {}, 1),
        ({}, {"a": 1}, 0),
        ([1, 2], [1], 0.5),
        ([1], [1, 2, 3, 4], 0.25),
        ([1, 2], [2, 1], 0),
        ([], [], 1),
        ([], [1], 0),
        (1, 1.0, 1),
        (1, True, 0),
        (0, False, 0),
        (None, None, 1),
        (None, 0, 0),
        ("a  b", " a b ", 1),
        ("A", "a", 0),
    ],
)
def test_agreement_counts_what_is_right(want: Any, got: Any, right: float) -> None:
    assert agreement(want, got) == pytest.approx(right)


@given(JSON)
def test_a_value_agrees_with_itself(value: Any) -> None:
    assert agreement(value, json.loads(json.dumps(value))) == pytest.approx(1)
    assert same(value, value)


@given(JSON, JSON)
def test_agreement_is_a_share_and_whole_only_for_the_same(one: Any, other: Any) -> None:
    found = agreement(one, other)
    assert 0 <= found <= 1
    assert (found == pytest.approx(1)) == same(one, other)


def test_no_depth_breaks_the_comparison() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert agreement(deep, deep) in (0.0, 1.0)
    assert same(deep, deep) in (True, False)


def test_texts_without_a_word_are_the_same_only_when_they_are() -> None:
    assert token_f1("!", "?") == 0
    assert token_f1("!", " ! ") == 1
    assert token_f1("", "") == 1
