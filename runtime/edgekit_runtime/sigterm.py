"""What SIGTERM does to a block of code."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def handling_sigterm(end: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call ``end`` on SIGTERM in the block; outside of the main thread whoever runs us handles signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
