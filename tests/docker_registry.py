"""Debian's docker-registry on loopback, a real one: a free port, a folder of its own, restarts."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = shutil.which("docker-registry")
_START_SECONDS = 30.0


class DockerRegistry:
    """One that runs, or is stopped: ``host`` stays."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None
        self._config = folder / "config.yml"
        self._config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\n"
            f"http: {{addr: '{self.host}'}}\n"
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert PROGRAM is not None
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([PROGRAM, "serve", str(self._config)], **quiet)  # type: ignore[call-overload]
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"http://{self.host}/v2/", timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("docker-registry does not answer")

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_docker_registry(folder: Path) -> Iterator[DockerRegistry]:
    """One for as long as the block; what it has is in ``folder``."""
    registry = DockerRegistry(folder)
    registry.start()
    try:
        yield registry
    finally:
        registry.kill()
