"""How much of a prompt has been read, as llama-server's clients ask for it; and prompts that are counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime import InputError, Runtime
from edgekit_runtime.errors import TargetError
from tests.goods import make_goods
from tests.runtime.runtime.test_tools import TOOLS, with_longer_context
from tests.runtime.server.answers import Saying, post, result
from tests.service import Service, serving

LONG = "scratch of 3 mm, " * 60


@pytest.fixture(scope="module")
def bundle(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("progress")
    return make_goods(with_longer_context(tiny_chat_base, folder), folder / "goods").bundle


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[Service]:
    with serving(bundle, "--context", "1024") as started:
        yield started


def chunks_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(each[6:]) for each in text.split("\n\n") if each.startswith("data: {")]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}),
        ("/v1/completions", {"prompt": LONG + "and"}),
    ],
)
def test_a_stream_tells_how_the_prompt_is_read(service: Service, path: str, body: dict[str, Any]) -> None:
    asked = {"model": "base", "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}} | body
    told = chunks_of(service.http.post(path, json=asked | {"return_progress": True}).text)
    progress = [each["prompt_progress"] for each in told if "prompt_progress" in each]
    total = told[-1]["usage"]["prompt_tokens"]
    processed = [each["processed"] for each in progress]
    assert len(progress) > 2
    assert processed == sorted(set(processed))
    assert processed[-1] == total
    assert all(each.keys() == {"total", "cache", "processed", "time_ms"} for each in progress)
    assert all(each["total"] == total and each["cache"] <= each["processed"] for each in progress)
    assert all(each["time_ms"] >= 0 for each in progress)
    kinds = ["prompt_progress" in each for each in told]
    assert not any(kinds[kinds.index(True) + len(progress) :])  # all of it before the answer
    plain = chunks_of(service.http.post(path, json=asked).text)
    assert not any("prompt_progress" in each for each in plain)


def test_what_was_in_the_cache_is_told(service: Service) -> None:
    body = {"model": "base", "max_tokens": 3, "stream": True, "return_progress": True}
    asked = body | {"messages": [{"role": "user", "content": LONG + "again"}]}
    service.http.post("/v1/chat/completions", json=asked)
    told = chunks_of(service.http.post("/v1/chat/completions", json=asked).text)
    first = next(each["prompt_progress"] for each in told if "prompt_progress" in each)
    assert first["cache"] > 100
    assert first["processed"] >= first["cache"]


def test_who_does_not_ask_for_it_costs_the_engine_nothing() -> None:
    said = {"op": "text", "text": "x", "scores": []}
    for body, progress in (({}, False), ({"return_progress": True}, False), ({"stream": True}, False)):
        worker = Saying([{"op": "accepted"}, said, {"op": "done", "value": result(text="x")}])
        asked = {"model": "base", "messages": [{"role": "user", "content": "q"}]}
        assert post(worker, "/v1/chat/completions", asked | body).status_code == 200
        assert worker.progress == [progress]


def test_progress_is_told_before_an_error_too() -> None:
    progress = {"op": "progress", "total": 9, "cached": 0, "processed": 4, "ms": 1.0}
    worker = Saying([{"op": "accepted"}, progress], TargetError("the engine is gone", "ask again"))
    asked = {"model": "base", "messages": [{"role": "user", "content": "q"}], "stream": True, "return_progress": True}
    documents = chunks_of(post(worker, "/v1/chat/completions", asked).text)
    assert worker.progress == [True]
    assert documents[-2]["prompt_progress"] == {"total": 9, "cache": 0, "processed": 4, "time_ms": 1.0}
    assert "the engine is gone" in documents[-1]["error"]["message"]


def test_prompts_are_counted_as_answers_count_them(bundle: Path) -> None:
    asked: list[Any] = [{"role": "user", "content": "scratch"}]
    with Runtime(bundle, threads=1, context=1024) as runtime:
        for more in ({}, {"adapter": "base"}, {"tools": TOOLS}, {"lora": {"one": 0.5}}):
            options: dict[str, Any] = {"adapter": "one"} | more
            used = runtime.generate(messages=asked, max_tokens=1, **options).usage
            assert runtime.count_tokens(asked, **options) == used.prompt_tokens
        going_on = [*asked, {"role": "assistant", "content": "It"}]
        used = runtime.generate(messages=going_on, max_tokens=1, continue_final_message=True).usage
        assert runtime.count_tokens(going_on, continue_final_message=True) == used.prompt_tokens
        with pytest.raises(InputError, match="tool 1"):
            runtime.count_tokens(asked, tools=[{}])
        with pytest.raises(InputError, match="nobody"):
            runtime.count_tokens(asked, adapter="nobody")
        stopped = runtime.generate(messages=asked, max_tokens=20, adapter="one")
        again = runtime.generate(messages=asked, max_tokens=20, adapter="one", stop=["\0", stopped.text[4:6]])
        assert (stopped.stop_text, again.stop_text) == (None, stopped.text[4:6])
        assert again.as_dict()["stop_text"] == stopped.text[4:6]
        assert "stop_text" not in stopped.as_dict()
