"""Base plus adapter as one float model: PEFT does the arithmetic, whatever the adapter's kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit_exporters.base import Base
from edgekit_exporters.peft_folder import attach


def merge_to_folder(base: Base, adapters: Sequence[Path], destination: Path) -> None:
    """Write a Hugging Face folder in float32 with all ``adapters`` (PEFT folders) merged in, in this order.

    Raises:
        InputError: an adapter that isn't LoRA, or doesn't fit the base.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    for folder in adapters:
        model = attach(model, folder).merge_and_unload(safe_merge=True)
    model.save_pretrained(destination)
    AutoTokenizer.from_pretrained(base.folder).save_pretrained(destination)
