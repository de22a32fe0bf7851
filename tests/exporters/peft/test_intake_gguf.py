"""A LoRA GGUF of llama.cpp's own converter, as Ollama's ADAPTER names it, is the PEFT adapter that it was made from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen3Config,
)

from edgekit_exporters.base import Base
from edgekit_exporters.conversion.converters import tools_folder
from edgekit_exporters.gguf.adapter import AdapterSource, write_adapter_gguf
from edgekit_exporters.peft.intake import take_in
from edgekit_runtime.errors import InputError
from tests.exporters.peft.intake import own_logits, peft_answers, save_adapter

SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES, **HEADS, tie_word_embeddings=False),
    "mistral": MistralConfig(**SIZES, **HEADS, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SIZES, **HEADS, tie_word_embeddings=False),
    "gemma": GemmaConfig(**SIZES, **HEADS, tie_word_embeddings=True),
}


def _base(name: str, folder: Path) -> Base:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIGS[name]).save_pretrained(folder / name)
    return Base(name, f"{name}-000000000000", folder / name)


def _converted(folder: Path, base: Base, target: Path) -> Path:
    """By llama.cpp's own converter: its files come from elsewhere."""
    script = tools_folder() / "convert_lora_to_gguf.py"
    command = [sys.executable, script, folder, "--base", base.folder, "--outfile", target, "--outtype", "f32"]
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    )
    return target


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return _base("llama", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def made(llama: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    return _converted(save_adapter(llama, folder / "peft", target_modules="all-linear"), llama, folder / "a.gguf")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {"target_modules": ["q_proj", "k_proj", "v_proj", "down_proj", "lm_head", "embed_tokens"]}),
        ("mistral", {"target_modules": "all-linear", "lora_alpha": 3}),
        ("qwen3", {"target_modules": "all-linear", "r": 5}),
        ("gemma", {"target_modules": "all-linear"}),
    ],
)
def test_what_the_converter_writes_is_read_back(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    base = _base(name, tmp_path)
    folder = save_adapter(base, tmp_path / "adapter", **options)
    path = _converted(folder, base, tmp_path / "a.gguf")
    read = take_in(path, base)
    assert read.weights.keys() == take_in(folder, base).weights.keys()
    assert all(torch.equal(read.weights[key], value) for key, value in take_in(folder, base).weights.items())
    assert torch.equal(own_logits(base, path), peft_answers(base, folder))


def test_our_own_file_is_read_back_and_knows_its_base(llama: Base, tmp_path: Path) -> None:
    folder = save_adapter(llama, tmp_path / "adapter", use_rslora=True, rank_pattern={"v_proj": 2})
    path = tmp_path / "a.gguf"
    write_adapter_gguf(AdapterSource("a", "1", folder), llama, path, float_type="F32")
    assert torch.allclose(own_logits(llama, path), peft_answers(llama, folder), atol=1e-5)
    with pytest.raises(InputError, match="was trained for the base llama-000000000000, not for other"):
        take_in(path, Base("other", "other-000000000000", llama.folder))


def _rewritten(source: Path, target: Path, edit: Any, metadata: dict[str, Any] | None = None) -> Path:
    """A copy of a LoRA GGUF; ``edit`` takes a tensor's name and values and gives them back, or None."""
    reader = gguf.GGUFReader(source)
    facts = {"type": "adapter", "architecture": "llama", "lora": "lora", "alpha": 8.0} | (metadata or {})
    writer = gguf.GGUFWriter(target, facts["architecture"])
    writer.add_type(facts["type"])
    writer.add_string(gguf.Keys.Adapter.TYPE, facts["lora"])
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, facts["alpha"])
    for tensor in reader.tensors:
        changed = edit(tensor.name, np.array(tensor.data))
        if changed is not None:
            writer.add_tensor(*changed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _nan(name: str, values: Any) -> Any:
    if name == "blk.1.attn_q.weight.lora_b":
        values[3, 1] = np.nan
    return name, values


@pytest.mark.parametrize(
    ("edit", "metadata", "said"),
    [
        (_nan, {}, r"layers\.1\.self_attn\.q_proj\.lora_B\.weight holds numbers that are not finite"),
        (lambda name, values: (name.replace("blk.1", "blk.7"), values), {}, r"blk\.7\.\w+\.weight, which llama lacks"),
        (lambda name, values: None if name.endswith("q.weight.lora_b") else (name, values), {}, "has no B matrix"),
        (lambda name, values: (name, values[:, :-2] if "lora_a" in name else values), {}, "does not fit llama"),
        (lambda name, values: (name.replace(".lora_a", ".bias"), values), {}, "no half of a LoRA pair"),
        (lambda name, values: (name, values), {"architecture": "qwen2"}, "architecture qwen2, the base llama"),
        (lambda name, values: (name, values), {"architecture": "bloom"}, "architecture bloom, the base llama"),
        (lambda name, values: (name, values), {"type": "model"}, "not a LoRA adapter but a model"),
        (lambda name, values: (name, values), {"lora": "other"}, "not a LoRA adapter"),
        (lambda name, values: (name, values), {"alpha": float("nan")}, "alpha is nan"),
        (lambda name, values: (name, values), {"alpha": 0.0}, "alpha is 0"),
        (lambda name, values: (name, values), {"alpha": -4.0}, "lora_alpha: -4.0 is not"),
    ],
)
def test_a_gguf_that_is_not_sound_or_of_another_base_is_refused(
    edit: Any, metadata: dict[str, Any], said: str, llama: Base, made: Path, tmp_path: Path
) -> None:
    path = _rewritten(made, tmp_path / "bad.gguf", edit, metadata)
    with pytest.raises(InputError, match=said) as caught:
        take_in(path, llama)
    assert "bad.gguf" in caught.value.problem


def test_a_gguf_that_is_cut_short_is_refused(llama: Base, made: Path, tmp_path: Path) -> None:
    content = made.read_bytes()
    for size in (4, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.gguf").write_bytes(content[:size])
        with pytest.raises(InputError):
            take_in(tmp_path / "cut.gguf", llama)
