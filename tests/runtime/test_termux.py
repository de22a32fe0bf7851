"""The Termux install script's order of steps, with Termux's own commands stood in for: no Android here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "runtime" / "termux" / "install.sh"


@pytest.fixture
def termux(tmp_path: Path) -> dict[str, str]:
    """Commands that note how they were called; ``python -m venv`` makes what the script goes on with."""
    tools = tmp_path / "bin"
    tools.mkdir()
    log = f'echo "$(basename "$0") $*" >> {tmp_path}/log\n'
    for name, body in {
        "pkg": "",
        "proot-distro": "",
        "uname": "echo aarch64\n",
        "python": f"mkdir -p $4/bin; for each in pip edgekit-runtime; do cp {tools}/pkg $4/bin/$each; done\n",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{log}{body}")
        (tools / name).chmod(0o755)
    (tmp_path / "edgekit_runtime.whl").touch()
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "EDGEKIT_HOME": str(tmp_path / "home")}


def _install(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", SCRIPT, *map(str, arguments)], capture_output=True, text=True, env=environment)


def test_building_on_the_phone_ends_with_the_doctor(termux: dict[str, str], tmp_path: Path) -> None:
    done = _install(termux, "build", tmp_path / "edgekit_runtime.whl")
    assert done.returncode == 0, done.stderr
    steps = [line for line in (tmp_path / "log").read_text().splitlines() if not line.startswith("uname")]
    assert [step.split()[0] for step in steps] == ["pkg", "python", "pip", "edgekit-runtime"]
    assert steps[-1] == "edgekit-runtime doctor"
    assert str(tmp_path / "edgekit_runtime.whl") in steps[2]


def test_a_debian_inside_termux_is_entered_by_one_command(termux: dict[str, str], tmp_path: Path) -> None:
    done = _install(termux, "proot", tmp_path / "edgekit_runtime.whl")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text().splitlines()[-1].endswith("/opt/edgekit/bin/edgekit-runtime doctor")
    assert os.access(tmp_path / "home/bin/edgekit-runtime", os.X_OK)


@pytest.mark.parametrize(
    ("arguments", "code"), [((), 2), (("build", "missing.whl"), 3), (("elsewhere", "edgekit_runtime.whl"), 2)]
)
def test_wrong_use_is_told(termux: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    given = [tmp_path / each if each.endswith(".whl") else each for each in arguments]
    done = _install(termux, *given)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
