"""Shape of a decoder's attention, and with it the size of its KV cache, from the files of either engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import GgufFile

F16_BYTES, FLOAT_BYTES = 2, 4  # of an element of the cache: llama.cpp's default, and what ONNX exports have


@dataclass(frozen=True)
class ModelFacts:
    """Attributes:
    layers: blocks of the decoder.
    context: tokens that the model was made for.
    query_width: elements of one token's queries in a layer; the mean where layers differ.
    kv_width: elements of one token's keys and values in a layer; the mean where layers differ.
    kv_element: bytes of one of them.
    """

    layers: int
    context: int
    query_width: float
    kv_width: float
    kv_element: int

    def cache_bytes(self, tokens: int) -> int:
        """The KV cache of so many tokens."""
        return round(tokens * self.layers * self.kv_width * self.kv_element)


def gguf_facts(header: GgufFile) -> ModelFacts:
    """Of a base's GGUF metadata, where heads may be given for each layer (0 for layers without attention).

    Raises:
        InputError: metadata that every base has is missing.
    """
    architecture = header.metadata["general.architecture"]

    def of(key: str, default: Any = None) -> Any:
        value = header.metadata.get(f"{architecture}.{key}", default)
        if value is None:
            raise InputError(f"{header.path} has no {architecture}.{key}", "copy or export it again")
        return value

    layers = int(of("block_count"))
    heads = _each(of("attention.head_count"), layers)
    kv_heads = _each(of("attention.head_count_kv", heads), layers)
    width = int(of("embedding_length")) // max(1, *heads)
    key, value = int(of("attention.key_length", width)), int(of("attention.value_length", width))
    return ModelFacts(
        layers=layers,
        context=int(of("context_length")),
        query_width=key * sum(heads) / layers,
        kv_width=(key + value) * sum(kv_heads) / layers,
        kv_element=F16_BYTES,
    )


def genai_facts(config: Mapping[str, Any]) -> ModelFacts:
    """Of an ONNX base's genai_config.json."""
    decoder = config["model"]["decoder"]
    head = int(decoder["head_size"])
    return ModelFacts(
        layers=int(decoder["num_hidden_layers"]),
        context=int(config["model"]["context_length"]),
        query_width=int(decoder["num_attention_heads"]) * head,
        kv_width=2 * int(decoder["num_key_value_heads"]) * head,
        kv_element=FLOAT_BYTES,
    )


def _each(value: Any, layers: int) -> list[int]:
    return [int(each) for each in value] if isinstance(value, list) else [int(value)] * layers
