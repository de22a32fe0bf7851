"""What llama.cpp's converters do to the weights of an architecture, and how it is undone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conversion:
    """How an architecture's weights were changed for GGUF (``conversion/*.py`` of llama.cpp).

    Attributes:
        model_types: of the Hugging Face configs that become this architecture.
        rotary_pairs: rows of q and k are reordered, from halves of a head to neighbouring pairs.
        norm_shift: added to the weights of norms.

    """

    model_types: tuple[str, ...]
    rotary_pairs: bool = False
    norm_shift: float = 0.0

    def heads_of(self, name: str, config: Any) -> int | None:
        """Heads whose rows were reordered in a module or parameter; None where they stand as they were."""
        if not self.rotary_pairs or ".self_attn." not in name:
            return None
        layer = name.partition(".self_attn.")[2].partition(".")[0]
        heads: int | None = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(layer)
        return heads


CONVERSIONS = {
    "llama": Conversion(("llama", "mistral"), rotary_pairs=True),
    "smollm3": Conversion(("smollm3",), rotary_pairs=True),
    "qwen2": Conversion(("qwen2",)),
    "qwen3": Conversion(("qwen3",)),
    "phi3": Conversion(("phi3",)),
    "gemma": Conversion(("gemma",), norm_shift=1.0),
    "gemma2": Conversion(("gemma2",), norm_shift=1.0),
    "gemma3": Conversion(("gemma3_text",), norm_shift=1.0),
}


def unpaired(rows: Tensor, heads: int) -> Tensor:
    """Undo ``LlamaModel.permute``: rows of a head, in neighbouring pairs, become two halves."""
    order = torch.arange(rows.shape[0]).view(heads, -1, 2).transpose(1, 2).flatten()
    return rows[order]
