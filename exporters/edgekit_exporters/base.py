"""A base model as every room above the runtime sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from edgekit_runtime.prompts.template import TemplateFacts

SETTINGS = (".json", ".jinja", ".model", ".txt")  # config, tokenizer, chat template, image processor


def settings_digest(*folders: Path) -> str:
    """Of all that Hugging Face folders hold beside weights: what is made of them depends on that too."""
    digest = hashlib.sha256()
    for path in (path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in SETTINGS):
        digest.update(f"{path.name}:{path.stat().st_size}:".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


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
        stock: the same base with its own chat template, where ``folder`` has another one.
    """

    name: str
    family: str
    folder: Path
    gguf: Path | None = None
    on_hub: bool = False
    vision: Path | None = None
    stock: Base | None = None

    @cached_property
    def key(self) -> str:
        """For the cache: the family, and a digest of config and tokenizer, which can change under the same weights."""
        return f"{self.family}-{settings_digest(self.folder, *([self.vision] if self.vision else []))}"


@dataclass(frozen=True)
class GgufBase:
    """A base that devices run as the GGUF that it is: nothing of it is unpacked, and nothing can be trained on it.

    Attributes:
        family: as that of :class:`Base`.
        gguf: the file, whole.
        template: how it is asked.
        ends: token ids that end an answer, beside those that llama.cpp finds.
    """

    family: str
    gguf: Path
    template: TemplateFacts
    ends: frozenset[int] = frozenset()

    def with_ends(self, tokens: Iterable[int]) -> GgufBase:
        """The same with more of them."""
        return replace(self, ends=self.ends | frozenset(tokens))
