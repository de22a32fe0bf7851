from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import GgufFile
from edgekit_runtime.formats.model_facts import genai_facts, gguf_facts

LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 30,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
}


def header(metadata: dict[str, Any]) -> GgufFile:
    return GgufFile(Path("base.gguf"), 3, metadata, {}, {}, {}, (0, 0), 32, 0)


def test_the_kv_cache_of_a_llama_is_keys_and_values_of_all_layers_in_f16() -> None:
    facts = gguf_facts(header(LLAMA))
    assert (facts.layers, facts.context, facts.query_width, facts.kv_width) == (30, 8192, 576, 2 * 3 * 64)
    assert facts.cache_bytes(100) == 100 * 30 * 2 * 3 * 64 * 2


def test_layers_without_attention_take_no_cache() -> None:
    """Hybrids say heads for each layer, 0 where a layer has none."""
    heads = [0, 0, 8] * 10
    facts = gguf_facts(header(LLAMA | {"llama.attention.head_count_kv": heads, "llama.attention.key_length": 64}))
    assert facts.cache_bytes(1) == sum(heads) * (64 + 64) * 2


# The caches of these are those that llama.cpp sets aside for random models of these shapes, 4096 tokens, in bytes.
COMMON: dict[str, Any] = {
    "context_length": 4096,
    "embedding_length": 512,
    "feed_forward_length": 1024,
    "attention.head_count": 8,
}
MAMBA = {"ssm.conv_kernel": 4, "ssm.state_size": 64, "ssm.group_count": 1, "ssm.inner_size": 1024}
HYBRIDS: dict[str, tuple[dict[str, Any], int]] = {
    "lfm2": (
        {"block_count": 8, "attention.head_count_kv": [0, 0, 4, 0, 0, 4, 0, 4], "shortconv.l_cache": 3},
        3 * 4096 * 2 * 4 * 64 * 2 + 5 * 512 * 2 * 4,
    ),
    "granitehybrid": (
        {"block_count": 6, "attention.head_count_kv": [0, 0, 2, 0, 0, 2]} | MAMBA,
        2 * 4096 * 2 * 2 * 64 * 2 + 4 * (3 * (1024 + 128) + 64 * 1024) * 4,
    ),
    "falcon-h1": (
        {"block_count": 4, "attention.head_count_kv": 2} | MAMBA,
        4 * 4096 * 2 * 2 * 64 * 2 + 4 * (3 * (1024 + 128) + 64 * 1024) * 4,
    ),
    "qwen35": (
        {"block_count": 9, "nextn_predict_layers": 1, "full_attention_interval": 4, "attention.head_count_kv": 2}
        | {"attention.key_length": 128, "attention.value_length": 128}
        | {"ssm.conv_kernel": 4, "ssm.state_size": 64, "ssm.group_count": 4, "ssm.inner_size": 512},
        2 * 4096 * 2 * 2 * 128 * 2 + 6 * (3 * (512 + 512) + 64 * 512) * 4,
    ),
    "nemotron_h": (
        {"block_count": 3, "attention.head_count_kv": [0, 0, 2], "feed_forward_length": [0, 1024, 0]} | MAMBA,
        4096 * 2 * 2 * 64 * 2 + (3 * (1024 + 128) + 64 * 1024) * 4,
    ),
    "mamba": (
        {"block_count": 2, "attention.head_count": 0} | MAMBA | {"ssm.group_count": 0},
        2 * (3 * 1024 + 64 * 1024) * 4,
    ),
    "rwkv7": ({"block_count": 2, "attention.head_count": 0, "wkv.head_size": 64}, 2 * 512 * (2 + 64) * 4),
}


@pytest.mark.parametrize("architecture", HYBRIDS)
def test_recurrent_layers_keep_a_state_instead(architecture: str) -> None:
    settings, expected = HYBRIDS[architecture]
    metadata = {f"{architecture}.{key}": value for key, value in (COMMON | settings).items()}
    facts = gguf_facts(header({"general.architecture": architecture} | metadata))
    assert facts.cache_bytes(4096) == expected


def test_layers_with_a_window_may_have_shorter_heads_and_later_ones_share_caches() -> None:
    facts = gguf_facts(
        header(
            LLAMA
            | {"llama.attention.key_length": 64, "llama.attention.value_length": 64}
            | {"llama.attention.key_length_swa": 32, "llama.attention.value_length_swa": 32}
            | {"llama.attention.sliding_window_pattern": [True, False] * 15, "llama.attention.shared_kv_layers": 10}
        )
    )
    assert facts.cache_bytes(1) == 10 * 3 * (32 + 64 + 2 * 64) * 2  # values are as wide as the widest layer's


def test_latent_attention_keeps_keys_alone() -> None:
    latent = {"attention.head_count_kv": 1, "attention.key_length": 576, "attention.value_length": 512}
    keys = {f"llama.{key}": value for key, value in (latent | {"attention.key_length_mla": 192}).items()}
    assert gguf_facts(header(LLAMA | keys)).cache_bytes(1) == 30 * 576 * 2


def test_experts_take_activations_together() -> None:
    experts = {"llama.expert_used_count": 4, "llama.expert_feed_forward_length": 512, "llama.feed_forward_length": 96}
    assert gguf_facts(header(LLAMA | experts)).activations == 576 + 576 + 4 * 512


def test_an_onnx_base_keeps_floats() -> None:
    decoder = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_size": 8}
    facts = genai_facts({"model": {"context_length": 64, "decoder": decoder}})
    assert (facts.query_width, facts.cache_bytes(3)) == (32, 3 * 2 * 2 * 2 * 8 * 4)


def test_what_every_base_says_is_missed_by_name() -> None:
    metadata = {key: value for key, value in LLAMA.items() if key != "llama.embedding_length"}
    with pytest.raises(InputError, match=r"has no llama\.embedding_length"):
        gguf_facts(header(metadata))
