"""Has a base a chat template, or is it given one that fits?  Looked up in its files, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_exporters.gguf.split import joined_header
from edgekit_exporters.hf.codeless import TOKENIZER, TOKENIZER_CONFIG
from edgekit_exporters.hf.known_templates import fitting
from edgekit_exporters.hf.templates import (
    OTHER_PLACES,
    TEMPLATE_FILE,
    TEMPLATE_FOLDER,
    check_fits,
    no_template,
    template_source,
)
from edgekit_runtime.prompts.specials import CONTROL
from edgekit_runtime.prompts.template import KEY_NAMES, KEY_TEMPLATE

USER_DEFINED = 4  # llama.cpp's kind of tokens that are found in any text, as control tokens are


@dataclass(frozen=True)
class TemplateTokens:
    """What a base's files say without a tokenizer library.

    Attributes:
        has_template: whether the base brings a chat template.
        tokens: texts that are one token each, so that a template may write them; None where only the tokenizer can
            tell.
        has_eos: whether a token ends a text.
    """

    has_template: bool
    tokens: Set[str] | None
    has_eos: bool

    @property
    def fits(self) -> list[str]:
        """Known templates that the base has all tokens for, as far as that is known."""
        return fitting((self.tokens or frozenset()).__contains__, has_eos=self.has_eos)


def check_template(template: Path | str | None, name: str, place: Path | None) -> None:
    """Refuse a base without a chat template, unless the project gives it one that fits.

    Args:
        template: the project's, a file or a known template's name; None when it gives none.
        name: what the user calls the base.
        place: its file or folder; None for one of the hub, about which nothing is known yet.

    Raises:
        InputError: there is none, the file holds none, or the base lacks tokens for it.
    """
    if template is not None:
        template_source(template)
    if place is None:
        return
    found = template_tokens(place)
    if template is None and not found.has_template:
        raise no_template(name, found.fits)
    if isinstance(template, str) and found.tokens is not None:
        check_fits(template, name, found.tokens.__contains__, has_eos=found.has_eos)


def template_tokens(place: Path) -> TemplateTokens:
    """What a GGUF file or a Hugging Face folder says of templates.

    Raises:
        InputError: a GGUF that can't be read.
    """
    return _of_folder(place) if place.is_dir() else _of_gguf(place)


def _of_gguf(path: Path) -> TemplateTokens:
    metadata = joined_header(path).metadata
    texts = metadata["tokenizer.ggml.tokens"]
    kinds = metadata.get("tokenizer.ggml.token_type") or [CONTROL] * len(texts)
    return TemplateTokens(
        has_template=bool(metadata.get(KEY_TEMPLATE) or metadata.get(KEY_NAMES)),
        tokens={text for text, kind in zip(texts, kinds, strict=False) if kind in (CONTROL, USER_DEFINED)},
        has_eos="tokenizer.ggml.eos_token_id" in metadata,
    )


def _of_folder(folder: Path) -> TemplateTokens:
    config, added = _read(folder / TOKENIZER_CONFIG), _read(folder / TOKENIZER).get("added_tokens")
    own = (folder / TEMPLATE_FILE, folder / TEMPLATE_FOLDER, *(folder / name for name in OTHER_PLACES))
    return TemplateTokens(
        has_template=bool(config.get("chat_template")) or any(each.exists() for each in own),
        tokens=_contents(added) if isinstance(added, list) else None,
        has_eos=config.get("eos_token") is not None or (folder / "special_tokens_map.json").exists(),
    )


def _contents(added: list[Any]) -> set[str]:
    return {each["content"] for each in added if isinstance(each, dict) and isinstance(each.get("content"), str)}


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; what can't be read is told when the tokenizer is loaded."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
