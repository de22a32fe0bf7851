from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit_devices import load_profile
from edgekit_devices.fit import advise, plan
from edgekit_devices.speed import Model, speed_of

# Llama-3.2-1B as its Q4_0 file is (published.csv's source), and the sizes of its other files.
LLAMA_1B = Model("Q4_0", 763_097_216, 763_097_216, 973.1e6, 16, 2048, 1024, 131_072, running_bytes=130 * 2**20)
SIZES = {"Q8_0": 1_313_251_456, "Q6_K": 1_013_969_024, "Q5_K_M": 903_671_936, "Q4_K_M": 799_862_912}
OTHERS = {name: replace(LLAMA_1B, quantization=name, file_bytes=size, read_bytes=size) for name, size in SIZES.items()}


def test_the_cache_grows_with_context_and_requests() -> None:
    pi = load_profile("raspberry-pi-5")
    one = plan(pi, LLAMA_1B, context=2048).memory
    four = plan(pi, LLAMA_1B, context=2048, parallel=4).memory
    assert one.kv_cache == pytest.approx(2048 * 16 * 1024 * 2 / 2**20)
    assert four.kv_cache == 4 * one.kv_cache


def test_a_model_fits_a_pi_5_and_not_a_zero() -> None:
    assert plan(load_profile("raspberry-pi-5"), LLAMA_1B, context=2048).memory.fits
    assert not plan(load_profile("raspberry-pi-zero-2w"), LLAMA_1B, context=512).memory.fits
    assert advise(load_profile("raspberry-pi-zero-2w"), LLAMA_1B, OTHERS, context=512).quantization is None


def test_the_best_quantization_is_the_one_with_least_loss_that_fits_and_is_fast_enough() -> None:
    pi = load_profile("raspberry-pi-5")
    assert advise(pi, LLAMA_1B, OTHERS, context=2048).quantization == "Q8_0"
    faster = advise(pi, LLAMA_1B, OTHERS, min_decode_tps=10, context=2048).quantization
    assert faster in ("Q5_K_M", "Q4_K_M")
    advice = advise(pi, LLAMA_1B, OTHERS, context=2048)
    assert advice.context is not None
    assert plan(pi, LLAMA_1B, context=advice.context).memory.fits
    assert not plan(pi, LLAMA_1B, context=2 * advice.context).memory.fits


def test_an_adapter_makes_decoding_slower_and_ranges_hold_the_value() -> None:
    pi = load_profile("raspberry-pi-4")
    bare, with_adapter = (plan(pi, LLAMA_1B, context=1024, adapters=sizes) for sizes in ((), (20_000_000,)))
    assert with_adapter.decode_tps.value < bare.decode_tps.value
    for estimate in (bare.decode_tps, bare.prefill_tps, bare.ttft_s):
        assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize("name", ["raspberry-pi-zero-2w", "x86-64-baseline", "jetson-orin-nano"])
def test_a_device_without_published_figures_is_said_to_be_estimated(name: str) -> None:
    assert speed_of(load_profile(name)).basis == "estimated"
    assert plan(load_profile(name), LLAMA_1B, context=512).decode_tps.basis == "estimated"


def test_copies_in_another_order_are_not_counted_twice() -> None:
    model = replace(LLAMA_1B, layer_bytes={"Q4_0": 500 * 2**20, "Q6_K": 100 * 2**20})
    plain, dot = (plan(load_profile(f"raspberry-pi-{board}"), model, context=512).memory for board in (4, 5))
    assert (plain.droppable, dot.droppable) == (0, 600)
    assert plain.needed == dot.needed


def test_attention_scores_grow_with_the_context_of_a_request() -> None:
    pi, model = load_profile("raspberry-pi-5"), replace(LLAMA_1B, score_bytes=1024)
    short, long, two = (
        plan(pi, model, context=size, parallel=n).memory for size, n in ((1024, 1), (2048, 1), (1024, 2))
    )
    assert long.runtime == short.runtime + 1
    assert two.runtime == short.runtime
