"""A Hugging Face folder as transformers' model: its weights as floats, never its code or pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def load_float(folder: Path, dtype: torch.dtype | str = torch.float32) -> Any:
    """The causal language model in ``folder``, in evaluation mode; ``dtype`` "auto" is as it is stored."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=False, use_safetensors=True, dtype=dtype
    )
    return model.eval()


def skeleton(folder: Path) -> Any:
    """The same without weights, on the meta device: names and shapes."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
