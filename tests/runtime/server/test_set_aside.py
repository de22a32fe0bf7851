"""What an engine can't run or dies of is left out, and nobody else: now, at its next start, in other services."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.server.at_work import AtWork, shared_file
from edgekit_runtime.server.blame import Blame
from edgekit_runtime.server.supervisor import SetAside, Supervisor
from edgekit_runtime.store import Store
from tests.deadly import CANARY, WORKER, Deadly
from tests.goods import Goods
from tests.runtime.server.test_isolation import whole
from tests.service import Service, serving

TRUSTING = {"trial": lambda base, adapters: [True] * len(adapters)}  # as on a machine without the engine


@pytest.fixture
def store(goods: Goods, tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", create=True, **TRUSTING)
    made.install(goods.bundle)
    return made


def answers(service: Service) -> list[str]:
    return [each["id"] for each in service.http.get("/v1/models").json()["data"]]


def set_aside(service: Service) -> dict[str, str]:
    return {each["name"]: each["aside"] for each in service.status()["adapters"] if "aside" in each}


def test_the_adapter_that_an_engine_dies_of_twice_is_set_aside_and_its_neighbours_go_on(
    goods: Goods, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.install(goods.two)
    two = file_digest(goods.two)
    deadly = Deadly(tmp_path / "hook", WORKER, monkeypatch)
    with serving(store.root) as service, serving(store.root) as other:
        expected = {name: service.text(model=name, max_tokens=60) for name in ("one", "base")}
        assert service.text(model="two")
        deadly.over(two)
        innocent: list[tuple[str, httpx.Response]] = []

        def ask(name: str) -> None:
            with httpx.Client(base_url=service.url, timeout=120) as client:
                for _ in range(4):
                    body = {"model": name, "messages": [{"role": "user", "content": "scratch"}], "max_tokens": 60}
                    innocent.append((name, client.post("/v1/chat/completions", json=body)))

        neighbours = [threading.Thread(target=ask, args=[name]) for name in ("one", "base", "one")]
        for each in neighbours:
            each.start()
        killer = service.chat(model="two")
        for each in neighbours:
            each.join()
        assert (killer.status_code, killer.json()["error"]["code"]) == (409, "adapter_set_aside")
        assert "died of it twice" in killer.json()["error"]["message"]
        assert "install or load it again" in killer.json()["error"]["message"]
        for name, answer in innocent:
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["message"]["content"] == expected[name]
        assert service.status()["restarts"] == 2
        assert service.chat(model="two").status_code == 409  # and no engine dies
        assert service.chat(model="base", lora=[{"id": "two", "scale": 0.5}]).status_code == 409
        assert service.status()["restarts"] == 2
        assert answers(service) == ["base", "one"]
        assert "SIGABRT" in set_aside(service)["two"]
        other.wait_for(lambda: set_aside(other))  # it is written down for all services on the store
        assert other.chat(model="two").status_code == 409
        assert other.status()["restarts"] == 0
    with serving(store.root) as service:
        assert service.chat(model="two").status_code == 409
        assert service.status()["restarts"] == 0
        deadly.over()
        store.install(goods.two)
        service.wait_for(lambda: not set_aside(service))
        assert service.text(model="two")


def test_an_adapter_that_was_loaded_over_http_is_set_aside_until_it_is_loaded_again(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = Deadly(tmp_path / "hook", WORKER, monkeypatch)
    load = {"lora_name": "one", "lora_path": str(goods.two), "load_inplace": True}
    with serving(goods.bundle) as service:
        ours = service.text()
        assert service.http.post("/v1/load_lora_adapter", json=load).status_code == 200
        loaded = service.text()
        assert loaded != ours
        deadly.over(file_digest(goods.two))
        assert service.chat().status_code == 409
        assert service.chat().status_code == 409  # and not the answer of the one that it took the name of
        assert service.text(model="base")
        deadly.over()
        assert service.http.post("/v1/load_lora_adapter", json=load).status_code == 200
        assert service.text() == loaded
        deadly.over(file_digest(goods.two))
        assert service.chat().status_code == 409
        assert service.http.post("/v1/unload_lora_adapter", json={"lora_name": "one"}).status_code == 200
        assert service.text() == ours


def test_an_adapter_that_an_engine_hangs_over_twice_is_set_aside(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = Deadly(tmp_path / "hook", WORKER, monkeypatch, act="time.sleep(1000)")
    deadly.over(file_digest(next((goods.bundle / "adapters").glob("one-*.gguf"))))

    async def scenario() -> None:
        supervisor = Supervisor({"bundle": str(goods.bundle), "threads": 1, "parallel": 2}, hang_seconds=2.0)
        await supervisor.start()
        try:
            base = asyncio.create_task(whole(supervisor, adapter="base"))
            with pytest.raises(SetAside, match="no sign of life"):
                await whole(supervisor)
            assert await base
            assert supervisor.restarts == 2
            assert [model["name"] for model in supervisor.models if "aside" in model] == ["one"]
        finally:
            await supervisor.close()

    asyncio.run(scenario())


def test_another_file_may_answer_for_one_that_is_left_out(goods: Goods, store: Store, tmp_path: Path) -> None:
    store.install(goods.two)
    manifest, two = store.bundle().manifest, file_digest(goods.two)
    store.refusals.note(two, manifest.base.digest, manifest.engine, "the engine crashes over it")
    other = tmp_path / "other.gguf"
    rewrite_metadata(goods.two, other, {"edgekit.version": "1.1.0"})
    with serving(store.root) as service:
        assert service.chat(model="two").status_code == 409
        load = {"lora_name": "two", "lora_path": str(other)}
        assert service.http.post("/v1/load_lora_adapter", json=load).status_code == 200
        answer = service.text(model="two")
        store.install(goods.one_newer)  # what is left out of the store is left out still, and the other one answers
        service.wait_for(lambda: any(each["version"] == "1.10" for each in service.status()["adapters"]))
        assert service.text(model="two") == answer
        os.kill(service.worker, signal.SIGKILL)
        assert service.text(model="two") == answer
        assert service.http.post("/v1/unload_lora_adapter", json={"lora_name": "two"}).status_code == 200
        assert service.chat(model="two").status_code == 409
        os.kill(service.worker, signal.SIGKILL)
        assert service.text()
        assert service.chat(model="two").status_code == 409


def test_what_the_canary_refuses_is_not_live_after_the_engine_was_killed_either(
    goods: Goods, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = file_digest(goods.two)
    canary = Deadly(tmp_path / "hook", CANARY, monkeypatch)
    with serving(store.root) as service:
        before = service.text()
        canary.over(two)
        store.install(goods.two)
        service.wait_for(lambda: set_aside(service))
        for _ in range(2):
            refused = service.chat(model="two")
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "adapter_set_aside")
            assert "crashes (SIGABRT)" in refused.json()["error"]["message"]
            assert service.text() == before
            os.kill(service.worker, signal.SIGKILL)
        service.text()
    with serving(store.root) as service:
        assert service.chat(model="two").status_code == 409
        service.chat(model="two", stream=True)
        assert service.status()["restarts"] == 0
        canary.over()
        Store(store.root).install(goods.two)  # the canary of the command line
        service.wait_for(lambda: not set_aside(service))
        assert service.text(model="two")


def test_a_base_that_the_canary_refuses_changes_nothing_also_after_the_engine_was_killed(
    goods: Goods, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        f"import os, sys\nif {CANARY!r} in sys.orig_argv and os.path.exists({str(hook / 'on')!r}):\n    os.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")]))
    with serving(store.root) as service:
        before, number = service.text(), store.number
        (hook / "on").touch()
        store.install(goods.other_base(tmp_path))
        assert store.number != number
        service.wait_for(lambda: any("the engine crashes" in line for line in service.lines))
        os.kill(service.worker, signal.SIGKILL)
        assert service.text() == before
        assert sum("the engine crashes" in line for line in service.lines) == 1
        for _ in range(12):
            store.install(goods.two)
            store.remove("two")
        store.gc()  # leaves what the service answers with
        os.kill(service.worker, signal.SIGKILL)
        assert service.text() == before


DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
STACKS = st.lists(st.lists(st.tuples(DIGESTS, st.floats(0, 2)), max_size=3).map(tuple), max_size=4)


@given(STACKS)
@settings(max_examples=50)
def test_what_is_marked_is_read(stacks: list[tuple[tuple[str, float], ...]]) -> None:
    handle = shared_file()
    try:
        AtWork(handle).mark([(("f" * 64, 1.0),)] * 20)
        AtWork(handle).mark(stacks)
        assert AtWork(handle).read() == {frozenset(digest for digest, _ in stack) for stack in stacks}
    finally:
        os.close(handle)


def test_only_who_was_alone_at_the_last_of_two_crashes_is_blamed() -> None:
    one, two, base = frozenset(["one"]), frozenset(["two"]), frozenset[str]()
    blame = Blame()
    assert list(blame.crashed({one, two, base})) == []
    assert list(blame.crashed({one, two})) == []  # nobody knows which
    assert list(blame.crashed({one | two})) == []
    assert list(blame.crashed({base})) == []
    assert list(blame.crashed(set())) == []
    assert list(blame.crashed({two})) == ["two"]
    blame.forgive("two")
    assert list(blame.crashed({two})) == []
    assert list(blame.crashed({two})) == ["two"]
