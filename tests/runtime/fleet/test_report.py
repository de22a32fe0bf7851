"""What a device says of itself: signed, bounded, and pushed where there is something to say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime.errors import InputError
from edgekit_runtime.fleet.report import Report, SignedReport, channel_of, device_key
from edgekit_runtime.registry.repository import tags
from tests import registry as registries
from tests.fleet import Operator

REPORT = Report("line-3.2", "box 7", 3, "failed", "a" * 64, "it hangs", "2026-11-28T12:00:00+00:00", 5)


def test_a_report_comes_back_as_it_was_signed(tmp_path: Path) -> None:
    key = device_key(tmp_path)
    read = SignedReport.parse(REPORT.signed(key), "x")
    assert read.report == REPORT
    assert read.key == key.public_key().public_bytes_raw().hex()
    assert device_key(tmp_path).private_bytes_raw() == key.private_bytes_raw()
    assert (tmp_path / "device.key").stat().st_mode & 0o777 == 0o600
    assert channel_of(REPORT.tag) == "line-3.2"


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    key = device_key(tmp_path)
    whole = json.loads(REPORT.signed(key))
    other = json.loads(dataclasses.replace(REPORT, state="well").signed(key))
    wrong = [
        b"",
        b"[]",
        b"{}",
        json.dumps(whole | {"report": other["report"]}).encode(),
        json.dumps(whole | {"signature": "zz"}).encode(),
        json.dumps(whole | {"key": "00" * 32}).encode(),
        json.dumps(whole | {"schema": "edgekit.device-report/2"}).encode(),
    ]
    changes: list[dict[str, Any]] = [
        {"state": "happy"},
        {"digest": "a"},
        {"rollout": -1},
        {"number": 1.5},
        {"why": "x" * 2000},
        {"device": 7},
        {"device": "box\x1b[2J"},
        {"time": None},
    ]
    wrong += [dataclasses.replace(REPORT, **change).signed(key) for change in changes]
    for content in wrong:
        with pytest.raises(InputError, match="no report of a device"):
            SignedReport.parse(content, "x")


def test_all_tags_are_read_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with registries.running(page=2) as registry:
        operator = Operator(tmp_path, registry)
        assert tags(operator.connection) == []
        names = [f"line-3.{number}" for number in range(5)]
        for name in names:
            operator.put(name, b"x")
        assert tags(operator.connection) == names
