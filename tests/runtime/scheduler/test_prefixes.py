"""States of system prompts on a disk that is full, read-only or slow, and under a clock that goes anywhere."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit_runtime.scheduler import prefixes
from edgekit_runtime.scheduler.prefixes import PrefixCache
from edgekit_runtime.scheduler.request import Key
from tests.goods import Goods
from tests.service import serving

KIB = 1024


def keys(number: int) -> list[Key]:
    return [(number, ()), (number + 1, ())]


def names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real one, of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_no_half_file_is_told_once_and_is_written_when_there_is_room(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="edgekit_runtime")
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 900 * KIB)
    cache = PrefixCache(folder=small_disk / "cache")
    states = {number: bytes([number]) * 300 * KIB for number in (1, 2)}
    for number, state in states.items():
        cache.put(keys(number), state)
        assert cache.get(keys(number)) == state
    assert names(small_disk / "cache") == []
    assert sum("can't be kept on the disk" in each for each in caplog.messages) == 1
    assert "No space left" in caplog.text
    ballast.unlink()
    assert cache.get(keys(1)) == states[1]
    assert names(small_disk / "cache") == []  # not tried at each request
    monkeypatch.setattr(prefixes, "AGAIN_SECONDS", 0.0)
    cache._again = 0.0
    for number, state in states.items():
        assert cache.get(keys(number)) == state
    assert names(small_disk / "cache") == [".kv", ".kv"]
    assert sum("on the disk again" in each for each in caplog.messages) == 1
    fresh = PrefixCache(folder=small_disk / "cache")
    assert [fresh.get(keys(number)) for number in states] == list(states.values())


def test_a_service_on_a_full_store_answers_all_the_same(goods: Goods, tmp_path: Path, small_disk: Path) -> None:
    from edgekit_runtime.store import Store

    store = Store(tmp_path / "store", create=True, trial=lambda base, adapters: [True] * len(adapters))
    store.install(goods.bundle)
    with serving(store.root) as service:
        expected = service.text()
    cache = store.root / "cache"
    assert names(cache) == [".kv"]
    for path in cache.iterdir():
        path.unlink()
    cache.rmdir()
    cache.symlink_to(small_disk)
    filling = small_disk / "ballast.kv"
    with filling.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(b"x" * 4 * KIB):
            pass
    assert shutil.disk_usage(small_disk).free == 0
    with serving(store.root) as service:
        assert service.text() == expected
        assert service.text(messages=[{"role": "user", "content": "dent"}])
        service.wait_for(lambda: any("can't be kept on the disk" in line for line in service.lines))
        assert service.status()["restarts"] == 0
    assert [path.name for path in small_disk.iterdir()] == ["ballast.kv"]


def test_a_file_that_may_not_grow_is_not_left_half_written(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from edgekit_runtime.scheduler.prefixes import PrefixCache\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({100 * KIB}, resource.RLIM_INFINITY))\n"
        "cache = PrefixCache(folder=Path(sys.argv[1]))\n"
        f"cache.put([(1, ())], b'x' * {300 * KIB})\n"
        f"assert cache.get([(1, ())]) == b'x' * {300 * KIB}\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f"aa.{dead.pid}").write_bytes(b"half")
    (tmp_path / f"bb.{os.getpid()}").write_bytes(b"half")
    PrefixCache(folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"bb.{os.getpid()}"]


@pytest.mark.parametrize("off", [4_000_000_000, -1_700_000_000], ids=["the clock was ahead", "the clock was behind"])
def test_the_longest_unused_state_makes_room_whatever_the_clock_says(tmp_path: Path, off: int) -> None:
    """Files of earlier days have times that this day's clock may not have reached yet, or left far behind."""
    state = b"x" * 30 * KIB
    cache = PrefixCache(100 * KIB, folder=tmp_path)
    for number in (1, 2):
        cache.put(keys(number), state)
    for path in tmp_path.iterdir():
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + off * 10**9))
    assert PrefixCache(100 * KIB, folder=tmp_path).get(keys(1)) == state  # used now
    later = PrefixCache(100 * KIB, folder=tmp_path)
    later.put(keys(3), state)
    later.put(keys(4), state)  # one has to go
    fresh = PrefixCache(100 * KIB, folder=tmp_path)
    assert [fresh.get(keys(number)) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]
