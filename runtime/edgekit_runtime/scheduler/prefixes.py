"""KV cache of what many requests begin with: an adapter's system prompt is prefilled once, and once only.

States are kept in memory and, with a folder, on disk too, so that a restarted service is warm.  A state is looked up by
everything it depends on: the tokens, the adapters' digests and scales, and ``tag`` for base, engine and layout.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from edgekit_runtime.scheduler.job import Key

DEFAULT_LIMIT = 64 * 1024 * 1024
LEAST_TOKENS = 8  # a shorter beginning is computed faster than it is fetched
SUFFIX = ".kv"
DIGEST_BYTES = 32


class PrefixCache:
    """States by what they were computed from; the longest unused go first."""

    def __init__(self, limit: int = DEFAULT_LIMIT, *, folder: Path | None = None, tag: str = "") -> None:
        """Start with what the folder holds.

        Args:
            limit: bytes in memory, and on disk again as many.
            folder: made when missing; what can't be written there is not kept.
            tag: names everything else that a state depends on.
        """
        self._limit, self._folder, self._tag = limit, folder, tag
        self._states: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    @property
    def size(self) -> int:
        """What is kept in memory."""
        return self._size

    def get(self, keys: Sequence[Key]) -> bytes | None:
        """The state after ``keys``, if it is there."""
        name = self._name(keys)
        state = self._states.get(name)
        if state is not None:
            self._states.move_to_end(name)
        elif (state := self._read(name)) is not None:
            self._keep(name, state)
        return state

    def put(self, keys: Sequence[Key], state: bytes) -> None:
        """Keep the state after ``keys``."""
        name = self._name(keys)
        if len(state) <= self._limit and name not in self._states:
            self._keep(name, state)
            self._write(name, state)

    def forget(self, keys: Sequence[Key]) -> None:
        """Drop a state that the engine didn't take."""
        name = self._name(keys)
        self._size -= len(self._states.pop(name, b""))
        if self._folder is not None:
            with contextlib.suppress(OSError):  # a file that can't be removed is refused again
                (self._folder / (name + SUFFIX)).unlink(missing_ok=True)

    def _keep(self, name: str, state: bytes) -> None:
        self._states[name] = state
        self._size += len(state)
        while self._size > self._limit:
            _, dropped = self._states.popitem(last=False)
            self._size -= len(dropped)

    def _name(self, keys: Sequence[Key]) -> str:
        return hashlib.sha256(repr((self._tag, list(keys))).encode()).hexdigest()

    def _read(self, name: str) -> bytes | None:
        """A state from disk: its SHA-256, then its bytes.  A torn or altered file is no state."""
        if self._folder is None:
            return None
        path = self._folder / (name + SUFFIX)
        try:
            content = path.read_bytes()
            if hashlib.sha256(content[DIGEST_BYTES:]).digest() == content[:DIGEST_BYTES]:
                os.utime(path)
                return content[DIGEST_BYTES:]
            path.unlink()
        except OSError:
            pass
        return None

    def _write(self, name: str, state: bytes) -> None:
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            scratch = self._folder / f"{name}.{os.getpid()}"
            try:
                scratch.write_bytes(hashlib.sha256(state).digest() + state)
                scratch.replace(self._folder / (name + SUFFIX))
            finally:
                scratch.unlink(missing_ok=True)
            self._trim(self._folder)
        except OSError:  # a full or read-only disk costs warmth, nothing else
            pass

    def _trim(self, folder: Path) -> None:
        found = sorted(((path.stat().st_mtime, path) for path in folder.iterdir()), reverse=True)
        size = 0
        for _, path in found:
            size += path.stat().st_size
            if size > self._limit:
                path.unlink()
