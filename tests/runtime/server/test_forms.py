"""What an answer has to follow, in each spelling that clients use."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit_runtime import InputError
from edgekit_runtime.server.openai.forms import ANY_OBJECT, read_form

SCHEMA = {"type": "integer", "minimum": 3}


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ({}, {}),
        ({"response_format": None, "guided_json": None, "structured_outputs": None}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"schema": ANY_OBJECT}),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, {"schema": SCHEMA}),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, {"schema": SCHEMA}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            {"schema": SCHEMA},
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": True}}}, {"schema": True}),
        ({"json_schema": SCHEMA}, {"schema": SCHEMA}),
        ({"guided_json": SCHEMA}, {"schema": SCHEMA}),
        ({"guided_json": '{"type": "integer", "minimum": 3}'}, {"schema": SCHEMA}),
        ({"structured_outputs": {"json": SCHEMA, "regex": None}}, {"schema": SCHEMA}),
        ({"structured_outputs": {"json_object": True}}, {"schema": ANY_OBJECT}),
        ({"structured_outputs": {"regex": "a+"}}, {"regex": "a+"}),
        ({"structured_outputs": {"grammar": "root ::= x"}}, {"grammar": "root ::= x"}),
        ({"structured_outputs": {"choice": ["a", "b"]}}, {"choice": ["a", "b"]}),
        ({"regex": "a+"}, {"regex": "a+"}),
        ({"guided_regex": "a+"}, {"regex": "a+"}),
        ({"grammar": "start: x"}, {"grammar": "start: x"}),
        ({"guided_grammar": "start: x"}, {"grammar": "start: x"}),
        ({"choice": ["a"]}, {"choice": ["a"]}),
        ({"guided_choice": ["a"]}, {"choice": ["a"]}),
    ],
)
def test_a_form_is_read_in_each_spelling(body: dict[str, Any], form: dict[str, Any]) -> None:
    assert read_form(body) == form


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"regex": "a", "choice": ["a"]}, "regex and choice"),
        ({"regex": "a", "guided_regex": "a"}, "regex and guided_regex"),
        (
            {"structured_outputs": {"json": SCHEMA, "regex": "a"}},
            "structured_outputs.json and structured_outputs.regex",
        ),
        ({"response_format": {"type": "json_object"}, "grammar": "x"}, "grammar and response_format"),
        (
            {"response_format": {"type": "json_schema", "schema": SCHEMA, "json_schema": {"schema": SCHEMA}}},
            "two schemas",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format has no schema"),
        ({"response_format": {"type": "structural_tag"}}, "not one of"),
        ({"response_format": "json_object"}, "not one of"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag is not available"),
        ({"structured_outputs": ["json"]}, "has to be an object"),
        ({"guided_json": "{"}, "guided_json is no JSON"),
        ({"guided_json": 3}, "guided_json has to be a JSON schema"),
        ({"regex": ["a"]}, "regex has to be text"),
        ({"choice": []}, "choice has to be a list of texts"),
        ({"choice": ["a", 1]}, "choice has to be a list of texts"),
        ({"guided_choice": ["a" * 70_000]}, "the choice has 70000 bytes"),
    ],
)
def test_a_form_that_is_none_is_refused(body: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refusal:
        read_form(body)
    assert words in str(refusal.value)
