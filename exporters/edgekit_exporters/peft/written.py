"""A canonical adapter as a PEFT folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from edgekit_exporters.base import Base
from edgekit_exporters.hf.plain_files import ADAPTER_CONFIG
from edgekit_exporters.peft.base_modules import base_modules
from edgekit_exporters.peft.canonical import CanonicalAdapter
from edgekit_exporters.peft.files import WEIGHTS_FILE
from edgekit_exporters.peft.names import PREFIX
from edgekit_exporters.peft.of_parameters import around_parameter
from edgekit_exporters.peft.settings import INVOCATION
from edgekit_runtime.files.strict_json import strict_json


def write_peft(adapter: CanonicalAdapter, base: Base, loading_name: str, folder: Path) -> None:
    """Write adapter_config.json and the tensors, float32; every scale is 1, as alpha equals the rank of each layer.

    Args:
        adapter: pairs of layers of ``base``; no pairs of single tokens.
        base: that it is for.
        loading_name: what PEFT is told to load the base from.
        folder: exists.
    """
    layers = adapter.layers
    experts = [name for name, layer in layers.items() if layer.stacked]
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        if layer.stacked:
            tensors |= around_parameter(name, layer.a, layer.b, experts, base_modules(base).experts)
            continue
        names = ("lora_embedding_A", "lora_embedding_B") if layer.embedding else ("lora_A.weight", "lora_B.weight")
        tensors |= {f"{PREFIX}{name}.{names[0]}": layer.a, f"{PREFIX}{name}.{names[1]}": layer.b}
    others = {re.escape(name): layer.rank for name, layer in layers.items() if layer.rank != adapter.rank}
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": loading_name,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": adapter.rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": [name for name in layers if name not in experts],
        "target_parameters": experts or None,
        "fan_in_fan_out": any(layer.transposed and not layer.stacked for layer in layers.values()),
        INVOCATION: list(adapter.invocation) or None,
    }
    (folder / ADAPTER_CONFIG).write_text(strict_json(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS_FILE, {"format": "pt"})
