"""A request that was read and checked, whatever protocol it came by."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A checked request.

    Attributes:
        model: an adapter's name, or "base".
        options: arguments of Runtime.stream (for vectors, of Runtime.embedding_request), one set for each choice; none
            where nothing is to be computed.
        chat: a chat completion, not a plain one.
        stream: the answer is wanted piece by piece.
        include_usage: and counts at its end.
        ignored: fields that nobody knows.
        n: choices for each prompt.
        splits: reasoning is told apart from the answer.
        reasons: and told at all.
        progress: so is how much of the prompt has been read.
        embeds: vectors are wanted, and no answer.
        route: where the choice of an adapter was left to the device: which one, and how sure that is.
    """

    model: str
    options: list[dict[str, Any]]
    chat: bool
    stream: bool
    include_usage: bool
    ignored: tuple[str, ...] = ()
    n: int = 1
    splits: bool = False
    reasons: bool = True
    progress: bool = False
    embeds: bool = False
    route: dict[str, Any] | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def answered_by(self, route: dict[str, Any]) -> Asked:
        """The same, with the adapter that the device has chosen as its model."""
        return replace(self, model=route["adapter"], route=route)

    @property
    def told_route(self) -> dict[str, Any]:
        """What documents of the answer say of that choice; nothing where the request named the model."""
        return {} if self.route is None else {"route": self.route}

    @property
    def logprobs(self) -> bool:
        """Whether log-probabilities are wanted."""
        return self.options[0].get("logprobs") is not None
