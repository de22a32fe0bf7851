"""Base plus adapter as one float model: PEFT does the arithmetic, whatever the adapter's kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit_exporters.base import Base
from edgekit_exporters.connector import trained_connector
from edgekit_exporters.peft_folder import attach
from edgekit_runtime.errors import InputError


def merge_to_folder(base: Base, adapters: Sequence[Path], destination: Path) -> None:
    """Write a Hugging Face folder in float32 with all ``adapters`` (PEFT folders) merged in, in this order.

    Raises:
        InputError: an adapter that isn't LoRA, doesn't fit the base, or has trained an image base's connector.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for folder in adapters:
        if trained_connector(folder) is not None:
            raise InputError(f"{folder} has trained the connector, which isn't merged", "export it as it is")
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    for folder in adapters:
        model = attach(model, folder).merge_and_unload(safe_merge=True)
    model.save_pretrained(destination)
    AutoTokenizer.from_pretrained(base.folder).save_pretrained(destination)
