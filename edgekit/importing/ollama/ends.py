"""``PARAMETER stop``: texts that are a control token of the base end answers as its end tokens do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.prompts.specials import CONTROL


def end_tokens(stops: Sequence[str], file: Path) -> tuple[dict[str, int], list[str]]:
    """Sort texts that end answers in Ollama.

    Args:
        stops: the texts.
        file: a GGUF with the base's vocabulary.

    Returns:
        Control tokens that would not end an answer by themselves, by their text; and texts that are no such token.
    """
    if not stops:
        return {}, []
    metadata = read_gguf(file).metadata
    texts, kinds = metadata.get("tokenizer.ggml.tokens", []), metadata.get("tokenizer.ggml.token_type", [])
    controls = {text: token for token, (text, kind) in enumerate(zip(texts, kinds, strict=False)) if kind == CONTROL}
    known = LlamaVocabulary.open(file)
    try:
        fresh = {text: controls[text] for text in stops if text in controls and not known.is_end(controls[text])}
    finally:
        known.close()
    return fresh, list(dict.fromkeys(text for text in stops if text not in controls))
