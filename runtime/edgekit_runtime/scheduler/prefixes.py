"""KV cache of what many requests begin with: an adapter's system prompt is prefilled once, and once only.

States are kept in memory and, with a folder, on disk too, so that a restarted service is warm.  A state is looked up by
everything it depends on: the tokens, the adapters' digests and scales, and ``tag`` for base, engine and layout.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import psutil

from edgekit_runtime.scheduler.request import Key

log = logging.getLogger(__name__)

DEFAULT_PREFIX_MEMORY = 64_000_000
LEAST_TOKENS = 8  # a shorter beginning is computed faster than it is fetched
SUFFIX = ".kv"
DIGEST_BYTES = 32
AGAIN_SECONDS = 60.0  # after a write that failed
USE_NS = 10**9  # from one use to the next, as file times count them: no file system rounds that away


class PrefixCache:
    """States by what they were computed from; the longest unused go first."""

    def __init__(self, limit: int = DEFAULT_PREFIX_MEMORY, *, folder: Path | None = None, tag: str = "") -> None:
        """Start with what the folder holds.

        Args:
            limit: bytes in memory, and on disk again as many.
            folder: made when missing; what can't be written there is not kept.
            tag: names everything else that a state depends on.
        """
        self._limit, self._folder, self._tag = limit, folder, tag
        self._states: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._unwritten: set[str] = set()
        self._again = 0.0  # when it may be tried to write again
        self._told = False
        self._drop_left_over()

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
            if name in self._unwritten and time.monotonic() >= self._again:
                self._write(name, state)
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
            other, dropped = self._states.popitem(last=False)
            self._size -= len(dropped)
            self._unwritten.discard(other)

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
                with contextlib.suppress(OSError):  # a read-only disk is warm too
                    self._use(self._folder, path)
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
                self._use(self._folder, scratch)
                scratch.replace(self._folder / (name + SUFFIX))
            finally:
                scratch.unlink(missing_ok=True)
            self._trim(self._folder)
        except OSError as error:  # a full or read-only disk costs warmth, nothing else
            if not self._told:
                self._told = True
                log.warning("the KV cache of system prompts can't be kept on the disk (%s): look for room", error)
            self._unwritten.add(name)
            self._again = time.monotonic() + AGAIN_SECONDS
            return
        self._unwritten.discard(name)
        self._again = 0.0
        if self._told:
            self._told = False
            log.info("the KV cache of system prompts is kept on the disk again")

    def _use(self, folder: Path, path: Path) -> None:
        """Make a file the one that was used last; by the files' own times, as the clock may have gone back by years."""
        latest = max((mtime for mtime, _, _ in self._files(folder)), default=0)
        os.utime(path, ns=(latest + USE_NS, latest + USE_NS))

    def _trim(self, folder: Path) -> None:
        size = 0
        for _, bytes_, path in sorted(self._files(folder), reverse=True):
            size += bytes_
            if size > self._limit:
                path.unlink(missing_ok=True)

    @staticmethod
    def _files(folder: Path) -> list[tuple[int, int, Path]]:
        """Time, bytes and path of each; another process may take some away meanwhile."""
        found = []
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime_ns, status.st_size, path))
        return found

    def _drop_left_over(self) -> None:
        """Remove halves of files whose processes were killed while they wrote them."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir() if self._folder is not None else ():
                writer = path.suffix.removeprefix(".")
                if writer.isdecimal() and not psutil.pid_exists(int(writer)):
                    path.unlink()
