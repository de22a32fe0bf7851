"""The last resort of a service that was told to end: it ends, whatever hangs in it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading

import psutil

log = logging.getLogger(__name__)


def leave_within(seconds: float) -> None:
    """End this process and all that it started, unless it has ended by itself by then."""
    timer = threading.Timer(seconds, _leave)
    timer.daemon = True
    timer.start()


def _leave() -> None:
    log.error("something did not end in time: leaving it behind")
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    os._exit(0)  # it was told to end, and threads that hang would keep the interpreter
