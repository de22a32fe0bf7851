"""A shell completes commands, options and the names that options take."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def completed(folder: Path, line: str) -> list[str]:
    """What bash would be offered for the last word of the line."""
    asked = {"_EDGEKIT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "edgekit"],
        env=os.environ | asked,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("edgekit ex", ["export"]),
        ("edgekit s", ["sign", "site", "serve-site"]),
        ("edgekit sign --k", ["--key"]),
        ("edgekit export --mode ", ["separate", "merged"]),
        ("edgekit export --quantize Q4", ["Q4_K_M", "Q4_0"]),
        ("edgekit init x --template m", ["monitoring"]),
        ("edgekit plan --device raspberry-pi-5", ["raspberry-pi-5"]),
        ("edgekit devices s", ["show"]),
        ("edgekit data s", ["split"]),
        ("edgekit data label x --response-format json", ["json_schema", "json_object"]),
        ("edgekit bench x --target q", ["qemu"]),
        ("edgekit export --base smol", ["smollm2-135m"]),
        ("edgekit train ", []),  # there is no project here
    ],
)
def test_what_is_offered(line: str, offered: list[str], tmp_path: Path) -> None:
    assert set(offered) <= set(completed(tmp_path, line))
    if not offered:
        assert completed(tmp_path, line) == []


def test_adapters_of_the_project_here(tiny_project: Callable[..., Path]) -> None:
    assert completed(tiny_project(), "edgekit train s") == ["small"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_ask(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgekit"],
        env=os.environ | {"_EDGEKIT_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "_EDGEKIT_COMPLETE" in done.stdout
