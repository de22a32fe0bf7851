"""One trial at a time on a store, whichever process asks for it: each one holds the base a second time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

from edgekit_runtime.files.lock import take

log = logging.getLogger(__name__)

FILE = "trial.lock"
POLL_SECONDS = 0.1
_LONG = "another process has been trying something for long: this is tried beside it"


@contextmanager
def trial_turn(folder: Path, seconds: float) -> Iterator[None]:
    """Wait until nobody else tries anything, for so many seconds at most; it takes memory then, and nothing else.

    Args:
        folder: of the store; no turns are taken where it can't be written.
        seconds: that a trial may take.
    """
    with _lock_file(folder) as stream:
        until = time.monotonic() + seconds
        while stream is not None and not take(stream):
            if time.monotonic() > until:
                log.warning(_LONG)
                break
            time.sleep(POLL_SECONDS)
        yield


@asynccontextmanager
async def trial_turn_async(folder: Path, seconds: float) -> AsyncIterator[None]:
    """The same without blocking the event loop."""
    with _lock_file(folder) as stream:
        until = time.monotonic() + seconds
        while stream is not None and not take(stream):
            if time.monotonic() > until:
                log.warning(_LONG)
                break
            await asyncio.sleep(POLL_SECONDS)
        yield


@contextmanager
def _lock_file(folder: Path) -> Iterator[IO[bytes] | None]:
    """It stays for ever: a lock is free when the file is closed, however its process ends."""
    with contextlib.ExitStack() as held:
        stream = None
        with contextlib.suppress(OSError):
            stream = held.enter_context((folder / FILE).open("ab"))
        yield stream
