"""Stop texts in a stream: nothing that may become one is let out early."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit_runtime.errors import UsageError


class StopText:
    """Feed pieces of text; get back what is safe to show.

    Attributes:
        found: the text that has come; None before.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Take the texts that end an answer.

        Raises:
            UsageError: an empty one.
        """
        if not all(stops):
            raise UsageError("a stop text is empty", "leave it out")
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether one has come."""
        return self.found is not None

    def feed(self, piece: str) -> str:
        """Text that can be shown now; after a stop text, nothing any more."""
        if not self._stops:
            return piece
        if self.stopped:
            return ""
        text = self._held + piece
        found = [(position, stop) for stop in self._stops if (position := text.find(stop)) >= 0]
        if found:
            position, self.found = min(found, key=lambda each: each[0])
            self._held = ""
            return text[:position]
        keep = max(self._overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self, piece: str) -> str:
        """The last text: what was held back was no stop text after all."""
        shown = self.feed(piece)
        return shown if self.stopped else shown + self._held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of ``text`` that is a beginning of ``stop``."""
        return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
