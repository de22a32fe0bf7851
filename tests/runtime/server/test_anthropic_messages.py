"""Anthropic's Messages API without an engine: what is asked becomes a chat, and events add up to the message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from edgekit_runtime.errors import InputError, TargetError
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.server.anthropic.blocks import Blocks
from edgekit_runtime.server.anthropic.conversation import conversation
from edgekit_runtime.server.anthropic.requests import read_messages, read_to_count
from edgekit_runtime.server.anthropic.writing import anthropic_error
from edgekit_runtime.server.parts import Part
from edgekit_runtime.server.refusals import Refused
from tests.runtime.server.answers import PARTS, Saying, post, result

PATH = "/v1/messages"
ASKED = [{"role": "user", "content": "q"}]
BODY: dict[str, Any] = {"model": "base", "max_tokens": 9, "messages": ASKED}
ACCEPTED = {"op": "accepted", "prompt_tokens": 9}
CALL = {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}
CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
PNG = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def tool_result(**more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "c"} | more


@pytest.mark.parametrize(
    ("turns", "messages"),
    [
        (ASKED, ASKED),
        ([{"role": "user", "content": []}], [{"role": "user", "content": ""}]),
        ([*ASKED, *ASKED], [{"role": "user", "content": "q\n\nq"}]),
        ([{"role": "user", "content": [text("a"), text("b")]}], [{"role": "user", "content": "a\n\nb"}]),
        (
            [{"role": "user", "content": [text("a"), {"type": "image", "source": PNG}, text("b"), text("c")]}],
            [
                {
                    "role": "user",
                    "content": [
                        text("a"),
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                        text("b\n\nc"),
                    ],
                }
            ],
        ),
        (
            [
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, text("a"), CALL],
                }
            ],
            [{"role": "assistant", "content": "a", "reasoning_content": "hm", "tool_calls": [CALLED]}],
        ),
        (
            [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}, CALL]}],
            [{"role": "assistant", "content": None, "tool_calls": [CALLED]}],
        ),
        ([{"role": "assistant", "content": ""}], [{"role": "assistant", "content": ""}]),
        (
            [{"role": "user", "content": [tool_result(content="1"), tool_result(content=[text("2")]), text("q")]}],
            [
                {"role": "tool", "tool_call_id": "c", "content": "1"},
                {"role": "tool", "tool_call_id": "c", "content": "2"},
                {"role": "user", "content": "q"},
            ],
        ),
        (
            [{"role": "user", "content": [tool_result(content="no file", is_error=True), tool_result()]}],
            [
                {"role": "tool", "tool_call_id": "c", "content": "Error: no file"},
                {"role": "tool", "tool_call_id": "c", "content": ""},
            ],
        ),
    ],
)
def test_turns_become_messages(turns: Any, messages: list[dict[str, Any]]) -> None:
    assert conversation(None, turns) == messages


def test_the_system_comes_first() -> None:
    for system in ("a\n\nb", [text("a"), text("b") | {"cache_control": {"type": "ephemeral"}}]):
        assert conversation(system, ASKED) == [{"role": "system", "content": "a\n\nb"}, *ASKED]
    assert conversation([], ASKED) == conversation("", ASKED) == ASKED


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (1, "message 1 has no known role"),
        ({"role": "robot", "content": "x"}, "message 1 has no known role"),
        ({"role": "user"}, "message 1 has no content"),
        ({"role": "user", "content": [1]}, "message 1 has no content"),
        ({"role": "user", "content": [{"type": "document"}]}, "a block of type 'document'"),
        ({"role": "user", "content": [{"type": []}]}, "a block without a type"),
        ({"role": "user", "content": [{"type": "text"}]}, "a text block without text"),
        ({"role": "user", "content": [CALL]}, "a block of type 'tool_use'"),
        ({"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}, "without a source"),
        ({"role": "user", "content": [{"type": "tool_result"}]}, "without tool_use_id"),
        ({"role": "user", "content": [tool_result(content=[{"type": "document"}])]}, "a block of type 'document'"),
        ({"role": "assistant", "content": [{"type": "tool_use", "id": "c"}]}, "without id, name or input"),
        ({"role": "assistant", "content": [{"type": "server_tool_use"}]}, "a block of type 'server_tool_use'"),
    ],
)
def test_blocks_of_other_kinds_are_refused(turn: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        conversation(None, [turn])


def test_a_request_becomes_arguments_of_the_runtime() -> None:
    asked = read_messages(
        BODY
        | {"stop_sequences": ["x"], "temperature": 0.5, "top_k": 3, "top_p": 0.9}
        | {"thinking": {"type": "enabled", "budget_tokens": 7}, "cache_control": {"type": "ephemeral"}}
        | {"tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}, "type": "custom"}]}
        | {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}}
    )
    (options,) = asked.options
    assert asked.splits
    assert asked.reasons
    assert (options["max_tokens"], options["stop"], options["top_k"]) == (9, ["x"], 3)
    assert (options["chat_template_kwargs"], options["thinking_budget"]) == ({"enable_thinking": True}, 7)
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    assert options["tools"] == [{"type": "function", "function": function}]
    assert options["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert options["parallel_tool_calls"] is False
    assert not options["continue_final_message"]
    going_on = read_messages({**BODY, "messages": [*ASKED, {"role": "assistant", "content": "It"}]})
    assert going_on.options[0]["continue_final_message"] is True
    omitted = {"type": "adaptive", "display": "omitted"}
    assert not read_messages({**BODY, "thinking": omitted}).reasons


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": None}, "max_tokens is missing"),
        ({"max_tokens": 0}, "max_tokens has to be"),
        ({"messages": "q"}, "messages has to be a list"),
        ({"system": 1}, "system has no content"),
        ({"system": [{"type": "image"}]}, "system has a block of type 'image'"),
        ({"stop_sequences": [""]}, "stop_sequences has to be"),
        ({"stop": ["x"]}, "send stop_sequences"),
        ({"thinking": {"type": "enabled"}}, "has no budget_tokens"),
        ({"thinking": {"type": "disabled", "budget_tokens": 5}}, "needs type enabled"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type 'between_tools' is not available"),
        ({"tool_choice": "auto"}, "tool_choice has to be an object"),
        ({"tool_choice": {"name": "f"}}, "tool_choice has no type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice names no tool"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tool 1 is of type 'bash_20250124'"),
        ({"tools": [{"name": "f"}]}, "tool 1 has no name or no input_schema"),
        ({"output_config": {"format": {"type": "text"}}}, "is no json_schema with a schema"),
        ({"output_config": {"effort": "max"}}, "output_config.effort 'max'"),
        ({"mcp_servers": [{}]}, "mcp_servers is not available"),
        ({"metadata": 1}, "metadata has to be an object"),
    ],
)
def test_what_is_not_done_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_messages(BODY | change)


def test_a_thread_is_refused_so_that_clients_do_without() -> None:
    error = post(Saying([]), PATH, BODY | {"thread": {"type": "create"}})
    assert error.status_code == 400
    assert error.json()["error"]["details"] == {"error_code": "thread_unsupported_request"}


def test_a_prompt_is_counted_without_a_limit() -> None:
    assert read_to_count({"model": "base", "messages": ASKED}).options[0]["messages"] == ASKED


@given(PARTS)
def test_events_add_up_to_the_blocks(parts: list[Part]) -> None:
    blocks = Blocks()
    events = [event for part in parts for event in blocks.add(part)]
    events += blocks.end()
    content: list[dict[str, Any]] = []
    arguments: dict[int, str] = {}
    stopped = 0
    for event in events:
        index = event["index"]
        match event["type"]:
            case "content_block_start":
                assert index == len(content) == stopped
                content.append(dict(event["content_block"]))
                arguments[index] = ""
            case "content_block_delta":
                delta = dict(event["delta"])
                kind = delta.pop("type")
                ((name, said),) = delta.items()
                if kind == "input_json_delta":
                    arguments[index] += said
                else:
                    content[index][name] += said
            case "content_block_stop":
                stopped += 1
                if content[index]["type"] == "tool_use":
                    content[index]["input"] = json_object(arguments[index]) or {}
    assert content == blocks.content
    assert stopped == len(content)


def events_of(streamed: str) -> list[dict[str, Any]]:
    *events, rest = streamed.split("\n\n")
    assert not rest
    documents = [json.loads(each.partition("\ndata: ")[2]) for each in events]
    assert [each.partition("\n")[0] for each in events] == [f"event: {each['type']}" for each in documents]
    return documents


@pytest.mark.parametrize(
    ("ending", "reason", "sequence"),
    [
        ({}, "end_turn", None),
        ({"stop_text": "x"}, "stop_sequence", "x"),
        ({"finish_reason": "length"}, "max_tokens", None),
    ],
)
def test_a_stream_is_the_whole_message(ending: dict[str, str], reason: str, sequence: str | None) -> None:
    pieces = [{"op": "text", "text": each, "scores": []} for each in ("so ", "it", " is")]
    done = {"op": "done", "value": result(text="so it is", **ending)}
    whole = post(Saying([ACCEPTED, *pieces, done]), PATH, BODY).json()
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    assert whole["content"] == [text("so it is")]
    events = events_of(post(Saying([ACCEPTED, *pieces, done]), PATH, BODY | {"stream": True}).text)
    kinds = ["message_start", "ping", "content_block_start", *["content_block_delta"] * 3, "content_block_stop"]
    assert [each["type"] for each in events] == [*kinds, "message_delta", "message_stop"]
    started, delta = events[0]["message"], events[-2]
    assert started["usage"]["input_tokens"] == 9
    assert delta["usage"] == whole["usage"]
    assert (whole["usage"]["input_tokens"], whole["usage"]["cache_read_input_tokens"]) == (5, 4)
    assert {**started, "content": whole["content"], **delta["delta"], "usage": delta["usage"], "id": 0} == {
        **whole,
        "id": 0,
    }


def test_a_stream_that_breaks_off_says_so() -> None:
    said = {"op": "text", "text": "so ", "scores": []}
    worker = Saying([ACCEPTED, said], TargetError("the engine is gone", "ask again"))
    *_, last = events_of(post(worker, PATH, BODY | {"stream": True}).text)
    assert (last["type"], last["error"]["type"]) == ("error", "overloaded_error")
    assert "the engine is gone" in last["error"]["message"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 500, 503, 504])
def test_each_status_has_a_type_that_clients_know(status: int) -> None:
    error = anthropic_error(Refused(status, "x", "any"))["error"]
    assert error["message"] == "x"
    assert error["type"].endswith("_error") or error["type"] == "request_too_large"
    assert (error["type"] == "invalid_request_error") == (status in (400, 405, 422))


def test_unknown_paths_below_it_are_told_in_its_form() -> None:
    error = post(Saying([]), f"{PATH}/batches", {})
    assert (error.status_code, error.json()["error"]["type"]) == (404, "not_found_error")
