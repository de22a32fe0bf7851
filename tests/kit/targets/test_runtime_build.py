from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from edgekit.cli import main
from edgekit.targets.devices import device_profile
from edgekit.targets.runtime_build import _pins, platform_of, runtime_wheel
from edgekit_runtime.errors import UsageError


def test_the_runtime_is_packed_from_where_it_is_installed(tmp_path: Path) -> None:
    one, two = (runtime_wheel(tmp_path / name) for name in ("a", "b"))
    assert one.read_bytes() == two.read_bytes()
    names = set(zipfile.ZipFile(one).namelist())
    assert {
        "edgekit_runtime/cli/program.py",
        "edgekit_runtime/py.typed",
        "edgekit_runtime/server/page/status.html",
    } <= names
    info = next(name for name in names if name.endswith("entry_points.txt"))
    assert b"edgekit-runtime" in zipfile.ZipFile(one).read(info)
    assert not [name for name in names if "__pycache__" in name]


def test_all_that_the_runtime_needs_is_pinned_to_what_is_installed_here() -> None:
    pins = _pins()
    assert {"pip", "edgekit-runtime", "llama-cpp-python", "numpy", "markupsafe", "cffi", "h11"} <= pins.keys()
    assert "torch" not in pins


@pytest.mark.parametrize("name", ["phone-browser", "android-termux"])
def test_devices_that_run_something_else_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no offline runtime"):
        platform_of(device_profile(name))


def test_another_python_can_be_said() -> None:
    assert platform_of(device_profile("raspberry-pi-5"), "3.13").python == "3.13"
    with pytest.raises(UsageError, match="no Python version"):
        platform_of(device_profile("raspberry-pi-5"), "latest")


def test_a_machine_without_cross_compiler_is_told_the_apt_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["build-runtime", "--device", "raspberry-pi-5"]) == 5
    assert "apt install crossbuild-essential-arm64 cmake ninja-build" in capsys.readouterr().err
