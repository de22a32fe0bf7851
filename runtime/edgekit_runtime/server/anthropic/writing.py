"""Answers and errors as Anthropic's Messages API has them, whole and as typed server-sent events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from edgekit_runtime.server.anthropic.blocks import Blocks
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.events import MEDIA_TYPE, event_text
from edgekit_runtime.server.parts import Part, PartReader, Thought, parts_of
from edgekit_runtime.server.refusals import Refused
from edgekit_runtime.server.wire import Message

Document = dict[str, Any]
_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}
_ERRORS = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_TIMEOUT: "timeout_error",
    HTTPStatus.CONFLICT: "conflict_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.INTERNAL_SERVER_ERROR: "api_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
    HTTPStatus.GATEWAY_TIMEOUT: "timeout_error",
}


def anthropic_error(refused: Refused) -> Document:
    """An error as Anthropic's clients read it."""
    kind = _ERRORS.get(HTTPStatus(refused.status), "invalid_request_error")
    details = {"details": {"error_code": refused.code}} if refused.code else {}
    return {"type": "error", "error": {"type": kind, "message": str(refused), **details}, "request_id": None}


class MessageWriter:
    """Says one answer as clients of the Messages API read it."""

    media_type = MEDIA_TYPE

    def __init__(self, asked: Asked) -> None:
        """Say what is answered to ``asked``."""
        self._asked = asked
        self._blocks = Blocks()
        self._parts = PartReader(None)
        self._last: Document = {}

    def answered_by(self, route: Document) -> None:
        """Whose answer it is, where the device has chosen."""
        self._asked = self._asked.answered_by(route)

    def whole(self, results: list[Document], scores: list[list[Any]]) -> Document:
        """The message in one piece."""
        (result,) = results
        for _ in self._ended(parts_of(result), result):
            pass
        message = self._message(_usage(result["usage"])) | {"content": self._blocks.content}
        message.update(self._last["delta"])
        return message

    def begun(self, accepted: Message) -> Iterator[str]:
        """A message without content."""
        self._parts = PartReader(accepted.get("calls"))
        read = {"prompt_tokens": accepted.get("prompt_tokens", 0), "cached_tokens": 0, "completion_tokens": 0}
        yield _event({"type": "message_start", "message": self._message(_usage(read))})
        yield self.ping()

    def piece(self, index: int, event: Message) -> Iterator[str]:
        """Text, reasoning and calls."""
        for each in self._told(self._parts.feed(event)):
            yield _event(each)

    def done(self, index: int, event: Message) -> Iterator[str]:
        """What was held back, and the end of the last block."""
        for each in self._ended(self._parts.finish(event["value"]), event["value"]):
            yield _event(each)

    def ping(self) -> str:
        """An event that its clients skip."""
        return _event({"type": "ping"})

    def ended(self) -> Iterator[str]:
        """Why it ended, and counts."""
        yield _event(self._last)
        yield _event({"type": "message_stop"})

    def failed(self, refused: Refused) -> Iterator[str]:
        """An error in the place of what is missing."""
        yield _event(anthropic_error(refused))

    def _told(self, parts: Iterable[Part]) -> Iterator[Document]:
        for part in parts:
            if self._asked.reasons or not isinstance(part, Thought):
                yield from self._blocks.add(part)

    def _ended(self, parts: Iterable[Part], result: Document) -> Iterator[Document]:
        """The last events of the blocks; the message's own end is there then."""
        yield from self._told(parts)
        yield from self._blocks.end()
        stop, reason = result.get("stop_text"), _REASONS.get(result["finish_reason"])
        reason = reason or ("end_turn" if stop is None else "stop_sequence")
        delta = {"stop_reason": reason, "stop_sequence": stop if reason == "stop_sequence" else None}
        self._last = {"type": "message_delta", "delta": delta, "usage": _usage(result["usage"])}

    def _message(self, usage: Document) -> Document:
        return {
            "id": f"msg_{self._asked.id}",
            "type": "message",
            "role": "assistant",
            "model": self._asked.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
            **self._asked.told_route,
        }


def _usage(usage: Document) -> Document:
    """Counts; what was in the KV cache already is counted apart from the rest of the prompt."""
    reasoning = usage.get("reasoning_tokens", 0)
    return {
        "input_tokens": usage["prompt_tokens"] - usage["cached_tokens"],
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage["cached_tokens"],
        "output_tokens": usage["completion_tokens"],
    } | ({"output_tokens_details": {"thinking_tokens": reasoning}} if reasoning else {})


def _event(document: Document) -> str:
    return event_text(document, document["type"])
