"""The clock jumps by years, as on boards without a battery for it: nothing that edgekit does depends on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgekit_runtime.server import watching
from edgekit_runtime.store import Store
from edgekit_runtime.store.refusals import Refusals
from tests.goods import Goods
from tests.service import Service, serving

# Whoever asks for the time of day gets it plus the seconds in a file; all other clocks go on as they do.
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long long offset(void) {
    long long seconds = 0;
    FILE *file = fopen(getenv("CLOCK_OFFSET"), "r");
    if (file) { if (fscanf(file, "%lld", &seconds) != 1) seconds = 0; fclose(file); }
    return seconds;
}
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, now);
    if (!done && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
    return done;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
"""
AT_1970, AT_2150 = -int(time.time()) + 5, 4_000_000_000


class Clock:
    """The time of day of processes that are started from now on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler here")
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(CLOCK)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        self._file = folder / "offset"
        self.jump(0)
        monkeypatch.setenv("CLOCK_OFFSET", str(self._file))
        monkeypatch.setenv("LD_PRELOAD", str(library))

    def jump(self, seconds: int) -> None:
        """To so many from the true time."""
        scratch = self._file.with_suffix(".new")
        scratch.write_text(str(seconds))
        scratch.replace(self._file)


def versions(service: Service) -> dict[str, str]:
    return {each["name"]: each["version"] for each in service.status()["adapters"]}


def test_a_service_goes_on_while_the_clock_jumps(goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusting: dict[str, Any] = {"trial": lambda base, adapters: [True] * len(adapters)}
    store = Store(tmp_path / "store", create=True, **trusting)
    store.install(goods.bundle)
    clock, watched = Clock(tmp_path, monkeypatch), tmp_path / "watched"
    clock.jump(AT_1970)
    with serving(store.root, "--watch", str(watched), "--request-timeout", "100") as service:
        assert " 1970 " in service.http.get("/health").headers["date"]
        expected = service.text(max_tokens=60)
        answered = []
        for at, seconds in enumerate((AT_2150, AT_1970, 0)):
            clock.jump(seconds)
            answered.append(service.text(max_tokens=60))
            (store.install if at % 2 == 0 else store.remove)("two" if at % 2 else goods.two)
            service.wait_for(lambda at=at: ("two" in versions(service)) == (at % 2 == 0))
        assert answered == [expected] * 3
        clock.jump(0)
        worker, late = service.worker, list[str]()
        os.kill(worker, signal.SIGSTOP)
        asking = threading.Thread(target=lambda: late.append(service.text(max_tokens=60)))
        asking.start()
        service.wait_for(lambda: httpx.get(f"{service.url}/health").json()["busy"] == 1)
        clock.jump(AT_2150)  # far beyond all time limits
        os.kill(worker, signal.SIGCONT)
        asking.join()
        assert (late, service.worker) == ([expected], worker)
        clock.jump(AT_1970)
        shutil.copy(goods.one_newer, watched)  # older than whatever was there, as the clock has it
        os.utime(watched / goods.one_newer.name, (1, 1))
        service.wait_for(lambda: versions(service).get("one") == "1.10")
        older = str(next((goods.bundle / "adapters").glob("one-*.gguf")))
        command = [sys.executable, "-m", "edgekit_runtime", "adapters", "install", older, "--store", str(store.root)]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (refused.returncode, "is older than 1.10" in refused.stderr) == (3, True)
        assert service.status()["restarts"] == 0
        assert not service.status()["errors"]
    numbers = store._generations.numbers()
    assert numbers == list(range(1, len(numbers) + 1))  # generations count, whatever the time


def test_a_note_that_replaces_one_of_the_same_time_is_seen(tmp_path: Path) -> None:
    refusals = Refusals(tmp_path, tmp_path)
    refusals.note("a" * 64, "b" * 64, "llama.cpp", "first")
    (note,) = (tmp_path / "refused").iterdir()
    os.utime(note, ns=(0, 0))
    before = refusals.stamp()
    refusals.note("a" * 64, "b" * 64, "llama.cpp", "second")
    (note,) = (tmp_path / "refused").iterdir()
    os.utime(note, ns=(0, 0))
    assert refusals.stamp() != before


def test_a_watched_file_that_is_overwritten_with_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    file = tmp_path / "adapter.gguf"
    file.write_bytes(b"one")
    os.utime(file, ns=(0, 0))
    before = watching._state(file)
    assert before == watching._state(file)
    time.sleep(0.05)  # longer than a tick of the file system's clock
    with file.open("r+b") as stream:
        stream.write(b"two")
    os.utime(file, ns=(0, 0))
    assert watching._state(file) != before
