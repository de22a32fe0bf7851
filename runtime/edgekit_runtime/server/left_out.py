"""Models that may not answer: of bundle or store, and of those that were loaded; each says why as ``aside``."""

from __future__ import annotations

from collections.abc import Container, Iterable

from edgekit_runtime.server.wire import Message

ASIDE = "aside"


class LeftOut:
    """Which they are."""

    def __init__(self) -> None:
        self._stored: dict[str, Message] = {}  # by name
        self._loaded: dict[str, Message] = {}

    def store(self, models: Iterable[Message]) -> set[str]:
        """Take these of bundle or store, and no others; the digests of those that may answer now."""
        before = self.digests()
        self._stored = {model["name"]: model for model in models}
        return before - self.digests()

    def add(self, model: Message, why: str, *, loaded: bool) -> None:
        """Take one more."""
        (self._loaded if loaded else self._stored)[model["name"]] = model | {ASIDE: why}

    def reloaded(self, name: str, digest: str) -> None:
        """A file was loaded under this name: it answers."""
        found = self._loaded.items()
        self._loaded = {each: model for each, model in found if each != name and model["digest"] != digest}

    def unloaded(self, name: str) -> None:
        """Forget one that was loaded, if it was."""
        self._loaded.pop(name, None)

    def by_name(self, answering: Container[str]) -> dict[str, Message]:
        """All of them, but for those of bundle or store whose names others answer for, that were loaded."""
        return {name: model for name, model in self._stored.items() if name not in answering} | self._loaded

    def digests(self, stored: Iterable[Message] | None = None) -> set[str]:
        """What a worker has to leave out, with others of bundle or store where they are given."""
        models = self._stored.values() if stored is None else stored
        return {model["digest"] for model in [*models, *self._loaded.values()]}
