"""What the engine is doing, in memory that the front can read after the worker's death: which adapters were at work.

A request that waits is not blamed for a crash, nor is the adapter of a neighbour.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence

from edgekit_runtime.engines import Stack

SIZE = 64 * 1024
_LENGTH_BYTES = 4
_BETWEEN_STACKS, _BETWEEN_DIGESTS = "\n", " "

Stacks = set[frozenset[str]]  # digests; none of them for the bare base


class AtWork:
    """Shared memory of front and worker."""

    def __init__(self, handle: int) -> None:
        """Map an open file of :data:`SIZE` bytes."""
        self._memory = mmap.mmap(handle, SIZE)

    def mark(self, stacks: Sequence[Stack]) -> None:
        """Note what is at work from now on; nothing when there are no stacks."""
        text = _BETWEEN_STACKS.join(_BETWEEN_DIGESTS.join(digest for digest, _ in stack) for stack in stacks)
        content = f"={text}".encode() if stacks else b""
        if len(content) + _LENGTH_BYTES > SIZE:
            content = b""
        self._memory[_LENGTH_BYTES : _LENGTH_BYTES + len(content)] = content
        self._memory[:_LENGTH_BYTES] = len(content).to_bytes(_LENGTH_BYTES, "little")

    def read(self) -> Stacks:
        """What was noted last; nothing where no adapter and no base was at work."""
        length = int.from_bytes(self._memory[:_LENGTH_BYTES], "little")
        content = self._memory[_LENGTH_BYTES : _LENGTH_BYTES + min(length, SIZE)].decode("ascii", "replace")
        if not content:
            return set()
        return {frozenset(stack.split()) for stack in content[1:].split(_BETWEEN_STACKS)}


def shared_file() -> int:
    """A new file for it, without a name; its handle."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("edgekit-at-work")
    else:
        with tempfile.TemporaryFile() as stream:
            handle = os.dup(stream.fileno())
    os.truncate(handle, SIZE)
    return handle
