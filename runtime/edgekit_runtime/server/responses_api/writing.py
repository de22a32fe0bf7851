"""Answers as OpenAI's Responses API has them, whole and as typed server-sent events."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from edgekit_runtime.files.strict_json import without_nan
from edgekit_runtime.prompts.tool_stream import Said
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.events import MEDIA_TYPE, PING, event_text
from edgekit_runtime.server.openai.responses import Result, Score, chat_logprobs
from edgekit_runtime.server.parts import Part, PartReader, parts_of
from edgekit_runtime.server.refusals import Refused
from edgekit_runtime.server.responses_api.items import CUT, Items
from edgekit_runtime.server.wire import Message

Document = dict[str, Any]
# Fields of a request that come back as they are, and those of which something does.
_ECHOED = ("instructions", "max_output_tokens", "temperature", "top_p", "top_logprobs", "user", "prompt_cache_key")
_READ = ("metadata", "parallel_tool_calls", "reasoning", "text", "tool_choice", "tools")


class ResponseWriter:
    """Says one answer as clients of the Responses API read it."""

    media_type = MEDIA_TYPE

    def __init__(self, asked: Asked, document: Document) -> None:
        """Say what is answered to ``asked``, whose body was ``document``: some of it comes back."""
        self._asked = asked
        self._given = without_nan({name: document.get(name) for name in (*_ECHOED, *_READ)})
        self._items = Items()
        self._parts = PartReader(None)
        self._count = 0
        self._final: Document = {}
        self._scores: list[Document] = []  # that no text has come with yet

    def answered_by(self, route: Document) -> None:
        """Whose answer it is, where the device has chosen."""
        self._asked = self._asked.answered_by(route)

    def whole(self, results: list[Result], scores: list[list[Score]]) -> Document:
        """The response in one piece."""
        (result,), (scored,) = results, scores
        self._scores = self._spelt(scored)
        for _ in self._ended(parts_of(result), result):
            pass
        return self._final

    def begun(self, accepted: Message) -> Iterator[str]:
        """A response without output."""
        self._parts = PartReader(accepted.get("calls"))
        for kind in ("response.created", "response.in_progress"):
            yield self._event({"type": kind, "response": self._response("in_progress")})

    def piece(self, index: int, event: Message) -> Iterator[str]:
        """Text, reasoning and calls."""
        self._scores += self._spelt(event["scores"])
        for each in self._told(self._parts.feed(event)):
            yield self._event(each)

    def done(self, index: int, event: Message) -> Iterator[str]:
        """What was held back, and the ends of items."""
        for each in self._ended(self._parts.finish(event["value"]), event["value"]):
            yield self._event(each)

    def ping(self) -> str:
        """A comment."""
        return PING

    def ended(self) -> Iterator[str]:
        """The whole response again."""
        yield self._event({"type": f"response.{self._final['status']}", "response": self._final})

    def failed(self, refused: Refused) -> Iterator[str]:
        """The response as far as it has come, with what went wrong."""
        for _ in self._items.close(CUT):
            pass
        code = "server_error" if refused.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_prompt"
        failed = self._response("failed") | {"error": {"code": code, "message": str(refused)}}
        yield self._event({"type": "response.failed", "response": failed})

    def _told(self, parts: Iterable[Part]) -> Iterator[Document]:
        for part in parts:
            scores: list[Document] = []
            if isinstance(part, Said):
                scores, self._scores = self._scores, scores
            yield from self._items.add(part, scores)

    def _ended(self, parts: Iterable[Part], result: Result) -> Iterator[Document]:
        """The last events of the items; the final response is there then."""
        yield from self._told(parts)
        cut = result["finish_reason"] == "length"
        yield from self._items.end(self._scores, cut=cut)
        self._final = self._response("incomplete" if cut else "completed") | {"usage": _usage(result["usage"])}
        if cut:
            self._final["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self._final["completed_at"] = int(time.time())

    def _spelt(self, scores: list[Score]) -> list[Document]:
        return chat_logprobs(scores)["content"] if self._asked.logprobs else []

    def _event(self, document: Document) -> str:
        numbered = {"type": document["type"], "sequence_number": self._count, **document}
        self._count += 1
        return event_text(numbered, document["type"])

    def _response(self, status: str) -> Document:
        given = self._given.get
        reasoning, text = given("reasoning") or {}, given("text") or {}
        return {
            "id": f"resp_{self._asked.id}",
            "object": "response",
            "created_at": self._asked.created,
            "completed_at": None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self._asked.model,
            "output": list(self._items.output),
            "parallel_tool_calls": given("parallel_tool_calls") is not False,
            "previous_response_id": None,
            "reasoning": {"effort": reasoning.get("effort"), "summary": None},
            "service_tier": "default",
            "store": False,
            "text": {"format": text.get("format") or {"type": "text"}},
            "tool_choice": given("tool_choice") or "auto",
            "tools": given("tools") or [],
            "truncation": "disabled",
            "metadata": given("metadata") or {},
            "usage": None,
            **{name: given(name) for name in _ECHOED},
            **self._asked.told_route,
        }


def _usage(usage: Document) -> Document:
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": usage["cached_tokens"], "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
        "total_tokens": usage["total_tokens"],
    }
