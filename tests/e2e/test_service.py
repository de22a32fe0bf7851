"""The service as its clients see it: a process of its own, the official client, SIGTERM."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from edgekit_runtime.cli import main

Service = tuple[subprocess.Popen[str], str]


@pytest.fixture
def service(demo_bundle: Path, environment: dict[str, str]) -> Iterator[Service]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "edgekit_runtime", "serve", str(demo_bundle), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{url}/health")
                break
            except httpx.TransportError:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.1)
        yield process, url
    finally:
        process.kill()
        process.wait()


def test_the_official_client_works_unchanged_and_sigterm_ends_the_service(service: Service) -> None:
    process, url = service
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["base", "one", "two"]
    question = {"role": "user", "content": "What is a bracket?"}
    answer = client.chat.completions.create(model="one", messages=[question], max_tokens=12, seed=1)  # type: ignore[list-item]
    pieces = client.chat.completions.create(
        model="one",
        messages=[question],
        max_tokens=12,
        seed=1,
        stream=True,  # type: ignore[list-item]
    )
    streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert streamed == answer.choices[0].message.content
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.chat.completions.create(model="nobody", messages=[question])  # type: ignore[list-item]
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)


def test_a_client_that_goes_away_frees_the_engine(service: Service) -> None:
    _, url = service
    body = {"model": "base", "messages": [{"role": "user", "content": "Count."}], "max_tokens": 1500, "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
        next(response.iter_lines())
    for _ in range(100):
        if httpx.get(f"{url}/health").json()["busy"] == 0:
            return
        time.sleep(0.1)
    pytest.fail("the engine is still busy for a client that has gone")


def test_an_address_that_others_can_reach_needs_a_key(demo_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(demo_bundle), "--host", "0.0.0.0"]) == 2
    assert "--api-key-file" in capsys.readouterr().err
