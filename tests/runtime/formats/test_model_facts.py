from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import GgufFile
from edgekit_runtime.formats.model_facts import genai_facts, gguf_facts

LLAMA = {
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


def test_an_onnx_base_keeps_floats() -> None:
    decoder = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_size": 8}
    facts = genai_facts({"model": {"context_length": 64, "decoder": decoder}})
    assert (facts.query_width, facts.cache_bytes(3)) == (32, 3 * 2 * 2 * 2 * 8 * 4)


def test_what_every_base_says_is_missed_by_name() -> None:
    metadata = {key: value for key, value in LLAMA.items() if key != "llama.embedding_length"}
    with pytest.raises(InputError, match=r"has no llama\.embedding_length"):
        gguf_facts(header(metadata))
