"""Tokens that end an answer beside those that llama.cpp finds in a vocabulary by itself.

It knows one id each for the end of a text, of a turn and of a message, and a list of texts.  Models may have more: a
list of ids in their generation_config.json, or a chat template whose turns end with a token of its own.
"""

from __future__ import annotations

import json

from edgekit_runtime.errors import InputError

KEY_END_TOKENS = "edgekit.end_tokens"  # in a base's metadata: a JSON list of token ids
MOST_BYTES = 4096


def end_tokens_of(text: object, vocabulary: int, where: object) -> frozenset[int]:
    """Token ids from metadata.

    Args:
        text: the value of :data:`KEY_END_TOKENS`; None where there is none.
        vocabulary: how many tokens there are.
        where: names the file in errors.

    Raises:
        InputError: no JSON list of ids of that vocabulary.
    """
    if text is None:
        return frozenset()
    try:
        ids = json.loads(text) if isinstance(text, str) and len(text) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        ids = None
    if not isinstance(ids, list) or not all(type(each) is int and 0 <= each < vocabulary for each in ids):
        raise InputError(
            f"{where}: {KEY_END_TOKENS} is no list of ids from 0 to {vocabulary - 1}", "copy or export it again"
        )
    return frozenset(ids)
