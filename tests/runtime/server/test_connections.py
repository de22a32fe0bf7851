"""Clients that open connections and say nothing, little or all too slowly take the service from nobody."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psutil
import pytest

from edgekit_runtime.server.connections import MOST_CONNECTIONS
from tests.goods import Goods
from tests.service import Service, serving

HALF_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HALF_BODY = HALF_HEAD + b"Content-Length: 1000\r\nContent-Type: application/json\r\n\r\n{"


@contextlib.contextmanager
def connections(service: Service, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    address = urlsplit(service.url)
    assert address.hostname
    with contextlib.ExitStack() as held:
        opened = []
        for _ in range(count):
            each = held.enter_context(socket.create_connection((address.hostname, address.port or 0), timeout=30))
            each.sendall(sent)
            opened.append(each)
        yield opened


@pytest.fixture
def service(goods: Goods) -> Iterator[Service]:
    with serving(goods.bundle) as started:
        yield started


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_BODY], ids=["nothing", "half a head", "half a body"])
def test_a_request_is_answered_beside_hundreds_that_never_end(
    service: Service, torture: bool, figures: Callable[[str, object], None], sent: bytes
) -> None:
    count = 10_000 if torture else 1500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 200 and hard != resource.RLIM_INFINITY and hard < count + 200:
        pytest.skip("too few file handles for this many connections")
    before = service.text()
    front = psutil.Process(service.process.pid)
    memory = front.memory_info().rss
    with connections(service, count, sent):
        began = time.monotonic()
        assert service.text() == before
        figures(
            f"{count} connections with {len(sent)} bytes each: answered after, s", round(time.monotonic() - began, 2)
        )
        figures("the front grew by, MiB", round((front.memory_info().rss - memory) / 2**20, 1))
        figures("its open files", front.num_fds())
        counted = service.status()["connections"]
        assert 0 < counted["open"] <= MOST_CONNECTIONS
        assert counted["refused"] >= count - MOST_CONNECTIONS
        shown = service.http.get("/metrics").text
        assert f'edgekit_connections_refused_total{{why="too_many"}} {float(counted["refused"])}' in shown
    assert service.text() == before
    service.wait_for(lambda: service.status()["connections"]["open"] < 10)
    assert not any("Traceback" in line for line in service.lines)


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_BODY], ids=["nothing", "half a head", "half a body"])
def test_sigterm_ends_the_service_whatever_is_half_sent(service: Service, sent: bytes) -> None:
    service.text()
    with connections(service, 50, sent):
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(40) == 0
