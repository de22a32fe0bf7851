"""What an answer consists of while it comes: reasoning, text and calls, whatever protocol tells of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from edgekit_runtime.prompts.tool_format import ToolFormat
from edgekit_runtime.prompts.tool_stream import Argued, Begun, CallReader, Delta, Said


class Thought(NamedTuple):
    """Some reasoning."""

    text: str


Part = Thought | Delta


def call_reader(reading: Mapping[str, Any] | None) -> CallReader | None:
    """What reads calls, from how the worker tells it; None where none may come."""
    if reading is None:
        return None
    return CallReader(ToolFormat.from_json(reading["form"]), reading["tools"], thinking=reading["thinking"])


class PartReader:
    """Feed the worker's events of one answer; get back its parts."""

    def __init__(self, reading: Mapping[str, Any] | None) -> None:
        """Take how calls are read, as the worker tells it; None where none may come."""
        self._reader = call_reader(reading)

    def feed(self, event: Mapping[str, Any]) -> list[Part]:
        """What is known with the next text: reasoning, where it was told apart, then text and calls."""
        reasoning, text = event.get("reasoning"), event["text"]
        before: list[Part] = [Thought(reasoning)] if reasoning else []
        if self._reader is None:
            return [*before, Said(text)] if text else before
        return [*before, *self._reader.feed(text)]

    def finish(self) -> list[Part]:
        """What was held back."""
        return [] if self._reader is None else list(self._reader.finish())


def parts_of(result: Mapping[str, Any]) -> Iterator[Part]:
    """The parts of a whole answer."""
    if result.get("reasoning"):
        yield Thought(result["reasoning"])
    if result["text"]:
        yield Said(result["text"])
    for number, call in enumerate(result.get("tool_calls") or ()):
        function = call["function"]
        yield Begun(number, call["id"], function["name"])
        yield Argued(number, json.dumps(function["arguments"], ensure_ascii=False))
