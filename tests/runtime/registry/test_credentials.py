"""Logins come from where `docker login` leaves them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from edgekit_runtime.errors import InputError, TargetError
from edgekit_runtime.registry.credentials import Login, login_for


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "docker-credential-vault"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    "auths",
    [
        {"host:5000": {"auth": _packed("fleet:a:b")}},
        {"https://host:5000/v1/": {"auth": _packed("fleet:a:b")}},
        {"host:5000": {"username": "fleet", "password": "a:b"}},
    ],
)
def test_a_login_of_config_json_is_used(logins: Path, auths: dict[str, object]) -> None:
    logins.write_text(json.dumps({"auths": {"other": {"auth": _packed("x:y")}} | auths}))
    assert login_for("host:5000") == Login("fleet", "a:b")


@pytest.mark.parametrize("config", [None, {}, {"auths": {"host.example": {"auth": _packed("a:b")}}}, {"auths": []}])
def test_other_registries_get_no_login(logins: Path, config: object) -> None:
    if config is not None:
        logins.write_text(json.dumps(config))
    assert login_for("host") is None


@pytest.mark.parametrize("config", [{"credHelpers": {"host": "vault"}}, {"credsStore": "vault", "auths": {"host": {}}}])
def test_a_credential_helper_is_asked_for_the_host(
    logins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: object
) -> None:
    logins.write_text(json.dumps(config))
    _helper(tmp_path, monkeypatch, """read host; echo "{\\"Username\\": \\"$1-$host\\", \\"Secret\\": \\"s\\"}" """)
    assert login_for("host") == Login("get-host", "s")


def test_a_helper_without_a_login_gives_none_and_one_that_fails_says_why(
    logins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins.write_text('{"credsStore": "vault"}')
    _helper(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
    assert login_for("host") is None
    _helper(tmp_path, monkeypatch, "echo the vault is sealed; exit 1")
    with pytest.raises(TargetError, match="the vault is sealed"):
        login_for("host")
    logins.write_text('{"credsStore": "../../bin/sh"}')
    with pytest.raises(TargetError, match="not installed"):
        login_for("host")


def test_what_can_not_be_used_is_refused(logins: Path) -> None:
    for text, problem in (
        ("[]", "no JSON object"),
        ('{"auths": {"host": {"auth": "???"}}}', "no base64 of NAME:SECRET"),
        ('{"auths": {"host": {"identitytoken": "t"}}}', "an identity token"),
    ):
        logins.write_text(text)
        with pytest.raises(InputError, match=problem):
            login_for("host")


def test_a_secret_is_in_no_text() -> None:
    assert "s3cret" not in f"{Login('fleet', 's3cret')!r} {Login('fleet', 's3cret')}"
