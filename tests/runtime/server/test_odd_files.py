"""What is no file, can't be read, or never stops changing in a watched folder: told once, and nothing waits for it."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit_runtime.server.watching import SETTLE_SECONDS
from edgekit_runtime.store import Store
from tests.goods import Goods
from tests.runtime.server.test_copies import ODD
from tests.runtime.server.test_watch import drop, names
from tests.service import Service, serving

KINDS = {name: make for name, make in ODD.items() if name not in ("missing", "forbidden")}
END_SECONDS = 60  # of a service with nothing to answer


def ends(service: Service) -> None:
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(END_SECONDS) == 0


def told(service: Service, file: Path) -> int:
    return sum(file.name in line for line in service.lines)


@pytest.fixture(params=[False, True], ids=["bundle", "store"])
def subject(request: pytest.FixtureRequest, goods: Goods, tmp_path: Path) -> Path:
    if not request.param:
        return goods.bundle
    Store(tmp_path / "store", create=True).install(goods.bundle)
    return tmp_path / "store"


def test_what_is_no_adapter_file_is_put_aside_and_told_once(subject: Path, goods: Goods, tmp_path: Path) -> None:
    watch = tmp_path / "drop"
    watch.mkdir()
    odd = [watch / f"{name}.gguf" for name in KINDS]
    for path, make in zip(odd, KINDS.values(), strict=True):
        make(path)
    (watch / "note.txt").mkdir()
    with serving(subject, "--watch", str(watch)) as service:
        drop(goods.two, watch)
        service.wait_for(lambda: "two" in names(service))
        service.wait_for(lambda: not any(map(os.path.lexists, odd)))
        for path in odd:
            assert os.path.lexists(watch / "rejected" / path.name)
            assert (watch / "rejected" / f"{path.name}.txt").read_text().strip()
        assert {each["file"] for each in service.status()["rejected"]} == {path.name for path in odd}
        for path, make in zip(odd, KINDS.values(), strict=True):  # the same once more, over what was put aside
            make(path)
        service.wait_for(lambda: not any(map(os.path.lexists, odd)))
        assert all(told(service, path) == 2 for path in odd)
        assert service.text(model="two")
        ends(service)


def test_what_can_not_be_put_aside_is_told_once_and_holds_nobody_up(
    subject: Path, goods: Goods, tmp_path: Path
) -> None:
    watch = tmp_path / "drop"
    (watch / "rejected").mkdir(parents=True)
    with serving(subject, "--watch", str(watch)) as service:
        (watch / "rejected").rmdir()
        (watch / "rejected").write_text("no folder")
        odd = [watch / "fifo.gguf", watch / "folder.gguf", watch / "text.gguf"]
        os.mkfifo(odd[0])
        odd[1].mkdir()
        odd[2].write_text("no adapter")
        drop(goods.two, watch)
        service.wait_for(lambda: "two" in names(service))
        service.wait_for(lambda: all(told(service, path) == 2 for path in odd))  # refused, and not put aside
        time.sleep(SETTLE_SECONDS)
        assert all(told(service, path) == 2 for path in odd)
        shutil.rmtree(watch)  # nothing to watch any more
        service.wait_for(lambda: any("No such file" in line for line in service.lines))
        time.sleep(1)
        assert sum("No such file" in line for line in service.lines) == 1
        assert service.text(model="two")
        ends(service)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["fifo", "folder"])
def test_a_signature_that_is_no_file_holds_nobody_up(
    make: Callable[[Path], None], subject: Path, goods: Goods, tmp_path: Path
) -> None:
    watch = tmp_path / "drop"
    watch.mkdir()
    make(watch / f"{goods.two.name}.sig")
    with serving(subject, "--watch", str(watch)) as service:
        drop(goods.two, watch)
        service.wait_for(lambda: "two" in names(service))  # no key is trusted: nobody looks at signatures
        answer = service.http.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": str(watch)})
        assert answer.status_code == 404
        ends(service)


def test_a_file_that_grows_is_looked_at_when_it_has_stopped(subject: Path, goods: Goods, tmp_path: Path) -> None:
    watch = tmp_path / "drop"
    watch.mkdir()
    growing, stop = watch / "growing.gguf", threading.Event()

    def grow() -> None:
        with growing.open("wb", buffering=0) as stream:
            stream.write(goods.two.read_bytes()[:-1000])
            while not stop.wait(0.05):
                stream.write(b"?")

    with serving(subject, "--watch", str(watch)) as service:
        thread = threading.Thread(target=grow)
        thread.start()
        try:
            drop(goods.one_newer, watch)
            service.wait_for(lambda: any(each["version"] == "1.10" for each in service.status()["adapters"]))
            time.sleep(2 * SETTLE_SECONDS)
            assert growing.exists()
            assert told(service, growing) == 0
        finally:
            stop.set()
            thread.join()
        service.wait_for((watch / "rejected" / growing.name).exists)
        assert told(service, growing) == 1
        assert names(service) == ["one"]


def test_a_service_ends_while_another_process_holds_the_store(goods: Goods, tmp_path: Path) -> None:
    import fcntl

    store, watch = Store(tmp_path / "store", create=True), tmp_path / "drop"
    store.install(goods.bundle)
    with serving(store.root, "--watch", str(watch)) as service, (store.root / "lock").open("a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        drop(goods.two, watch)
        time.sleep(3)  # it is waiting for the lock now
        assert service.text()
        ends(service)
