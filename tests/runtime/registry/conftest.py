"""Logins are what a test writes down, never what this user has."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.registry import SECRET, USER


@pytest.fixture(autouse=True)
def logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder / "config.json"


@pytest.fixture
def log_in(logins: Path) -> Callable[..., None]:
    def write(host: str, secret: str = SECRET) -> None:
        packed = base64.b64encode(f"{USER}:{secret}".encode()).decode()
        logins.write_text(json.dumps({"auths": {host: {"auth": packed}}}))

    return write
