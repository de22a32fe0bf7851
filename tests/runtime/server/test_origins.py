"""Without a key only programs of this machine may ask, and its own page."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from edgekit_runtime.server.origins import is_foreign, is_loopback


def request(**headers: str) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "localhost", "[::1]:8080", "127.9.9.9"])
def test_this_machine_may_ask(host: str) -> None:
    assert not is_foreign(request(host=host))
    assert not is_foreign(request(host=host, origin=f"http://{host}"))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8080", "http://elsewhere.example"),
        ("127.0.0.1:8080", "http://127.0.0.1:9999"),
        ("127.0.0.1:8080", "null"),
        ("elsewhere.example:8080", "http://elsewhere.example:8080"),
        ("elsewhere.example", None),
        ("10.0.0.1", None),
        ("[::1", None),
    ],
)
def test_pages_of_others_may_not(host: str, origin: str | None) -> None:
    assert is_foreign(request(host=host, **({} if origin is None else {"origin": origin})))


def test_loopback_has_several_names() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "::1"]))
    assert not any(map(is_loopback, ["0.0.0.0", "example.org", ""]))
