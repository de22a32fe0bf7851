"""Running the service as users do: a process of its own on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 120


class Service:
    """A service that answers, and what it says on stderr."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for(lambda: self.url)
        self.http = httpx.Client(base_url=self.url, timeout=120)

    @property
    def url(self) -> str:
        """Where it listens; empty before it does."""
        found = re.search(r"serving on (http://\S+)", "".join(self.lines))
        return found.group(1) if found else ""

    @property
    def worker(self) -> int:
        """The engine's process."""
        pid: int = self.wait_for(lambda: self.status()["ready"] and self.status()["worker"])
        return pid

    def chat(self, **more: Any) -> httpx.Response:
        """Ask."""
        question = {"model": "one", "messages": [{"role": "user", "content": "scratch"}], "max_tokens": 6}
        return self.http.post("/v1/chat/completions", json=question | more)

    def text(self, **more: Any) -> str:
        """Ask, and take the answer's text."""
        answer = self.chat(**more)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["message"]["content"]
        return text

    def status(self) -> dict[str, Any]:
        """What the service says of itself."""
        document: dict[str, Any] = self.http.get("/status").json()
        return document

    def wait_for(self, what: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not (found := what()):
            assert self.process.poll() is None, "".join(self.lines)
            assert time.monotonic() < end, "".join(self.lines)
            time.sleep(0.05)
        return found

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)


@contextmanager
def serving(subject: Path, *options: str) -> Iterator[Service]:
    """Serve a bundle or a store until the block is left."""
    given = ["--store", str(subject)] if (subject / "generations").is_dir() else [str(subject)]
    command = [sys.executable, "-m", "edgekit_runtime", "serve", *given, "--port", "0", "--threads", "1", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        yield Service(process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
