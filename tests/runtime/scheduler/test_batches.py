"""Sequences decoded together give, to the bit, what each gives alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime import Runtime
from edgekit_runtime.engines import Part, Stack
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.engines.llama.odd_rank import STEP, with_odd_rank, with_whole_step
from edgekit_runtime.engines.llama.sheets import Sheets
from edgekit_runtime.formats.gguf import read_gguf

STACKS: list[Stack] = [(), (("one", 1.0),), (("one", 0.5), ("two", 1.5))]
LENGTHS = (5, 40, 300, 17)


@pytest.fixture(scope="module")
def engine(demo_bundle: Path) -> Iterator[LlamaEngine]:
    with Runtime(demo_bundle, context=512) as runtime:
        opened = LlamaEngine(runtime.engine_file, context=512, threads=2, sequences=len(LENGTHS))
        for name in ("one", "two"):
            opened.load_adapter(name, runtime.adapter_path(name))
    yield opened
    opened.close()


@pytest.mark.parametrize("stack", STACKS, ids=["base", "adapter", "two adapters"])
def test_logits_do_not_depend_on_who_else_is_decoded(engine: LlamaEngine, stack: Stack) -> None:
    if not engine.batches_exactly(stack):
        pytest.skip("this CPU's kernels differ between batch sizes; requests are then decoded one by one")
    engine.select(stack)

    def rows(groups: list[list[int]]) -> dict[int, np.ndarray]:
        for sequence, length in enumerate(LENGTHS):
            engine.forget(sequence)
            engine.decode([Part(sequence, 0, [(7 * sequence + 11 * n) % 4000 + 100 for n in range(length)])])
        found = {}
        for group in groups:
            engine.decode([Part(each, LENGTHS[each], [200 + each]) for each in group])
            found |= {each: engine.row(number).copy() for number, each in enumerate(group)}
        return found

    alone = rows([[0], [1], [2], [3]])
    for groups in ([[0, 1, 2, 3]], [[0, 1], [2, 3]], [[3, 0, 2], [1]]):
        together = rows(groups)
        assert all(np.array_equal(alone[each], together[each]) for each in alone)


def test_a_saved_sequence_goes_on_in_another_as_it_would_have_here(engine: LlamaEngine) -> None:
    engine.select(())
    engine.forget(0)
    engine.decode([Part(0, 0, range(100, 140))])
    state = engine.save(0)
    engine.decode([Part(0, 40, [7])])
    here = engine.row(0).copy()
    engine.forget(3)
    assert engine.restore(3, state)
    engine.decode([Part(3, 40, [7])])
    assert np.array_equal(here, engine.row(0))


def test_a_damaged_state_is_refused_and_leaves_the_sequence_empty(engine: LlamaEngine) -> None:
    engine.forget(0)
    engine.decode([Part(0, 0, range(100, 140))])
    state = engine.save(0)
    engine.forget(1)
    assert not engine.restore(1, state[: len(state) // 2])
    engine.decode([Part(1, 0, [5])])


def test_an_odd_rank_changes_sizes_and_alpha_alone(demo_bundle: Path) -> None:
    with Runtime(demo_bundle, context=512) as runtime:
        path = runtime.adapter_path("one")
    before = read_gguf(path)
    with with_odd_rank(before, wanted=True) as file:
        after = read_gguf(file)
    assert list(after.tensors) == list(before.tensors)
    for name, tensor in after.tensors.items():
        axis = 1 if name.endswith(".lora_a") else 0
        assert tensor.shape[axis] == before.tensors[name].shape[axis] + 1
    changed = {key for key in after.metadata if after.metadata[key] != before.metadata[key]}
    assert changed == {"adapter.lora.alpha"}


def test_a_whole_step_adds_zeros_to_rank_and_alpha_alone(demo_bundle: Path) -> None:
    with Runtime(demo_bundle, context=512) as runtime:
        path = runtime.adapter_path("one")
    before = read_gguf(path)
    with with_whole_step(before, wanted=True) as file:
        after = read_gguf(file)
        changed = {key for key in after.metadata if after.metadata[key] != before.metadata[key]}
        assert changed == {"adapter.lora.alpha"}
        assert after.metadata["adapter.lora.alpha"] / STEP == before.metadata["adapter.lora.alpha"] / 8
        for name, tensor in after.tensors.items():
            old = before.tensors[name]
            assert tensor.type_name == old.type_name == "F16"
            numbers = [
                np.frombuffer(each.read_bytes(), "<f2", math.prod(info.shape), info.offset).reshape(info.shape[::-1])
                for each, info in ((path, old), (file, tensor))
            ]
            wide = numbers[1] if name.endswith(".lora_b") else numbers[1].T
            narrow = numbers[0] if name.endswith(".lora_b") else numbers[0].T
            assert (wide[:, :8] == narrow).all()
            assert not wide[:, 8:].any()
        with with_whole_step(after, wanted=True) as again:
            assert again == file
    with with_whole_step(before, wanted=False) as same:
        assert same == path


def test_a_rank_that_is_odd_already_stays(demo_bundle: Path) -> None:
    with Runtime(demo_bundle, context=512) as runtime:
        path = runtime.adapter_path("one")
    with with_odd_rank(read_gguf(path), wanted=False) as file:
        assert file == path


def test_a_copy_on_a_used_sheet_is_the_same_as_on_a_new_one(demo_bundle: Path) -> None:
    with Runtime(demo_bundle, context=512) as runtime:
        header = read_gguf(runtime.adapter_path("one"))
    sheets = Sheets()
    with with_whole_step(header, wanted=True, sheets=sheets) as file:
        longer = file.read_bytes()
    with with_odd_rank(header, wanted=True, sheets=sheets) as file, with_odd_rank(header, wanted=True) as other:
        assert file != other
        assert file.read_bytes() == other.read_bytes() != longer
    with with_whole_step(header, wanted=True, sheets=sheets) as file:
        assert file.read_bytes() == longer
    sheets.close()
