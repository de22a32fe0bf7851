"""Shape of a decoder, and with it what the engine keeps of a request, from the files of either engine."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import GgufFile

F16_BYTES, FLOAT_BYTES = 2, 4  # of an element of the cache: llama.cpp's default, and what ONNX exports have
TOKENS = "tokenizer.ggml.tokens"
CONVOLUTION = 4  # taps of Kimi's convolutions where a file doesn't say
TOKEN_SHIFTS = 2  # of RWKV, likewise


@dataclass(frozen=True)
class ModelFacts:
    """Attributes:
    layers: blocks of the decoder that text runs through.
    context: tokens that the model was made for.
    query_width: elements of one token's queries in a layer; the mean where layers differ.
    kv_width: elements of one token's keys and values in a layer; the mean where layers differ.  llama.cpp keeps values
        of all layers as wide as those of the widest, unless flash attention is on.
    key_width: of these, those of keys.
    flash_width: what ``kv_width`` would be with flash attention.
    has_scores: whether attention scores are written out, as they are without flash attention.
    kv_element: bytes of one of them; a fraction where they are kept in blocks.
    heads: of the layer that has most.
    state_bytes: what recurrent layers keep of a request, however long it is.
    activations: elements that a token takes in the widest layer: hidden state, what mixes tokens, feed-forward.
    vocabulary: tokens that the model knows.
    head_sizes: elements of a head's keys or values, of all kinds of layers, in no order.
    is_latent: whether values are a part of the keys, as DeepSeek's are.
    architecture: llama.cpp's name of it; empty for an ONNX base.
    """

    layers: int
    context: int
    query_width: float
    kv_width: float
    kv_element: float
    heads: int
    key_width: float = 0.0
    flash_width: float = 0.0
    has_scores: bool = True
    state_bytes: int = 0
    activations: int = 0
    vocabulary: int = 0
    head_sizes: frozenset[int] = frozenset()
    is_latent: bool = False
    architecture: str = ""

    def cache_bytes(self, tokens: int) -> int:
        """What one request of so many tokens takes: the KV cache and the state of recurrent layers."""
        return round(tokens * self.layers * self.kv_width * self.kv_element) + self.state_bytes


def gguf_facts(header: GgufFile) -> ModelFacts:
    """Of a base's GGUF metadata, where values may be given for each layer.

    The rules are those of llama.cpp's ``llama-hparams.cpp`` and ``llama_model::create_memory``.  Layers with a sliding
    window keep all tokens here: the engine gives them full caches, which prefix caches need (``swa_full``).

    Raises:
        InputError: metadata that every base has is missing.
    """
    keys = _Keys(header)
    layers = keys.number("block_count") - keys.number("nextn_predict_layers", 0)
    heads = keys.each("attention.head_count")[:layers]
    kinds = _kinds(keys, layers)
    query, kept_keys, kept_values = _attention(keys, layers, kinds)
    widest = max(kept_values)
    most = max(heads, default=0)
    recurrent = sum(is_recurrent for _, is_recurrent in kinds)
    return ModelFacts(
        layers=layers,
        context=keys.number("context_length"),
        query_width=sum(query) / layers,
        kv_width=sum(key + widest if value else key for key, value in zip(kept_keys, kept_values, strict=True))
        / layers,
        kv_element=F16_BYTES,
        heads=most,
        key_width=sum(kept_keys) / layers,
        flash_width=(sum(kept_keys) + sum(kept_values)) / layers,
        state_bytes=FLOAT_BYTES * recurrent * _state_width(keys, most),
        activations=keys.number("embedding_length")
        + max(max(query), _recurrent_width(keys) if recurrent else 0)
        + _feed_forward(keys),
        vocabulary=len(header.metadata.get(TOKENS, ())),
        head_sizes=frozenset(itertools.chain(*_head_sizes(keys))),
        is_latent=_is_latent(keys),
        architecture=keys.architecture,
    )


def genai_facts(config: Mapping[str, Any]) -> ModelFacts:
    """Of an ONNX base's genai_config.json."""
    decoder = config["model"]["decoder"]
    head, heads = int(decoder["head_size"]), int(decoder["num_attention_heads"])
    layers = int(decoder["num_hidden_layers"])
    recurrent = decoder.get("layer_types", []).count("conv")
    state = recurrent * int(decoder["hidden_size"]) * int(decoder["conv_cache_size"]) if recurrent else 0
    attending = 1 - recurrent / layers
    return ModelFacts(
        layers=layers,
        context=int(config["model"]["context_length"]),
        query_width=attending * heads * head,
        kv_width=attending * 2 * int(decoder["num_key_value_heads"]) * head,
        kv_element=FLOAT_BYTES,
        heads=heads,
        state_bytes=FLOAT_BYTES * state,
    )


