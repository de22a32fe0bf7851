"""Adapter files that this process has read whole: the same bytes needn't be digested each time they are loaded.

A digest costs more than all else of a load on a CPU without instructions for SHA-256.  A file counts as unchanged while
device, inode, size and both its times are the same: no write through the file system leaves the time of change (ctime)
as it was, and no program can set it.  What happens below the file system, as a cell of flash memory that forgets, is
found by the next process.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.bundle import file_digest

SETTLED_NS = 2 * 10**9  # coarsest step of file times (FAT): two writes within it may look like one


class _State(NamedTuple):
    """What changes when a file does."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


class KnownFiles:
    """Digests, and the state of the file that had each.  Any thread may check."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._states: dict[str, _State] = {}

    def check(self, path: Path, digest: str) -> None:
        """Check that a file has this sha256: by its state where that is the one that was seen, else by its bytes.

        Raises:
            InputError: it has changed, or can't be read.
        """
        try:
            began, state = time.time_ns(), _state(path)
            if self._states.get(digest) == state:
                return
            self._states.pop(digest, None)
            same = file_digest(path) == digest
            settled = max(state.modified, state.changed) + SETTLED_NS < began and _state(path) == state
        except OSError as error:
            raise InputError(f"{path} can't be read ({error.strerror or error})", "install it again") from None
        if not same:
            raise InputError(f"{path} has changed since it was installed", "install it again")
        if settled:
            self._states[digest] = state


def _state(path: Path) -> _State:
    status = path.stat()
    return _State(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
