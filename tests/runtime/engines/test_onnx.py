"""What the ONNX engine does beyond what every engine does: adapters mixed in one step, saved states, stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime import BASE, InputError, Runtime
from edgekit_runtime.engines import BARE, Part, Stack
from edgekit_runtime.engines.opening import open_engine
from edgekit_runtime.formats.bundle import open_bundle
from edgekit_runtime.formats.onnx_base import MIXED_FILE
from edgekit_runtime.store import Store
from tests.steps import alone, step

PROMPTS = ("Name three colours.", "What is a belt?", "Write one line about rust.")


@pytest.fixture(scope="module")
def shared(onnx_bundle: Path) -> Iterator[Runtime]:
    with Runtime(onnx_bundle, context=256, parallel=4) as opened:
        yield opened


def test_batches_with_one_adapter_are_the_steps_alone_to_the_bit(shared: Runtime) -> None:
    engine = shared.engine
    engine.load_adapter("one", shared.adapter_path("one"))
    stack = (("one", 1.0),)
    if not engine.batches_exactly(stack):
        pytest.skip("not on this machine: requests take turns")
    stacks = [stack] * 4
    wanted = alone(engine, stacks)
    for rows in ([0, 1, 2, 3], [1, 3], [2, 0]):
        assert all(
            np.array_equal(found, wanted[row]) for found, row in zip(step(engine, rows, stacks), rows, strict=True)
        )
    engine.unload_adapter("one")


def test_steps_with_different_adapters_are_the_steps_alone_to_the_bit(shared: Runtime) -> None:
    engine = shared.engine
    for name in ("one", "two"):
        engine.load_adapter(name, shared.adapter_path(name))
    stacks: list[Stack] = [BARE, (("one", 1.0),), (("two", 1.0),), (("one", 0.5), ("two", 1.5))]
    if not engine.mixes(stacks):
        pytest.skip("not on this machine: requests are decoded adapter by adapter")
    wanted = alone(engine, stacks)
    for rows in ([0, 1, 2, 3], [3, 1], [2, 0], [1, 2], [3]):
        assert all(
            np.array_equal(found, wanted[row]) for found, row in zip(step(engine, rows, stacks), rows, strict=True)
        )
    assert all(not np.array_equal(wanted[0], other) for other in wanted[1:])
    for name in ("one", "two"):
        engine.unload_adapter(name)


def test_a_graph_that_takes_no_tiles_is_refused_for_several_requests(onnx_bundle: Path) -> None:
    with open_bundle(onnx_bundle) as bundle:
        files = bundle.base_files
        earlier = replace(files, parts={**files.parts, MIXED_FILE: files.model})
        with pytest.raises(InputError, match="earlier edgekit"):
            open_engine(earlier, context=64, threads=1, sequences=2)


def test_requests_with_different_adapters_answer_together_as_they_do_alone(shared: Runtime) -> None:
    wanted = [(name, prompt) for name, prompt in zip((BASE, "one", "two"), PROMPTS, strict=True)]
    alone = [shared.generate(prompt, adapter=name, max_tokens=7).text for name, prompt in wanted]
    streams = [shared.stream(prompt, adapter=name, max_tokens=7) for name, prompt in wanted]
    assert ["".join(stream) for stream in streams] == alone


def test_a_saved_sequence_goes_on_in_another_as_it_would_have_here(shared: Runtime) -> None:
    engine = shared.engine
    engine.holder = None
    engine.select(BARE)
    engine.decode([Part(0, 0, range(100, 140))])
    state = engine.save(0)
    engine.decode([Part(0, 40, [7])])
    here = engine.row(0).copy()
    engine.forget(3)
    assert engine.restore(3, state)
    engine.decode([Part(3, 40, [7])])
    assert np.array_equal(here, engine.row(0))
    engine.forget(1)
    assert not engine.restore(1, state[: len(state) // 2])


def test_a_store_takes_the_bundle_and_single_adapter_files(onnx_bundle: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    store.install(onnx_bundle)
    with Runtime(onnx_bundle, context=128) as bundle, Runtime(store.root, context=128) as stored:
        asked = {"adapter": "one", "max_tokens": 8}
        assert bundle.generate(PROMPTS[0], **asked).text == stored.generate(PROMPTS[0], **asked).text
        file = bundle.adapter_path("two")
    store.remove("two")
    assert store.install(file) == ["two 1.0.0"]
    store.gc()
    assert store.bundle().base_files.model.exists()
    assert {each.name for each in store.installed()} == {"one", "two"}


def test_an_adapter_for_the_other_engine_is_refused(onnx_bundle: Path, demo_bundle: Path) -> None:
    with Runtime(onnx_bundle, context=128) as onnx, Runtime(demo_bundle, context=128) as gguf:
        with pytest.raises(InputError, match="another engine"):
            onnx.add_adapter(gguf.adapter_path("one"), "other")
        with pytest.raises(InputError, match="another engine"):
            gguf.add_adapter(onnx.adapter_path("one"), "other")
