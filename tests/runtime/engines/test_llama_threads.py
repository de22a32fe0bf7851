"""The number of threads may change between two steps: it changes no bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime.engines import BARE, Part, Stack
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.engines.threads import Threads
from edgekit_runtime.formats.bundle import read_manifest

MOST = 3


@pytest.fixture(scope="module")
def engine(demo_bundle: Path) -> Iterator[LlamaEngine]:
    manifest = read_manifest(demo_bundle)
    opened = LlamaEngine(demo_bundle / manifest.base.file, context=256, threads=MOST)
    opened.load_adapter("one", demo_bundle / manifest.adapters[0].file)
    yield opened
    opened.close()


@pytest.mark.parametrize("stack", [BARE, (("one", 1.0),)], ids=["base", "adapter"])
def test_no_bit_depends_on_the_number_of_threads(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch, stack: Stack
) -> None:
    def rows(threads: int) -> list[np.ndarray]:
        monkeypatch.setattr(Threads, "next", lambda *_: threads)
        engine.forget(0)
        engine.select(stack)
        found = []
        for start, stop in ((0, 70), (70, 71), (71, 73), (73, 80), (80, 81)):
            engine.decode([Part(0, start, list(range(100 + start, 100 + stop)), logits_from=0)])
            found.append(engine.row(stop - start - 1).copy())
        return found

    alone = rows(1)
    assert all(np.isfinite(row).all() for row in alone)
    for threads in range(2, MOST + 1):
        assert all(map(np.array_equal, rows(threads), alone))
