"""Tools over HTTP, as OpenAI's clients send them and read calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.goods import make_goods
from tests.runtime.runtime.test_tools import MEASURE, STOP, TOOLS, check, with_longer_context
from tests.service import Service, serving

CALL = {"id": "call_1", "type": "function", "function": {"name": "measure", "arguments": '{"part": "A", "sure": true}'}}
UNHELD = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"not": {}}}}}}
HISTORY = [
    {"role": "developer", "content": "Be brief"},
    {"role": "user", "content": "Pump 3: 81 C"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "function_call": None},
    {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "10"}]},
]


@pytest.fixture(scope="module")
def service(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("served")
    bundle = make_goods(with_longer_context(tiny_chat_base, folder), folder / "goods").bundle
    with serving(bundle, "--context", "1024") as started:
        yield started


def told(call: dict[str, Any]) -> dict[str, Any]:
    """A call with its arguments as values, checked against the function's parameters."""
    found = {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
    check(found)
    return found


def test_a_call_comes_with_an_id_and_arguments_as_text(service: Service) -> None:
    answer = service.chat(tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=90)
    (choice,) = answer.json()["choices"]
    assert choice["finish_reason"] == "tool_calls", answer.text
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["id"]
    told(call)


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_stream_adds_up_to_the_same_call(service: Service, temperature: float) -> None:
    asked = {
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 90,
        "temperature": temperature,
        "seed": 3,
    }
    whole = service.chat(**asked).json()["choices"][0]["message"]["tool_calls"]
    lines = service.chat(**asked, stream=True).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    deltas = [each["choices"][0]["delta"] for each in chunks]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any(each.get("content") for each in deltas)
    parts = [part for each in deltas for part in each.get("tool_calls", ())]
    assert parts[0]["function"]["arguments"] == ""
    assert {part["index"] for part in parts} == {0}
    assert all(set(part) == {"index", "function"} for part in parts[1:])
    text = "".join(part["function"]["arguments"] for part in parts)
    assert parts[0]["function"]["name"] == whole[0]["function"]["name"]
    assert json.loads(text) == json.loads(whole[0]["function"]["arguments"])


def test_tools_may_be_sent_and_not_called(service: Service) -> None:
    answer = service.chat(tools=TOOLS, tool_choice="none").json()["choices"][0]
    assert "tool_calls" not in answer["message"]
    assert answer["finish_reason"] == "length"
    assert service.chat(tools=[], tool_choice="none", parallel_tool_calls=True).status_code == 200
    lines = service.chat(tools=TOOLS, tool_choice="none", stream=True).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    said = "".join(each["choices"][0]["delta"].get("content", "") for each in chunks)
    assert said == answer["message"]["content"]


def test_calls_in_the_history_are_taken_as_clients_send_them(service: Service) -> None:
    for more in ({}, {"tools": [MEASURE, STOP]}):
        answer = service.chat(messages=HISTORY, **more)
        assert answer.status_code == 200, answer.text
    without = service.chat(messages=[*HISTORY[:2], {"role": "user", "content": "10"}])
    assert without.json()["usage"]["prompt_tokens"] < answer.json()["usage"]["prompt_tokens"]


def allowed(name: str, mode: str = "required") -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}}]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def test_of_allowed_tools_no_other_is_called_or_told(service: Service) -> None:
    options: dict[str, Any] = {"parallel_tool_calls": False, "max_tokens": 90, "seed": 1}
    narrowed = service.chat(tools=TOOLS, tool_choice=allowed("measure"), **options).json()
    measure = [tool for tool in TOOLS if tool["function"]["name"] == "measure"]
    alone = service.chat(tools=measure, tool_choice="required", **options).json()
    (call,) = narrowed["choices"][0]["message"]["tool_calls"]
    (expected,) = alone["choices"][0]["message"]["tool_calls"]
    assert call["function"] == expected["function"]
    assert narrowed["usage"]["prompt_tokens"] == alone["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tools": "measure"}, "tools has to be a list"),
        ({"tools": [{}]}, "tool 1 has no name"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice is none of none, auto, required"),
        ({"tools": TOOLS, "tool_choice": "text"}, "tool_choice is none of none, auto, required"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "names no function"),
        ({"tools": TOOLS, "tool_choice": allowed("mesure")}, "allows 'mesure', which is not among tools"),
        ({"tools": TOOLS, "tool_choice": allowed("measure", mode="none")}, "has no mode: send one of auto, required"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tools": TOOLS, "parallel_tool_calls": 1}, "parallel_tool_calls has to be true or false"),
        ({"functions": [{"name": "f"}]}, "send tools instead"),
        ({"function_call": "auto"}, "send tool_choice instead"),
        (
            {"messages": [*HISTORY[:2], {"role": "assistant", "function_call": {"name": "f"}}]},
            "send tool_calls instead",
        ),
        ({"messages": [*HISTORY[:2], {"role": "assistant", "tool_calls": [{}]}]}, "message 3: call 1 has no function"),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"not": 1}}}}}
                ]
            },
            "asks for not at #/properties/a",
        ),
        ({"tools": TOOLS, "regex": "a"}, "can't follow regex and call tools"),
    ],
)
def test_what_cannot_be_done_is_refused(service: Service, change: dict[str, Any], words: str) -> None:
    answer = service.chat(**change)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]


def test_plain_completions_have_no_tools(service: Service) -> None:
    answer = service.http.post("/v1/completions", json={"model": "one", "prompt": "x", "tools": TOOLS})
    assert answer.status_code == 400
    assert "use /v1/chat/completions" in answer.text


def test_openais_client_calls_and_answers(service: Service) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none")
    messages: list[Any] = [{"role": "user", "content": "scratch"}]
    options: dict[str, Any] = {"model": "one", "tools": TOOLS, "parallel_tool_calls": False, "max_tokens": 90}
    answer = client.chat.completions.create(messages=messages, tool_choice="required", **options)
    (call,) = answer.choices[0].message.tool_calls
    check({"function": {"name": call.function.name, "arguments": json.loads(call.function.arguments)}})
    messages += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "3 mm"}]
    after = client.chat.completions.create(messages=messages, tool_choice="none", **{**options, "max_tokens": 5})
    assert after.choices[0].message.tool_calls is None
    with client.chat.completions.stream(messages=messages[:1], tool_choice="required", **options) as stream:
        for _ in stream:
            pass
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls
    assert (streamed.function.name, json.loads(streamed.function.arguments)) == (
        call.function.name,
        json.loads(call.function.arguments),
    )
