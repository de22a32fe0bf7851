"""install.sh before it installs anything: which folders it takes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import edgekit_devices

SCRIPT = Path(edgekit_devices.__file__).parent / "install.sh"


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(SCRIPT, folder / "install.sh")
    return subprocess.run(
        ["sh", "install.sh", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("sign", [*"|&;%\"'`$<>\\", "\n", "$(touch made)", "`touch made`"])
def test_a_folder_that_would_be_more_than_a_name_is_refused(tmp_path: Path, sign: str) -> None:
    done = _run(tmp_path, "--prefix", f"a{sign}b")
    assert done.returncode == 5
    assert "choose another" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["install.sh"]


@pytest.mark.parametrize("prefix", ["a b", "ä-机", "-x", "--", "a*b?[c]", "~x", "a#b", "(a)", "a=b,c:d@e!f"])
def test_other_odd_names_are_names(tmp_path: Path, prefix: str) -> None:
    done = _run(tmp_path, "--prefix", prefix)
    assert done.returncode == 5
    assert "there is nothing to install beside" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["install.sh"]


@pytest.mark.parametrize("arguments", [["--prefix"], ["--port"]])
def test_an_option_without_its_value_says_so(tmp_path: Path, arguments: list[str]) -> None:
    done = _run(tmp_path, *arguments)
    assert (done.returncode, "needs a" in done.stderr) == (5, True)
