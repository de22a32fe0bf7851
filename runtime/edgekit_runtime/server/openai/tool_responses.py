"""Calls of tools in OpenAI's replies: arguments are JSON text there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgekit_runtime.prompts.tool_format import ToolFormat
from edgekit_runtime.prompts.tool_stream import Begun, CallReader, Delta, Said


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
        self._reader = None
        if reading is not None:
            form = ToolFormat.from_json(reading["form"])
            self._reader = CallReader(form, reading["tools"], thinking=reading["thinking"])

    def feed(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What is known with the next piece: reasoning, where it was told apart, then text and calls."""
        reasoning, text = event.get("reasoning"), event["text"]
        before = [{"reasoning_content": reasoning}] if reasoning else []
        if self._reader is None:
            return before + ([{"content": text}] if text else [])
        return before + list(map(_delta, self._reader.feed(text)))

    def finish(self) -> list[dict[str, Any]]:
        """What was held back."""
        return [] if self._reader is None else list(map(_delta, self._reader.finish()))


def _delta(delta: Delta) -> dict[str, Any]:
    if isinstance(delta, Said):
        return {"content": delta.text}
    if isinstance(delta, Begun):
        function = {"name": delta.name, "arguments": ""}
        return {"tool_calls": [{"index": delta.number, "id": delta.id, "type": "function", "function": function}]}
    return {"tool_calls": [{"index": delta.number, "function": {"arguments": delta.text}}]}
