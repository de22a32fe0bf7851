"""OpenAI's Responses API without an engine: what is asked becomes a chat, and events add up to the response."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from edgekit_runtime.errors import InputError, TargetError
from edgekit_runtime.server.parts import Part
from edgekit_runtime.server.responses_api.conversation import conversation
from edgekit_runtime.server.responses_api.items import Items
from edgekit_runtime.server.responses_api.requests import read_response
from tests.runtime.server.answers import PARTS, Saying, post, result

PATH = "/v1/responses"
BODY: dict[str, Any] = {"model": "base", "input": "q"}
ACCEPTED = {"op": "accepted", "prompt_tokens": 9}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
THOUGHT = {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}


@pytest.mark.parametrize(
    ("given_items", "messages"),
    [
        ("q", [{"role": "user", "content": "q"}]),
        ([], []),
        (
            [
                {"role": "developer", "content": "a"},
                {"role": "system", "content": "b"},
                {"role": "user", "content": "q"},
            ],
            [{"role": "system", "content": "a\n\nb"}, {"role": "user", "content": "q"}],
        ),
        (
            [THOUGHT, {"type": "message", "role": "assistant", "content": "text"}, CALL, CALL],
            [{"role": "assistant", "content": "text", "reasoning_content": "hm", "tool_calls": [CALLED, CALLED]}],
        ),
        (
            [CALL, THOUGHT, CALL, {"type": "function_call_output", "call_id": "c", "output": "1"}],
            [
                {"role": "assistant", "content": None, "tool_calls": [CALLED]},
                {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CALLED]},
                {"role": "tool", "content": "1", "tool_call_id": "c"},
            ],
        ),
        ([THOUGHT, {"role": "user", "content": "q"}], [{"role": "user", "content": "q"}]),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}]}],
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        ),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]}],
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}],
        ),
    ],
)
def test_items_become_messages(given_items: Any, messages: list[dict[str, Any]]) -> None:
    assert conversation(given_items, None) == messages


def test_instructions_come_first() -> None:
    told = [{"role": "developer", "content": "b"}, {"role": "user", "content": "q"}]
    assert conversation(told, "a")[0] == {"role": "system", "content": "a\n\nb"}
    assert conversation("q", "a") == [{"role": "system", "content": "a"}, {"role": "user", "content": "q"}]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (1, "item 1 of input has no type"),
        ({"type": "computer_call"}, "of type 'computer_call', which is not available"),
        ({"type": []}, "has no type"),
        ({"role": "robot", "content": "x"}, "no known role"),
        ({"role": "user", "content": 1}, "has no text"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "a part of type 'input_audio'"),
        ({"role": "user", "content": [{"type": []}]}, "a part without a type"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "is no function_call"),
        ({"type": "function_call_output", "output": "x"}, "has no call_id"),
        ({"type": "reasoning", "content": "x"}, "a list of objects"),
    ],
)
def test_items_of_other_kinds_are_refused(item: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        conversation([item], None)


def test_a_request_becomes_arguments_of_the_runtime() -> None:
    tools = [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}]
    asked = read_response(
        BODY
        | {"max_output_tokens": 7, "temperature": 0.5, "top_p": 0.9, "stop": "x", "lora": [{"id": "one", "scale": 0.5}]}
        | {"tools": tools, "tool_choice": {"type": "function", "name": "f"}, "parallel_tool_calls": False}
        | {"reasoning": {"effort": "low"}, "store": True, "include": ["message.output_text.logprobs"]}
    )
    (options,) = asked.options
    assert asked.splits
    assert asked.logprobs
    assert (options["max_tokens"], options["temperature"], options["stop"]) == (7, 0.5, ["x"])
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    assert options["tools"] == [{"type": "function", "function": function}]
    assert options["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert options["parallel_tool_calls"] is False
    assert options["reasoning_effort"] == "low"
    assert options["lora"] == {"one": 0.5}


def test_allowed_tools_are_the_chats() -> None:
    tools = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in "fg"]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}
    (options,) = read_response(BODY | {"tools": tools, "tool_choice": choice}).options
    assert [each["function"]["name"] for each in options["tools"]] == ["g"]
    assert options["tool_choice"] == "required"
    for broken in ({"tools": []}, {"tools": ["g"]}, {"tools": None}, {"mode": None}):
        with pytest.raises(InputError, match="allowed_tools (names no function|has no mode)"):
            read_response(BODY | {"tools": tools, "tool_choice": choice | broken})


@given(PARTS)
def test_events_add_up_to_the_items(parts: list[Part]) -> None:
    items = Items()
    events = [event for part in parts for event in items.add(part, [])]
    events += items.end([], cut=False)
    texts: dict[int, str] = {}
    for event in events:
        index = event["output_index"]
        match event["type"].rpartition("."):
            case ("response.output_item", _, "added"):
                assert index == len(texts)
                texts[index] = ""
            case (_, _, "delta"):
                texts[index] += event["delta"]
            case ("response.output_item", _, "done"):
                item = event["item"]
                assert item == items.output[index]
                assert item["status"] == "completed"
                said = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
                assert said == texts[index]
    assert len(texts) == len(items.output) >= 1
    assert len({each["id"] for each in items.output}) == len(items.output)


def events_of(text: str) -> list[dict[str, Any]]:
    *events, rest = text.split("\n\n")
    assert not rest
    documents = [json.loads(each.partition("\ndata: ")[2]) for each in events]
    names = [each.partition("\n")[0] for each in events]
    assert names == [f"event: {each['type']}" for each in documents]
    assert [each["sequence_number"] for each in documents] == list(range(len(documents)))
    return documents


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_stream_ends_with_the_whole_response(reason: str) -> None:
    pieces = [{"op": "text", "text": each, "scores": []} for each in ("so ", "it", " is")]
    done = {"op": "done", "value": result(text="so it is", finish_reason=reason)}
    whole = post(Saying([ACCEPTED, *pieces, done]), PATH, BODY).json()
    streamed = events_of(post(Saying([ACCEPTED, *pieces, done]), PATH, BODY | {"stream": True}).text)
    last = streamed[-1]["response"]
    assert whole["status"] == ("completed" if reason == "stop" else "incomplete")
    assert streamed[-1]["type"] == f"response.{whole['status']}"
    for each in (whole, last):
        for name in ("id", "created_at", "completed_at"):
            del each[name]
        del each["output"][0]["id"]
    assert last == whole
    assert whole["output"][0]["content"][0]["text"] == "so it is"
    assert whole["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }


def test_what_comes_back_of_a_request_is_json() -> None:
    done = {"op": "done", "value": result(text="x")}
    answer = post(Saying([ACCEPTED, done]), PATH, BODY | {"metadata": {"a": 1e999}})
    assert answer.json()["metadata"] == {"a": None}


def test_an_answer_without_text_is_an_empty_message() -> None:
    done = {"op": "done", "value": result()}
    for stream in (False, True):
        answer = post(Saying([ACCEPTED, done]), PATH, BODY | {"stream": stream})
        response = events_of(answer.text)[-1]["response"] if stream else answer.json()
        assert [each["content"][0]["text"] for each in response["output"]] == [""]


def test_a_stream_that_breaks_off_says_so() -> None:
    said = {"op": "text", "text": "so ", "scores": []}
    worker = Saying([ACCEPTED, said], TargetError("the engine is gone", "ask again"))
    events = events_of(post(worker, PATH, BODY | {"stream": True}).text)
    failed = events[-1]["response"]
    assert events[-1]["type"] == "response.failed"
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
    assert "the engine is gone" in failed["error"]["message"]
    assert failed["output"][0]["status"] == "incomplete"
    assert failed["output"][0]["content"][0]["text"] == "so "