class _Keys:
    """An architecture's metadata, without its prefix."""

    def __init__(self, header: GgufFile) -> None:
        self.path, self.metadata = header.path, header.metadata
        self.architecture = str(header.metadata["general.architecture"])
        self.blocks = self.number("block_count")

    def __contains__(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.metadata

    def of(self, key: str, default: Any = None) -> Any:
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise InputError(f"{self.path} has no {self.architecture}.{key}", "copy or export it again")
        return value

    def number(self, key: str, default: int | None = None) -> int:
        """One value; the largest where layers differ."""
        value = self.of(key, default)
        return int(max(value, default=0) if isinstance(value, list) else value)

    def each(self, key: str, default: Any = None) -> list[int]:
        """A value for each block, those of multi-token prediction included."""
        value = self.of(key, default)
        return [int(one) for one in value] if isinstance(value, list) else [int(value)] * self.blocks


def _kinds(keys: _Keys, layers: int) -> list[tuple[bool, bool]]:
    """For each layer, whether it keeps keys and values, and whether it keeps a recurrent state."""
    kv_heads = keys.each("attention.head_count_kv", keys.of("attention.head_count"))[:layers]
    if "wkv.head_size" in keys:
        return [(False, True)] * layers
    if not any(key in keys for key in ("ssm.state_size", "ssm.conv_kernel", "kda.head_dim", "shortconv.l_cache")):
        return [(heads > 0, False) for heads in kv_heads]
    if keys.architecture == "falcon-h1":  # both in every layer
        return [(True, True)] * layers
    if "attention.recurrent_layers" in keys:
        return [(not recurrent, bool(recurrent)) for recurrent in keys.each("attention.recurrent_layers")[:layers]]
    if "full_attention_interval" in keys:
        interval = keys.number("full_attention_interval")
        return [(layer % interval == 0, layer % interval != 0) for layer in range(1, layers + 1)]
    widths = keys.each("feed_forward_length", 0)[:layers]
    is_alone = len(set(widths)) > 1 and 0 in widths  # Nemotron-H: a feed-forward network takes a layer of its own
    return [(heads > 0, heads == 0 and not (is_alone and width)) for heads, width in zip(kv_heads, widths, strict=True)]


def _attention(keys: _Keys, layers: int, kinds: list[tuple[bool, bool]]) -> tuple[list[int], list[int], list[int]]:
    """For each layer, elements of a token's queries, and of the keys and values that are kept of it."""
    heads = keys.each("attention.head_count")[:layers]
    kv_heads = keys.each("attention.head_count_kv", keys.of("attention.head_count"))[:layers]
    usual, short = _head_sizes(keys)
    windowed = _windowed(keys, layers) if "attention.key_length_swa" in keys else [False] * layers
    own = layers - keys.number("attention.shared_kv_layers", 0)  # later layers read the caches of earlier ones
    query, kept_keys, kept_values = [], [], []
    for layer, (attends, _) in enumerate(kinds):
        key, value = short if windowed[layer] else usual
        query.append(heads[layer] * key if attends else 0)
        kept = kv_heads[layer] if attends and layer < own else 0
        kept_keys.append(kept * key)
        kept_values.append(0 if _is_latent(keys) else kept * value)
    return query, kept_keys, kept_values


def _is_latent(keys: _Keys) -> bool:
    """Whether only keys are kept: DeepSeek's values are a part of them."""
    return "attention.key_length_mla" in keys


def _head_sizes(keys: _Keys) -> tuple[tuple[int, int], tuple[int, int]]:
    """Elements of a head's keys and values: of layers that see everything, and of those with a window."""
    usual = keys.number("embedding_length") // max(1, keys.number("attention.head_count"))
    key, value = keys.number("attention.key_length", usual), keys.number("attention.value_length", usual)
    short = keys.number("attention.key_length_swa", key), keys.number("attention.value_length_swa", value)
    return (key, value), short


def _windowed(keys: _Keys, layers: int) -> list[bool]:
    """Which layers see a sliding window only: a list, or a number n where each n-th sees everything."""
    pattern = keys.of("attention.sliding_window_pattern", 1)
    if isinstance(pattern, list):
        return [bool(each) for each in pattern[:layers]]
    return [layer % int(pattern) < int(pattern) - 1 for layer in range(layers)]


def _state_width(keys: _Keys, heads: int) -> int:
    """Elements that a recurrent layer keeps of a request: inputs of its convolution, and its state."""
    width = keys.number("embedding_length")
    if "wkv.head_size" in keys:
        return width * (keys.number("token_shift_count", TOKEN_SHIFTS) + keys.number("wkv.head_size"))
    if "shortconv.l_cache" in keys:
        return width * (keys.number("shortconv.l_cache") - 1)
    taps = keys.number("ssm.conv_kernel", CONVOLUTION) - 1
    if "kda.head_dim" in keys:
        inner = heads * keys.number("kda.head_dim")
        return 3 * taps * inner + inner * keys.number("kda.head_dim")
    if "ssm.inner_size" not in keys:
        return 0
    inner, state = keys.number("ssm.inner_size"), keys.number("ssm.state_size")
    return taps * (inner + 2 * keys.number("ssm.group_count", 0) * state) + inner * state


def _recurrent_width(keys: _Keys) -> int:
    """Elements that a token takes in a recurrent layer: the input, the gate, and what steers the state."""
    if "ssm.inner_size" not in keys:
        return 3 * keys.number("embedding_length")
    return 2 * keys.number("ssm.inner_size") + 2 * keys.number("ssm.group_count", 0) * keys.number("ssm.state_size")


def _feed_forward(keys: _Keys) -> int:
    """Elements that a token takes in the widest feed-forward network, experts together."""
    experts = keys.number("expert_used_count", 0) * keys.number("expert_feed_forward_length", 0)
    return max(keys.number("feed_forward_length", 0), experts + keys.number("expert_shared_feed_forward_length", 0))
