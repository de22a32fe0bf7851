"""Logins, redirects, TLS and registries that are away: who is told what, and what is tried again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit_runtime.errors import InputError, TargetError
from edgekit_runtime.registry.challenges import Challenge, challenge_of
from edgekit_runtime.registry.connection import PUSH, Connection
from edgekit_runtime.registry.reference import Reference
from tests import registry as registries
from tests.registry import SECRET, Registry, digest_of
from tests.runtime.registry.certificates import make_certificates

CONTENT = b"what it has"
WAITS = (0.01,) * 5


def _connection(registry: Registry, **options: object) -> Connection:
    return Connection(Reference(registry.host, "team/line-3"), **({"waits": WAITS} | options))  # type: ignore[arg-type]


def _get(registry: Registry, **options: object) -> bytes:
    connection = _connection(registry, **options)

    def ask() -> bytes:
        with connection.ask("GET", f"/blobs/{digest_of(CONTENT)}") as response:
            return connection.whole(response, 100, "the blob")

    return connection.patiently(ask)


def _blobs() -> dict[str, bytes]:
    return {digest_of(CONTENT): CONTENT}


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_challenge_is_answered_with_the_login(auth: str, log_in: Callable[..., None]) -> None:
    with registries.running(auth=auth, blobs=_blobs()) as registry:
        log_in(registry.host)
        assert _get(registry) == CONTENT
        assert _get(registry, actions=PUSH) == CONTENT
        scopes = {token.rpartition("-")[0] for token in registry.tokens}
        assert scopes == ({f"repository:team/line-3:{each}" for each in ("pull", PUSH)} if auth == "bearer" else set())


def test_a_token_that_has_run_out_is_asked_for_again(log_in: Callable[..., None]) -> None:
    with registries.running(auth="bearer", blobs=_blobs()) as registry:
        log_in(registry.host)
        connection = _connection(registry)
        for _ in range(2):
            with connection.ask("GET", f"/blobs/{digest_of(CONTENT)}") as response:
                assert response.status == 200
            registry.tokens.clear()


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_who_may_not_is_told_how_to_log_in(auth: str, log_in: Callable[..., None]) -> None:
    with registries.running(auth=auth) as registry:
        with pytest.raises(TargetError, match="docker login") as error:
            _get(registry)
        log_in(registry.host, "wrong")
        with pytest.raises(TargetError, match="docker login") as error:
            _get(registry)
        assert "wrong:" not in str(error.value)
        assert len(registry.asked) < 10  # a wrong secret is not tried again and again: accounts get locked


def test_a_login_does_not_go_where_a_registry_redirects_to(log_in: Callable[..., None]) -> None:
    with registries.running(blobs=_blobs()) as storage, registries.running(auth="basic", blobs=_blobs()) as registry:
        log_in(registry.host)
        registry.redirect = f"http://{storage.host}"
        assert _get(registry) == CONTENT
        assert [headers.get("Authorization") for _, _, headers in storage.asked] == [None]
        assert SECRET not in str(storage.asked)


@pytest.mark.parametrize("elsewhere", ["http://registry.example", "ftp://127.0.0.1", "file:///etc/hostname"])
def test_a_redirect_does_not_leave_tls_nor_http(elsewhere: str) -> None:
    with registries.running(blobs=_blobs(), redirect=elsewhere) as registry, pytest.raises(TargetError, match="no TLS"):
        _get(registry)


def test_a_redirect_without_end_is_one_error() -> None:
    with registries.running(blobs=_blobs()) as registry:
        registry.redirect = ""  # to itself
        with pytest.raises(TargetError, match="redirects without end"):
            _get(registry)


def test_a_busy_registry_is_asked_again() -> None:
    with registries.running(blobs=_blobs(), busy=3) as registry:
        assert _get(registry) == CONTENT
        registry.busy = 99
        with pytest.raises(TargetError, match="503: starting"):
            _get(registry)


def test_a_registry_that_never_answered_is_told_at_once_and_one_that_restarts_is_waited_for() -> None:
    with registries.running(blobs=_blobs()) as registry:
        connection = _connection(registry, waits=(0.05,) * 100)
        with connection.ask("GET", f"/blobs/{digest_of(CONTENT)}"):
            pass
        registry.stop()
        with pytest.raises(TargetError, match="can't be reached") as error:
            _get(registry, waits=(3600.0,))
        assert error.value.exit_code == 5
        threading.Timer(0.3, registry.start).start()

        def ask() -> int:
            with connection.ask("GET", f"/blobs/{digest_of(CONTENT)}") as response:
                return response.status

        assert connection.patiently(ask) == 200


def test_an_answer_has_no_more_bytes_than_it_can_have() -> None:
    lies = {digest_of(CONTENT): b"x" * 101}
    with (
        registries.running(blobs=_blobs(), lies=lies) as registry,
        pytest.raises(InputError, match="than the 100 bytes"),
    ):
        _get(registry)


def test_tls_is_checked_against_the_system_and_the_given_authority(tmp_path: Path, log_in: Callable[..., None]) -> None:
    ours, others = make_certificates(tmp_path / "ours"), make_certificates(tmp_path / "others")
    pair = (ours.certificate, ours.key)
    with registries.running(blobs=_blobs(), certificate=pair, auth="bearer") as registry:
        log_in(registry.host)
        assert _get(registry, ca=ours.authority) == CONTENT
        with pytest.raises(TargetError, match="a certificate that nobody here trusts .*--ca FILE"):
            _get(registry, ca=others.authority)
        with pytest.raises(TargetError):  # no TLS without an authority: loopback is plain
            _get(registry)
    with registries.running(blobs=_blobs()) as plain, pytest.raises(TargetError, match="no working TLS"):
        _get(plain, ca=ours.authority)
    (tmp_path / "none").write_text("no certificates")
    for wrong in ("none", "missing"):
        with pytest.raises(InputError, match="can't be used"):
            Connection(Reference("registry.example", "a"), ca=tmp_path / wrong)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a:pull,push"'],
            Challenge("bearer", "https://auth.example/token", "registry.example"),
        ),
        (['Basic realm="x", Bearer realm="https://auth.example/t"'], Challenge("bearer", "https://auth.example/t", "")),
        (['Basic realm="x"', "Bearer realm=https://auth.example/t"], Challenge("bearer", "https://auth.example/t", "")),
        (["basic realm=x"], Challenge("basic", "x", "")),
        (["Negotiate"], None),
        ([], None),
    ],
)
def test_challenges_are_read_as_registries_write_them(headers: list[str], expected: Challenge | None) -> None:
    assert challenge_of(headers) == expected
