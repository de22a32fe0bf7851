"""What of an answer is reasoning, whatever protocol tells of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from edgekit_runtime.prompts.thinking import Splitter, Thinking, split
from edgekit_runtime.server.wire import Message


async def told_apart(events: AsyncGenerator[Message, None]) -> AsyncGenerator[Message, None]:
    """A worker's events of one answer, with reasoning beside text wherever the base's template knows any."""
    thinking, splitter = None, None
    async with contextlib.aclosing(events):
        async for event in events:
            if event["op"] == "accepted" and event.get("thinking"):
                thinking = Thinking(**event["thinking"])
                splitter = Splitter(thinking)
                if "calls" in event:  # they are read behind the reasoning
                    event = event | {"calls": event["calls"] | {"thinking": False}}
            elif event["op"] == "text" and splitter is not None:
                event = event | _parts(*splitter.feed(event["text"]))
            elif event["op"] == "done" and thinking is not None and splitter is not None:
                reasoning, text = splitter.feed("", last=True)
                if reasoning or text:
                    yield {"op": "text", "scores": []} | _parts(reasoning, text)
                event = event | {"value": event["value"] | _parts(*split(event["value"]["text"], thinking))}
            yield event


def _parts(reasoning: str, text: str) -> dict[str, str]:
    return {"reasoning": reasoning, "text": text}
