"""Reasoning in answers: which fields ask for it, and what of an answer is some."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.thinking import EFFORTS, NO_EFFORT, Splitter, Thinking, split
from edgekit_runtime.server.fields import Fields
from edgekit_runtime.server.wire import Message

FORMATS = ("auto", "deepseek", "none")  # llama-server's; the first two are the same here


def read_thinking(fields: Fields) -> dict[str, Any]:
    """The arguments of Runtime.stream that concern reasoning.

    Raises:
        InputError: a value of the wrong kind, or fields that contradict each other.
    """
    given = dict(fields.object("chat_template_kwargs") or {})
    enabled = fields.flag("enable_thinking")
    if enabled is not None and given.setdefault("enable_thinking", enabled) is not enabled:
        raise InputError("enable_thinking says two things", "send it once")
    budget = fields.either("thinking_budget", "reasoning_budget", lambda name: fields.count(name, or_else=-1))
    return {
        "chat_template_kwargs": given or None,
        "reasoning_effort": fields.one_of("reasoning_effort", NO_EFFORT, *EFFORTS),
        "thinking_budget": None if budget == -1 else budget,
    }


def wants_split(fields: Fields) -> bool:
    """Whether reasoning is to be told apart from the answer.

    Raises:
        InputError: a format that there is not.
    """
    return fields.one_of("reasoning_format", *FORMATS) != "none"


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
