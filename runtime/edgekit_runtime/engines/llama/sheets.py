"""Files in memory to write copies to."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

MOST_KEPT = 32_000_000  # bytes


class Sheets:
    """Files in memory, one of which is kept for the next copy: to get new pages takes longer than to write on them.

    Any thread may take one.
    """

    def __init__(self) -> None:
        """Have none yet."""
        self._spare: BinaryIO | None = None
        self._lock = threading.Lock()

    @contextmanager
    def sheet(self) -> Iterator[BinaryIO]:
        """A file at its beginning, with whatever was written on it before."""
        with self._lock:
            stream, self._spare = self._spare, None
        if stream is None:
            stream = os.fdopen(os.memfd_create("adapter"), "w+b")
        stream.seek(0)
        try:
            yield stream
        finally:
            with self._lock:
                if self._spare is None and os.fstat(stream.fileno()).st_size <= MOST_KEPT:
                    self._spare, stream = stream, None
            if stream is not None:
                stream.close()

    def close(self) -> None:
        """Free the one that is kept."""
        with self._lock:
            if self._spare is not None:
                self._spare.close()
                self._spare = None
