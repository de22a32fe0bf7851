"""What a request gives back: the answer, its counts and its timings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from edgekit_runtime.formats.route import Route
from edgekit_runtime.prompts.thinking import Thinking, split
from edgekit_runtime.prompts.tool_stream import CallReader, Delta, Said, new_id
from edgekit_runtime.runtime.calling import Reading
from edgekit_runtime.scheduler import Piece, Request, TokenScore


@dataclass(frozen=True)
class Usage:
    """Token counts; ``cached_tokens`` of the prompt were in the KV cache already.

    ``reasoning_tokens`` of the answer are reasoning and its tags.  Cells of images and virtual tokens of a prompt
    adapter count as tokens of the prompt.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True)
class Timings:
    """Milliseconds, and tokens per second of prefill and decode.

    ``queue_ms`` is the wait for a KV sequence, ``switch_ms`` loading the adapter if it wasn't, ``encode_ms`` what
    images cost that were not seen before.  TTFT counts from the call to the first token, all of that included.

    ``forced_tokens`` of the answer were the only ones that its schema or grammar let follow.  ``drafted_tokens`` were
    decoded before they were chosen, and ``accepted_tokens`` of them were chosen.
    """

    queue_ms: float
    switch_ms: float
    prefill_ms: float
    ttft_ms: float
    decode_ms: float
    prefill_tps: float
    decode_tps: float
    encode_ms: float = 0.0
    forced_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True)
class Generation:
    """An answer.

    Attributes:
        text: what is said, without calls.
        adapter: whose answer it is; None for the bare base.
        finish_reason: "stop", "length", or "tool_calls" where the model calls tools.
        tool_calls: its calls, in the form of a message's ``tool_calls``; arguments are objects.
        stop_text: the one that ended it, where one of the request's did.
        route: how the adapter was chosen, where the request left that to the device.
    """

    text: str
    adapter: str | None
    finish_reason: str
    usage: Usage
    timings: Timings
    tool_calls: tuple[dict[str, Any], ...] = ()
    stop_text: str | None = None
    route: Route | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON document; ``tool_calls``, ``stop_text`` and ``route`` are there where there are some."""
        document = asdict(replace(self, route=None))
        del document["route"]
        document |= {} if self.route is None else {"route": self.route.as_json()}
        calls, stop = document.pop("tool_calls"), document.pop("stop_text")
        document |= {"tool_calls": list(calls)} if calls else {}
        return document | ({} if stop is None else {"stop_text": stop})


class Progress(NamedTuple):
    """How much of a prompt has been read: tokens, of which ``cached`` were in the KV cache, in ``ms`` milliseconds."""

    total: int
    cached: int
    processed: int
    ms: float


class Stream(Iterator[str]):
    """Pieces of an answer as they come.

    Attributes:
        result: the whole answer; there after the last piece.
        reading: how calls are read from the answer, where some may come.
        thinking: how reasoning is told in the text; None where the base's template knows none.
        route: how the adapter was chosen, where the request left that to the device.
        scores: log-probabilities of the answer's tokens so far, when they were asked for.
        echoed: of the prompt's tokens, likewise.
    """

    def __init__(
        self,
        request: Request,
        adapter: str | None,
        pull: Callable[[Request], Piece | None],
        drop: Callable[[Request], None],
        reading: Reading | None = None,
        thinking: Thinking | None = None,
        route: Route | None = None,
    ):
        """Pieces of ``request`` come from ``pull``, which gives None after the last; ``drop`` ends it early."""
        self._request, self._adapter, self._pull, self._drop = request, adapter, pull, drop
        self.reading, self.thinking, self.route = reading, thinking, route
        self._reader = None if reading is None else _reader_of(reading)
        self._text: list[str] = []
        self.result: Generation | None = None
        self.scores: list[TokenScore] = []

    @property
    def tokens(self) -> int:
        """Tokens of the answer that are there, whether they were read or not."""
        return len(self._request.tokens)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt; without an adapter's virtual ones before it has its turn."""
        return len(self._request.prompt.tokens)

    @property
    def progress(self) -> Progress | None:
        """How much of the prompt has been read; None before it has its turn."""
        request, total = self._request, self.prompt_tokens
        if not request.ready:
            return None
        ms = 1e3 * (time.perf_counter() - request.ready)
        return Progress(total, request.reused, min(request.decoded, total), ms)

    @property
    def started(self) -> bool:
        """Whether the prompt has been read."""
        return bool(self._request.first)

    @property
    def ended(self) -> bool:
        """Whether nothing more will be computed; pieces may be left to read."""
        return self._request.done

    @property
    def echoed(self) -> list[TokenScore]:
        """Log-probabilities of the prompt's tokens, when they were asked for."""
        return self._request.echoed

    def __next__(self) -> str:
        while self.result is None and (piece := self._pull(self._request)) is not None:
            self._take(piece)
            if said := piece.text if self._reader is None else _said(self._reader.feed(piece.text)):
                return said
        self._end()
        reader, self._reader = self._reader, None
        if reader is not None and (said := _said(reader.finish(cut=_is_cut(self._request)))):
            return said
        raise StopIteration

    def poll(self) -> list[Piece]:
        """What is there, without waiting, calls as the model writes them; ``result`` is set when that was all.

        Raises:
            InputError: the request has failed.
        """
        pieces = []
        while self._request.pieces:
            pieces.append(self._request.pieces.popleft())
            self._take(pieces[-1])
        if self._request.error is not None:
            raise self._request.error
        if self._request.done:
            self._end()
        return pieces

    def close(self) -> None:
        """Stop generating."""
        self._drop(self._request)

    def _take(self, piece: Piece) -> None:
        self.scores += piece.scores
        self._text.append(piece.text)

    def _end(self) -> None:
        if self.result is None and self._request.finish_reason != "cancelled":
            text = "".join(self._text)
            made = generation_of(self._request, text, self._adapter, self.reading, self.thinking)
            self.result = replace(made, route=self.route)

    def __del__(self) -> None:
        self._drop(self._request)


