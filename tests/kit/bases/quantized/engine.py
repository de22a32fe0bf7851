"""Logits of llama.cpp: what a device computes from a GGUF file."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp.llama_cpp as engine
import numpy as np

from edgekit_runtime.engines.llama.library import model_parameters


def engine_logits(path: Path, tokens: list[int], adapter: Path | None = None) -> np.ndarray:
    """[len(tokens), vocabulary], float32, with a float32 KV cache; under a LoRA file where one is given."""
    engine.llama_backend_init()
    model = engine.llama_model_load_from_file(str(path).encode(), model_parameters())
    assert model, f"llama.cpp can't load {path}"
    settings = engine.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 64, 1, 1
    settings.type_k = settings.type_v = 0  # GGML_TYPE_F32
    settings.flash_attn_type = 0  # off
    context = engine.llama_init_from_model(model, settings)
    if adapter is not None:
        lora = engine.llama_adapter_lora_init(model, str(adapter).encode())
        assert lora, f"llama.cpp can't load {adapter}"
        adapters, scales = (engine.llama_adapter_lora_p_ctypes * 1)(lora), (ctypes.c_float * 1)(1.0)
        assert engine.llama_set_adapters_lora(context, adapters, 1, scales) == 0
    vocabulary = engine.llama_vocab_n_tokens(engine.llama_model_get_vocab(model))
    batch = engine.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for at, token in enumerate(tokens):
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, at, 1, 1
        batch.seq_id[at][0] = 0
    try:
        assert engine.llama_decode(context, batch) == 0
        size = len(tokens) * vocabulary
        flat = ctypes.cast(engine.llama_get_logits(context), ctypes.POINTER(ctypes.c_float * size)).contents
        return np.array(flat, dtype=np.float32).reshape(len(tokens), vocabulary)
    finally:
        engine.llama_batch_free(batch)
        engine.llama_free(context)
        engine.llama_model_free(model)
