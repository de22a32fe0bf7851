"""Base plus adapter as one float model: PEFT does the arithmetic, whatever the adapter's kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit_exporters.base import Base
from edgekit_exporters.canonical import read_config
from edgekit_runtime.errors import InputError


def merge_to_folder(base: Base, adapters: Sequence[Path], destination: Path) -> None:
    """Write a Hugging Face folder in float32 with all ``adapters`` (PEFT folders) merged in, in this order.

    Raises:
        InputError: an adapter that isn't LoRA, or doesn't fit the base.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for folder in adapters:
        read_config(folder)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    for folder in adapters:
        try:
            model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{folder} can't be merged into {base.name} ({str(error).splitlines()[0]})",
                "use the base that it was trained on",
            ) from None
    model.save_pretrained(destination)
    AutoTokenizer.from_pretrained(base.folder).save_pretrained(destination)
