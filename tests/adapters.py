"""PEFT folders of random weights, for tests that need an adapter and not what it has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model


def save_random_lora(model: Any, folder: Path, *, std: float, **options: Any) -> None:
    """Write a LoRA for ``model`` whose B is random too, so that it changes answers.  The caller sets torch's seed."""
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    wrapped.save_pretrained(str(folder), save_embedding_layers=False)
