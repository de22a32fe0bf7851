"""Streams that are silent for long: proxies shall not end them, and clients shall not mind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from edgekit_runtime.server import answering
from edgekit_runtime.server.app import make_app
from edgekit_runtime.server.streaming import kept_alive
from tests.runtime.server.answers import Saying, post, result

ASKED = [{"role": "user", "content": "q"}]
TEXT = {"op": "text", "text": "so", "scores": []}


class Slow(Saying):
    """A worker that takes its time."""

    async def answer(self, options: dict[str, Any], *, progress: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        async for event in super().answer(options, progress=progress):
            if event["op"] != "accepted":
                await asyncio.sleep(0.05)
            yield event


def streamed(path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(answering, "PING_SECONDS", 0.01)
    events = [{"op": "accepted", "prompt_tokens": 9}, TEXT, {"op": "done", "value": result(text="so")}]
    answer = post(Slow(events), path, {"model": "base", "stream": True} | body)
    assert answer.status_code == 200
    return answer.text


@pytest.mark.parametrize(
    ("path", "body", "ping"),
    [
        ("/v1/chat/completions", {"messages": ASKED}, ": working"),
        ("/v1/completions", {"prompt": "q"}, ": working"),
        ("/v1/responses", {"input": "q"}, ": working"),
        ("/v1/messages", {"max_tokens": 9, "messages": ASKED}, 'event: ping\ndata: {"type": "ping"}'),
    ],
)
def test_events_are_kept_apart_by_pings(
    path: str, body: dict[str, Any], ping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = streamed(path, body, monkeypatch).split("\n\n")
    said = next(at for at, each in enumerate(events) if '"so"' in each)
    assert ping in events[:said]
    assert ping in events[said:]


def test_each_line_of_ollamas_streams_stays_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.loads(each) for each in streamed("/api/chat", {"messages": ASKED}, monkeypatch).splitlines()]
    assert "".join(each["message"]["content"] for each in lines) == "so"
    assert [each["done"] for each in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[0]["message"]["content"] == ""


def test_official_clients_skip_them(monkeypatch: pytest.MonkeyPatch) -> None:
    openai, anthropic = pytest.importorskip("openai"), pytest.importorskip("anthropic")
    anthropics = pytest.importorskip("httpx2")  # what Anthropic's client asks by
    monkeypatch.setattr(answering, "PING_SECONDS", 0.01)
    events = [{"op": "accepted", "prompt_tokens": 9}, TEXT, {"op": "done", "value": result(text="so")}]

    async def ask() -> list[str]:
        app = make_app(Slow(events), None)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
            client = openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key="none", http_client=http)
            asked = {"model": "base", "messages": ASKED}
            chunks = await client.chat.completions.create(**asked, stream=True)
            said = "".join([each.choices[0].delta.content or "" async for each in chunks])
            async with client.responses.stream(model="base", input="q") as stream:
                told = (await stream.get_final_response()).output_text
        async with anthropics.AsyncClient(transport=anthropics.ASGITransport(app)) as http:
            other = anthropic.AsyncAnthropic(base_url="http://127.0.0.1", api_key="none", http_client=http)
            async with other.messages.stream(**asked, max_tokens=9) as stream:
                return [said, told, await stream.get_final_text()]

    assert asyncio.run(ask()) == ["so"] * 3


def test_leaving_ends_what_is_waited_for() -> None:
    ended = []

    async def pieces() -> AsyncGenerator[str, None]:
        try:
            yield "a"
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def read() -> list[str]:
        stream = kept_alive(pieces(), lambda: "ping", 0.01)
        found = [await anext(stream), await anext(stream)]
        await stream.aclose()
        return found

    assert asyncio.run(read()) == ["a", "ping"]
    assert ended


def test_an_error_comes_through() -> None:
    async def pieces() -> AsyncGenerator[str, None]:
        yield "a"
        raise ValueError("broken")

    async def read() -> None:
        async for _ in kept_alive(pieces(), lambda: "ping", 1.0):
            pass

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(read())
