"""Answers without an engine: parts in any order, and a worker that says what it is given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx
from hypothesis import strategies as st

from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.prompts.tool_stream import Argued, Begun, Said
from edgekit_runtime.server.app import make_app
from edgekit_runtime.server.parts import Part, Thought

USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "cached_tokens": 4, "reasoning_tokens": 2}
TIMES = ("queue_ms", "switch_ms", "encode_ms", "prefill_ms", "ttft_ms", "decode_ms", "decode_tps")
TIMINGS = dict.fromkeys(TIMES, 1.0)


def result(**more: Any) -> dict[str, Any]:
    """A worker's "done"."""
    answer = {"text": "", "adapter": None, "finish_reason": "stop", "usage": USAGE, "timings": TIMINGS, "echoed": []}
    return answer | more


def _call(arguments: list[str]) -> list[Part]:
    return [Begun(0, "id", "f"), *(Argued(0, each) for each in arguments)]


TEXTS = st.text(min_size=1, max_size=5)
PARTS = st.lists(
    st.builds(lambda text: [Thought(text)], TEXTS)
    | st.builds(lambda text: [Said(text)], TEXTS)
    | st.builds(_call, st.lists(st.sampled_from(['{"a": ', "1", "}", "{}"]), max_size=3)),
    max_size=6,
).map(lambda groups: [part for group in groups for part in group])


class Saying:
    """A worker that says these events, then raises an error if there is one."""

    ready, models, stats, restarts = True, (), {}, 0

    def __init__(self, events: Sequence[dict[str, Any]], error: EdgekitError | None = None) -> None:
        self._events, self._error = events, error
        self.asked: list[dict[str, Any]] = []
        self.progress: list[bool] = []

    async def answer(self, options: dict[str, Any], *, progress: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        self.asked.append(options)
        self.progress.append(progress)
        for event in self._events:
            yield event
        if self._error is not None:
            raise self._error


def post(worker: Saying, path: str, body: dict[str, Any]) -> httpx.Response:
    """The service's answer over this worker; infinities are sent as Python writes them."""

    async def ask() -> httpx.Response:
        app = make_app(worker, None)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.post(path, content=json.dumps(body))

    return asyncio.run(ask())
