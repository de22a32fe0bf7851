"""The base's end tokens as metadata of its GGUF."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit_exporters.hf.end_tokens import folder_end_tokens
from edgekit_runtime.formats.end_tokens import KEY_END_TOKENS


def end_metadata(folder: Path, vocabulary: Path) -> dict[str, str | None]:
    """What a GGUF has to say of its end tokens for devices to stop where training does.

    Args:
        folder: the base's Hugging Face folder, with the chat template that it is asked with.
        vocabulary: a GGUF that holds its vocabulary.

    Returns:
        The key with those that llama.cpp doesn't find by itself; None takes the key out where it finds all.
    """
    from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary

    known = LlamaVocabulary.open(vocabulary)
    try:
        unseen = sorted(token for token in folder_end_tokens(folder) if not known.marks_end(token))
    finally:
        known.close()
    return {KEY_END_TOKENS: json.dumps(unseen) if unseen else None}
