"""What an answer consists of while it comes: reasoning, text and calls, whatever protocol tells of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from edgekit_runtime.prompts.tool_format import ToolFormat
from edgekit_runtime.prompts.tool_stream import Argued, Begun, CallReader, Delta, Said


class Thought(NamedTuple):
    """Some reasoning."""

    text: str


Part = Thought | Delta
PARTS = "parts"  # of a result, in their order


class PartReader:
    """Feed the worker's events of one answer; get back its parts."""

    def __init__(self, reading: Mapping[str, Any] | None) -> None:
        """Take how calls are read, as the worker tells it; None where none may come."""
        self._reader: CallReader | None = None
        if reading is not None:
            form = ToolFormat.from_json(reading["form"])
            self._reader = CallReader(form, reading["tools"], thinking=reading["thinking"])

    def feed(self, event: Mapping[str, Any]) -> list[Part]:
        """What is known with the next text: reasoning, where it was told apart, then text and calls."""
        reasoning, text = event.get("reasoning"), event["text"]
        before: list[Part] = [Thought(reasoning)] if reasoning else []
        if self._reader is None:
            return [*before, Said(text)] if text else before
        return [*before, *self._reader.feed(text)]

    def finish(self, result: Mapping[str, Any]) -> list[Part]:
        """What was held back, given the worker's result."""
        return [] if self._reader is None else list(self._reader.finish(cut=was_cut(result)))

    def whole(self, texts: Iterable[Mapping[str, Any]], result: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's result with the parts of all its text events, so that a whole answer says what a stream does."""
        if self._reader is None:
            return dict(result)
        parts = [part for event in texts for part in self.feed(event)] + self.finish(result)
        said, calls = "", list[dict[str, Any]]()
        for part in parts:
            match part:
                case Said(text):
                    said += text
                case Begun(_, identity, name):
                    calls.append({"id": identity, "type": "function", "function": {"name": name, "arguments": {}}})
                case Argued(_, text):
                    calls[-1]["function"]["arguments"] = json.loads(text)
        return {**result, "text": said, "tool_calls": calls, PARTS: parts}


def was_cut(result: Mapping[str, Any]) -> bool:
    """Whether an answer may have ended in the middle of a call."""
    return result["finish_reason"] == "length" or result.get("stop_text") is not None


def parts_of(result: Mapping[str, Any]) -> Iterator[Part]:
    """The parts of a whole answer, in their order where calls may be among them."""
    if PARTS in result:
        yield from result[PARTS]
        return
    if result.get("reasoning"):
        yield Thought(result["reasoning"])
    if result["text"]:
        yield Said(result["text"])
