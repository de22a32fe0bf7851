"""Training that is stopped from outside goes on with --resume."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

STEPS = 60


def _wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    """A checkpoint is whole once the next one has begun, or its last file is there."""
    while not list(folder.glob(".edgekit/train/small/checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["Ctrl-C", "kill -9"])
def test_training_goes_on_where_it_was_stopped(
    number: signal.Signals,
    code: int,
    tiny_project: Callable[..., Path],
    environment: dict[str, str],
    edgekit: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    folder = tiny_project(max_steps=STEPS)
    command = [sys.executable, "-m", "edgekit", "train", "--project", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    _wait_for_checkpoint(folder, process)
    process.send_signal(number)
    _, message = process.communicate(timeout=300)
    assert process.returncode == code
    if number == signal.SIGINT:
        assert "--resume" in message.splitlines()[-1]
    assert not (folder / "adapters").exists()

    resumed = edgekit("train", "--resume", "--json", "--project", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert list(json.loads(resumed.stdout)["adapters"]) == ["small"]
    record = json.loads((folder / "adapters" / "small" / "run.json").read_text())
    assert max(entry["step"] for entry in record["losses"]) == STEPS
