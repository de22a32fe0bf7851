"""Answers as OpenAI's chat completions and completions have them, whole and as server-sent events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.events import MEDIA_TYPE, PING, event_text
from edgekit_runtime.server.openai import responses as replies
from edgekit_runtime.server.openai.tool_responses import Deltas
from edgekit_runtime.server.refusals import Refused, openai_error
from edgekit_runtime.server.wire import Message


class OpenAIWriter:
    """Says one answer as OpenAI's clients read it."""

    media_type = MEDIA_TYPE

    def __init__(self, asked: Asked) -> None:
        """Say what is answered to ``asked``."""
        self._asked = asked
        self._deltas: list[Deltas] = []
        self._results: dict[int, replies.Result] = {}
        self._begun: set[int] = set()
        self._offsets = [replies.Offsets() for _ in asked.options]

    def answered_by(self, route: dict[str, Any]) -> None:
        """Whose answer it is, where the device has chosen."""
        self._asked = self._asked.answered_by(route)

    def whole(self, results: list[replies.Result], scores: list[list[replies.Score]]) -> dict[str, Any]:
        """The answer in one piece."""
        return replies.reply(self._asked, results, scores)

    def begun(self, accepted: Message) -> Iterator[str]:
        """Whose say it is."""
        self._deltas = [Deltas(accepted.get("calls")) for _ in self._asked.options]
        if self._asked.chat:
            for index in range(len(self._asked.options)):
                yield event_text(replies.first_chunk(self._asked, index))

    def piece(self, index: int, event: Message) -> Iterator[str]:
        """Text, reasoning and calls, or how much of the prompt has been read."""
        if event["op"] == "progress":
            yield event_text(replies.progress_chunk(self._asked, index, event))
            return
        yield from self._echo(index, event)
        if not self._asked.chat:
            told = replies.chunk(self._asked, index, event["text"], event["scores"], offsets=self._offsets[index])
            yield event_text(told)
            return
        for each in replies.chunks(self._asked, index, self._deltas[index].feed(event), event["scores"]):
            yield event_text(each)

    def done(self, index: int, event: Message) -> Iterator[str]:
        """What was held back, and why it ended."""
        yield from self._echo(index, event)
        result = self._results[index] = event["value"]
        for each in replies.chunks(self._asked, index, self._deltas[index].finish(result), []):
            yield event_text(each)
        yield event_text(replies.chunk(self._asked, index, None, [], result["finish_reason"]))

    def ping(self) -> str:
        """A comment."""
        return PING

    def ended(self) -> Iterator[str]:
        """Counts, if they are wanted, and OpenAI's end of streams."""
        if self._asked.include_usage:
            yield event_text(
                replies.usage_chunk(self._asked, [self._results[index] for index in sorted(self._results)])
            )
        yield "data: [DONE]\n\n"

    def failed(self, refused: Refused) -> Iterator[str]:
        """An error in the place of what is missing."""
        yield event_text(openai_error(refused))

    def _echo(self, index: int, event: Message) -> Iterator[str]:
        if index not in self._begun and (echoed := replies.echoed_in(event)):
            yield event_text(replies.echo_chunk(self._asked, index, echoed, self._offsets[index]))
        self._begun.add(index)
