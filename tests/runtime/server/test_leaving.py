"""A service that was told to end does so, whatever hangs in it."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from tests.goods import Goods
from tests.service import serving

HANGS = {
    "a thread that waits": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "the main thread": "time.sleep(600)",
}


@pytest.mark.parametrize("hang", HANGS)
def test_what_hangs_is_left_behind_with_all_children(hang: str) -> None:
    code = (
        "import subprocess, sys, threading, time\n"
        "from edgekit_runtime.server.ending import leave_within\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"print(child.pid, flush=True)\nleave_within(0.5)\n{HANGS[hang]}\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert process.wait(60) == 0
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_sigterm_ends_a_service_whose_engine_hears_nothing(goods: Goods) -> None:
    with serving(goods.bundle) as service:
        service.text()
        worker = psutil.Process(service.worker)
        worker.send_signal(signal.SIGSTOP)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
        assert not worker.is_running()
