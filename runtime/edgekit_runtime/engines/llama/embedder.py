"""Hidden states of texts, from a llama.cpp context of its own: the loop's context and its KV cache stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgekit_runtime.engines.base import BARE, Part, Stack
from edgekit_runtime.engines.llama.context import HIDDEN_CHUNK, LlamaContext
from edgekit_runtime.engines.threads import Threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LlamaEmbedder:
    """See :class:`~edgekit_runtime.engines.base.Embedder`."""

    chunk = HIDDEN_CHUNK

    def __init__(
        self, model: Any, adapters: Mapping[str, Any], *, tokens: int, threads: Threads, kv_cache: str
    ) -> None:
        """Make a context of ``tokens`` for a model; ``adapters`` are those that are loaded, by name.  Its cells are of
        the type ``kv_cache``, as the loop's are: a text's vector rests on what the model's answers rest on.

        Raises:
            InputError: there is not enough memory.
        """
        self.tokens = tokens
        self._adapters = adapters
        self._context = LlamaContext(
            model, context=tokens, threads=threads, sequences=1, kv_cache=kv_cache, hidden=True
        )
        self._selected: Stack = BARE

    def read(self, part: Part, stack: Stack) -> NDArray[np.float32]:
        """The last hidden state of each token of a part, [len(part.tokens), width]."""
        if stack != self._selected:
            self._context.select([(self._adapters[name], scale) for name, scale in stack])
            self._selected = stack
        self._context.decode([part])
        return self._context.hidden()

    def forget(self) -> None:
        """Make room for another text.  The context knows no adapter then, so that each may be freed."""
        self._context.forget(0)
        if self._selected != BARE:
            self._context.select([])
            self._selected = BARE

    def close(self) -> None:
        """Free the context."""
        self._context.close()
