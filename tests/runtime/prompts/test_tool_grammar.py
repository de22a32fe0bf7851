"""Whatever a grammar of calls allows is read back, and fits the function's parameters, in each form."""

from __future__ import annotations

import random
from typing import Any

import jsonschema
import pytest

from edgekit_runtime.constraints import compiled_rules
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.reasoning_tags import Tags
from edgekit_runtime.prompts.tool_format import Call, ToolFormat
from edgekit_runtime.prompts.tool_grammar import AUTO, NONE, REQUIRED, Held, call_grammar
from tests.runtime.constraints.walks import holds, walk
from tests.runtime.prompts.test_tool_format import FORMS

WALKS = 25
SHORT = {"type": "string", "enum": ["A", "B 7", "it"]}
JSON_FORMS = ("qwen2.5", "llama3", "mistral", "ministral", "granite", "command-r", "envelopes", "lfm2", "edgekit")
SPELT_FORMS = ("python", "function-gemma")
SCHEMAS: dict[str, dict[str, Any]] = {
    "none": {"type": "object", "properties": {}},
    "optional": {"type": "object", "properties": {"a": SHORT, "b": {"type": "boolean"}, "c": {"type": "null"}}},
    "required": {
        "type": "object",
        "properties": {"a": SHORT, "b": {"type": "integer", "minimum": 1, "maximum": 20}, "c": {"type": "boolean"}},
        "required": ["b"],
    },
    "last required": {
        "type": "object",
        "properties": {"a": SHORT, "b": {"const": 3}, "c": {"enum": ["x", "y"]}},
        "required": ["c"],
        "additionalProperties": False,
    },
    "list": {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "integer", "maximum": 9}, "minItems": 1, "maxItems": 3}
        },
        "required": ["a"],
    },
}
TEXT = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
NESTED: dict[str, dict[str, Any]] = {
    "either": {
        "type": "object",
        "properties": {"a": {"anyOf": [SHORT, {"type": "null"}]}, "b": {"type": ["boolean", "null"]}},
        "required": ["a"],
    },
    "object": {
        "type": "object",
        "properties": {
            "a": {"type": "object", "properties": {"b": SHORT, "c": {"type": "boolean"}}, "required": ["b"]}
        },
        "required": ["a"],
    },
    "tree": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/t"}},
        "required": ["a"],
        "$defs": {
            "t": {"type": "object", "properties": {"v": SHORT, "next": {"$ref": "#/$defs/t"}}, "required": ["v"]}
        },
    },
}
ALL = [(form, name) for form in (*JSON_FORMS, *SPELT_FORMS, "qwen3-coder") for name in SCHEMAS]
ALL += [(form, name) for form in (*JSON_FORMS, *SPELT_FORMS) for name in NESTED]


def tool(schema: Any, name: str = "measure") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def grammar(form: ToolFormat, tools: list[dict[str, Any]], choice: str = REQUIRED, **more: Any) -> str:
    text = call_grammar(Held(form, tools, choice, **more), {})
    return compiled_rules(text, text, "tools")


@pytest.mark.parametrize(("family", "name"), ALL)
def test_calls_that_a_grammar_allows_are_read_back_and_fit(family: str, name: str) -> None:
    form, schema = FORMS[family], (SCHEMAS | NESTED)[name]
    tools, chosen = [tool(schema)], random.Random(f"{family} {name}")
    held = grammar(form, tools, parallel=False)
    answers = [answer for answer in (walk(held, chosen) for _ in range(WALKS)) if answer is not None]
    assert len(answers) > WALKS / 4
    for answer in answers:
        text = answer.decode(errors="replace")
        content, calls = form.parse(text, tools)
        assert (content, [call.name for call in calls]) == ("", ["measure"]), text
        jsonschema.validate(calls[0].arguments, schema)


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("qwen2.5", '{"name": "measure", "arguments": {"a": "it\'s <b>\\n", "b": 1}}'),
        ("lfm2", 'measure(a="it\'s <b>\\n", b=1)'),
        ("python", "measure(a='it\\'s <b>\\n', b=1)"),
        ("function-gemma", "measure{a:<escape>it's <b>\n<escape>,b:1}"),
        ("qwen3-coder", "measure>\n<parameter=a>\nit's <b>\n\n</parameter>\n<parameter=b>\n1\n</parameter>\n"),
    ],
)
def test_any_text_may_stand_in_an_argument(family: str, text: str) -> None:
    form, tools = FORMS[family], [tool(TEXT)]
    answer = f"{form.opening}{text}{form.closing}"
    assert holds(grammar(form, tools), answer)
    assert form.parse(answer, tools) == ("", [Call("measure", {"a": "it's <b>\n", "b": 1})])


