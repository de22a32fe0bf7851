from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.files.strict_json import MOST_DEPTH, json_object, strict_json

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


def _refused(word: str) -> NoReturn:
    raise AssertionError(f"{word} is no JSON")


def _expected(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _expected(each) for key, each in value.items()}
    return [_expected(each) for each in value] if isinstance(value, list | tuple) else value


@given(DOCUMENTS)
def test_every_reader_takes_it_and_only_what_is_no_number_is_lost(document: Any) -> None:
    assert json.loads(strict_json(document), parse_constant=_refused) == _expected(document)


@pytest.mark.parametrize(("before", "after"), [('{"a":', "}"), ("[", "]")])
def test_what_could_not_be_written_again_is_not_read(before: str, after: str) -> None:
    def nested(depth: int) -> str:
        return '{"a":' + before * (depth - 1) + "1" + after * (depth - 1) + "}"

    deepest = json_object(nested(MOST_DEPTH))
    assert deepest is not None
    assert json.loads(strict_json(deepest)) == deepest
    assert json_object(nested(MOST_DEPTH + 1)) is None
