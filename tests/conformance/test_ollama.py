"""Ollama's own Python client against this service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import ollama
import pytest
from ollama import AsyncClient, Client, ResponseError

from tests.goods import Goods
from tests.service import Service, serving

ASKED: list[dict[str, Any]] = [{"role": "user", "content": "scratch"}]
SHORT = {"num_predict": 6}


@pytest.fixture(scope="module")
def service(goods: Goods) -> Iterator[Service]:
    with serving(goods.bundle) as started:
        yield started


@pytest.fixture(scope="module")
def client(service: Service) -> Client:
    return Client(host=service.url)


def test_models_are_listed_and_shown(client: Client) -> None:
    names = [model.model for model in client.list().models]
    assert names == ["base:latest", "one:latest"]
    assert [model.name for model in client.ps().models] == names
    for name in ("one", *names):
        shown = client.show(str(name))
        assert shown.details is not None
        assert shown.details.format == "gguf"
        assert shown.capabilities == ["completion", "tools"]
        assert shown.modelinfo is not None
        assert shown.modelinfo["general.architecture"] == "llama"
    assert client.show("one").modified_at is not None


@pytest.mark.parametrize("model", ["one", "one:latest", "base"])
def test_a_chat_is_the_same_whole_and_in_pieces(client: Client, service: Service, model: str) -> None:
    whole = client.chat(model, ASKED, options=SHORT)
    pieces = list(client.chat(model, ASKED, options=SHORT, stream=True))
    assert whole.message.content == service.text(model=model.removesuffix(":latest"))
    assert "".join(str(each.message.content) for each in pieces) == whole.message.content
    assert (whole.message.role, whole.done, whole.done_reason) == ("assistant", True, "length")
    last = pieces[-1]
    assert (last.done, last.done_reason, last.eval_count) == (True, "length", 6)
    assert (last.eval_duration or 0) > 0
    assert (last.total_duration or 0) >= (last.eval_duration or 0)


def test_a_question_is_answered_whole_in_pieces_and_at_the_same_time(client: Client, service: Service) -> None:
    options = ollama.Options(num_predict=6, temperature=1.5, seed=7, top_k=40, top_p=0.9, repeat_penalty=1.1)
    whole = client.generate("one", "scratch", options=options).response
    assert (
        "".join(str(each.response) for each in client.generate("one", "scratch", options=options, stream=True)) == whole
    )

    async def both() -> list[Any]:
        asking = AsyncClient(host=service.url)
        return await asyncio.gather(*(asking.generate("one", "scratch", options=options) for _ in range(2)))

    assert [each.response for each in asyncio.run(both())] == [whole, whole]


def test_forms_hold(client: Client) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "integer", "maximum": 9}}, "required": ["ok"]}
    options = {"num_predict": 80, "temperature": 1}
    texts = [
        str(found.message.content)
        for seed in range(4)
        if (found := client.chat("one", ASKED, format=schema, options=options | {"seed": seed})).done_reason == "stop"
    ]
    assert texts
    assert all(list(json.loads(text)) == ["ok"] for text in texts)
    assert str(client.generate("one", "scratch", format="json", options=SHORT).response).lstrip().startswith("{")


def test_tools_their_calls_and_results_are_taken(client: Client) -> None:
    def add(a: int) -> int:
        """Add one.

        Args:
            a: what to add it to
        """
        return a + 1

    call = ollama.Message.ToolCall(function=ollama.Message.ToolCall.Function(name="add", arguments={"a": 1}))
    conversation = [
        ollama.Message(role="user", content="1?"),
        ollama.Message(role="assistant", tool_calls=[call]),
        ollama.Message(role="tool", content="2", tool_name="add"),
    ]
    found = client.chat("one", conversation, tools=[add], options=SHORT, think=False)
    assert found.message.role == "assistant"
    assert found.eval_count == 6


def test_a_model_is_loaded_and_pulled_where_it_is_here(client: Client) -> None:
    assert client.generate("one").done_reason == "load"
    assert client.chat("one").done_reason == "load"
    assert client.pull("one").status == "success"
    assert [each.status for each in client.pull("one:latest", stream=True)] == ["success"]


def test_texts_are_embedded(client: Client) -> None:
    found = client.embed("one:latest", ["scratch", "dent"])
    assert found.model == "one:latest"
    assert [sum(number * number for number in each) for each in found.embeddings] == pytest.approx([1, 1])
    assert found.prompt_eval_count
    assert client.embed("one", "dent").embeddings == [found.embeddings[1]]
    assert client.embeddings("one", "dent").embedding == found.embeddings[1]
    assert len(client.embed("base", "dent", dimensions=5).embeddings[0]) == 5
    assert client.embed("one", "dent " * 3000).prompt_eval_count  # what doesn't fit is cut
    with pytest.raises(ResponseError, match="context"):
        client.embed("one", "dent " * 3000, truncate=False)
    with pytest.raises(ResponseError, match="'nobody' not found"):
        client.embed("nobody", "dent")
    assert client.embed("one", "").embeddings == client.embed("one", []).embeddings == []
    assert client.embeddings("one").embedding == []


def test_errors_are_its_own(client: Client) -> None:
    with pytest.raises(ResponseError, match="'nobody' not found") as missing:
        client.chat("nobody", ASKED)
    assert missing.value.status_code == 404
    with pytest.raises(ResponseError, match="mirostat") as refused:
        list(client.chat("one", ASKED, options={"mirostat": 2}, stream=True))
    assert refused.value.status_code == 400
    for ask in (
        lambda: client.pull("llama3"),
        lambda: list(client.pull("llama3", stream=True)),
        lambda: client.push("one"),
        lambda: client.create("two", from_="one"),
        lambda: client.copy("one", "two"),
        lambda: client.delete("one"),
    ):
        with pytest.raises(ResponseError) as elsewhere:
            ask()
        assert elsewhere.value.status_code == 501
