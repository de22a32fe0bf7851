"""Several processes on one store: each sees every change, none damages anything, and one canary runs at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit_runtime.intake.trial_turn import trial_turn, trial_turn_async
from edgekit_runtime.store import Store
from tests.deadly import CANARY
from tests.goods import Goods
from tests.service import Service, serving

NOTES = """
import atexit, os, sys, time
if {module!r} in sys.orig_argv:
    def note(what):
        with open({file!r}, "a") as stream:
            stream.write(what + "\\n")
    note("+")
    atexit.register(note, "-")
    time.sleep(0.5)  # so that others meet it
"""


def versions(service: Service) -> dict[str, str]:
    return {each["name"]: each["version"] for each in service.status()["adapters"]}


def test_two_services_and_a_command_line_see_each_change_and_try_one_thing_at_a_time(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store", create=True)
    store.install(goods.bundle)
    (tmp_path / "hook").mkdir()
    notes = tmp_path / "notes"
    (tmp_path / "hook" / "sitecustomize.py").write_text(NOTES.format(module=CANARY, file=str(notes)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "hook"), os.environ.get("PYTHONPATH", "")]))
    watched = tmp_path / "watched"
    command = [sys.executable, "-m", "edgekit_runtime", "adapters"]
    with serving(store.root, "--watch", str(watched)) as one, serving(store.root) as other:
        installing = subprocess.Popen([*command, "install", str(goods.two), "--store", str(store.root)])
        shutil.copy(goods.one_newer, watched)
        assert installing.wait(120) == 0
        for service in (one, other):
            service.wait_for(lambda service=service: versions(service) == {"one": "1.10", "two": "1.0.0"})
        assert one.text(model="two") == other.text(model="two")
        assert one.text(model="one") == other.text(model="one")
        subprocess.run([*command, "remove", "two", "--store", str(store.root)], check=True)
        for service in (one, other):
            service.wait_for(lambda service=service: versions(service) == {"one": "1.10"})
            assert service.chat(model="two").status_code == 404
            assert not service.status()["errors"]
    begun = notes.read_text().split()
    assert begun.count("+") >= 4  # each service and the command line tried what was new to it
    assert begun == ["+", "-"] * (len(begun) // 2)
    store.verify()
    for number in store._generations.numbers():
        assert store._generations.read(number).number == number


HOLDER = """
import sys, time
from pathlib import Path
from edgekit_runtime.intake.trial_turn import trial_turn
with trial_turn(Path(sys.argv[1]), 60):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_on_its_turn_keeps_nobody_waiting_for_ever(
    tmp_path: Path, ending: signal.Signals
) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(ending)
        with trial_turn(tmp_path, 1 if ending == signal.SIGSTOP else 600):
            pass

        async def take() -> None:
            async with trial_turn_async(tmp_path, 1 if ending == signal.SIGSTOP else 600):
                pass

        asyncio.run(asyncio.wait_for(take(), 60))
    finally:
        holder.kill()
        holder.wait()


def test_turns_do_not_overlap_and_one_that_is_given_up_takes_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        at_work = 0

        async def work() -> None:
            nonlocal at_work
            async with trial_turn_async(tmp_path, 60):
                at_work += 1
                assert at_work == 1
                await asyncio.sleep(0.05)
                at_work -= 1

        async with trial_turn_async(tmp_path, 60):
            waiting = asyncio.create_task(work())
            await asyncio.sleep(0.05)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
        await asyncio.gather(*(work() for _ in range(4)))

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_where_nothing_can_be_written_no_turn_is_taken(tmp_path: Path) -> None:
    begun = time.monotonic()
    with trial_turn(tmp_path / "nowhere", 600):
        assert time.monotonic() - begun < 300