@pytest.mark.parametrize("family", FORMS)
def test_several_calls_come_where_they_may(family: str) -> None:
    form, chosen = FORMS[family], random.Random(family)
    tools = [tool(SCHEMAS["none"], "one"), tool(SCHEMAS["required"], "two")]
    counts, names = set(), set()
    held = grammar(form, tools)
    for answer in (walk(held, chosen) for _ in range(WALKS)):
        if answer is not None:
            _, calls = form.parse(answer.decode(errors="replace"), tools)
            counts.add(len(calls))
            names |= {call.name for call in calls}
    assert names == {"one", "two"}
    assert 1 in counts
    assert (max(counts) > 1) is form.parallel


@pytest.mark.parametrize("family", FORMS)
def test_text_is_free_until_a_call_begins(family: str) -> None:
    form = FORMS[family]
    tools = [tool(SCHEMAS["none"])]
    decides, silent = grammar(form, tools, AUTO), grammar(form, tools, NONE)
    for text in ("", "hello", '{"a": 1}', "a < b\n[x]", "检"):
        assert holds(decides, text), text
        assert holds(silent, text), text
    call = form.opening + next(iter(_written(form)))
    assert holds(decides, call)
    assert not holds(silent, call)
    if form.needle:
        assert holds(decides, f"I look.{form.gap}{call}")
        assert not holds(decides, f"{form.opening}nonsense")
        assert not holds(silent, f"I look.{form.gap}{form.opening}")


def _written(form: ToolFormat) -> list[str]:
    """A call without arguments, with what closes it."""
    held, chosen = grammar(form, [tool(SCHEMAS["none"])], parallel=False), random.Random(1)
    answer = next(filter(None, (walk(held, chosen) for _ in range(WALKS))))
    return [answer.decode().removeprefix(form.opening)]


def test_a_text_that_a_schema_holds_may_come_instead() -> None:
    form = FORMS["qwen2.5"]
    held = grammar(form, [tool(SCHEMAS["none"])], AUTO, schema={"type": "boolean"})
    assert holds(held, "true")
    assert not holds(held, "hello")
    assert holds(held, '<tool_call>\n{"name": "measure", "arguments": {}}\n</tool_call>')


def test_reasoning_comes_before_a_call() -> None:
    form, tags = FORMS["qwen3"], Tags("<think>", "</think>")
    tools = [tool(SCHEMAS["none"])]
    call = '<tool_call>\n{"name": "measure", "arguments": {}}\n</tool_call>'
    begun = grammar(form, tools, thinking=True, tags=tags)
    assert holds(begun, f"so <tool_call>\n</think>\n\n{call}")
    assert not holds(begun, call)
    may = grammar(form, tools, thinking=False, tags=tags)
    for text in (call, f"<think>\nso\n</think>\n\n{call}"):
        assert holds(may, text)
    assert not holds(may, "<think>\nso\n</think>\n\nhello")
    assert holds(grammar(form, tools, AUTO, thinking=False, tags=tags), "<think>\nso\n</think>\n\nhello")


@pytest.mark.parametrize(
    ("family", "node", "word"),
    [
        ("qwen2.5", {"type": "string", "not": {}}, "not"),
        ("qwen2.5", {"type": "array", "uniqueItems": True}, "uniqueItems"),
        ("python", {"type": "string", "pattern": "^a"}, "pattern"),
        ("function-gemma", {"type": "string", "format": "date"}, "pattern"),
        ("function-gemma", {"type": "string", "maxLength": 3}, "maxLength"),
        ("function-gemma", {}, "anything"),
        ("qwen3-coder", {"type": "string", "minLength": 3}, "minLength"),
        ("qwen3-coder", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "anything but one type"),
    ],
)
def test_what_a_form_cannot_hold_is_refused_by_name(family: str, node: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError) as refusal:
        grammar(FORMS[family], [tool({"type": "object", "properties": {"a": node}})])
    assert "tool 'measure'" in str(refusal.value)
    assert word in str(refusal.value)
