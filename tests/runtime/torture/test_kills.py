"""The engine's process is killed again and again while clients ask."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import httpx

from tests.goods import Goods
from tests.service import Service, serving

CLIENTS = 3
EVERY_SECONDS = 2.0


def test_the_front_lives_and_requests_are_answered(
    goods: Goods, torture: bool, figures: Callable[[str, object], None]
) -> None:
    seconds = 300.0 if torture else 7.0
    with serving(goods.bundle) as service:
        expected = {name: service.text(model=name, max_tokens=60) for name in ("one", "base")}
        outcomes: Counter[str] = Counter()
        end = time.monotonic() + seconds

        def ask(number: int) -> None:
            chosen = random.Random(number)
            with httpx.Client(base_url=service.url, timeout=120) as client:
                while time.monotonic() < end:
                    name = chosen.choice(["one", "base"])
                    body = {"model": name, "messages": [{"role": "user", "content": "scratch"}], "max_tokens": 60}
                    answer = client.post("/v1/chat/completions", json=body)
                    good = answer.status_code == 200
                    text = answer.json()["choices"][0]["message"]["content"] if good else ""
                    outcomes["right" if good and text == expected[name] else str(answer.status_code)] += 1

        clients = [threading.Thread(target=ask, args=[number]) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        kills = kill_until(service, end)
        for client in clients:
            client.join()
        failed = sum(outcomes.values()) - outcomes["right"]
        figures("engine killed every 2 s: kills", kills)
        figures("engine killed every 2 s: requests", sum(outcomes.values()))
        figures("engine killed every 2 s: failed requests", failed)
        assert set(outcomes) <= {"right", "503"}
        assert failed <= kills
        assert service.process.poll() is None
        assert service.status()["restarts"] == kills


def kill_until(service: Service, end: float) -> int:
    """SIGKILL every so often; how often it was."""
    kills = 0
    while time.monotonic() + EVERY_SECONDS < end:
        time.sleep(EVERY_SECONDS)
        assert service.http.get("/health").status_code in (200, 503)  # the front answers whatever happens
        os.kill(service.worker, signal.SIGKILL)
        kills += 1
    return kills