def _reader_of(reading: Reading) -> CallReader:
    return CallReader(reading.form, reading.tools, thinking=reading.thinking)


def _is_cut(request: Request) -> bool:
    """Whether an answer may have ended in the middle of a call."""
    return request.finish_reason != "stop" or request.stopped_by is not None


def _said(deltas: list[Delta]) -> str:
    return "".join(each.text for each in deltas if isinstance(each, Said))


def _reasoning_tokens(request: Request, text: str, thinking: Thinking | None) -> int:
    if thinking is None or not split(text, thinking)[0]:
        return 0
    end = text.find(thinking.end)
    return request.tokens_to(len(text) if end < 0 else end + len(thinking.end))


def generation_of(
    request: Request,
    text: str,
    adapter: str | None,
    reading: Reading | None = None,
    thinking: Thinking | None = None,
) -> Generation:
    """The answer of a request that has ended."""
    reasoning = _reasoning_tokens(request, text, thinking)
    finish_reason = request.finish_reason or "stop"
    reader = None if reading is None else _reader_of(reading)
    if reader is not None:
        text = _said(reader.feed(text) + reader.finish(cut=_is_cut(request)))
    calls = [] if reader is None else reader.calls
    prompt, count = len(request.prompt.tokens), len(request.tokens)
    decode = request.ended - request.first
    prefill = request.first - request.ready - request.encoding
    return Generation(
        text=text,
        adapter=adapter,
        finish_reason="tool_calls" if calls and finish_reason == "stop" else finish_reason,
        usage=Usage(prompt, count, prompt + count, request.reused, reasoning),
        timings=Timings(
            queue_ms=1e3 * (request.picked - request.submitted),
            switch_ms=1e3 * (request.ready - request.picked),
            prefill_ms=1e3 * prefill,
            ttft_ms=1e3 * (request.first - request.submitted),
            decode_ms=1e3 * decode,
            prefill_tps=(prompt - request.reused) / prefill if prefill > 0 else 0.0,
            decode_tps=request.later / decode if decode > 0 else 0.0,
            encode_ms=1e3 * request.encoding,
            forced_tokens=request.forced,
            drafted_tokens=request.guessed,
            accepted_tokens=request.accepted,
        ),
        tool_calls=tuple(each.message_form(new_id()) for each in calls),
        stop_text=request.stopped_by if finish_reason == "stop" else None,
    )
