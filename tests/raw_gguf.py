"""GGUF files of any content, right or wrong: each value is written as the type that is asked for."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.formats.gguf import SCALARS, TENSOR_TYPES, VALUE_NAMES

ALIGNMENT = 32
Value = tuple[str, Any]  # how it is stored, and what: ("U32", 3), ("[STRING]", ["a"])
Tensor = tuple[str, tuple[int, ...], bytes]  # type, shape in ggml's order, data
NUMBERS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}

WIDTH, HEADS, HIDDEN, LAYERS = 32, 4, 64, 2
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a"]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def metadata_of_base(kind: str = "llama") -> dict[str, Value]:
    """What a small llama says of itself, with a vocabulary of pieces (``llama``) or of pairs (``gpt2``)."""
    tokens = PIECES if kind == "llama" else [f"t{number}" for number in range(len(PIECES) - 1)] + ["Ċ"]
    found: dict[str, Value] = {
        "general.architecture": ("STRING", "llama"),
        "general.alignment": ("U32", ALIGNMENT),
        "llama.context_length": ("U32", 256),
        "llama.embedding_length": ("U32", WIDTH),
        "llama.block_count": ("U32", LAYERS),
        "llama.feed_forward_length": ("U32", HIDDEN),
        "llama.attention.head_count": ("U32", HEADS),
        "llama.attention.head_count_kv": ("U32", HEADS // 2),
        "llama.attention.layer_norm_rms_epsilon": ("F32", 1e-5),
        "llama.rope.dimension_count": ("U32", WIDTH // HEADS),
        "llama.rope.freq_base": ("F32", 10_000.0),
        "tokenizer.ggml.model": ("STRING", kind),
        "tokenizer.ggml.tokens": ("[STRING]", tokens),
        "tokenizer.ggml.scores": ("[F32]", [0.0] * len(tokens)),
        "tokenizer.ggml.token_type": ("[I32]", [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)]),
        "tokenizer.ggml.bos_token_id": ("U32", 1),
        "tokenizer.ggml.eos_token_id": ("U32", 2),
        "tokenizer.chat_template": ("STRING", TEMPLATE),
    }
    if kind != "llama":
        found["tokenizer.ggml.token_type"] = ("[I32]", [1] * len(tokens))
        found |= {"tokenizer.ggml.merges": ("[STRING]", ["t 0", "t 1"]), "tokenizer.ggml.pre": ("STRING", "gpt-2")}
    return found


def tensors_of_base(width: int = WIDTH) -> dict[str, Tensor]:
    """Its weights, random; ``width`` is that of the hidden state, of which keys and values have half."""
    chosen = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (width, len(PIECES)), "output_norm.weight": (width,)}
    for layer in range(LAYERS):
        names = {
            "attn_norm": (width,),
            "ffn_norm": (width,),
            "attn_q": (width, width),
            "attn_k": (width, width // 2),
            "attn_v": (width, width // 2),
            "attn_output": (width, width),
            "ffn_gate": (width, HIDDEN),
            "ffn_up": (width, HIDDEN),
            "ffn_down": (HIDDEN, width),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in names.items()}
    return {
        name: ("F32", shape, chosen.normal(0, 0.3, int(np.prod(shape))).astype("<f4").tobytes())
        for name, shape in shapes.items()
    }


def write_aborting(path: Path) -> Path:
    """A base that is as our reader wants it, and ends the engine: this architecture asserts one width of heads."""
    metadata = {key.replace("llama.", "command-r."): value for key, value in metadata_of_base("gpt2").items()}
    metadata["general.architecture"] = ("STRING", "command-r")
    metadata["command-r.attention.layer_norm_epsilon"] = ("F32", 1e-5)
    metadata["command-r.attention.value_length"] = ("U32", 2 * WIDTH // HEADS)
    tensors = {name: tensor for name, tensor in tensors_of_base().items() if "ffn_norm" not in name}
    for layer in range(LAYERS):
        for name in ("attn_k", "attn_v"):
            tensors[f"blk.{layer}.{name}.weight"] = ("F32", (WIDTH, WIDTH), bytes(4 * WIDTH * WIDTH))
    return write_raw(path, metadata, tensors)


def write_raw(path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, Tensor]) -> Path:
    """Write a file of these; the data of tensors as llama.cpp wants it, one behind the other."""
    pairs = b"".join(_text(key) + _value(stored, value) for key, (stored, value) in metadata.items())
    table, data = b"", b""
    for name, (type_name, shape, content) in tensors.items():
        table += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        table += struct.pack("<IQ", NUMBERS[type_name], len(data))
        data += content + bytes(-len(content) % ALIGNMENT)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + pairs + table
    path.write_bytes(head + bytes(-len(head) % ALIGNMENT) + data)
    return path


def _value(stored: str, value: Any) -> bytes:
    if stored.startswith("["):
        inner = stored[1:-1]
        head = struct.pack("<IIQ", VALUE_NAMES.index("ARRAY"), VALUE_NAMES.index(inner), len(value))
        return head + b"".join(_plain(inner, each) for each in value)
    return struct.pack("<I", VALUE_NAMES.index(stored)) + _plain(stored, value)


def _plain(stored: str, value: Any) -> bytes:
    return _text(value) if stored == "STRING" else struct.pack("<" + SCALARS[VALUE_NAMES.index(stored)], value)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
