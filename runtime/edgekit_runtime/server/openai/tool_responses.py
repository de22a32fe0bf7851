"""Calls of tools in OpenAI's replies: arguments are JSON text there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgekit_runtime.prompts.tool_stream import Argued, Begun, Said
from edgekit_runtime.server.parts import Part, PartReader, Thought


def answer_message(result: Mapping[str, Any], *, reasons: bool = True) -> dict[str, Any]:
    """The message of a whole answer; without its reasoning, where ``reasons`` says so."""
    calls, message = result.get("tool_calls"), {"role": "assistant", "content": result["text"]}
    if reasons and result.get("reasoning"):
        message["reasoning_content"] = result["reasoning"]
    if calls:
        message |= {"content": result["text"] or None, "tool_calls": [_call(each) for each in calls]}
    return message


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {"name": function["name"], "arguments": arguments}}


class Deltas:
    """What the pieces of a streamed answer are to a client."""

    def __init__(self, reading: Mapping[str, Any] | None) -> None:
        """Take how calls are read, as the worker tells it; None where none may come."""
        self._parts = PartReader(reading)

    def feed(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What is known with the next piece: reasoning, where it was told apart, then text and calls."""
        return list(map(_delta, self._parts.feed(event)))

    def finish(self, result: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What was held back, given the worker's result."""
        return list(map(_delta, self._parts.finish(result)))


def _delta(part: Part) -> dict[str, Any]:
    match part:
        case Thought(text):
            return {"reasoning_content": text}
        case Said(text):
            return {"content": text}
        case Begun(number, identity, name):
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": number, "id": identity, "type": "function", "function": function}]}
        case Argued(number, text):
            return {"tool_calls": [{"index": number, "function": {"arguments": text}}]}
