"""A request that the engine dies of, whatever adapter, costs a few engines and not one each time that it is sent."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgekit_runtime.server.at_work import AtWork, Crash, shared_file
from edgekit_runtime.server.killers import ALONE, AMONG_OTHERS, REMEMBERED, Killers, request_key
from tests.goods import Goods
from tests.service import serving

WORD = "deadly words"
HOOKS = {
    "while it is read": """
        whole = Runtime.stream

        def stream(self, prompt=None, **options):
            if {word!r} in str(options.get("messages")):
                {act}
            return whole(self, prompt, **options)

        Runtime.stream = stream
    """,
    "while it is answered": """
        whole = Loop._start

        def start(self, job):
            text = b"".join(self._engine.piece(token) for token in job.work.prompt)
            if {word!r}.encode() in text:
                {act}
            whole(self, job)

        Loop._start = start
    """,
}


def hook(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, act: str) -> None:
    """Have workers that are started from now on run ``code`` first."""
    folder.mkdir()
    body = code.format(word=WORD, act=act).replace("\n        ", "\n    ")
    (folder / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if 'edgekit_runtime.server.worker' in sys.orig_argv:\n"
        "    from edgekit_runtime.runtime import Runtime\n"
        "    from edgekit_runtime.scheduler.loop import Loop\n" + body
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))


def asking(text: str, model: str) -> dict[str, Any]:
    return {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize("when", HOOKS)
def test_a_request_that_two_engines_died_of_is_refused_when_it_comes_again(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    hook(tmp_path / "hook", monkeypatch, HOOKS[when], "os.abort()")
    with serving(goods.bundle) as service:
        expected = service.text(model="base")
        killer = asking(WORD, "base")
        assert service.http.post("/v1/chat/completions", json=killer).status_code == 503
        assert service.status()["restarts"] == ALONE
        for stream in (False, True):
            refused = service.http.post("/v1/chat/completions", json=killer | {"stream": stream})
            assert (refused.status_code, refused.json()["error"]["code"]) == (422, "engine_crashes")
        assert service.text(model="base") == expected
        assert service.chat(messages=[{"role": "user", "content": WORD[1:]}], model="base").status_code == 200
        assert service.status()["restarts"] == ALONE
        assert any("is refused from now on" in line for line in service.lines)
        assert not any(WORD in line for line in service.lines)  # what clients send is not logged


def test_neighbours_of_a_killer_are_answered_and_no_adapter_is_blamed(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook(tmp_path / "hook", monkeypatch, HOOKS["while it is read"], "os.abort()")
    with serving(goods.bundle) as service:
        expected = {name: service.text(model=name, max_tokens=60) for name in ("one", "base")}
        over = threading.Event()
        innocent: list[tuple[str, httpx.Response]] = []

        def ask(name: str) -> None:
            with httpx.Client(base_url=service.url, timeout=120) as client:
                while not over.is_set():
                    body = asking("scratch", name) | {"max_tokens": 60}
                    innocent.append((name, client.post("/v1/chat/completions", json=body)))

        neighbours = [threading.Thread(target=ask, args=[name]) for name in ("one", "base", "one")]
        for each in neighbours:
            each.start()
        try:
            codes = [service.http.post("/v1/chat/completions", json=asking(WORD, "one")).status_code for _ in range(4)]
        finally:
            over.set()
            for each in neighbours:
                each.join()
        assert codes[0] == 503
        assert codes[2:] == [422, 422]
        assert ALONE <= service.status()["restarts"] <= AMONG_OTHERS
        for name, answer in innocent:
            if answer.status_code == 200:
                assert answer.json()["choices"][0]["message"]["content"] == expected[name]
            else:  # it saw two engines die
                assert answer.status_code == 503, answer.text
        assert not any("aside" in each for each in service.status()["adapters"])
        assert {name: service.text(model=name, max_tokens=60) for name in ("one", "base")} == expected


def test_who_was_beside_a_killer_is_refused_only_after_more_deaths_and_an_answer_clears_it() -> None:
    killers = Killers()
    for _ in range(AMONG_OTHERS - 1):
        assert killers.died({"killer", "neighbour"}) == []
    killers.answered("neighbour")
    assert killers.died({"killer", "neighbour"}) == ["killer"]
    assert (killers.refuses("killer"), killers.refuses("neighbour")) == (True, False)
    assert killers.died({"other"}) == []
    assert killers.died({"other"}) == ["other"]


def test_killers_are_remembered_within_bounds() -> None:
    killers = Killers()
    for number in range(2 * REMEMBERED):
        killers.died({str(number)})
        killers.died({str(number)})
    assert not killers.refuses("0")
    assert killers.refuses(str(2 * REMEMBERED - 1))
    assert len(killers._refused) == REMEMBERED


def test_the_same_request_has_the_same_key_and_another_one_another() -> None:
    picture = {"width": 1, "height": 1, "rgb": b"abc"}
    options = {"messages": [{"role": "user", "content": "\ud800"}], "adapter": "one", "image": [picture]}
    keys = [
        request_key(each)
        for each in (
            options,
            options | {"adapter": "two"},
            options | {"seed": 1},
            options | {"image": None},
            options | {"image": [picture, picture]},
            options | {"image": [picture | {"rgb": b"abd"}]},
        )
    ]
    assert len(set(keys)) == len(keys)
    assert request_key(dict(reversed(options.items()))) == keys[0]


CRASH = """
import ctypes, os, sys, threading, time
from edgekit_runtime.server.at_work import AtWork
at_work = AtWork(int(sys.argv[1]))
at_work.note_crashes()
at_work.mark([(("f" * 64, 1.0),)])
ready, go = threading.Barrier(3), threading.Event()

def read(number, crashes):
    with at_work.reading(number):
        ready.wait()
        go.wait()
        if crashes:
            ctypes.string_at(0)
        time.sleep(600)

crashing = sys.argv[2]
for number in (7, 12):
    threading.Thread(target=read, args=[number, crashing == str(number)], daemon=True).start()
ready.wait()
go.set()
if crashing == "engine":
    os.abort()
if crashing == "nobody":
    os.kill(os.getpid(), 9)
time.sleep(600)
"""


@pytest.mark.parametrize(("crashing", "read"), [("7", {7}), ("12", {12}), ("engine", set()), ("nobody", {7, 12})])
def test_which_thread_has_crashed_is_known_after_the_process_has_ended(crashing: str, read: set[int]) -> None:
    handle = shared_file()
    try:
        front = AtWork(handle)
        front.clear()
        command = [sys.executable, "-c", CRASH, str(handle), crashing]
        assert subprocess.run(command, pass_fds=[handle], timeout=60, check=False).returncode < 0
        assert set(front.being_read().values()) == {7, 12}
        assert front.crash() == Crash({frozenset(["f" * 64])}, frozenset(read))
        if crashing == "nobody":
            assert front.crash(hung=True).read == frozenset()
        front.clear()
        assert front.crash() == Crash(set(), frozenset())
    finally:
        os.close(handle)
