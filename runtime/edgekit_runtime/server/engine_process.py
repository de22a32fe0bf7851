"""The worker's process and the socket pair to it; when it has ended, the same object starts the next one."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from typing import Any

from edgekit_runtime.server.ending import end_all
from edgekit_runtime.server.wire import NO_MEMORY, Message, message_error, unpack, with_pixels

LONGEST_LINE = 1 << 26
ENDING_SECONDS = 2.0  # that a process gets to end by itself
# Endings that come from outside, or of an engine for another CPU, or of a disk that fails.
NOBODYS_FAULT = (
    NO_MEMORY,
    *(-getattr(signal, name, 0) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGILL", "SIGBUS")),
)


class EngineProcess:
    """At most one process at a time."""

    def __init__(self, shared: int) -> None:
        """``shared``: descriptor of the memory where the worker notes what it is at; nothing is started yet."""
        self._shared = shared
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def pid(self) -> int | None:
        """Of the last process."""
        return None if self._process is None else self._process.pid

    @property
    def connected(self) -> bool:
        """Whether there is a process to write to."""
        return self._writer is not None

    async def start(self, settings: dict[str, Any]) -> None:
        """Start a process, and wait until it has loaded its bundle.

        Raises:
            EdgekitError: what the runtime says against the bundle; the process is still to be reaped.
            IncompleteReadError: it has ended before it said anything.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "edgekit_runtime.server.worker",
                str(theirs.fileno()),
                json.dumps(settings),
                str(self._shared),
                pass_fds=[theirs.fileno(), self._shared],
                stdin=asyncio.subprocess.DEVNULL,
            )
        ours.setblocking(False)
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=LONGEST_LINE)
        first = await self.read(timeout=None)
        if first["op"] == "error":
            raise message_error(first)

    async def read(self, timeout: float | None) -> Message:
        """What the process says next.

        Raises:
            TimeoutError: nothing, for ``timeout`` seconds.
            IncompleteReadError, LimitOverrunError: it has ended, or speaks nonsense.
        """
        assert self._reader is not None  # started
        async with asyncio.timeout(timeout):  # wait_for would start a task for every message
            return unpack(await self._reader.readuntil(b"\n"))

    def write(self, message: Message) -> None:
        """Send a message, its pixels after it; lost where there is no process."""
        if self._writer is not None:
            for part in with_pixels(message):
                self._writer.write(part)

    def kill(self) -> None:
        """End the process and its children at once."""
        if self._process is not None and self._process.returncode is None:
            end_all(self._process.pid)

    async def reap(self) -> int | None:
        """Wait for the process to end, by force if need be; its exit code."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._process is None:
            return None
        try:
            return await asyncio.wait_for(self._process.wait(), ENDING_SECONDS)
        except TimeoutError:
            end_all(self._process.pid)
            return await self._process.wait()


def ending(code: int | None) -> str:
    """How a process has ended, in words."""
    if code == NO_MEMORY:
        return "no memory left"
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"code {code}"
