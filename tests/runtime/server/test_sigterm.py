"""SIGTERM at the worst moments: the service ends in its time, with exit code 0, and leaves no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from edgekit_runtime.server.serve import STOP_SECONDS
from tests.deadly import CANARY, WORKER
from tests.goods import Goods
from tests.runtime.server.test_connections import HALF_BODY
from tests.runtime.server.test_killers import HOOKS, WORD, hook
from tests.service import Service, serving

SLACK = 20.0  # for a machine that does other things too


def children(pid: int, module: str) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [each for each in psutil.Process(pid).children(recursive=True) if module in each.cmdline()]
    return []


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def are_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=10)
    return all(each.status() == psutil.STATUS_ZOMBIE for each in alive)  # of whoever has adopted them


@contextlib.contextmanager
def starting(bundle: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "edgekit_runtime", "serve", str(bundle), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def hang(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, what: str) -> None:
    """Have processes that run ``module`` do ``what`` when they load a base."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, signal, sys, time\n"
        f"if {module!r} in sys.orig_argv:\n"
        "    import edgekit_runtime.engines.opening as opening\n"
        f"    opening.open_engine = lambda *_, **__: {what}\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))  # the base is new here


@pytest.mark.parametrize("module", [WORKER, CANARY])
@pytest.mark.parametrize("what", ["time.sleep(600)", "os.kill(os.getpid(), signal.SIGSTOP)"], ids=["slow", "stopped"])
def test_while_the_base_is_loaded_or_tried(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, what: str
) -> None:
    hang(tmp_path / "hook", monkeypatch, module, what)
    with starting(goods.bundle) as process:
        wait_for(lambda: children(process.pid, module))
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
        assert are_gone(started)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_the_engine_and_its_canary_end_with_a_service_that_is_killed(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang(tmp_path / "hook", monkeypatch, CANARY, "time.sleep(600)")
    with starting(goods.bundle) as process:
        wait_for(lambda: children(process.pid, CANARY))
        started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert are_gone(started)


@pytest.mark.parametrize("stuck", ["preparation", "engine"])
def test_while_a_canary_a_request_and_a_body_are_stuck(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torture: bool, stuck: str
) -> None:
    if stuck == "engine" and not torture:
        pytest.skip("40 s more, in make torture")
    hook(tmp_path / "hook", monkeypatch, HOOKS["while it is read"], "time.sleep(600)")
    answers: dict[str, int] = {}

    def post(service: Service, path: str, **body: object) -> threading.Thread:
        def ask() -> None:
            with contextlib.suppress(httpx.HTTPError):  # it may be cut off
                answers[path] = httpx.post(service.url + path, json=body, timeout=120).status_code

        thread = threading.Thread(target=ask)
        thread.start()
        return thread

    with serving(goods.bundle) as service:
        assert service.text()
        worker = psutil.Process(service.worker)
        messages = [{"role": "user", "content": WORD if stuck == "preparation" else "scratch"}]
        if stuck == "engine":
            worker.send_signal(signal.SIGSTOP)
        asking = [post(service, "/v1/chat/completions", model="one", messages=messages)]
        service.wait_for(lambda: service.http.get("/health").json()["busy"] == 1)
        asking.append(post(service, "/v1/load_lora_adapter", lora_name="two", lora_path=str(goods.two)))
        service.wait_for(lambda: children(service.process.pid, CANARY))
        (canary,) = children(service.process.pid, CANARY)
        canary.send_signal(signal.SIGSTOP)
        address = urlsplit(service.url)
        with socket.create_connection((address.hostname or "", address.port or 0)) as half:
            half.sendall(HALF_BODY)
            started = psutil.Process(service.process.pid).children(recursive=True)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(STOP_SECONDS + SLACK) == 0
        for each in asking:
            each.join()
        assert are_gone(started)
        assert answers == {"/v1/chat/completions": 503, "/v1/load_lora_adapter": 503}  # they were told so
        assert not any("Traceback" in line for line in service.lines), "".join(service.lines)
