"""The type of a KV cache: how llama.cpp keeps the keys and values of a request."""

from __future__ import annotations

from dataclasses import replace

from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.manifest import F16, KV_CACHES
from edgekit_runtime.formats.model_facts import F16_BYTES, ModelFacts
from edgekit_runtime.hints import did_you_mean

BLOCK = 32  # numbers of a head that share a scale of F16 in the quantized types
# Of an element: a block of ``q8_0`` has 2 + 32 bytes, one of ``q4_0`` 2 + 16.
ELEMENT_BYTES = {F16: F16_BYTES, "q8_0": 34 / BLOCK, "q4_0": 18 / BLOCK}
# Their attention adds what flash attention can't, so quantized values have no way through it.
WITHOUT_FLASH_ATTENTION = ("grok",)


def types_of(kind: str) -> tuple[str, str]:
    """The types of keys and of values in a cache of this kind."""
    keys, _, values = kind.partition("-")
    return keys, values or keys


def needs_flash_attention(kind: str) -> bool:
    """Whether llama.cpp reads such a cache with flash attention alone, as it does where values are in blocks."""
    return types_of(kind)[1] != F16


def check_kv_cache(kind: str) -> None:
    """Look whether there is such a type.

    Raises:
        UsageError: there isn't.
    """
    if kind not in KV_CACHES:
        raise UsageError(f"there is no KV cache of the type {kind}", did_you_mean(kind, KV_CACHES))


def refuse_for_onnx(kind: str) -> None:
    """ONNX graphs have their own KV cache, in float32.

    Raises:
        UsageError: it is asked to have another type.
    """
    if kind != F16:
        raise UsageError(
            f"ONNX Runtime has no KV cache of the type {kind}: that of its graphs is float32",
            "leave the KV cache's type out, or export with --format gguf",
        )


def with_kv_cache(facts: ModelFacts, kind: str, name: str) -> ModelFacts:
    """A GGUF base's facts with a KV cache of another type.

    Args:
        facts: with the cache of F16 that it has by default.
        kind: one of ``KV_CACHES``.
        name: the base's, for messages.

    Raises:
        UsageError: there is no such type.
        InputError: llama.cpp can't keep the base's keys and values so: by the rules of ``llama_init_from_model``.
    """
    check_kv_cache(kind)
    if kind == F16:
        return facts
    if not facts.kv_width:
        raise InputError(f"{name} keeps no KV cache, as none of its layers has attention", f"use --kv-cache {F16}")
    keys, values = types_of(kind)
    if facts.is_latent and keys != values:
        raise InputError(f"{name} keeps its values in its keys, which have one type", f"use --kv-cache {keys}")
    if needs_flash_attention(kind) and facts.architecture in WITHOUT_FLASH_ATTENTION:
        raise InputError(
            f"a KV cache of {kind} needs flash attention, which llama.cpp doesn't have for {facts.architecture}",
            f"use --kv-cache q8_0-{F16}",
        )
    odd = [size for size in facts.head_sizes if size % BLOCK]
    if odd:
        raise InputError(
            f"{name} has attention heads of {odd[0]}, and a KV cache of {kind} has blocks of {BLOCK}",
            f"use --kv-cache {F16}",
        )
    if needs_flash_attention(kind):
        return replace(facts, kv_width=facts.flash_width, kv_element=ELEMENT_BYTES[kind], has_scores=False)
    value_width = facts.kv_width - facts.key_width
    size = facts.key_width * ELEMENT_BYTES[keys] + value_width * ELEMENT_BYTES[values]
    return replace(facts, kv_element=size / facts.kv_width)
