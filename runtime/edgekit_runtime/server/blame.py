"""Which adapters the engine has died of: those that were at work in it, alone, at two of its crashes."""

from __future__ import annotations

import time
from collections.abc import Iterator

from edgekit_runtime.server.at_work import Stacks

MOST_DEATHS = 2
REMEMBERED_SECONDS = 3600.0


class Blame:
    """Counts crashes by adapter."""

    def __init__(self) -> None:
        self._deaths: dict[str, list[float]] = {}

    def crashed(self, at_work: Stacks) -> Iterator[str]:
        """Note a crash; yields the digest of an adapter that the engine has died of too often.

        Of adapters that are applied together nobody knows which one it was: none is blamed.  When requests of several
        were decoded in one step, each may have been it, and the next crash tells which.
        """
        now = time.monotonic()
        for stack in at_work:
            if len(stack) == 1:
                (digest,) = stack
                recent = [each for each in self._deaths.get(digest, ()) if now - each < REMEMBERED_SECONDS]
                self._deaths[digest] = [*recent, now]
                if len(self._deaths[digest]) >= MOST_DEATHS and len(at_work) == 1:
                    yield digest

    def forgive(self, digest: str) -> None:
        """Begin to count anew."""
        self._deaths.pop(digest, None)
