"""A base's tokens as llguidance reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgekit_runtime.constraints.library import llguidance
from edgekit_runtime.errors import InputError


class Tokens:
    """Built once for each base, when the first request needs it: takes from 0.1 to 1 s."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        *,
        control: Sequence[int],
        ends: Sequence[int],
        tokenize: Callable[[str], list[int]],
    ) -> None:
        """Hand a vocabulary over.

        Args:
            pieces: what each token adds to an answer; of control tokens their names.
            control: the ids that stand for no text.
            ends: those of them that end an answer.
            tokenize: text to ids.

        Raises:
            InputError: llguidance is not installed, or no token ends an answer.
        """
        if not ends:
            raise InputError("the base has no token that ends an answer", "ask without schema or grammar")
        module = llguidance()
        self.ends = frozenset(ends)
        source = _Source(pieces, control, ends[0], tokenize)
        self.tokenizer: Any = module.LLTokenizer(module.TokenizerWrapper(source), eos_token=list(ends))


class _Source:
    """A tokenizer with the names that llguidance's wrapper asks for."""

    bos_token_id = None

    def __init__(
        self, pieces: Sequence[bytes], control: Sequence[int], end: int, tokenize: Callable[[str], list[int]]
    ) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = pieces, control, end
        self._tokenize = tokenize

    def __call__(self, text: str) -> list[int]:
        return self._tokenize(text)
