from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.evaluation.scoring import bootstrap_interval, score, token_f1

objects = st.dictionaries(
    st.text(max_size=4), st.text(max_size=6) | st.integers() | st.booleans(), min_size=1, max_size=4
)


@given(st.lists(objects, min_size=1, max_size=5))
def test_the_reference_itself_is_perfect_however_its_keys_are_ordered(references: list[dict[str, object]]) -> None:
    texts = [json.dumps(each) for each in references]
    shuffled = [json.dumps(dict(reversed(each.items())), indent=1) for each in references]
    result = score(texts, shuffled)
    assert (result.exact, result.field_accuracy, result.valid_json) == (1, 1, 1)


def test_fields_are_counted_one_by_one() -> None:
    result = score(
        ['{"a": 1, "b": "x"}', '{"a": 2, "b": "y"}', '{"a": 3, "b": "z"}'],
        ['{"a": 1.0, "b": " x "}', '{"a": true, "b": "y"}', "no JSON"],
    )
    assert result.fields == {"a": pytest.approx(1 / 3), "b": pytest.approx(2 / 3)}
    assert result.per_row == (1.0, 0.5, 0.0)
    assert result.exact == pytest.approx(1 / 3)
    assert result.valid_json == pytest.approx(2 / 3)


def test_an_extra_field_is_not_exact_but_costs_no_field() -> None:
    result = score(['{"a": 1}'], ['{"a": 1, "b": 2}'])
    assert (result.exact, result.field_accuracy) == (0, 1)


def test_true_is_not_one() -> None:
    assert score(['{"a": 1}'], ['{"a": true}']).field_accuracy == 0


def test_text_is_scored_by_overlap() -> None:
    result = score(["the cat sat"], ["the cat"])
    assert result.kind == "text"
    assert result.token_f1 == pytest.approx(0.8)
    assert result.rouge_l == pytest.approx(0.8)


@given(st.text(), st.text())
def test_token_f1_is_bounded_symmetric_and_one_for_the_same(one: str, other: str) -> None:
    assert 0 <= token_f1(one, other) <= 1
    assert token_f1(one, other) == pytest.approx(token_f1(other, one))
    assert token_f1(one, one) == 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40))
def test_the_interval_holds_the_bounds_and_is_the_same_each_time(values: list[float]) -> None:
    low, high = bootstrap_interval(values)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (low, high) == bootstrap_interval(values)


def test_answers_and_references_have_to_pair_up() -> None:
    with pytest.raises(ValueError, match="1 answers to 2 references"):
        score(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="0 references"):
        score([], [])
