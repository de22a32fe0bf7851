"""What becomes of an answer when the engine that began it dies, without an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from edgekit_runtime.server.app import make_app
from edgekit_runtime.server.supervisor import Supervisor
from edgekit_runtime.server.wire import Message
from tests.runtime.server.test_limits import ANSWER

ROUTE = {"adapter": "metal", "confidence": 0.9, "fallback": False}
BEGUN = "Scrap it"


class _Pipe:
    """Keeps what an engine is told."""

    def __init__(self) -> None:
        self.told: list[Message] = []

    def write(self, message: Message) -> None:
        self.told.append(message)


def asked_again(*said: Message, model: str = "auto") -> tuple[httpx.Response, list[Message], str]:
    """Ask an engine that dies after it has begun with ``BEGUN``; the next one says ``said``.

    Returns:
        The answer, what the engines were told, and the metrics.
    """

    async def until(what: Callable[[], Any]) -> None:
        while not what():
            await asyncio.sleep(0.001)

    async def scenario() -> tuple[httpx.Response, list[Message], str]:
        supervisor, pipe = Supervisor({}), _Pipe()
        supervisor._process = pipe  # type: ignore[assignment]
        supervisor._ready.set()
        supervisor._take(
            {
                "op": "models",
                "models": [{"name": "metal", "version": "1", "digest": "d"}],
                "bundle": {"auto": "base"},
            }
        )
        app = make_app(supervisor, None)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            body = {"model": model, "prompt": "x"}
            answer: Awaitable[httpx.Response] = asyncio.create_task(client.post("/v1/completions", json=body))
            await until(lambda: pipe.told)
            number = pipe.told[0]["id"]
            supervisor._take({"op": "accepted", "id": number, "route": ROUTE})
            supervisor._take({"op": "text", "id": number, "text": BEGUN, "scores": []})
            supervisor._bury("a test", None)
            supervisor._resume()
            for each in ({"op": "accepted"}, *said):
                supervisor._take(each | {"id": number})
            found = await answer
            return found, pipe.told, (await client.get("/metrics")).text

    return asyncio.run(asyncio.wait_for(scenario(), 30))


def text(said: str) -> Message:
    return {"op": "text", "text": said, "scores": []}


def done(said: str) -> Message:
    return {"op": "done", "value": ANSWER | {"text": said}}


def test_the_adapter_that_was_chosen_answers_and_is_named_also_when_another_engine_ends_the_answer() -> None:
    found, told, metrics = asked_again(text("Scr"), text("ap it at once."), done("Scrap it at once."))
    assert [message["options"]["adapter"] for message in told] == ["auto", "metal"]
    assert found.status_code == 200, found.text
    assert (found.json()["model"], found.json()["route"]) == ("metal", ROUTE)
    assert found.json()["choices"][0]["text"] == "Scrap it at once."
    assert found.headers["x-edgekit-route"] == "metal; confidence=0.9000"
    assert 'edgekit_requests_total{model="metal",outcome="stop"} 1.0' in metrics
    assert 'model="auto"' not in metrics


@pytest.mark.parametrize("said", [[text("Scrape")], [text("Scr"), done("Scr")], [done("")]])
def test_an_answer_is_never_made_of_two(said: list[Message]) -> None:
    found, told, metrics = asked_again(*said)
    assert found.status_code == 503, found.text
    assert "answers otherwise than it began" in found.json()["error"]["message"]
    assert told[-1]["op"] == "cancel"
    assert 'outcome="unavailable"} 1.0' in metrics
