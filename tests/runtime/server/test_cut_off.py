"""Answers that are cut off in the middle of a call: every protocol says the same, whole and as a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgekit_runtime.prompts.tool_format import DEFAULT_FORMAT, Call, default_text
from tests.runtime.server.answers import Saying, post, result

ONE, OTHER = Call("set_speed", {"value": 105}), Call("stop_line", {})
TEXT = f"So: {default_text([ONE])} and\n{default_text([OTHER])}"
CUTS = sorted({0, 2, 3, len(TEXT), *range(4, len(TEXT), 7), *(TEXT.index(each) + 3 for each in ("</tool", " and"))})
READING = {"form": DEFAULT_FORMAT.as_json(), "tools": [], "thinking": False}
TOOL = {"name": "set_speed", "parameters": {"type": "object", "properties": {}}}
ASKED = [{"role": "user", "content": "faster"}]
# What of a text and calls is told: (kind, text or name and arguments) in their order.
Told = list[tuple[str, Any]]


def call_of(name: str, arguments: str | dict[str, Any]) -> tuple[str, Any]:
    return "call", (name, json.loads(arguments) if isinstance(arguments, str) else arguments)


def merged(told: Told) -> Told:
    found: Told = []
    for kind, what in told:
        if kind == "text" and found and found[-1][0] == "text":
            found[-1] = ("text", found[-1][1] + what)
        elif what:
            found.append((kind, what))
    return found


def chat(answer: Any) -> Told:
    message = answer["choices"][0]["message"]
    return [
        ("text", message["content"] or ""),
        *(call_of(**each["function"]) for each in message.get("tool_calls") or ()),
    ]


def streamed_chat(documents: list[Any]) -> Told:
    text, calls = "", list[dict[str, Any]]()
    for delta in (each["choices"][0]["delta"] for each in documents):
        text += delta.get("content") or ""
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                calls.append({"name": call["function"]["name"], "arguments": ""})
            calls[call["index"]]["arguments"] += call["function"]["arguments"]
    return [("text", text), *(call_of(**each) for each in calls)]


def messages(answer: Any) -> Told:
    return [
        ("text", each["text"]) if each["type"] == "text" else call_of(each["name"], each["input"])
        for each in answer["content"]
    ]


def streamed_messages(documents: list[Any]) -> Told:
    told: Told = []
    for each in documents:
        if each["type"] == "content_block_start" and each["content_block"]["type"] == "tool_use":
            told.append(("call", each["content_block"]["name"]))
        elif each["type"] == "content_block_delta":
            delta = each["delta"]
            if delta["type"] == "text_delta":
                told.append(("text", delta["text"]))
            else:
                told[-1] = call_of(told[-1][1], delta["partial_json"])
    return told


def responses(answer: Any) -> Told:
    return [
        call_of(each["name"], each["arguments"])
        if each["type"] == "function_call"
        else ("text", each["content"][0]["text"])
        for each in answer["output"]
    ]


def ollama(answer: Any) -> Told:
    return streamed_ollama([answer])


def streamed_ollama(documents: list[Any]) -> Told:
    told: Told = []
    for message in (each["message"] for each in documents):
        told.append(("text", message["content"]))
        told += [
            call_of(each["function"]["name"], each["function"]["arguments"]) for each in message.get("tool_calls", ())
        ]
    return told


def unordered(told: Told) -> Told:
    """Where a whole answer has one text beside its calls."""
    text = "".join(what for kind, what in told if kind == "text")
    return merged([("text", text), *(each for each in told if each[0] == "call")])


FUNCTION = {"type": "function", "function": TOOL}
PROTOCOLS: dict[str, tuple[str, dict[str, Any], Any, Any, bool]] = {
    "chat": ("/v1/chat/completions", {"messages": ASKED, "tools": [FUNCTION]}, chat, streamed_chat, False),
    "messages": (
        "/v1/messages",
        {"max_tokens": 9, "messages": ASKED, "tools": [{"name": "set_speed", "input_schema": TOOL["parameters"]}]},
        messages,
        streamed_messages,
        True,
    ),
    "responses": (
        "/v1/responses",
        {"input": "faster", "tools": [{"type": "function", **TOOL}]},
        responses,
        lambda documents: responses(documents[-1]["response"]),
        True,
    ),
    "ollama": ("/api/chat", {"messages": ASKED, "tools": [FUNCTION]}, ollama, streamed_ollama, False),
}


def expected(cut: int) -> Told:
    """What is said and called up to there, by hand."""
    first, second = TEXT.index("}}") + 2, TEXT.rindex("}") + 1  # where the calls are whole
    behind = TEXT.index(" and"), TEXT.index("\n<tool_call>", first)
    told: Told = [("text", TEXT[: min(cut, 4)].removesuffix("<")), *([call_of(*vars_of(ONE))] if cut >= first else [])]
    said = TEXT[behind[0] : min(cut, behind[1])] if cut > behind[0] else ""
    told += [("text", said if said.strip() else ""), *([call_of(*vars_of(OTHER))] if cut >= second else [])]
    return merged(told)


def vars_of(call: Call) -> tuple[str, dict[str, Any]]:
    return call.name, call.arguments


@pytest.mark.parametrize("reason", ["length", "stop text"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_half_a_call_is_neither_call_nor_text(protocol: str, reason: str) -> None:
    path, body, whole_of, streamed_of, ordered = PROTOCOLS[protocol]
    more = {"finish_reason": "length"} if reason == "length" else {"stop_text": "x"}
    for cut in CUTS:
        pieces = [TEXT[at : min(at + 5, cut)] for at in range(0, cut, 5)]
        events = [{"op": "accepted", "prompt_tokens": 9, "calls": READING}]
        events += [{"op": "text", "text": each, "scores": []} for each in pieces]
        events.append({"op": "done", "value": result(text="not read", **more)})
        whole = post(Saying(events), path, {"model": "base", "stream": False, **body})
        streamed = post(Saying(events), path, {"model": "base", "stream": True, **body})
        assert (whole.status_code, streamed.status_code) == (200, 200), whole.text
        lines = (each.removeprefix("data: ") for each in streamed.text.splitlines())
        found = merged(streamed_of([json.loads(each) for each in lines if each.startswith("{")]))
        wanted = expected(cut)
        assert merged(whole_of(whole.json())) == (wanted if ordered else unordered(wanted)), TEXT[:cut]
        assert (found if ordered or protocol == "ollama" else unordered(found)) == (
            wanted if ordered or protocol == "ollama" else unordered(wanted)
        ), TEXT[:cut]


def test_a_whole_call_is_complete_in_a_response_that_is_not() -> None:
    for said, statuses in (("", ["completed"]), (" so", ["completed", "incomplete"])):
        text = default_text([ONE]) + said
        events = [
            {"op": "accepted", "prompt_tokens": 9, "calls": READING},
            {"op": "text", "text": text, "scores": []},
            {"op": "done", "value": result(text="", finish_reason="length")},
        ]
        path, body, *_ = PROTOCOLS["responses"]
        whole = post(Saying(events), path, {"model": "base", **body}).json()
        assert whole["status"] == "incomplete"
        assert [each["status"] for each in whole["output"]] == statuses
