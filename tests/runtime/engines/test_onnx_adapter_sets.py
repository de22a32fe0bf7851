"""Adapters side by side: where each stands, which set serves which request, what is freed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit_runtime.engines.onnx.adapter_sets import KEPT, AdapterSets
from edgekit_runtime.engines.onnx.adapters import Loaded, masks
from edgekit_runtime.formats.onnx_base import LORA_A, LORA_B, MASK, MASK_FUSED, TILE

PLAIN, FUSED = "model.layers.0.mlp.up_proj", "model.layers.0.attn.qkv_proj"
INPUTS, OUTPUTS = 8, {PLAIN: 12, FUSED: 20}
LAYERS = {
    layer + suffix: shape
    for layer, outputs in OUTPUTS.items()
    for suffix, shape in ((LORA_A, ("tiles", INPUTS, TILE)), (LORA_B, ("ranks", outputs)))
}


def adapter(rank: int, *, layers: tuple[str, ...] = (PLAIN, FUSED), seed: int = 0) -> Loaded:
    random = np.random.default_rng(seed)
    arrays = {}
    for layer in layers:
        ranks = 3 * rank if layer == FUSED else rank
        arrays[layer + LORA_A] = random.standard_normal((INPUTS, ranks), np.float32)
        arrays[layer + LORA_B] = random.standard_normal((ranks, OUTPUTS[layer]), np.float32)
    return Loaded(arrays, rank, ())


def sets(**adapters: Loaded) -> AdapterSets:
    made = AdapterSets(LAYERS)
    for name, each in adapters.items():
        made.add(name, each)
    return made


def computed(made: AdapterSets, names: set[str], row: str, layer: str, x: np.ndarray) -> np.ndarray:
    """What the graph computes for one row under one adapter, in float64."""
    side = made.side(frozenset(names))
    mask = masks(side, [((row, 0.5),)])[MASK_FUSED if layer == FUSED else MASK].numpy()
    a, b = side.arrays[layer + LORA_A].astype(np.float64), side.arrays[layer + LORA_B].astype(np.float64)
    shrunk = (x @ a)[:, None] * mask
    return shrunk.transpose(1, 0, 2).reshape(1, -1) @ b


@pytest.mark.parametrize("layer", [PLAIN, FUSED])
def test_each_row_gets_its_own_adapter_and_scale_out_of_a_set(layer: str) -> None:
    pytest.importorskip("onnxruntime")
    loaded = {"a": adapter(5), "b": adapter(40, seed=1), "c": adapter(16, layers=(PLAIN,), seed=2)}
    made, x = sets(**loaded), np.random.default_rng(3).standard_normal(INPUTS)
    for name, each in loaded.items():
        zeros = np.zeros((INPUTS, 0)), np.zeros((0, OUTPUTS[layer]))
        a, b = each.arrays.get(layer + LORA_A, zeros[0]), each.arrays.get(layer + LORA_B, zeros[1])
        for names in ({name}, set(loaded)):
            assert np.allclose(computed(made, names, name, layer, x), 0.5 * (x @ a) @ b)


@pytest.mark.parametrize("ranks", [(8, 16, 32, 64), (16,) * 8, (24, 24, 24, 24), (24, 40, 16, 8, 200), (12, 96, 3)])
def test_no_layers_ranks_stand_across_a_new_sum_where_they_do_not_alone(ranks: tuple[int, ...]) -> None:
    """Sums begin at multiples of 128 ranks; a fused layer is three of the trained model's."""
    names = [f"a{number}" for number in range(len(ranks))]
    made = sets(**{name: adapter(rank) for name, rank in zip(names, ranks, strict=True)})
    side = made.side(frozenset(names))
    for name, rank in zip(names, ranks, strict=True):
        for (start, _), parts in zip(side.spans[name], (1, 3), strict=True):
            for first in range(0, parts * rank, rank):
                alone = {at for at in range(first + 1, first + rank) if at % 128 == 0}
                here = {at - start * TILE for at in range(start * TILE + 1, (start + 1000) * TILE) if at % 128 == 0}
                assert alone == {at for at in here if first < at < first + rank}


def test_files_that_do_not_tell_their_rank_are_taken_for_uneven() -> None:
    assert sets(a=replace(adapter(16), rank=0)).side(frozenset("a")).grain == 0
    assert sets(a=adapter(16)).side(frozenset("a")).grain == 16


def test_a_smaller_set_uses_a_larger_one_only_when_that_is_exact_and_costs_little_more() -> None:
    made = sets(**{name: adapter(16) for name in "abcd"})
    whole = made.side(frozenset("abcd"))
    assert made.exact(frozenset("abc")) is None
    assert made.side(frozenset("abc")) is not whole
    made.note(frozenset("abcd"), exact=True)
    assert made.exact(frozenset("acd")) is True
    assert made.side(frozenset("acd")) is whole
    assert made.side(frozenset("ab")) is whole
    assert made.side(frozenset("a")) is not whole
    wide = sets(**{name: adapter(16) for name in "abcdef"})
    whole = wide.side(frozenset("abcdef"))
    wide.note(frozenset("abcdef"), exact=True)
    assert wide.side(frozenset("ab")) is not whole


def test_what_is_known_of_ranks_holds_for_other_adapters_of_these_ranks() -> None:
    made = sets(a=adapter(16), b=adapter(16), c=adapter(16), d=adapter(8))
    made.side(frozenset("ab"))
    made.note(frozenset("ab"), exact=False)
    assert made.exact(frozenset("bc")) is False
    assert made.exact(frozenset("abc")) is None


def test_sets_that_are_not_exact_and_old_ones_are_dropped() -> None:
    made = sets(**{name: adapter(16) for name in "abcd"})
    first = made.side(frozenset("ab"))
    made.note(frozenset("ab"), exact=False)
    assert made.dropped
    assert made.side(frozenset("ab")) is not first
    made.dropped = False
    for names in ("bc", "cd", "ad")[:KEPT]:
        made.side(frozenset(names))
    assert made.dropped


def test_an_adapter_that_goes_takes_its_sets_with_it() -> None:
    made = sets(a=adapter(16), b=adapter(16))
    made.side(frozenset("ab"))
    made.note(frozenset("ab"), exact=True)
    made.remove("a")
    assert made.dropped
    made.add("a", adapter(16, seed=9))
    assert made.side(frozenset("ab")).spans.keys() == {"a", "b"}
    side = made.side(frozenset("ab"))
    own = side.arrays[PLAIN + LORA_B][side.spans["a"][0][0] * TILE :][:16]
    assert np.array_equal(own, adapter(16, seed=9).arrays[PLAIN + LORA_B])
