"""The last resort of a service that was told to end: it ends, whatever hangs in it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import psutil

from edgekit_runtime.sigterm import handling_sigterm

log = logging.getLogger(__name__)


def leave_within(seconds: float) -> None:
    """End this process and all that it started, unless it has ended by itself by then."""
    timer = threading.Timer(seconds, _leave)
    timer.daemon = True
    timer.start()


@contextlib.contextmanager
def ending_as_told(seconds: float) -> Iterator[None]:
    """SIGTERM in the block leaves it, within ``seconds``, and is no failure of the service."""

    def end(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        leave_within(seconds)
        log.info("told to end")
        raise SystemExit(0)

    with handling_sigterm(end):
        yield


def end_all(pid: int, *, itself: bool = True) -> None:
    """Kill all that a process started, and the process before."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [*([process] if itself else []), *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                each.kill()


def _leave() -> None:
    log.error("something did not end in time: leaving it behind")
    end_all(os.getpid(), itself=False)
    os._exit(0)  # it was told to end, and threads that hang would keep the interpreter
