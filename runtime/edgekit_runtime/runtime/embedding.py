"""Texts to vectors: from what a caller asks to work for the queue, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit_runtime.errors import ContextExceeded, InputError
from edgekit_runtime.prompts.bounds import check_adapters
from edgekit_runtime.runtime.catalogue import Catalogue
from edgekit_runtime.runtime.loading import Loaded
from edgekit_runtime.runtime.texts import Texts
from edgekit_runtime.scheduler import EmbeddingRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_TEXTS = 2048  # of a request, as at OpenAI
MOST_NUMBERS = 1 << 19  # of all its vectors: to write them as JSON takes half a second, in which nobody else is heard

Text = str | Sequence[int]


@dataclass(frozen=True)
class Embeddings:
    """Vectors of texts.

    Attributes:
        vectors: [texts, width], float32, each of length 1.
        tokens: how many tokens each text has.
        adapter: under which they were read; None for the bare base.
    """

    vectors: NDArray[np.float32]
    tokens: tuple[int, ...]
    adapter: str | None


def listed(texts: Text | Sequence[Text]) -> list[Text]:
    """One text, or token ids of one, as a list of one."""
    if isinstance(texts, str):
        return [texts]
    tokens = [each for each in texts if isinstance(each, int)]
    if tokens and len(tokens) == len(texts):
        return [tokens]
    return [each for each in texts if not isinstance(each, int)]


class EmbeddingReader:
    """Reads requests for vectors.  Several threads may do so at once."""

    def __init__(self, loaded: Loaded, spelling: Texts, catalogue: Catalogue) -> None:
        """Take the base's tokenizer and the adapters that there are."""
        self._spelling, self._catalogue = spelling, catalogue
        self._context = loaded.engine.context
        metadata = loaded.header.metadata
        self._vocabulary = len(metadata.get("tokenizer.ggml.tokens", ()))
        self._width = int(metadata.get(f"{metadata['general.architecture']}.embedding_length", 0))

    def request(
        self,
        texts: Sequence[Text],
        *,
        adapter: str | None = None,
        lora: Mapping[str, float] | None = None,
        truncate: bool = False,
        dimensions: int | None = None,
    ) -> tuple[EmbeddingRequest, str | None]:
        """A request for the queue, and the name of its adapter.

        Args:
            texts: text, or token ids that are taken as they are; control tokens that are spelt in a text are text.
            adapter: its name; "base" for the bare base; the bundle's default when None.
            lora: adapters with scales instead.
            truncate: leave out the end of a text that doesn't fit.
            dimensions: only so many first numbers of each vector, which get length 1 again.

        Raises:
            InputError: no texts, or too many; an empty text; token ids that the base doesn't know; an unknown adapter;
                more dimensions than there are.
            ContextExceeded: a text that doesn't fit.
        """
        if not texts:
            raise InputError("there is no text to embed", "send at least one")
        if len(texts) > MOST_TEXTS:
            raise InputError(f"there are {len(texts)} texts to embed", f"send at most {MOST_TEXTS} at once")
        if self._width and len(texts) * self._width > MOST_NUMBERS:
            most = max(1, MOST_NUMBERS // self._width)
            raise InputError(
                f"there are {len(texts)} texts to embed, in {self._width} numbers each", f"send at most {most} at once"
            )
        if dimensions is not None and not 0 < dimensions <= self._width:
            raise InputError(f"vectors of this base have no {dimensions} dimensions", f"ask for 1 to {self._width}")
        check_adapters(len(lora or ()))
        name = self._catalogue.name_of(adapter)  # never auto: vectors of several adapters can't be compared
        stack, files = self._catalogue.stack(name, lora)
        room = self._context - self._catalogue.virtual_tokens(name, lora)
        tokens = [self._tokens(number, text, room, truncate) for number, text in enumerate(texts, 1)]
        return EmbeddingRequest(tokens, stack, files, dimensions), name

    def _tokens(self, number: int, text: Text, room: int, truncate: bool) -> list[int]:
        tokens = self._spelt(text, room, truncate) if isinstance(text, str) else list(text)
        if not tokens:
            raise InputError(f"text {number} is empty", "send texts that say something")
        if not all(0 <= token < self._vocabulary for token in tokens):
            raise InputError(
                f"text {number} has token ids that the base doesn't know",
                f"use ids from 0 to {self._vocabulary - 1}, or send text",
            )
        if len(tokens) > room and not truncate:
            raise ContextExceeded(
                f"text {number} has {len(tokens)} tokens, and the context has room for {room}", "send shorter texts"
            )
        return tokens[:room]

    def _spelt(self, text: str, room: int, truncate: bool) -> list[int]:
        """Token ids of a text; with ``truncate`` those of its longest beginning that fits, found by halves."""
        if not text:
            return []
        try:
            return self._spelling.tokenize(text, parse_special=False)
        except ContextExceeded:
            if not truncate:
                raise
        fits, fails, found = 0, len(text), list[int]()
        while fails - fits > 1 and len(found) < room:
            middle = (fits + fails) // 2
            try:
                found, fits = self._spelling.tokenize(text[:middle], parse_special=False), middle
            except ContextExceeded:
                fails = middle
        return found
