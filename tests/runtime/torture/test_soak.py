"""Many requests with swaps: memory and handles stay what they were."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import psutil

from tests.goods import Goods
from tests.service import serving

MIB = 1024**2


def test_memory_and_handles_stay_level(goods: Goods, torture: bool, figures: Callable[[str, object], None]) -> None:
    count, every = (20_000, 200) if torture else (300, 20)
    samples: list[tuple[float, float, int]] = []
    with serving(goods.bundle, "--adapter-memory", "0.05") as service:
        front, worker = psutil.Process(service.process.pid), psutil.Process(service.worker)
        for number in range(count):
            if number % 50 == 0:  # comes, and goes
                body = {"lora_name": "two", "lora_path": str(goods.two)}
                assert service.http.post("/v1/load_lora_adapter", json=body).status_code == 200
            service.text(model=("one", "two", "base")[number % 3], max_tokens=2)
            if number % 50 == 49:
                assert service.http.post("/v1/unload_lora_adapter", json={"lora_name": "two"}).status_code == 200
            if number % every == 0 and number >= count // 5:  # the first fifth warms up
                both = front.memory_info().rss / MIB, worker.memory_info().rss / MIB
                samples.append((*both, front.num_fds() + worker.num_fds()))
        assert service.status()["restarts"] == 0
    per_thousand = 1000 / every
    names = ("front", "engine's process")
    for column, name in enumerate(names):
        slope = np.polyfit(range(len(samples)), [sample[column] for sample in samples], 1)[0] * per_thousand
        figures(f"soak of {count} requests: {name}, MiB more for 1,000 requests", round(float(slope), 4))
        assert samples[-1][column] - samples[0][column] < 16
    figures(f"soak of {count} requests: handles at first and at last", (samples[0][2], samples[-1][2]))
    assert samples[-1][2] <= samples[0][2] + 2
