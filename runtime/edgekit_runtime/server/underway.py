"""One request on its way through the front: what has gone out of its answer already, should it be asked again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.server.wire import Message


@dataclass
class Request:
    """A request on its way, and how much of its answer has gone out; ``key`` is the same when it is sent again."""

    number: int
    message: Message
    key: str = ""
    events: asyncio.Queue[Message | EdgekitError] = field(default_factory=asyncio.Queue)
    deaths: int = 0
    accepted: bool = False
    said: str = ""
    scored: int = 0  # tokens with log-probabilities
    again: str = ""  # what has gone out already, and is to come once more
    skip_scores: int = 0

    def begin_again(self) -> None:
        """What has gone out will not go out again."""
        self.again, self.skip_scores = self.said, self.scored

    def goes_on(self, message: Message) -> bool:
        """Whether a piece of text, or the end, fits what has gone out: an answer may not be made of two."""
        if message["op"] == "done":
            return not self.again
        text: str = message["text"]
        return text.startswith(self.again) or self.again.startswith(text)

    def fresh(self, message: Message) -> Message | None:
        """What of a piece of text that goes on the client has not seen yet."""
        text, scores = message["text"][len(self.again) :], message["scores"][self.skip_scores :]
        self.again = self.again[len(message["text"]) :]
        self.skip_scores = max(self.skip_scores - len(message["scores"]), 0)
        self.said += text
        self.scored += len(scores)
        return {**message, "text": text, "scores": scores} if text or scores else None
