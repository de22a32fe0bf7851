"""Base plus adapter as one float model: PEFT does the arithmetic, whatever the adapter's kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit_exporters.base import Base
from edgekit_exporters.connector import trained_connector
from edgekit_exporters.peft_folder import INVOCATION, attach, read_config
from edgekit_runtime.errors import InputError


def merge_to_folder(base: Base, adapters: Sequence[Path], destination: Path) -> None:
    """Write a Hugging Face folder in float32 with all ``adapters`` (PEFT folders) merged in, in this order.

    Raises:
        InputError: an adapter that isn't LoRA, doesn't fit the base, works in a part of the prompt only, or has trained
            an image base's connector.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for folder in adapters:
        check_mergeable(folder)
    model = AutoModelForCausalLM.from_pretrained(
        base.folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    for folder in adapters:
        model = attach(model, folder).merge_and_unload(safe_merge=True)
    model.save_pretrained(destination)
    AutoTokenizer.from_pretrained(base.folder, trust_remote_code=False).save_pretrained(destination)


def check_mergeable(folder: Path) -> None:
    """Refuse what can't become a part of the base's weights.

    Raises:
        InputError: an activated LoRA, one with a trained connector, or no LoRA.
    """
    if read_config(folder).get(INVOCATION):
        raise InputError(
            f"{folder} is an activated LoRA: it works from its invocation on, and weights always work",
            "export it with --mode separate",
        )
    if trained_connector(folder) is not None:
        raise InputError(f"{folder} has trained the connector, which isn't merged", "export it as it is")
