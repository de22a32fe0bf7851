"""The clients of npm: OpenAI's, and the AI SDK."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service import Service

SCRIPT = Path(__file__).parent / "clients.mjs"
PACKAGES = SCRIPT.parents[2] / "node_modules"


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.skipif(not (PACKAGES / "ai").is_dir(), reason="npm's clients are not installed: make js")
def test_clients_of_npm_find_what_they_know(service: Service) -> None:
    done = subprocess.run(
        ["node", "--test", str(SCRIPT)],
        env=os.environ | {"SERVICE": service.url, "AI_SDK_LOG_WARNINGS": "false"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 6" in done.stdout
