"""The commands as a user runs them: processes of their own, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The commands of this installation first on the path."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}


@pytest.fixture
def tiny_base_file(tiny_chat_base: Path) -> Callable[[], Path]:
    """Where the tiny base's F16 GGUF is kept."""
    from edgekit.bases.resolve import resolve_base
    from edgekit_exporters.gguf.base import base_gguf

    return lambda: base_gguf(resolve_base(str(tiny_chat_base)), "F16")


@pytest.fixture
def edgekit(environment: dict[str, str]) -> Callable[..., Result]:
    """Run ``edgekit ARGUMENTS``."""

    def run(*arguments: object, cwd: Path | None = None) -> Result:
        command = [sys.executable, "-m", "edgekit", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600)

    return run
