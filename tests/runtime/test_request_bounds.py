"""Requests that are too large for any answer are refused before anything is made of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.request_bounds import (
    DEEPEST_SCHEMA,
    LONGEST_STOP,
    MOST_CHOICES,
    MOST_OPTIONAL,
    MOST_SCHEMA_BYTES,
    MOST_STOPS,
    check_schema,
    check_stops,
    check_text,
)
from edgekit_runtime.runtime import Runtime
from tests.goods import Goods

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def _object(optional: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{number}": {"type": "null"} for number in range(optional)}}


SCHEMAS = [
    ({"enum": [str(number) for number in range(MOST_CHOICES + 1)]}, "enum has"),
    ({"anyOf": [{"const": number} for number in range(MOST_CHOICES + 1)]}, "anyOf has"),
    ({"type": "array", "items": {"enum": list(range(MOST_CHOICES + 1))}}, "enum has"),
    ({"const": "x" * MOST_SCHEMA_BYTES}, "bytes"),
    (_deep(DEEPEST_SCHEMA + 1), "nested"),
    (_deep(100_000), "bytes"),
    (_object(MOST_OPTIONAL + 1), "optional"),
]


@pytest.mark.parametrize(("schema", "said"), SCHEMAS, ids=lambda case: case if isinstance(case, str) else "")
def test_a_schema_that_would_hold_the_engine_up_is_refused(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [str(number) for number in range(MOST_CHOICES)]},
        _deep(DEEPEST_SCHEMA // 2),
        _object(MOST_OPTIONAL),
        _object(200) | {"required": [f"p{number}" for number in range(200)]},
    ],
    ids=["enum", "deep", "optional", "required"],
)
def test_a_large_schema_within_bounds_is_taken(schema: dict[str, Any]) -> None:
    check_schema(schema)


@given(st.dictionaries(st.sampled_from(["properties", "required", "enum", "anyOf", "items", "x"]), JSON, max_size=4))
def test_no_schema_is_a_traceback(schema: dict[str, Any]) -> None:
    check_schema(schema)


def test_stops_are_few_and_short() -> None:
    check_stops(["x" * LONGEST_STOP] * MOST_STOPS)
    for stops in (["x"] * (MOST_STOPS + 1), ["x" * (LONGEST_STOP + 1)]):
        with pytest.raises(InputError, match="stop at"):
            check_stops(stops)


@pytest.mark.parametrize(
    "values",
    [
        ["x" * 1001],
        ["é" * 501],
        [{"role": "user", "content": "x" * 1001}],
        [{"role": "user", "content": [{"type": "text", "text": "x" * 500}] * 3}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"k" * 1001: 1}}}]}],
        [{"role": "user", "content": "x"}] * 101,
    ],
    ids=["text", "bytes, not characters", "message", "parts", "keys of arguments", "messages"],
)
def test_text_that_no_context_can_hold_is_refused(values: list[Any]) -> None:
    with pytest.raises(InputError, match="can't fit a context of 100 tokens"):
        check_text(values, context=100, longest_token=10)


@given(st.lists(JSON, max_size=5))
def test_no_message_is_a_traceback(values: list[Any]) -> None:
    check_text(values, context=10**6, longest_token=10)


def test_the_runtime_asks_before_it_reads(goods: Goods, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime(goods.bundle, threads=1, context=256) as runtime:

        def read(*_: object, **__: object) -> None:
            raise AssertionError("it was read")

        monkeypatch.setattr(runtime._prompts, "_tokenize", read)
        hostile: list[dict[str, Any]] = [
            {"prompt": "<|im_end|>" * 40_000},
            {"raw": "x" * 1_000_000},
            {"messages": [{"role": "user", "content": "x"}] * 20_000},
            {"prompt": "x", "stop": ["x"] * 100_000},
            {"prompt": "x", "schema": {"enum": [str(number) for number in range(60_000)]}},
        ]
        for options in hostile:
            with pytest.raises(InputError):
                runtime.stream(**options)
