"""What a request gives back: the answer, its counts and its timings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edgekit_runtime.scheduler import Job, Piece, TokenScore


@dataclass(frozen=True)
class Usage:
    """Token counts; ``cached_tokens`` of the prompt were in the KV cache already."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class Timings:
    """Milliseconds, and tokens per second of prefill and decode.

    ``queue_ms`` is the wait for a KV sequence, ``switch_ms`` loading the adapter if it wasn't, ``encode_ms`` what
    images cost that were not seen before.  TTFT counts from the call to the first token, all of that included.
    """

    queue_ms: float
    switch_ms: float
    prefill_ms: float
    ttft_ms: float
    decode_ms: float
    prefill_tps: float
    decode_tps: float
    encode_ms: float = 0.0


@dataclass(frozen=True)
class Generation:
    """An answer; ``finish_reason`` is "stop" or "length", ``adapter`` None for the bare base."""

    text: str
    adapter: str | None
    finish_reason: str
    usage: Usage
    timings: Timings

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return asdict(self)


class Stream(Iterator[str]):
    """Pieces of an answer as they come.

    Attributes:
        result: the whole answer; there after the last piece.
        scores: log-probabilities of the answer's tokens so far, when they were asked for.
        echoed: of the prompt's tokens, likewise.
    """

    def __init__(self, job: Job, adapter: str | None, pull: Callable[[Job], Piece | None], drop: Callable[[Job], None]):
        """Pieces of ``job`` come from ``pull``, which gives None after the last; ``drop`` ends it early."""
        self._job, self._adapter, self._pull, self._drop = job, adapter, pull, drop
        self._text: list[str] = []
        self.result: Generation | None = None
        self.scores: list[TokenScore] = []

    @property
    def tokens(self) -> int:
        """Tokens of the answer that are there, whether they were read or not."""
        return len(self._job.tokens)

    @property
    def started(self) -> bool:
        """Whether the prompt has been read."""
        return bool(self._job.first)

    @property
    def ended(self) -> bool:
        """Whether nothing more will be computed; pieces may be left to read."""
        return self._job.done

    @property
    def echoed(self) -> list[TokenScore]:
        """Log-probabilities of the prompt's tokens, when they were asked for."""
        return self._job.echoed

    def __next__(self) -> str:
        while self.result is None and (piece := self._pull(self._job)) is not None:
            self._take(piece)
            if piece.text:
                return piece.text
        self._end()
        raise StopIteration

    def poll(self) -> list[Piece]:
        """What is there, without waiting; ``result`` is set when that was all.

        Raises:
            InputError: the request has failed.
        """
        pieces = []
        while self._job.pieces:
            pieces.append(self._job.pieces.popleft())
            self._take(pieces[-1])
        if self._job.error is not None:
            raise self._job.error
        if self._job.done:
            self._end()
        return pieces

    def close(self) -> None:
        """Stop generating."""
        self._drop(self._job)

    def _take(self, piece: Piece) -> None:
        self.scores += piece.scores
        self._text.append(piece.text)

    def _end(self) -> None:
        if self.result is None and self._job.finish_reason != "cancelled":
            self.result = generation_of(self._job, "".join(self._text), self._adapter)

    def __del__(self) -> None:
        self._drop(self._job)


def generation_of(job: Job, text: str, adapter: str | None) -> Generation:
    """The answer of a job that has ended."""
    prompt, count = len(job.work.prompt), len(job.tokens)
    decode = job.ended - job.first
    prefill = job.first - job.ready - job.encoding
    return Generation(
        text=text,
        adapter=adapter,
        finish_reason=job.finish_reason or "stop",
        usage=Usage(prompt, count, prompt + count, job.reused),
        timings=Timings(
            queue_ms=1e3 * (job.picked - job.submitted),
            switch_ms=1e3 * (job.ready - job.picked),
            prefill_ms=1e3 * prefill,
            ttft_ms=1e3 * (job.first - job.submitted),
            decode_ms=1e3 * decode,
            prefill_tps=(prompt - job.reused) / prefill if prefill > 0 else 0.0,
            decode_tps=job.steps / decode if decode > 0 else 0.0,
            encode_ms=1e3 * job.encoding,
        ),
    )
