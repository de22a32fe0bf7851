"""PEFT folders of random weights, for tests that need an adapter and not what it has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model


def save_random_lora(model: Any, folder: Path, *, std: float, **options: Any) -> None:
    """Write a LoRA for ``model`` whose B is random too, so that it changes answers.  The caller sets torch's seed."""
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    wrapped.save_pretrained(str(folder), save_embedding_layers=False)


def save_random_prompt(
    model: Any, folder: Path, *, count: int = 6, kind: str = "PROMPT_TUNING", std: float = 0.5
) -> Any:
    """Write a prompt adapter for ``model`` as PEFT saves it; the caller sets torch's seed.

    Returns:
        PEFT's model, which computes what the files say.
    """
    common: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": count}
    if kind == "PROMPT_TUNING":
        wrapped = get_peft_model(model, PromptTuningConfig(**common))
        torch.nn.init.normal_(wrapped.prompt_encoder["default"].embedding.weight, std=std)
    else:
        reparameterized = {"encoder_reparameterization_type": kind, "encoder_hidden_size": 24}
        wrapped = get_peft_model(model, PromptEncoderConfig(**common, **reparameterized))
        for parameter in wrapped.prompt_encoder.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=std)
    wrapped.save_pretrained(str(folder))
    return wrapped.eval()
