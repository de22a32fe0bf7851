"""A llama of random weights and LoRAs for it, written as GGUF by hand: no torch, no converter, any mistake possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize
from numpy.typing import NDArray

from edgekit_runtime.formats.adapter import EMBEDDING, KEY_ALPHA

WIDTH, HIDDEN, VOCABULARY, EXPERTS = 32, 96, 64, 4
KEYS = 16  # width of keys and values
RANK = 32  # a whole block of Q8_0
ALPHA = 8.0
TYPES = ("F32", "F16", "BF16", "Q8_0")

Arrays = Mapping[str, NDArray[np.float32]]


def write_base(path: Path, *, tied: bool = False, experts: bool = False, merged: Arrays | None = None) -> Path:
    """Write a base of one layer, whose tokens no text is made of; ``merged`` is added to its weights, by tensor."""
    chosen = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // 4)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{number}" for number in range(VOCABULARY)])
    writer.add_token_merges(["t 0"])
    if experts:
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(2)

    def add(name: str, *shape: int) -> None:
        values = chosen.normal(0, 0.3, shape).astype(np.float32)
        writer.add_tensor(name, values + (merged or {}).get(name, np.float32(0)))

    add("token_embd.weight", VOCABULARY, WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    if not tied:
        add("output.weight", VOCABULARY, WIDTH)
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(WIDTH, np.float32))
    for name, (outputs, inputs) in LAYERS.items():
        add(f"blk.0.{name}.weight", outputs, inputs)
    if experts:
        add("blk.0.ffn_gate_inp.weight", EXPERTS, WIDTH)
    for name, (outputs, inputs) in FEED_FORWARD.items():
        many, suffix = ((EXPERTS,), "_exps") if experts else ((), "")
        add(f"blk.0.{name}{suffix}.weight", *many, outputs, inputs)
    return _close(writer, path)


LAYERS = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (KEYS, WIDTH),
    "attn_v": (KEYS, WIDTH),
    "attn_output": (WIDTH, WIDTH),
}
FEED_FORWARD = {"ffn_gate": (HIDDEN, WIDTH), "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN)}
DOWN, KEY = "blk.0.ffn_down.weight", "blk.0.attn_k.weight"  # neither is square


def matrices(*targets: str, rank: int = RANK, many: tuple[int, ...] = ()) -> dict[str, NDArray[np.float32]]:
    """Random A and B for tensors of the base, as numpy has them: A [rank, in], B [out, rank]."""
    chosen = np.random.default_rng(1)
    shapes = LAYERS | FEED_FORWARD | {"token_embd": (VOCABULARY, WIDTH), "output": (VOCABULARY, WIDTH)}
    found = {}
    for target in targets or (DOWN, KEY):
        outputs, inputs = shapes[target.removesuffix(".weight").removesuffix("_exps").rpartition(".")[2]]
        a, b = (rank, inputs), (outputs, rank)
        if target == EMBEDDING:  # as llama.cpp's converter writes it: A [vocabulary, rank], B [width, rank]
            a, b = (outputs, rank), (inputs, rank)
        found[f"{target}.lora_a"] = chosen.normal(0, 0.3, (*many, *a)).astype(np.float32)
        found[f"{target}.lora_b"] = chosen.normal(0, 0.3, (*many, *b)).astype(np.float32)
    return found


def write_lora(
    path: Path,
    arrays: Arrays,
    *,
    type_name: str = "F32",
    alpha: Callable[[gguf.GGUFWriter], object] | float | None = ALPHA,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a LoRA GGUF.

    Args:
        path: where.
        arrays: its tensors by name.
        type_name: how they are stored.
        alpha: as F32; or what adds it; None for none.
        facts: more keys: text, or whole numbers.
    """
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    if callable(alpha):
        alpha(writer)
    elif alpha is not None:
        writer.add_float32(KEY_ALPHA, alpha)
    for key, value in (facts or {}).items():
        writer.add_string(key, value) if isinstance(value, str) else writer.add_uint32(key, value)
    kind = gguf.GGMLQuantizationType[type_name]
    for name, values in arrays.items():
        with np.errstate(over="ignore", invalid="ignore"):
            stored = values if type_name == "F32" else quantize(values, kind)
        writer.add_tensor(name, stored, raw_dtype=None if type_name in ("F32", "F16") else kind)
    return _close(writer, path)


def _close(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
