"""Each keyword of JSON Schema is held or refused by name, and other forms of answers likewise."""

from __future__ import annotations

import json
import random
import re
import sys
from typing import Any

import jsonschema
import pytest

from edgekit_runtime import InputError, UsageError
from edgekit_runtime.constraints import compiled
from tests.runtime.constraints.walks import HELD, REFUSED, holds, walk

WALKS = 25
KEYWORDS = re.findall(
    r"\S+",
    """$anchor $comment $defs $dynamicAnchor $dynamicRef $id $ref $schema $vocabulary additionalItems
    additionalProperties allOf anyOf const contains contentEncoding contentMediaType contentSchema default definitions
    dependencies dependentRequired dependentSchemas deprecated description else enum examples exclusiveMaximum
    exclusiveMinimum format if items maxContains maxItems maxLength maxProperties maximum minContains minItems minLength
    minProperties minimum multipleOf not oneOf pattern patternProperties prefixItems properties propertyNames readOnly
    required then title type unevaluatedItems unevaluatedProperties uniqueItems writeOnly""",
)
BREAK = {"type": "object", "properties": {"a\nb": {"type": "integer"}}, "additionalProperties": True}
SAMPLES: dict[str, Any] = {  # where the tables have no schema of the keyword alone
    **{"$comment": "c", "$id": "https://example.org/s", "$schema": "https://json-schema.org/draft/2020-12/schema"},
    **{"writeOnly": True, "$defs": {"a": True}},
}


def validator(schema: Any) -> Any:
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


@pytest.mark.parametrize("name", HELD)
def test_all_that_a_grammar_allows_fits_the_schema(name: str) -> None:
    grammar, check, chosen = compiled(schema=HELD[name]), validator(HELD[name]), random.Random(name)
    assert grammar is not None
    answers = [answer for answer in (walk(grammar, chosen) for _ in range(WALKS)) if answer is not None]
    assert len(answers) > WALKS / 2
    for answer in answers:
        check.validate(json.loads(answer))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_held_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError) as refusal:
        compiled(schema=REFUSED[name])
    assert name in str(refusal.value)


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_each_keyword_of_the_drafts_is_in_one_of_the_tables(keyword: str) -> None:
    def says(node: Any) -> bool:
        if isinstance(node, dict):
            return keyword in node or any(map(says, node.values()))
        return isinstance(node, list) and any(map(says, node))

    if keyword in SAMPLES:
        compiled(schema={"type": "integer", keyword: SAMPLES[keyword]})
    else:
        assert any(says(schema) for schema in (*HELD.values(), *REFUSED.values()))


@pytest.mark.parametrize(
    ("schema", "answer", "fits"),
    [
        ({"type": "string"}, '"a\nb"', False),
        ({"type": "string"}, r'"a\nb"', True),
        ({"type": "string"}, r'"\ud800"', False),
        (BREAK, r'{"a\nb": 1}', True),
        (BREAK, r'{"a\u000ab": ""}', False),  # another spelling of the same name would let any value in
        ({"type": "string", "format": "date"}, '"2023-02-29"', False),
        ({"type": "string", "format": "date"}, '"2024-02-29"', True),
        ({"type": "string", "format": "date"}, '"1900-02-29"', False),
        ({"type": "string", "format": "time"}, '"12:00:60Z"', False),
        ({"type": "string", "format": "date-time"}, '"2024-02-29T23:59:59.5+01:00"', True),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{\n  "a": 1\n}', True),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1, "b": 1}', False),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, '{"a": 1, "b": 1}', True),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, '{"a": 1, "b": 1}', True),
        ({"type": "object", "properties": {"a": {}}, "patternProperties": {"^b": {}}}, '{"a": 1, "b": 1}', True),
        ({"type": "object"}, "{" + "\n" * 40 + "}", False),
    ],
)
def test_what_a_schema_allows(schema: dict[str, Any], answer: str, fits: bool) -> None:
    grammar = compiled(schema=schema)
    assert grammar is not None
    assert holds(grammar, answer) == fits


@pytest.mark.parametrize(
    ("form", "fits", "differs"),
    [
        ({"regex": "[0-9]{3}|x"}, ["123", "x"], ["12", "1234", "x1"]),
        ({"regex": "^a+$"}, ["aa"], ["", "b"]),
        ({"choice": ['é"\n\\', "b", "bc"]}, ['é"\n\\', "b", "bc"], ["", "c"]),
        ({"grammar": 'root ::= "yes" | "no" [0-9]+'}, ["yes", "no12"], ["no"]),
        ({"grammar": 'start: "a" NUMBER\nNUMBER: /[0-9]+/'}, ["a12"], ["a"]),
        ({"grammar": "start: T\nT: /[a-z]+/ & /.{2}/ & ~/a./"}, ["bc"], ["ab", "b"]),
    ],
)
def test_answers_follow_other_forms(form: dict[str, Any], fits: list[str], differs: list[str]) -> None:
    grammar = compiled(**form)
    assert grammar is not None
    assert all(holds(grammar, each) for each in fits)
    assert not any(holds(grammar, each) for each in differs)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"regex": "("}, "the regex can't be held"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"regex": "a{1000000000}"}, "the regex can't be held"),
        ({"grammar": "nonsense"}, "the grammar can't be read"),
        ({"grammar": "root ::= x"}, "Rule 'x' not found"),
        ({"grammar": "start: x"}, 'unknown name: "x"'),
        ({"grammar": 'root ::= "a" root'}, "the grammar can't be held"),
        ({"grammar": 'start: %json {"type": "string", "contentEncoding": "base64"}'}, "a JSON schema inside"),
        ({"grammar": "start: T\nT: " + " & ".join(["/.*a.*/"] * 40)}, "39 & in the grammar"),
        ({"schema": {"multipleOf": 999_983}}, "multipleOf"),
        ({"schema": {"properties": {"a": {}}, "required": [{"b": 1}]}}, "Expected string for 'required' item"),
        ({"schema": {"allOf": [{"multipleOf": 97}, {"multipleOf": 89}, {"multipleOf": 83}]}}, "multipleOf"),
        ({"schema": {"allOf": [{"pattern": f"[a-z]{{{n}}}x"} for n in range(40)]}}, "40 different patterns"),
        ({"schema": {"patternProperties": {f"^{n}[a-z]*$": {} for n in range(300)}}}, "300 patterns"),
    ],
)
def test_other_forms_that_cannot_be_held_are_refused(form: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refusal:
        compiled(**form)
    assert words in str(refusal.value)


def test_no_form_is_no_grammar_and_two_are_refused() -> None:
    assert compiled() is None
    with pytest.raises(UsageError, match="schema and choice"):
        compiled(schema=True, choice=["a"])


def test_a_device_without_llguidance_refuses_forms_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert compiled() is None
    with pytest.raises(InputError, match="llguidance, which is not installed"):
        compiled(schema={"type": "object"})
