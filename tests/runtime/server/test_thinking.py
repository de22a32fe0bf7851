"""Reasoning over HTTP, on a base whose template asks for it: told apart, switched off, bounded."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime import InputError, Runtime, UsageError
from tests.chat_templates import THINKING
from tests.goods import Goods, with_template
from tests.service import Service, serving

BUDGET = 5


@pytest.fixture(scope="module")
def bundle(goods: Goods, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle, whose base reasons, and whose adapter doesn't."""
    folder = with_template(goods.bundle, tmp_path_factory.mktemp("thinking"), THINKING)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["adapters"][0]["template_arguments"] = {"enable_thinking": False}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[Service]:
    with serving(bundle) as started:
        yield started


def ask(service: Service, **more: Any) -> dict[str, Any]:
    answer = service.chat(**{"model": "base", "max_tokens": 24, "thinking_budget": BUDGET} | more)
    assert answer.status_code == 200, answer.text
    message: dict[str, Any] = answer.json()["choices"][0]["message"]
    return message


def test_reasoning_ends_when_its_budget_is_used_up(service: Service, bundle: Path) -> None:
    message = ask(service)
    assert message["reasoning_content"]
    assert message["content"]
    usage = service.chat(model="base", max_tokens=24, thinking_budget=BUDGET).json()["usage"]
    end_tag = service.http.post("/tokenize", json={"content": "</think>"}).json()["count"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": BUDGET + end_tag}
    raw = ask(service, reasoning_format="none")
    reasoning, end, answer = raw["content"].partition("</think>")
    assert end
    assert reasoning.strip() == message["reasoning_content"]
    assert answer.lstrip() == message["content"]
    assert "reasoning_content" not in raw
    assert "reasoning_content" not in ask(service, include_reasoning=False)
    with Runtime(bundle, threads=1, context=128, parallel=4) as runtime:
        unbound = runtime.generate("scratch", adapter="base", max_tokens=BUDGET)
        bound = runtime.generate("scratch", adapter="base", max_tokens=24, thinking_budget=BUDGET)
        none = runtime.generate("scratch", adapter="base", max_tokens=24, thinking_budget=0)
        assert bound.text == raw["content"]
        assert bound.text.startswith(unbound.text + "</think>")
        assert none.text.startswith("</think>")
        with pytest.raises(UsageError, match="has no reasoning"):
            runtime.generate("scratch", adapter="base", max_tokens=24, thinking_budget=2, choice=["a"])


def test_a_stream_tells_reasoning_apart_too_and_a_dead_engine_changes_nothing(service: Service) -> None:
    whole = ask(service, max_tokens=60)
    for kill in (False, True):
        worker = service.worker
        options: dict[str, Any] = {"model": "base", "max_tokens": 60, "thinking_budget": BUDGET, "stream": True}
        body = {"messages": [{"role": "user", "content": "scratch"}]} | options
        lines = []
        with service.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                if kill and len(lines) == 3:
                    os.kill(worker, signal.SIGKILL)
        documents = [json.loads(each[6:]) for each in lines if each.startswith("data: {")]
        deltas = [each["choices"][0]["delta"] for each in documents]
        assert "".join(each.get("reasoning_content", "") for each in deltas) == whole["reasoning_content"]
        assert "".join(each.get("content", "") for each in deltas) == whole["content"]


def test_reasoning_is_switched_off_in_each_spelling(service: Service) -> None:
    plain = ask(service, thinking_budget=None, enable_thinking=False)
    assert "reasoning_content" not in plain
    assert plain["content"]
    for options in ({"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}):
        assert ask(service, thinking_budget=None, **options) == plain
    assert ask(service, model="one", enable_thinking=True)["reasoning_content"]
    assert "reasoning_content" not in ask(service, model="one")
    body = {"messages": [{"role": "user", "content": "q"}], "model": "one"}
    assert service.http.post("/apply-template", json=body).json()["prompt"].endswith("</think>\n\n")


def test_a_text_that_is_continued_within_reasoning_is_some(service: Service) -> None:
    messages = [{"role": "user", "content": "scratch"}, {"role": "assistant", "content": "<think>\nIt is"}]
    assert ask(service, messages=messages, continue_final_message=True)["reasoning_content"]


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "report",
        "parameters": {
            "type": "object",
            "properties": {"fine": {"type": "boolean"}},
            "required": ["fine"],
            "additionalProperties": False,
        },
    },
}


def continuing(text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "scratch"}, {"role": "assistant", "content": text}]
    return {"messages": messages, "continue_final_message": True}


