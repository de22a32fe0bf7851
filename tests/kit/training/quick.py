"""Tiny models of random weights, and rows that share a start, for the tests of quick steps."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor

VOCABULARY = 96
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HALF_LINEAR = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
HALF_MAMBA = {
    "layer_types": ["mamba", "attention", "mamba"],
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_expand": 2,
    "mamba_d_state": 8,
    "num_local_experts": 0,
    "shared_intermediate_size": 32,
}
# Architecture -> what its configuration has besides; windows are shorter than the rows.
ATTENTION_ONLY: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "gemma": {},
    "gemma2": {
        "sliding_window": 6,
        "final_logit_softcapping": 2.0,
        "attn_logit_softcapping": 1.0,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    },
    "gemma3_text": {"sliding_window": 6},
    "phi3": {"sliding_window": 6},
    "granite": {"logits_scaling": 3.0},
    "cohere": {"logit_scale": 0.3},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}
WITH_STATE: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "granitemoehybrid": HALF_MAMBA,
    "qwen3_5_text": HALF_LINEAR,
    "mamba": {},
}
TARGETS = {"mamba": ["in_proj", "x_proj"]}


def bare(kind: str, settings: dict[str, Any]) -> Any:
    """A model of ``kind`` in training."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **COMMON, **settings)
    return transformers.AutoModelForCausalLM.from_config(config).train()


def adapted(kind: str, settings: dict[str, Any], **lora: Any) -> Any:
    """A model of ``kind`` in training with LoRA layers that change its answers."""
    model = bare(kind, settings)
    options = {"r": 4, "target_modules": TARGETS.get(kind, "all-linear"), "init_lora_weights": False, **lora}
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options)).train()


def rows() -> list[dict[str, list[int]]]:
    """Three rows of other lengths that begin with the same five tokens."""
    chosen, examples = torch.Generator().manual_seed(1), []
    for asked, answered in ((9, 5), (14, 3), (6, 8)):
        ids = [1, 5, 6, 7, 8, *torch.randint(3, VOCABULARY, (asked + answered,), generator=chosen).tolist()]
        examples.append({"input_ids": ids, "labels": [-100] * (5 + asked) + ids[5 + asked :]})
    return examples


def padded(examples: Any) -> dict[str, Tensor]:
    """What transformers' collators make of rows."""
    longest = max(len(each["labels"]) for each in examples)

    def filled(values: list[int], filler: int) -> list[int]:
        return values + [filler] * (longest - len(values))

    return {
        "input_ids": torch.tensor([filled(each["input_ids"], 0) for each in examples]),
        "labels": torch.tensor([filled(each["labels"], -100) for each in examples]),
        "attention_mask": torch.tensor([filled([1] * len(each["labels"]), 0) for each in examples]),
    }


def learnt(model: Any, batch: dict[str, Tensor], **options: Any) -> tuple[Tensor, Tensor]:
    """Loss, and the gradients of everything that is trained, flat."""
    model.zero_grad()
    loss = model(**batch, **options).loss
    loss.backward()
    gradients = [each.grad.flatten() for each in model.parameters() if each.requires_grad and each.grad is not None]
    return loss.detach(), torch.cat(gradients)
