from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from edgekit_exporters.base import Base

TINY = LlamaConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=False,
)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A llama of random weights: its arithmetic is real, its answers mean nothing."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny-base")
    LlamaForCausalLM(TINY).eval().save_pretrained(folder)
    return Base("tiny", "tiny-000000000000", folder)


@pytest.fixture
def tiny_adapter(tiny_base: Base, tmp_path: Path) -> Callable[..., Path]:
    """Make a PEFT folder with random weights in B as well, so that it changes something."""

    def make(**options: Any) -> Path:
        torch.manual_seed(1)
        settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | options
        model = get_peft_model(load(tiny_base), LoraConfig(task_type="CAUSAL_LM", **settings))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                torch.nn.init.normal_(parameter, std=0.2)
        folder = tmp_path / "adapter"
        model.save_pretrained(str(folder))
        return folder

    return make


def load(base: Base) -> Any:
    return AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32).eval()


def peft_logits(base: Base, adapter: Path, ids: torch.Tensor) -> torch.Tensor:
    model = PeftModel.from_pretrained(load(base), str(adapter)).eval()
    with torch.no_grad():
        return model(ids).logits
