"""A KV sequence of the engine: what it holds, and who has it."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekit_runtime.scheduler.request import Key, Request


@dataclass
class Slot:
    """One KV sequence of the engine, what of it can be used again, and who has it.

    ``held`` are cells that were computed in parts of several tokens: decoding one at a time rounds otherwise.  ``cuts``
    are where the chunks of prefilled ones ended.
    """

    sequence: int
    held: list[Key] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    request: Request | None = None
    used: int = 0  # admission that used it last

    def empty(self) -> None:
        """Nothing of what it holds can be used again."""
        self.held, self.cuts = [], []
