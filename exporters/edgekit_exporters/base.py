"""A base model as every room above the runtime sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Base:
    """One base model.

    Attributes:
        name: what the user called it.
        family: names the float model; adapters fit every quantisation of one family and no other.
        folder: Hugging Face folder with the float weights, config and tokenizer; of an image model, its text model's.
        gguf: the GGUF file that the user gave as the base, or None when the base is a Hugging Face model.
        on_hub: whether ``name`` is a hub id.
        vision: Hugging Face folder of the whole model when it reads images, else None.
    """

    name: str
    family: str
    folder: Path
    gguf: Path | None = None
    on_hub: bool = False
    vision: Path | None = None
