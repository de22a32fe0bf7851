"""``auto``: which adapter a request is for, found by the adapters' own heads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from edgekit_runtime.errors import InputError, NobodyAnswers, shown
from edgekit_runtime.formats.manifest import BASE, AdapterEntry
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX
from edgekit_runtime.formats.route import (
    MOST_SIGNS,
    REFUSE,
    WORDS,
    Head,
    Route,
    bounded,
    choose,
    read_head,
    user_text,
    word_counts,
)
from edgekit_runtime.runtime.catalogue import Catalogue
from edgekit_runtime.runtime.loading import Loaded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekit_runtime.engines.llama.token_rows import TokenRows

log = logging.getLogger(__name__)


class Tokenize(Protocol):
    """An engine's or a vocabulary's tokenizer."""

    def __call__(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Text to token ids."""


def text_features(text: str, tokenize: Tokenize, rows: TokenRows | None) -> NDArray[np.float32]:
    """Features of a text, [WORDS + width of the embedding]: hashed words, then the mean of its tokens' embeddings.

    ``rows`` None leaves the second part out.
    """
    import numpy as np

    sound = bounded(text).encode("utf-8", "replace").decode()
    words = word_counts(sound)
    if rows is None:
        return words
    return np.concatenate([words, rows.feature(tokenize(sound, add_special=False, parse_special=False))])


class Router:
    """Chooses among the adapters that answer now.  Several threads may ask at once."""

    def __init__(self, loaded: Loaded, catalogue: Catalogue) -> None:
        """Nothing is read before the first request for ``auto``."""
        self._loaded, self._catalogue = loaded, catalogue
        self._opening = threading.Lock()
        self._rows: TokenRows | None = None
        self._heads: dict[str, Head | None] = {}  # by the adapter's digest; None where it doesn't fit the base

    def resolved(
        self, adapter: str | None, text: str | Sequence[int] | None, messages: Sequence[Mapping[str, Any]] | None
    ) -> tuple[str | None, Route | None]:
        """The name of who answers, and how that was found, where it was asked for."""
        if not self._catalogue.means_auto(adapter):
            return adapter, None
        route = self.route(user_text(messages or ()) if text is None else self._spelt(text))
        return route.adapter or BASE, route

    def route(self, text: str) -> Route:
        """Who answers this text.

        Raises:
            InputError: the bundle has no ``auto``, no adapter with a head, or its fallback doesn't answer.
            NobodyAnswers: it is for none of the adapters, and the bundle refuses such.
        """
        manifest = self._catalogue.manifest
        if manifest.auto is None:
            raise InputError(
                f"the bundle {manifest.name} can't choose adapters: it was exported without auto",
                "name an adapter, or add `auto: {fallback: base}` to edgekit.yaml and export again",
            )
        rows = self._embedding()
        width = WORDS if rows is None else WORDS + rows.width
        heads = self._fitting(manifest.adapters, width)
        if not heads:
            raise InputError(f"no adapter of {manifest.name} says what it is for", "name an adapter, or base")
        fallback = manifest.auto["fallback"]
        engine = self._loaded.engine
        route = choose(text_features(text, engine.tokenize, rows), heads, None if fallback == BASE else fallback)
        if not route.fallback:
            return route
        if fallback == REFUSE:
            raise NobodyAnswers("this request is for none of the adapters", "name one, or base")
        if fallback != BASE and all(entry.name != fallback for entry in manifest.adapters):  # removed, or set aside
            raise InputError(
                f"this request is for none of the adapters, auto leaves such to {fallback},"
                f" and there is no adapter {shown(fallback)} now",
                f"install {fallback} again, or name an adapter or base",
            )
        return route

    def _spelt(self, text: str | Sequence[int]) -> str:
        if isinstance(text, str):
            return text
        read = text if len(text) <= 2 * MOST_SIGNS else [*text[:MOST_SIGNS], *text[-MOST_SIGNS:]]
        spelt: list[str] = self._loaded.header.metadata.get("tokenizer.ggml.tokens", [])
        pieces = [self._loaded.engine.piece(token) for token in read if 0 <= token < len(spelt)]
        return b"".join(pieces).decode(errors="replace")

    def _embedding(self) -> TokenRows | None:
        """The base's token embedding; an ONNX graph hides its own, so words alone count there."""
        if self._loaded.base_files.engine == ONNX:
            return None
        from edgekit_runtime.engines.llama.token_rows import TokenRows

        with self._opening:
            if self._rows is None:
                self._rows = TokenRows(self._loaded.header)
            return self._rows

    def _fitting(self, adapters: Sequence[AdapterEntry], width: int) -> dict[str, Head]:
        """The heads of those that have one for this base, by name; those of adapters that are gone are forgotten."""
        known, heads = self._heads, dict[str, Head | None]()
        for entry in adapters:
            if entry.route is not None:
                there = entry.digest in known
                heads[entry.digest] = known[entry.digest] if there else _head(entry.name, entry.route, width)
        self._heads = heads
        return {entry.name: head for entry in adapters if (head := heads.get(entry.digest)) is not None}


def _head(name: str, document: Mapping[str, Any], width: int) -> Head | None:
    head = read_head(document, f"route of adapter {name}")
    if len(head.weights) == width:
        return head
    log.warning("adapter %s is left out of auto: it has %d weights, not %d", name, len(head.weights), width)
    return None
