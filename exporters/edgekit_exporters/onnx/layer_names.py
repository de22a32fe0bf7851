"""Which layer of a graph is which of the trained model."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path
from typing import Any

from edgekit_runtime.formats.onnx_base import FUSED, FUSED_PARTS

FUSED_MODULES = ("q_proj", "k_proj", "v_proj")  # in the order of their rows
MODULE = re.compile(r"model\.layers\.(\d+)\.(self_attn|mlp)\.(\w+)")
BLOCKS = {"self_attn": "attn", "mlp": "mlp"}


def graph_layer(module: str, layers: Container[str]) -> tuple[str, str | None] | None:
    """The layer that computes a module, and which of q, k and v it is when the graph has them as one layer.

    Args:
        module: name of a linear layer in the transformers model.
        layers: names of the graph's layers.

    Returns:
        None when the graph has no such layer.
    """
    found = MODULE.fullmatch(module)
    if found is None:
        return None
    number, block, name = found.groups()
    prefix = f"model.layers.{number}.{BLOCKS[block]}"
    if f"{prefix}.{name}" in layers:
        return f"{prefix}.{name}", None
    return (f"{prefix}.{FUSED}", name) if name in FUSED_MODULES and f"{prefix}.{FUSED}" in layers else None


def fused_rows(folder: Path) -> dict[str, tuple[int, int]]:
    """Which outputs of the fused layer are whose, by the config of a Hugging Face folder."""
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries = config.num_attention_heads * head
    keys_end = queries + (config.num_key_value_heads or config.num_attention_heads) * head
    ends = (0, queries, keys_end, 2 * keys_end - queries)
    return {module: (ends[at], ends[at + 1]) for at, module in enumerate(FUSED_MODULES[:FUSED_PARTS])}
