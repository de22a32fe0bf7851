"""Heads of adapters: what is read back, what is refused, and who is chosen."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.route import (
    MOST_SIGNS,
    ROUTE_SCHEMA,
    WORDS,
    Head,
    bounded,
    choose,
    read_head,
    user_text,
    word_counts,
)

GOOD = Head(np.linspace(-2, 2, WORDS + 4, dtype=np.float32), 0.5).as_json()
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*GOOD]), ANYTHING)
def test_a_head_with_any_other_value_is_read_or_refused(key: str, value: Any) -> None:
    try:
        head = read_head(GOOD | {key: value}, "head")
    except InputError:
        return
    assert np.isfinite(head.weights).all()
    assert math.isfinite(head.bias)


@settings(max_examples=50, deadline=None)
@given(ANYTHING)
def test_what_is_no_head_is_refused(document: Any) -> None:
    with pytest.raises(InputError):
        read_head(document, "head")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    weights = np.ones(WORDS, "<f2")
    weights[7] = value
    document = {"width": 0, "weights": base64.b64encode(weights.tobytes()).decode(), "bias": 0.0}
    with pytest.raises(InputError, match="no numbers"):
        read_head({"schema": ROUTE_SCHEMA, **document}, "head")


def test_a_head_of_zeros_or_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="all weights are 0"):
        read_head(Head(np.zeros(WORDS, np.float32), 0.0).as_json(), "head")
    with pytest.raises(InputError, match="doesn't hold"):
        read_head(GOOD | {"width": 5}, "head")
    for key in GOOD:
        with pytest.raises(InputError):
            read_head({name: value for name, value in GOOD.items() if name != key}, "head")


def test_the_surest_head_is_chosen_and_below_0_the_fallback() -> None:
    one, other = (np.eye(WORDS, dtype=np.float32)[n] for n in (0, 1))
    heads = {"a": Head(4 * one, -1.0), "b": Head(4 * other, -1.0)}
    route = choose(one, heads, "b")
    assert (route.adapter, route.fallback) == ("a", False)
    assert route.confidence == pytest.approx(math.exp(3) / (math.exp(3) + math.exp(-1) + 1))
    nobody = choose(np.zeros(WORDS, np.float32), heads, "b")
    assert (nobody.adapter, nobody.fallback) == ("b", True)
    assert nobody.confidence == pytest.approx(1 / (1 + 2 * math.exp(-1)))
    with pytest.raises(InputError, match="no numbers"):
        choose(np.full(WORDS, np.nan, np.float32), heads, None)


def test_the_users_words_alone_are_read_and_no_more_than_both_ends() -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "two"}]},
        {"role": "user", "content": None},
        "no message",
    ]
    assert user_text(messages) == "one\ntwo"  # type: ignore[arg-type]
    assert len(bounded("x" * 10 * MOST_SIGNS)) == MOST_SIGNS + 1
    assert not word_counts("… !?").any()
    assert np.linalg.norm(word_counts("one two \ud800")) == pytest.approx(1)
