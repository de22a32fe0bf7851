"""The unit that runs the service, and what systemd is told."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from edgekit_runtime.cli import main
from edgekit_runtime.server.systemd import unit
from tests.goods import Goods
from tests.service import serving


def test_the_unit_runs_the_command_that_printed_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, watch = tmp_path / "the store", tmp_path / "100%"
    assert main(["serve", "--store", str(store), "--watch", str(watch), "--threads", "2", "--print-unit"]) == 0
    lines = capsys.readouterr().out.splitlines()
    command = next(line for line in lines if line.startswith("ExecStart="))
    assert f'--store "{store}"' in command
    assert f"--watch {tmp_path}/100%%" in command
    assert "--threads 2" in command
    assert f'ReadWritePaths="{store}" {tmp_path}/100%%' in lines


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "edgekit.service"
    file.write_text(unit(["--store", "/var/lib/edgekit"], writable=[Path("/var/lib/edgekit")], stop_seconds=40))
    run = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    said = [line for line in run.stderr.splitlines() if "edgekit.service" in line]
    assert not said


def test_systemd_is_told_when_the_service_is_up_alive_and_ending(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")

        def heard() -> str:
            return manager.recv(100).decode()

        with serving(goods.bundle):
            first = {heard(), heard(), heard()}
            assert first == {"READY=1", "WATCHDOG=1"}
        while (said := heard()) == "WATCHDOG=1":
            pass
        assert said == "STOPPING=1"
