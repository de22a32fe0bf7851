"""kill -9 at any moment leaves the old state or the new one."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.store import Store
from tests.goods import Goods

WORKER = """
import random, sys
from edgekit_runtime.errors import InputError
from edgekit_runtime.store import Store
root, seed, *files = sys.argv[1:]
store = Store(root, trial=lambda base, adapters: [True] * len(adapters))  # a second of every install
chosen = random.Random(int(seed))
print("ready", flush=True)
while True:
    try:
        action = chosen.randrange(5)
        if action < 2:
            store.install(chosen.choice(files), allow_downgrade=True)
        elif action == 2:
            store.activate("one")
        elif action == 3:
            store.rollback()
        else:
            store.gc()
    except InputError:
        pass
"""


@pytest.mark.parametrize("seed", range(12))
def test_the_store_is_whole_after_kill_9(goods: Goods, tmp_path: Path, torture: bool, seed: int) -> None:
    store = Store(tmp_path / "store", create=True)
    store.install(goods.bundle)
    files = [str(each) for each in (goods.bundle, goods.later_bundle, goods.one_newer, goods.two)]
    chosen = random.Random(seed)
    rounds = 84 if torture else 4  # with 12 seeds, 1,008 kills
    for round_ in range(rounds):
        command = [sys.executable, "-c", WORKER, str(store.root), str(seed * 100 + round_), *files]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        time.sleep(chosen.uniform(0, 0.4))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        bundle = store.bundle()
        for entry in bundle.manifest.files:
            assert file_digest(store.root / entry.path) == entry.sha256
        store.install(goods.two)  # the lock of the dead is free, and the next change works
        assert "two" in [each.name for each in store.installed() if each.active]
