"""Whatever happens to the engine's process, the service goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime import InputError
from edgekit_runtime.runtime import Runtime
from edgekit_runtime.server.supervisor import Supervisor, Unavailable
from edgekit_runtime.server.wire import pack, unpack
from edgekit_runtime.server.worker import Worker
from tests.goods import Goods
from tests.runtime.server.test_app import CHAT
from tests.service import Service, serving

LONG = {"model": "one", "messages": [{"role": "user", "content": "Tell me all."}], "max_tokens": 100}


@pytest.fixture(scope="module")
def service(goods: Goods) -> Iterator[Service]:
    with serving(goods.bundle) as started:
        yield started


@pytest.mark.parametrize(
    ("death", "form"), [(signal.SIGKILL, {}), (signal.SIGSEGV, {}), (signal.SIGKILL, {"regex": "([a-z]+ [0-9]{2} )*"})]
)
def test_an_answer_goes_on_when_the_engine_dies_in_the_middle(
    service: Service, death: signal.Signals, form: dict[str, Any]
) -> None:
    asked = LONG | {"temperature": 1.0, "seed": 3} | form
    expected = service.text(**asked)
    first = service.worker
    said, killed = "", False
    with service.http.stream("POST", CHAT, json=asked | {"stream": True}) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                said += json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content", "")
                if said and not killed:
                    os.kill(first, death)
                    killed = True
    assert said == expected
    assert service.worker != first
    assert any(death.name in each["what"] for each in service.status()["errors"])


def test_adapters_that_were_loaded_are_there_after_a_crash(service: Service, goods: Goods) -> None:
    loaded = service.http.post("/v1/load_lora_adapter", json={"lora_name": "two", "lora_path": str(goods.two)})
    assert loaded.status_code == 200
    before = service.text(model="two")
    os.kill(service.worker, signal.SIGKILL)
    assert service.text(model="two") == before
    assert service.http.post("/v1/unload_lora_adapter", json={"lora_name": "two"}).status_code == 200
    os.kill(service.worker, signal.SIGKILL)
    service.text()
    assert service.chat(model="two").status_code == 404


def settings(goods: Goods) -> dict[str, Any]:
    return {"bundle": str(goods.bundle), "threads": 1, "parallel": 2}


async def whole(supervisor: Supervisor, **options: Any) -> str:
    events = supervisor.answer({"prompt": "scratch", "adapter": "one", "max_tokens": 8} | options)
    return "".join([event["text"] async for event in events if event["op"] == "text"])


def test_an_engine_that_hangs_is_replaced(goods: Goods) -> None:
    async def scenario() -> None:
        supervisor = Supervisor(settings(goods), hang_seconds=2.0)
        await supervisor.start()
        try:
            before, hung = await whole(supervisor), supervisor.pid
            assert hung is not None
            os.kill(hung, signal.SIGSTOP)
            assert await whole(supervisor) == before
            assert supervisor.pid != hung
            assert "no sign of life" in supervisor.errors[-1][1]
        finally:
            await supervisor.close()

    asyncio.run(scenario())


def test_a_request_that_sees_two_engines_die_is_given_up(goods: Goods) -> None:
    async def scenario() -> None:
        supervisor = Supervisor(settings(goods))
        await supervisor.start()
        try:
            before = await whole(supervisor)
            first = supervisor.pid
            assert first is not None
            os.kill(first, signal.SIGSTOP)  # so that it has the request when it dies
            asked = asyncio.create_task(whole(supervisor))
            await asyncio.sleep(0.1)
            os.kill(first, signal.SIGKILL)
            while supervisor.pid == first:
                await asyncio.sleep(0.01)
            supervisor.kill("a test")
            with pytest.raises(Unavailable, match="SIGKILL"):
                await asked
            assert await whole(supervisor) == before
        finally:
            await supervisor.close()

    asyncio.run(scenario())


def test_a_request_is_accepted_once_also_when_its_engine_died_before(goods: Goods) -> None:
    async def scenario() -> None:
        supervisor = Supervisor(settings(goods))
        await supervisor.start()
        try:
            first = supervisor.pid
            assert first is not None
            os.kill(first, signal.SIGSTOP)  # before it can accept
            events = supervisor.answer({"prompt": "scratch", "adapter": "one", "max_tokens": 8})
            accepted = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.1)
            os.kill(first, signal.SIGKILL)
            assert (await accepted)["op"] == "accepted"
            assert [event["op"] async for event in events].count("accepted") == 0
        finally:
            await supervisor.close()

    asyncio.run(scenario())


def test_a_bundle_that_cannot_be_loaded_is_told_at_the_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervisor = Supervisor({"bundle": str(tmp_path / "nowhere")})
        with pytest.raises(InputError):
            await supervisor.start()

    asyncio.run(scenario())


def test_nobody_waits_for_ever_for_an_engine_that_does_not_come(goods: Goods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit_runtime.server.supervisor.READY_SECONDS", 1.0)

    async def scenario() -> None:
        supervisor = Supervisor(settings(goods))
        await supervisor.start()
        try:
            supervisor._settings["bundle"] = "/nowhere"
            running = asyncio.create_task(whole(supervisor, max_tokens=100))
            await asyncio.sleep(0)  # it has begun, and can not have ended
            supervisor.kill("a test")
            with pytest.raises(Unavailable):
                await running
            with pytest.raises(Unavailable):
                await whole(supervisor)
            supervisor._settings["bundle"] = str(goods.bundle)
            await asyncio.wait_for(supervisor._ready.wait(), 60)
            assert await whole(supervisor)
        finally:
            await supervisor.close()

    asyncio.run(scenario())


def test_a_defect_that_one_request_meets_leaves_the_engine_to_the_others(
    goods: Goods, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    with Runtime(goods.bundle, threads=1, context=256) as runtime, ours, theirs:
        whole = runtime.stream

        def stream(prompt: str, **options: Any) -> Any:
            return whole(prompt, **options) if prompt == "fine" else 1 // 0

        monkeypatch.setattr(runtime, "stream", stream)
        working = threading.Thread(target=Worker(runtime, theirs).run)
        working.start()
        for number, prompt in ((1, "odd"), (2, "fine")):
            ours.sendall(pack({"op": "start", "id": number, "options": {"prompt": prompt, "max_tokens": 2}}))
        said = {}
        for line in ours.makefile("rb"):
            message = unpack(line)
            if message["op"] in ("error", "done"):
                said[message["id"]] = message
            if len(said) == 2:
                break
        ours.shutdown(socket.SHUT_RDWR)
        working.join()
    assert "ZeroDivisionError" in said[1]["problem"]
    assert said[2]["op"] == "done"