def called(message: dict[str, Any]) -> dict[str, Any]:
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "report"
    arguments: dict[str, Any] = json.loads(call["function"]["arguments"])
    assert arguments.keys() == {"fine"}
    return arguments


CALLING: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 60}


def test_calls_come_when_the_budget_is_used_up(service: Service) -> None:
    message = ask(service, **CALLING)
    assert message["reasoning_content"]
    called(message)
    none = ask(service, **CALLING | {"thinking_budget": 0})
    assert "reasoning_content" not in none
    called(none)
    streamed = ""
    body = {"model": "base", "thinking_budget": BUDGET, "stream": True, **CALLING}
    body |= {"messages": [{"role": "user", "content": "scratch"}]}
    with service.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"]
                streamed += delta.get("reasoning_content", "")
    assert streamed == message["reasoning_content"]


def test_calls_come_behind_a_reasoning_that_is_continued(service: Service) -> None:
    message = ask(service, **CALLING, **continuing("<think>\nIt is"))
    assert message["reasoning_content"]
    called(message)
    raw = ask(service, **CALLING, **continuing("<think>\nIt is"), reasoning_format="none")
    assert raw["content"].rstrip().endswith("</think>")
    called(raw)


@pytest.mark.parametrize("text", ["<think>\nIt is\n</think>\nThe part", "The part"])
def test_an_answer_that_is_continued_begins_no_reasoning(service: Service, text: str) -> None:
    message = ask(service, **CALLING, **continuing(text))
    assert "reasoning_content" not in message
    assert not message["content"]
    called(message)
    free = ask(service, **CALLING | {"tool_choice": "none"}, **continuing(text))
    assert "<think>" not in free["content"]
    assert "reasoning_content" not in free


def test_a_call_is_not_continued(service: Service) -> None:
    text = '<tool_call>\n{"name": "report", "argu'
    answer = service.chat(model="base", **CALLING, **continuing(text))
    assert answer.status_code == 400
    assert "has a call in its text" in answer.json()["error"]["message"]


def test_models_say_what_they_were_trained_for(service: Service) -> None:
    cards = service.http.get("/v1/models").json()["data"]
    assert [(card["id"], card["reasoning"]) for card in cards] == [("base", None), ("one", "drop")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reasoning_effort": "low"}, "knows no reasoning_effort"),
        ({"reasoning_effort": "huge"}, "reasoning_effort 'huge' is not available"),
        ({"reasoning_effort": "none", "enable_thinking": True}, "contradict each other"),
        ({"chat_template_kwargs": {"odd": 1}}, "takes no 'odd'"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs has to be an object"),
        ({"chat_template_kwargs": {"enable_thinking": 1}}, "enable_thinking has to be true or false"),
        ({"thinking_budget": -2}, "thinking_budget has to be"),
        ({"thinking_budget": 2, "reasoning_budget": 3}, "are the same"),
        ({"thinking_budget": 2, "guided_choice": ["a"]}, "has no reasoning"),
        ({"reasoning_format": "odd"}, "reasoning_format 'odd' is not available"),
    ],
)
def test_what_is_not_done_is_refused(service: Service, options: dict[str, Any], words: str) -> None:
    answer = service.chat(model="base", **options)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_a_base_without_reasoning_has_none_to_bound(goods: Goods) -> None:
    with Runtime(goods.bundle, threads=1, context=128) as runtime:
        with pytest.raises(InputError, match="knows no reasoning"):
            runtime.generate("scratch", max_tokens=5, thinking_budget=2)
        assert runtime.generate("scratch", max_tokens=5, reasoning_effort="none").text
