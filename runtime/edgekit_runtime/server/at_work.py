"""What the worker is doing, in memory that the front can read after its death: which adapters were at work in the
engine, and which requests were being read beside it.

A request that waits is not blamed for a crash, nor is the adapter of a neighbour.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgekit_runtime.engines import Stack

SIZE = 64 * 1024
_READ_AT = SIZE - 1024  # what is being read has the rest
_LENGTH_BYTES = 4
_BETWEEN_STACKS, _BETWEEN_DIGESTS = "\n", " "

Stacks = set[frozenset[str]]  # digests; none of them for the bare base


class AtWork:
    """Shared memory of front and worker."""

    def __init__(self, handle: int) -> None:
        """Map an open file of :data:`SIZE` bytes."""
        self._memory = mmap.mmap(handle, SIZE)
        self._being_read: set[int] = set()
        self._lock = threading.Lock()

    def mark(self, stacks: Sequence[Stack]) -> None:
        """Note what is at work from now on; nothing when there are no stacks."""
        text = _BETWEEN_STACKS.join(_BETWEEN_DIGESTS.join(digest for digest, _ in stack) for stack in stacks)
        self._write(0, _READ_AT, f"={text}" if stacks else "")

    def read(self) -> Stacks:
        """What was noted last; nothing where no adapter and no base was at work."""
        content = self._text(0, _READ_AT)
        return {frozenset(stack.split()) for stack in content[1:].split(_BETWEEN_STACKS)} if content else set()

    @contextmanager
    def reading(self, number: int) -> Iterator[None]:
        """Note that a request is being read in the block; any thread may."""
        with self._lock:
            self._being_read.add(number)
            self._note_reading()
        try:
            yield
        finally:
            with self._lock:
                self._being_read.discard(number)
                self._note_reading()

    def being_read(self) -> set[int]:
        """Numbers of the requests that were being read."""
        return {int(each) for each in self._text(_READ_AT, SIZE).split() if each.isdecimal()}

    def clear(self) -> None:
        """Another worker begins: nothing is at work."""
        self.mark(())
        self._write(_READ_AT, SIZE, "")

    def _note_reading(self) -> None:
        self._write(_READ_AT, SIZE, _BETWEEN_DIGESTS.join(map(str, self._being_read)))

    def _write(self, start: int, end: int, text: str) -> None:
        content, start_of_text = text.encode(), start + _LENGTH_BYTES
        if start_of_text + len(content) > end:
            content = b""
        self._memory[start_of_text : start_of_text + len(content)] = content
        self._memory[start:start_of_text] = len(content).to_bytes(_LENGTH_BYTES, "little")

    def _text(self, start: int, end: int) -> str:
        start_of_text = start + _LENGTH_BYTES
        length = int.from_bytes(self._memory[start:start_of_text], "little")
        return self._memory[start_of_text : min(start_of_text + length, end)].decode("ascii", "replace")


def shared_file() -> int:
    """A new file for it, without a name; its handle."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("edgekit-at-work")
    else:
        with tempfile.TemporaryFile() as stream:
            handle = os.dup(stream.fileno())
    os.truncate(handle, SIZE)
    return handle
