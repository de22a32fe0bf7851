"""Connections within bounds: how many there are, and how long one may take to ask and to read.

uvicorn waits for ever for the rest of a request's head and for a client that doesn't read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from edgekit_runtime.files.strict_json import strict_json
from edgekit_runtime.server.metrics import Connections
from edgekit_runtime.server.refusals import RETRY_AFTER_S, Refused, openai_error

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 512
RESERVED_HANDLES = 192  # for the store, the worker, canaries, and connections that are about to be turned away
BACKLOG = 64  # asyncio accepts so many before it looks at any of them
ASK_SECONDS = 15.0  # from the connection, or the last answer, to the whole head of a request
SEND_SECONDS = 60.0  # that a client may leave an answer unread
TOO_MANY = 503
LINGER_SECONDS = 1.0  # for a client to read why it was turned away


def most_connections() -> int:
    """How many fit the file handles that this process may have; its limit is raised as far as it may be."""
    try:
        import resource
    except ImportError:  # not on every system
        return MOST_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + RESERVED_HANDLES
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == unlimited else min(wanted, hard), hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_CONNECTIONS if soft == unlimited else max(8, min(MOST_CONNECTIONS, soft - RESERVED_HANDLES))


class BoundedConnection(H11Protocol):
    """One connection.  When there are too many, the one that has been silent for longest makes room."""

    most = MOST_CONNECTIONS
    counts = Connections()  # of all

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    @property
    def _asks(self) -> bool:
        """Whether a request is there as a whole, and is being answered."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or turn one away."""
        super().connection_made(transport)
        self.counts.open += 1
        self._wait()
        if len(self.connections) <= self.most:
            return
        self._since = self.loop.time()
        silent = [each for each in self.connections if isinstance(each, BoundedConnection) and not each._asks]
        others = [each for each in silent if each is not self]
        (min(others, key=lambda each: each._since) if others else self)._turn_away(
            TOO_MANY, "there are too many connections", "too_many_connections"
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.counts.open -= 1
        for timer in (self._late, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """A request's head is there when there is a new cycle."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and self._late is not None and not self.cycle.response_complete:
            self._late.cancel()
            self._late = None

    def on_response_complete(self) -> None:
        """The next request has its own time; the rest of one that was answered early has none."""
        self._wait()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client doesn't read: not for ever."""
        super().pause_writing()
        self._unread = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def shutdown(self) -> None:
        """The service stops: what is being answered may end, all else goes now."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            if self.cycle.more_body:
                self.transport.abort()
        elif self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _wait(self) -> None:
        self._since = self.loop.time()
        if self._late is not None:
            self._late.cancel()
        self._late = self.loop.call_later(ASK_SECONDS, self._too_late)

    def _too_late(self) -> None:
        said = f"no whole request came within {ASK_SECONDS:g} s"
        self._turn_away(408, said, "request_timeout")

    def _turn_away(self, status: int, said: str, code: str) -> None:
        """Say why, unless an answer has begun or nothing was asked, and close."""
        if status == TOO_MANY:
            self.counts.refused += 1
        else:
            self.counts.late += 1
        self.connections.discard(self)
        if self.transport.is_closing():
            self.transport.abort()
            return
        cycle: object = self.cycle  # None before the first request, whatever uvicorn's annotation says
        if cycle is None:
            body = strict_json(openai_error(Refused(503, said, "server_error", code))).encode()
            head = (
                f"HTTP/1.1 {status} {'Service Unavailable' if status == TOO_MANY else 'Request Timeout'}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nRetry-After: {RETRY_AFTER_S}\r\n"
                "Connection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)
