"""A fleet and a device that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import registry as registries
from tests.fleet import Device, Operator, content


@pytest.fixture(autouse=True)
def no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with registries.running() as registry:
        made = Operator(tmp_path / "fleet", registry)
        made.begin()
        made.set({"line-3.json": content(1)})
        yield made


@pytest.fixture
def device(operator: Operator, tmp_path: Path) -> Device:
    made = Device(tmp_path / "store")
    made.trusted.begin(operator.root)
    return made
