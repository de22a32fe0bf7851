"""Which bases can have which KV cache."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.kv_cache import refuse_for_onnx, with_kv_cache
from edgekit_runtime.formats.model_facts import ModelFacts, gguf_facts
from tests.runtime.formats.test_model_facts import COMMON, HYBRIDS, LLAMA, header

BLOCKS = {"q8_0": 34 / 32, "q4_0": 18 / 32}


def facts_of(architecture: str, settings: dict[str, Any]) -> ModelFacts:
    named = {f"{architecture}.{key}": value for key, value in (COMMON | settings).items()}
    return gguf_facts(header({"general.architecture": architecture} | named))


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_of_32_has_its_numbers_and_a_scale(kind: str) -> None:
    facts = with_kv_cache(gguf_facts(header(LLAMA)), kind, "base")
    assert facts.cache_bytes(100) == 100 * 30 * 2 * 3 * 64 * BLOCKS[kind]
    assert not facts.has_scores


def test_keys_alone_may_be_in_blocks() -> None:
    facts = with_kv_cache(gguf_facts(header(LLAMA)), "q8_0-f16", "base")
    assert facts.cache_bytes(100) == 100 * 30 * 3 * 64 * (34 / 32 + 2)
    assert facts.has_scores


def test_values_that_are_a_part_of_keys_have_their_type() -> None:
    latent: dict[str, Any] = {"attention.head_count_kv": 1, "attention.key_length": 576, "attention.value_length": 512}
    facts = facts_of("deepseek2", {"block_count": 2, "attention.key_length_mla": 192} | latent)
    assert with_kv_cache(facts, "q8_0", "base").cache_bytes(1) == 2 * 576 * 34 // 32
    with pytest.raises(InputError, match="base keeps its values in its keys, which have one type: use --kv-cache q8_0"):
        with_kv_cache(facts, "q8_0-f16", "base")


@pytest.mark.parametrize("architecture", [name for name in HYBRIDS if name not in ("mamba", "rwkv7")])
def test_recurrent_states_keep_their_floats(architecture: str) -> None:
    facts = facts_of(architecture, HYBRIDS[architecture][0])
    cells = facts.cache_bytes(4096) - facts.state_bytes
    assert with_kv_cache(facts, "q8_0", "base").cache_bytes(4096) == facts.state_bytes + cells * 34 // 64


@pytest.mark.parametrize("architecture", ["mamba", "rwkv7"])
def test_a_base_without_attention_has_no_cache_to_shrink(architecture: str) -> None:
    with pytest.raises(InputError, match="base keeps no KV cache, as none of its layers has attention"):
        with_kv_cache(facts_of(architecture, HYBRIDS[architecture][0]), "q8_0", "base")


def test_the_short_heads_of_windows_count() -> None:
    short: dict[str, Any] = {"llama.attention.key_length": 64, "llama.attention.value_length": 64}
    short |= {"llama.attention.key_length_swa": 48, "llama.attention.sliding_window_pattern": [True, False] * 15}
    with pytest.raises(InputError, match="attention heads of 48"):
        with_kv_cache(gguf_facts(header(LLAMA | short)), "q8_0", "base")


def test_values_of_all_layers_are_as_wide_as_the_widest_layers_but_for_blocks() -> None:
    """As llama.cpp keeps them: of a small Gemma 4 with heads of 512 and 256, 8.25 MiB at F16 and 2.39 at Q8_0."""
    settings: dict[str, Any] = {"block_count": 6, "attention.head_count_kv": [16, 16, 16, 16, 16, 4]}
    settings |= {"attention.key_length": 512, "attention.value_length": 512, "attention.sliding_window_pattern": 6}
    facts = facts_of("gemma4", settings | {"attention.key_length_swa": 256, "attention.value_length_swa": 256})
    widths = [16 * 256] * 5 + [4 * 512]
    assert facts.cache_bytes(256) == 256 * sum(width + max(widths) for width in widths) * 2
    assert with_kv_cache(facts, "q8_0", "base").cache_bytes(256) == 256 * 2 * sum(widths) * 34 // 32


def test_an_architecture_without_flash_attention_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="llama.cpp doesn't have for grok"):
        with_kv_cache(facts_of("grok", {"block_count": 2}), "q4_0", "base")


def test_f16_is_what_all_bases_have() -> None:
    facts = facts_of("mamba", HYBRIDS["mamba"][0])
    assert with_kv_cache(facts, "f16", "base") == facts


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (
            lambda: with_kv_cache(gguf_facts(header(LLAMA)), "q8", "base"),
            "type q8: use one of f16, q8_0-f16, q8_0, q4_0; did",
        ),
        (lambda: refuse_for_onnx("q8_0"), "ONNX Runtime has no KV cache of the type q8_0"),
    ],
)
def test_a_type_that_cannot_be_had_is_wrong_usage(ask: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        ask()
