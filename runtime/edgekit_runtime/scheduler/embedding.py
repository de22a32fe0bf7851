"""Texts to vectors, in turn with the loop: each step reads one chunk of one text.

The vector of a text is the mean of the last hidden state (behind the last norm) over its tokens, divided by its length.
It is read in a place of its own, which is made for the first text and freed after the last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.engines import BARE, Embedder, Engine, Prompt, Stack, with_virtual_tokens, working_from
from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.scheduler.pool import AdapterPool, Watch, nobody, watched

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STEP_TOKENS = 256  # a place grows by so many


@dataclass(eq=False)
class EmbeddingRequest:
    """Texts that are embedded under the same adapters, and what has come of it so far.

    Attributes:
        texts: token ids, at least one of each.
        stack: digests of adapters, each with its scale.
        files: where the file of each digest lies.
        dimensions: only so many first numbers of each vector; all when None.
        vectors: of the texts that are done, [width] each.
        error: why it failed.
        closed: nobody waits for it any more.
    """

    texts: Sequence[Sequence[int]]
    stack: Stack = BARE
    files: Mapping[str, Path] = field(default_factory=dict)
    dimensions: int | None = None
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    error: EdgekitError | None = None
    closed: bool = False
    held: bool = False  # its adapters

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.error is not None or len(self.vectors) == len(self.texts)

    def close(self) -> None:
        """Leave off."""
        self.closed = True


@dataclass
class _Reading:
    """The text that is being read: as the engine reads it, and the sum of what came out so far."""

    request: EmbeddingRequest
    prompt: Prompt
    stack: Stack  # in the engine's layers
    works_from: int
    virtual: int
    total: NDArray[np.float64] | float = 0.0
    read: int = 0

    def chunk_end(self, chunk: int) -> int:
        """Where the next chunk ends: where adapters begin to work and virtual tokens end, too."""
        edges = (len(self.prompt.tokens), self.works_from, *self.prompt.edges(), self.read + chunk)
        return min(edge for edge in edges if edge > self.read)


class EmbeddingQueue:
    """Requests for vectors, one text of each in turn.  One thread steps; any may add."""

    def __init__(self, engine: Engine, pool: AdapterPool) -> None:
        """Read through ``engine``, with the adapters of ``pool``."""
        self._engine, self._pool = engine, pool
        self._waiting: deque[EmbeddingRequest] = deque()
        self._reading: _Reading | None = None
        self._place: Embedder | None = None
        self.watch: Watch = nobody  # as the loop's
        self.tokens = 0  # read since the start

    def add(self, request: EmbeddingRequest) -> None:
        """Let it take its turn."""
        self._waiting.append(request)

    def step(self) -> bool:
        """Read a chunk; False when there is nothing to do."""
        self._drop_closed()
        if not self._waiting:
            self.close()
            return False
        request = self._waiting[0] if self._reading is None else self._reading.request
        try:
            if self._reading is None and not self._begin(request):
                self._waiting.rotate(-1)  # its adapters have no room now
                return True
            self._read()
        except EdgekitError as error:
            request.error = error
            self._end_text()
        if request.done:
            self._waiting.remove(request)
            self._release(request)
        if not self._waiting:
            self.close()
        return True

    def close(self) -> None:
        """Free the place."""
        if self._place is not None:
            self._place.close()
            self._place = None

    def _begin(self, request: EmbeddingRequest) -> bool:
        """Take the next text of a request; False when there is no room for its adapters."""
        if not request.held:
            if not self._pool.hold(request.files):
                return False
            request.held = True
        asked = Prompt(list(request.texts[len(request.vectors)]))
        prompt, stack = with_virtual_tokens(self._engine, request.stack, asked)
        works = working_from(self._engine, stack, prompt.tokens)
        length = len(prompt.tokens)
        self._make_place(length)
        virtual = length - len(asked.tokens)
        self._reading = _Reading(request, prompt, stack, length if works is None else works, virtual)
        return True

    def _make_place(self, tokens: int) -> None:
        if self._place is None or self._place.tokens < tokens:
            self.close()
            self._place = self._engine.embedder(-(-tokens // STEP_TOKENS) * STEP_TOKENS)

    def _read(self) -> None:
        """The next chunk of the text; the mean, after the last one."""
        import numpy as np

        reading, place = self._reading, self._place
        assert reading is not None  # begun
        assert place is not None
        start, stop = reading.read, reading.chunk_end(place.chunk)
        stack = reading.stack if start >= reading.works_from else BARE
        with watched(self.watch, [reading.request.stack]):
            rows = place.read(reading.prompt.part(0, start, stop, every=True), stack)
        if start >= reading.virtual:
            reading.total = reading.total + rows.sum(axis=0, dtype=np.float64)
        reading.read = stop
        self.tokens += stop - start
        if stop < len(reading.prompt.tokens):
            return
        vector = np.atleast_1d(reading.total)[: reading.request.dimensions]
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length == 0:
            raise InputError("the hidden states of a text are no numbers, or all 0", "ask another base or adapter")
        reading.request.vectors.append((vector / length).astype(np.float32))
        self._end_text()
        self._waiting.rotate(-1)

    def _end_text(self) -> None:
        if self._reading is not None and self._place is not None:
            self._place.forget()
        self._reading = None

    def _drop_closed(self) -> None:
        for request in [each for each in self._waiting if each.closed]:
            if self._reading is not None and self._reading.request is request:
                self._end_text()
            self._waiting.remove(request)
            self._release(request)

    def _release(self, request: EmbeddingRequest) -> None:
        if request.held:
            self._pool.release(request.files)
            request.held = False
