"""Requests are read beside the engine: chat template, tokeniser and grammar of one keep nobody else waiting."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from edgekit_runtime.formats.images import Picture
from edgekit_runtime.runtime.generation import Stream
from edgekit_runtime.scheduler import EmbeddingRequest

Watch = Callable[[int], AbstractContextManager[object]]
THREADS = 4  # requests that are read at once; llama.cpp's tokeniser leaves the interpreter to others


def pictured(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments as they came, their images as the runtime takes them."""
    images = options.get("image")
    return options | {"image": [Picture(**each) for each in images]} if images else options


class Preparing:
    """Requests that are being read.  What is done can be waited for with ``select``."""

    def __init__(self, stream: Callable[..., Stream], watch: Watch = contextlib.nullcontext) -> None:
        """Read them with ``stream``, which has to be safe in any thread; within ``watch`` of a request's number."""
        self._stream, self._watch = stream, watch
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="prepare")
        self._wanted: dict[int, Future[Any]] = {}
        self._done: deque[tuple[int, Future[Any]]] = deque()
        self._bell, self._button = socket.socketpair()
        for each in (self._bell, self._button):
            each.setblocking(False)

    def fileno(self) -> int:
        """Readable when something is done."""
        return self._bell.fileno()

    def start(self, number: int, options: dict[str, Any]) -> None:
        """Read a request: the arguments of Runtime.stream, images as pixels."""
        self.call(number, lambda: self._read(number, options))

    def begin(self, number: int, read: Callable[[], Any]) -> None:
        """Read a request of another kind."""

        def watched() -> Any:
            with self._watch(number):
                return read()

        self.call(number, watched)

    def call(self, number: int, function: Callable[[], Any]) -> None:
        """Do something else beside the engine."""
        future = self._threads.submit(function)
        self._wanted[number] = future
        future.add_done_callback(lambda future: self._ring(number, future))

    def cancel(self, number: int) -> None:
        """Nobody waits for it any more; what can't be stopped is thrown away when it is done."""
        future = self._wanted.pop(number, None)
        if future is not None:
            future.cancel()

    def done(self) -> Iterator[tuple[int, Any]]:
        """What has come of requests since the last call: a stream, what a function gave, or an error."""
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(1024):
                pass
        while self._done:
            number, future = self._done.popleft()
            if future.cancelled():
                continue
            error = future.exception()
            wanted = self._wanted.get(number) is future
            if wanted:
                del self._wanted[number]
                if error is None:
                    yield number, future.result()
                elif isinstance(error, Exception):
                    yield number, error
                else:
                    raise error
            elif error is None and isinstance(future.result(), Stream | EmbeddingRequest):
                future.result().close()

    def _read(self, number: int, options: dict[str, Any]) -> Stream:
        with self._watch(number):
            return self._stream(**pictured(options))

    def _ring(self, number: int, future: Future[Any]) -> None:
        self._done.append((number, future))
        with contextlib.suppress(BlockingIOError):  # it rings already
            self._button.send(b"!")
