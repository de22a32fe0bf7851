"""Limits of the front that don't need an engine: who is turned away, and what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.bundle import file_digest, open_bundle
from edgekit_runtime.server import adapters as adapters_module
from edgekit_runtime.server.adapters import Adapters
from edgekit_runtime.server.app import make_app
from edgekit_runtime.server.copies import private_place
from edgekit_runtime.server.supervisor import Supervisor
from edgekit_runtime.server.wire import Message
from tests.goods import Goods

ANSWER: dict[str, Any] = {
    "text": "ok",
    "adapter": None,
    "finish_reason": "stop",
    "echoed": [],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cached_tokens": 0},
    "timings": {"ttft_ms": 1.0, "prefill_ms": 1.0, "decode_ms": 1.0, "switch_ms": 0.0, "decode_tps": 1.0},
}


class _Slow:
    """A worker that answers when it is told to."""

    ready, models, names, stats, restarts = True, (), frozenset[str](), {}, 0

    def __init__(self) -> None:
        self.go, self.asked = asyncio.Event(), 0

    async def answer(self, _: dict[str, Any], *, progress: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        self.asked += 1
        yield {"op": "accepted"}
        await self.go.wait()
        yield {"op": "done", "value": ANSWER}


@pytest.mark.parametrize("streams", [False, True])
def test_requests_of_the_same_moment_share_one_queue(streams: bool) -> None:
    async def ask() -> tuple[list[int], int, dict[str, Any]]:
        slow = _Slow()
        app = make_app(slow, None, queue=2)  # type: ignore[arg-type]
        body = {"model": "base", "prompt": "x", "stream": streams}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            asked = [asyncio.create_task(client.post("/v1/completions", json=body)) for _ in range(5)]
            done, _ = await asyncio.wait(asked, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 3:
                done, _ = await asyncio.wait(asked, timeout=0.05)
            slow.go.set()
            codes = sorted([(await each).status_code for each in asked])
            return codes, slow.asked, (await client.get("/health")).json()

    codes, asked, health = asyncio.run(asyncio.wait_for(ask(), 30))
    assert codes == [200, 200, 429, 429, 429]
    assert asked == 2
    assert health["busy"] == 0


def test_what_was_refused_is_tried_again_when_much_else_was_since(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    async def crash(_: object, files: list[Path]) -> list[bool]:
        tried.extend(each.name for each in files)
        raise InputError(f"it crashes over {files[0]}")

    monkeypatch.setattr(adapters_module, "try_adapters_async", crash)
    monkeypatch.setattr(adapters_module, "KEPT_DIGESTS", 2)
    files = [goods.two, goods.one_newer, goods.nameless]

    async def load_all() -> None:
        with open_bundle(goods.bundle) as bundle, private_place(None) as folder:
            adapters = Adapters(Supervisor({}), bundle, folder=folder)
            for each in (*files, files[-1], files[0]):
                with pytest.raises(InputError, match=f"it crashes over {each}"):
                    await adapters.load(None, each)

    asyncio.run(load_all())
    assert tried == [file_digest(each) for each in (*files, files[0])]


def test_who_is_not_answered_before_the_service_stops_is_told_so() -> None:
    class _Pipe:
        def write(self, _: Message) -> None:
            """An engine that never answers."""

    async def ask() -> httpx.Response:
        supervisor = Supervisor({})
        supervisor._process = _Pipe()  # type: ignore[assignment]
        supervisor._ready.set()
        app = make_app(supervisor, None)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            asked = asyncio.create_task(client.post("/v1/completions", json={"model": "base", "prompt": "x"}))
            while (await client.get("/health")).json()["busy"] == 0:
                await asyncio.sleep(0.01)
            supervisor.give_up_all("the service is stopping")
            return await asked

    answer = asyncio.run(asyncio.wait_for(ask(), 30))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["message"].startswith("the service is stopping")
