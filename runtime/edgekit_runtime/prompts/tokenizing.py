"""Tokenising within bounds: what can't fit the context is refused after a piece of it, not after all of it."""

from __future__ import annotations

from edgekit_runtime.engines import Engine
from edgekit_runtime.errors import ContextExceeded
from edgekit_runtime.formats.gguf import GgufFile

USUAL_BYTES = 8  # of a token, at most, in nearly all texts
SPARE = 16  # tokens that the end of a piece may have, and the whole text not
BYTE_LEVEL = "gpt2"  # a tokeniser whose vocabulary has one sign for each byte
_MEND = "shorten the prompt or ask for a larger context"


class BoundedTokenizer:
    """An engine's tokeniser.

    llama.cpp's takes time by the square of how many special tokens a text has.  So a long text is tried by its
    beginning first, twice as much each time: what has more tokens than the context there is refused.
    """

    def __init__(self, engine: Engine, header: GgufFile) -> None:
        """Look for the longest token of a base's vocabulary."""
        self._engine = engine
        tokens: list[str] = header.metadata.get("tokenizer.ggml.tokens", [])
        by_bytes = header.metadata.get("tokenizer.ggml.model") == BYTE_LEVEL
        longest = max((len(each if by_bytes else each.encode()) for each in tokens), default=USUAL_BYTES)
        self.most_bytes = engine.context * max(longest, USUAL_BYTES)

    def __call__(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Text to token ids.

        Raises:
            ContextExceeded: it can't fit the context.
        """
        context, length = self._engine.context, len(text.encode())
        if length > self.most_bytes:
            raise ContextExceeded(
                f"a text of {length} bytes can't fit the context of {context} tokens, {self.most_bytes} bytes at most",
                _MEND,
            )
        piece = context * USUAL_BYTES
        while piece < length:
            begun = self._engine.tokenize(text[:piece], add_special=False, parse_special=parse_special)
            if len(begun) > context + SPARE:
                raise ContextExceeded(f"the prompt has more tokens than the context of {context}", _MEND)
            piece *= 2
        return self._engine.tokenize(text, add_special=add_special, parse_special=parse_special)
