"""What the worker is doing, in memory that the front can read after its death: which adapters were at work in the
engine, and which requests were being read beside it.

A request that waits is not blamed for a crash, nor is the adapter of a neighbour.  Python's faulthandler adds, at the
end of the file, which thread it was that crashed.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edgekit_runtime.engines import Stack

SIZE = 64 * 1024
_READ_AT = SIZE - 1024  # what is being read has the rest
_LENGTH_BYTES = 4
_BETWEEN_STACKS, _BETWEEN_DIGESTS = "\n", " "

Stacks = set[frozenset[str]]  # digests; none of them for the bare base


_LONGEST_TRACE = 1 << 20
_CURRENT = re.compile(rb"^Current thread 0x([0-9a-f]+)", re.MULTILINE)


@dataclass(frozen=True)
class Crash:
    """What a worker did when it crashed or hung.

    Attributes:
        at_work: in the engine.
        read: the request that the thread read which crashed; all that were being read where it can't be told.
    """

    at_work: Stacks
    read: frozenset[int]


class AtWork:
    """Shared memory of front and worker."""

    def __init__(self, handle: int) -> None:
        """Map an open file of :data:`SIZE` bytes."""
        self._handle, self._memory = handle, mmap.mmap(handle, SIZE)
        self._being_read: dict[int, int] = {}  # numbers of requests by thread
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
        thread = threading.get_ident()
        with self._lock:
            self._being_read[thread] = number
            self._note_reading()
        try:
            yield
        finally:
            with self._lock:
                del self._being_read[thread]
                self._note_reading()

    def being_read(self) -> dict[int, int]:
        """Numbers of the requests that were being read, by thread."""
        words = self._text(_READ_AT, SIZE).split()
        return {int(thread, 16): int(number) for thread, _, number in (word.partition(":") for word in words)}

    def note_crashes(self) -> None:
        """Have this process write down which of its threads crashes."""
        faulthandler.enable(self._handle)

    def crash(self, *, hung: bool = False) -> Crash:
        """What the worker did that has ended; where it ``hung``, it was the engine's own thread."""
        being_read, trace = self.being_read(), os.pread(self._handle, _LONGEST_TRACE, SIZE)
        read = set(being_read.values())
        if found := _CURRENT.search(trace):
            read = {number for thread, number in being_read.items() if thread == int(found[1], 16)}
        elif hung or trace:  # of a thread that Python doesn't know: the engine has some
            read = set()
        return Crash(self.read(), frozenset(read))

    def clear(self) -> None:
        """Another worker begins: nothing is at work."""
        self.mark(())
        self._write(_READ_AT, SIZE, "")
        os.truncate(self._handle, SIZE)
        os.lseek(self._handle, SIZE, os.SEEK_SET)

    def _note_reading(self) -> None:
        noted = (f"{thread:x}:{number}" for thread, number in self._being_read.items())
        self._write(_READ_AT, SIZE, _BETWEEN_DIGESTS.join(noted))

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
