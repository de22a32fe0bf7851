"""A base with layers as wide as those of a model of a billion parameters, and an adapter, both random: for speeds only.

    python benchmarks/wide_base.py FOLDER          # writes FOLDER/base and FOLDER/adapter
    python benchmarks/onnx_engine.py FOLDER/adapter --base FOLDER/base --only decode

Four layers with the dimensions of Llama 3.2 1B (which has 16), and SmolLM2's tokeniser.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from edgekit.bases.resolve import resolve_base

TOKENIZER = "smollm2-135m"
LAYERS = 4
RANK = 16


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(resolve_base(TOKENIZER).folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=LAYERS,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    model.config.name_or_path = str(folder / "base")
    lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(folder / "adapter")


if __name__ == "__main__":
    main()
