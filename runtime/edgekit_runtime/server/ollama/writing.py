"""Answers as Ollama's clients read them: one JSON object, or one a line."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

from edgekit_runtime.files.strict_json import strict_json
from edgekit_runtime.prompts.tool_stream import Argued, Begun, Said
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.ollama.calls import told
from edgekit_runtime.server.ollama.errors import ollama_error
from edgekit_runtime.server.ollama.names import tagged
from edgekit_runtime.server.openai.responses import chat_logprobs
from edgekit_runtime.server.parts import Part, PartReader, Thought
from edgekit_runtime.server.refusals import Refused
from edgekit_runtime.server.wire import Message

NS = 1e6  # of a millisecond
LOADED = "load"  # why nothing more is said where nothing was asked


class OllamaWriter:
    """Says one answer of /api/chat or /api/generate."""

    media_type = "application/x-ndjson"

    def __init__(self, asked: Asked, model: str) -> None:
        """Say what is answered to ``asked``; ``model`` is its name as the client has spelt it."""
        self._asked, self._model = asked, model
        self._parts = PartReader(None)

    def answered_by(self, route: dict[str, Any]) -> None:
        """Whose answer it is, where the device has chosen."""
        self._asked, self._model = self._asked.answered_by(route), tagged(route["adapter"])

    def whole(self, results: list[dict[str, Any]], scores: list[list[Any]]) -> dict[str, Any]:
        """The answer in one piece."""
        if not results:
            return self._object("") | {"done": True, "done_reason": LOADED}
        (result,), (scored,) = results, scores
        calls = [told(call, number) for number, call in enumerate(result.get("tool_calls") or ())]
        said = self._object(result["text"], result.get("reasoning") or "", calls, scored)
        return said | _end(result)

    def begun(self, accepted: Message) -> Iterator[str]:
        """Nothing yet."""
        self._parts = PartReader(accepted.get("calls"))
        return iter(())

    def piece(self, index: int, event: Message) -> Iterator[str]:
        """Text, reasoning and whole calls."""
        yield from self._more(self._parts.feed(event), event["scores"])

    def done(self, index: int, event: Message) -> Iterator[str]:
        """What was held back, and the end."""
        yield from self._more(self._parts.finish(event["value"]))
        yield _line(self._object("") | _end(event["value"]))

    def ping(self) -> str:
        """Nothing more of the answer: each line has to be an object there."""
        return _line(self._object("") | {"done": False})

    def ended(self) -> Iterator[str]:
        """Nothing more: the last object was the end."""
        return iter(())

    def failed(self, refused: Refused) -> Iterator[str]:
        """An error in the place of what is missing."""
        yield _line(ollama_error(refused))

    def _more(self, parts: list[Part], scores: list[Any] | None = None) -> Iterator[str]:
        """Objects of these parts: one, or more where a text comes behind a call."""
        text, reasoning, calls = "", "", list[dict[str, Any]]()
        for part in parts:
            match part:
                case Thought(more):
                    reasoning += more
                case Begun(number, identity, name):
                    calls.append({"id": identity, "function": {"index": number, "name": name, "arguments": {}}})
                case Argued(_, arguments):
                    calls[-1]["function"]["arguments"] = json.loads(arguments)
                case Said(more):
                    if calls:
                        yield _line(self._object(text, reasoning, calls) | {"done": False})
                        text, reasoning, calls = "", "", []
                    text += more
        if text or reasoning or calls or scores:
            yield _line(self._object(text, reasoning, calls, scores) | {"done": False})

    def _object(
        self, text: str, reasoning: str = "", calls: list[dict[str, Any]] | None = None, scores: list[Any] | None = None
    ) -> dict[str, Any]:
        """What an object says, but for whether it is the last one."""
        beside: dict[str, Any] = {"thinking": reasoning} if reasoning else {}
        if calls:
            beside["tool_calls"] = calls
        said: dict[str, Any] = {"model": self._model, "created_at": now(), **self._asked.told_route}
        if self._asked.chat:
            said["message"] = {"role": "assistant", "content": text} | beside
        else:
            said |= {"response": text} | beside
        if scores and self._asked.options and self._asked.logprobs:
            said["logprobs"] = chat_logprobs(scores)["content"]
        return said


def now() -> str:
    """The time, as Go writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


def _end(result: dict[str, Any]) -> dict[str, Any]:
    """Why an answer ended, its counts, and its times in nanoseconds."""
    usage, times = result["usage"], result["timings"]
    return {
        "done": True,
        "done_reason": "length" if result["finish_reason"] == "length" else "stop",
        "total_duration": _ns(times["ttft_ms"] + times["decode_ms"]),
        "load_duration": _ns(times["queue_ms"] + times["switch_ms"]),
        "prompt_eval_count": usage["prompt_tokens"],
        "prompt_eval_duration": _ns(times["encode_ms"] + times["prefill_ms"]),
        "eval_count": usage["completion_tokens"],
        "eval_duration": _ns(times["decode_ms"]),
    }


def _ns(milliseconds: float) -> int:
    return max(0, round(milliseconds * NS))


def _line(document: dict[str, Any]) -> str:
    return f"{strict_json(document)}\n"
