"""KV cache of conversations that others took the place of, so that their next turn reads what is new alone.

A device with one sequence that serves three chats in turn would read each of them from its start otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgekit_runtime.scheduler.request import Key

DEFAULT_CHAT_MEMORY = 128_000_000


@dataclass(frozen=True, eq=False)
class Parked:
    """What a sequence held when another conversation took it.

    Attributes:
        held: its cells, all of them prefilled.
        cuts: where the chunks ended in which they were.
        state: the engine's copy of them.
    """

    held: list[Key]
    cuts: list[int]
    state: bytes


class ParkedChats:
    """Conversations that wait in memory; the longest unused go first."""

    def __init__(self, limit: int = DEFAULT_CHAT_MEMORY) -> None:
        """Start without any.

        Args:
            limit: bytes of all states together; 0 for none.
        """
        self._limit = limit
        self._chats: list[Parked] = []
        self._too_long: int | None = None

    def __iter__(self) -> Iterator[Parked]:
        return iter(self._chats)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return sum(len(each.state) for each in self._chats)

    def takes(self, cells: int) -> bool:
        """Whether a conversation of so many cells may fit: saving one that doesn't costs its copy for nothing."""
        return self._limit > 0 and (self._too_long is None or cells < self._too_long)

    def put(self, chat: Parked) -> None:
        """Keep a conversation, in the place of those that it goes on from."""
        if len(chat.state) > self._limit:
            self._too_long = len(chat.held)
            return
        self._chats = [each for each in self._chats if chat.held[: len(each.held)] != each.held]
        self._chats.append(chat)
        while self.size > self._limit:
            self._chats.pop(0)

    def take(self, chat: Parked) -> None:
        """Let go of a conversation: a sequence holds it now."""
        self._chats = [each for each in self._chats if each is not chat]

    def clear(self) -> None:
        """Let go of all."""
        self._chats = []
