"""A request that takes long to read keeps nobody waiting, and can be cancelled meanwhile."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edgekit_runtime.errors import InputError
from edgekit_runtime.runtime import Runtime
from edgekit_runtime.runtime.generation import Stream
from edgekit_runtime.server.app import make_app
from edgekit_runtime.server.preparing import Preparing
from edgekit_runtime.server.wire import pack, unpack
from edgekit_runtime.server.worker import Worker
from tests.goods import Goods

SECONDS = 60


class _Slow:
    """A runtime's stream, which reads the prompt "slow" until it may go on."""

    def __init__(self, runtime: Runtime) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.made: list[Stream] = []
        self._whole = runtime.stream

    def __call__(self, prompt: str, **options: Any) -> Stream:
        if prompt == "slow":
            self.begun.set()
            assert self.go.wait(SECONDS)
        if prompt == "wrong":
            raise InputError("wrong", "mend it")
        self.made.append(made := self._whole(prompt, **options))
        return made


@contextmanager
def _working(goods: Goods, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, _Slow]]:
    ours, theirs = socket.socketpair()
    with Runtime(goods.bundle, threads=1, context=256) as runtime:
        slow = _Slow(runtime)
        monkeypatch.setattr(runtime, "stream", slow)
        working = threading.Thread(target=Worker(runtime, theirs).run)
        working.start()
        try:
            yield ours, slow
        finally:
            slow.go.set()
            ours.shutdown(socket.SHUT_RDWR)  # a file made of it keeps it open
            ours.close()
            working.join(SECONDS)
            theirs.close()
            assert not working.is_alive()


def _ask(connection: socket.socket, number: int, prompt: str) -> None:
    connection.sendall(pack({"op": "start", "id": number, "options": {"prompt": prompt, "max_tokens": 4}}))


def _until(lines: Iterator[bytes], number: int, *ops: str) -> list[str]:
    """All that is said of a request until one of ``ops``."""
    said = []
    for line in lines:
        message = unpack(line)
        if message.get("id") == number:
            said.append(message["op"])
            if message["op"] in ops:
                return said
    raise AssertionError(f"nothing more came: {said}")


def test_neighbours_are_answered_while_one_request_is_read(goods: Goods, monkeypatch: pytest.MonkeyPatch) -> None:
    with _working(goods, monkeypatch) as (ours, slow):
        lines = iter(ours.makefile("rb"))
        _ask(ours, 1, "slow")
        assert slow.begun.wait(SECONDS)
        _ask(ours, 2, "quick")
        said = _until(lines, 2, "done", "error")
        assert said[0] == "accepted"
        assert said[-1] == "done"
        _ask(ours, 3, "wrong")
        assert _until(lines, 3, "done", "error") == ["error"]
        slow.go.set()
        assert _until(lines, 1, "done", "error")[-1] == "done"


def test_a_request_that_is_cancelled_while_it_is_read_takes_no_turn(
    goods: Goods, monkeypatch: pytest.MonkeyPatch
) -> None:
    thrown_away, close = threading.Event(), Stream.close

    def closed(stream: Stream) -> None:
        close(stream)
        thrown_away.set()

    monkeypatch.setattr(Stream, "close", closed)
    with _working(goods, monkeypatch) as (ours, slow):
        lines = iter(ours.makefile("rb"))
        _ask(ours, 1, "slow")
        assert slow.begun.wait(SECONDS)
        ours.sendall(pack({"op": "cancel", "id": 1}))
        _ask(ours, 2, "quick")
        assert _until(lines, 2, "done", "error")[-1] == "done"  # the cancel was heard before
        slow.go.set()
        assert thrown_away.wait(SECONDS)
        _ask(ours, 3, "quick")
        assert _until(lines, 3, "done", "error")[-1] == "done"
        thrown = next(each for each in slow.made if each.result is None)
        until = time.monotonic() + SECONDS
        while not thrown.ended and time.monotonic() < until:
            time.sleep(0.01)
        assert (thrown.ended, thrown.tokens) == (True, 0)


def test_what_waits_to_be_read_can_be_cancelled() -> None:
    go = threading.Event()

    def stream(**_: object) -> Stream:
        assert go.wait(SECONDS)
        raise InputError("read", "")

    preparing = Preparing(stream)
    for number in range(10):
        preparing.start(number, {})
    for number in range(1, 10):
        preparing.cancel(number)
    go.set()
    said: list[int] = []
    while not said:
        assert select.select([preparing], [], [], SECONDS)[0]
        said += [number for number, _ in preparing.done()]
    assert said == [0]


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_leaves_while_its_request_is_read_is_noticed(streams: bool) -> None:
    left = asyncio.Event()

    class Reading:
        """A supervisor whose worker never accepts."""

        ready, models, stats, restarts = True, (), {}, 0

        async def answer(self, _: dict[str, Any], *, progress: bool = False) -> AsyncGenerator[dict[str, Any], None]:
            try:
                await asyncio.Event().wait()
                yield {}
            finally:
                left.set()

    async def ask() -> list[int]:
        app = make_app(Reading(), None)  # type: ignore[arg-type]
        body = json.dumps({"model": "base", "prompt": "x", "stream": streams}).encode()
        coming = asyncio.Queue[dict[str, Any]]()
        coming.put_nowait({"type": "http.request", "body": body, "more_body": False})
        statuses: list[int] = []

        async def send(message: dict[str, Any]) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
            "server": ("127.0.0.1", 80),
        }
        answering = asyncio.create_task(app(scope, coming.get, send))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        assert not answering.done()
        coming.put_nowait({"type": "http.disconnect"})
        await answering
        return statuses

    async def scenario() -> None:
        statuses = await asyncio.wait_for(ask(), SECONDS)
        assert left.is_set()
        assert statuses == [499]

    asyncio.run(scenario())
