"""One request on its way: what it asks for, and what has come of it so far."""

from __future__ import annotations

import bisect
import codecs
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit_runtime.engines import BARE, Frame, Prompt, Sampler, Sampling, Stack
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.scheduler.lookahead import Guesser
from edgekit_runtime.scheduler.stopping import StopText

GREEDY = Sampling()

# What a cell of KV cache was computed from: its token and the adapters at work.
Key = tuple[int, Stack]


@dataclass(frozen=True)
class Work:
    """What is asked for.

    Attributes:
        prompt: token ids, at least one; cells of images are negative.
        stack: digests of adapters, each with its scale; no two the same.
        files: where the file of each digest lies.
        sampling: how tokens are chosen.
        max_tokens: where the answer is cut off; 0 together with ``echo`` only.
        stop: texts that end the answer.
        preamble: how many tokens of the prompt's beginning other requests for this adapter share.
        alternatives: log-probabilities are wanted, and of how many likeliest tokens besides; None for none.
        echo: log-probabilities of the prompt's own tokens are wanted too.
        frames: where in the prompt each frame of an image begins.
        shown: control tokens that are part of the answer's text, and what they are there.
    """

    prompt: Sequence[int]
    stack: Stack = BARE
    files: Mapping[str, Path] = field(default_factory=dict)
    sampling: Sampling = GREEDY
    max_tokens: int = 1
    stop: tuple[str, ...] = ()
    preamble: int = 0
    alternatives: int | None = None
    echo: bool = False
    frames: tuple[tuple[int, Frame], ...] = ()
    shown: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenScore:
    """A token's natural log-probability, and the likeliest tokens with theirs; None where nothing came before."""

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """Some of the answer; whole characters only."""

    text: str
    scores: tuple[TokenScore, ...] = ()


class Request:
    """A request in the loop.  ``pieces`` fill up; with ``finish_reason`` or ``error`` set, nothing more comes."""

    def __init__(self, work: Work, sampler: Sampler) -> None:
        """Start the clock."""
        self.work = work
        self.prompt = Prompt(list(work.prompt), work.frames)  # as the engine reads it
        self.stack = work.stack  # that works in the engine's layers
        self.preamble = work.preamble
        self.sampler = sampler
        self.pieces: deque[Piece] = deque()
        self.finish_reason: str | None = None  # "stop", "length" or "cancelled"
        self.error: EdgekitError | None = None
        self.echoed: list[TokenScore] = []
        self.tokens: list[int] = []  # of the answer, without the one that ended it
        self.decoded = 0  # of the prompt and the answer's tokens, how many have gone through the model
        self.reused = 0  # tokens of the prompt whose KV cache was there already
        self.later = 0  # tokens after the first one, the one that ended it among them
        self.forced = 0  # tokens that the grammar let follow alone
        self.guessed = self.accepted = 0  # tokens that were decoded before they were chosen, and those that were
        self.guesser: Guesser | None = None
        self.works_from = 0  # position from which the adapters work
        self.submitted = time.perf_counter()
        self.picked = self.ready = self.first = self.ended = 0.0
        self.encoding = 0.0  # seconds that images took
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._ends: list[int] = []  # of each token of the answer in its text
        self._stopper = StopText(work.stop)
        self._scores: list[TokenScore] = []

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.finish_reason is not None or self.error is not None

    @property
    def stopped_by(self) -> str | None:
        """The stop text that has ended the answer, where one has."""
        return self._stopper.found

    @property
    def prefilled(self) -> bool:
        """Whether the whole prompt has gone through the model."""
        return self.decoded >= len(self.prompt.tokens)

    @property
    def pending(self) -> list[int]:
        """Tokens of the answer that have not gone through the model."""
        return self.tokens[self.decoded - len(self.prompt.tokens) :]

    @property
    def virtual(self) -> int:
        """How many virtual tokens stand before the prompt."""
        return len(self.prompt.tokens) - len(self.work.prompt)

    def begin_with(self, prompt: Prompt, stack: Stack) -> None:
        """Read ``prompt``, which is the work's with virtual tokens before it, under ``stack``.

        Virtual tokens are a part of the preamble: all requests for their adapter begin with them.
        """
        self.prompt, self.stack = prompt, stack
        self.preamble = self.virtual + self.work.preamble

    def tokens_to(self, position: int) -> int:
        """How many of the answer's tokens its text up to a position has, the last one's rest included."""
        return min(bisect.bisect_left(self._ends, position) + 1, len(self._ends))

    def stack_at(self, position: int) -> Stack:
        """The adapters at work at a position."""
        return self.stack if position >= self.works_from else BARE

    def keys(self, start: int, stop: int) -> list[Key]:
        """What the prompt's cells from ``start`` to ``stop`` are computed from."""
        return [(self.prompt.tokens[position], self.stack_at(position)) for position in range(start, stop)]

    def accept(self, token: int, data: bytes, *, ends: bool, score: TokenScore | None = None) -> None:
        """Take the next token, which stands for ``data``."""
        now = time.perf_counter()
        if self.first:
            self.later += 1
        self.first = self.first or now
        if ends:
            if score is not None and self.work.echo:  # who asks for the prompt's scores takes one of the answer's away
                self._scores.append(score)
            self.finish("stop")
            return
        self.tokens.append(token)
        if score is not None:
            self._scores.append(score)
        text = self._text.decode(self.work.shown.get(token, data))
        self._ends.append((self._ends[-1] if self._ends else 0) + len(text))
        self._say(self._stopper.feed(text))
        if self._stopper.stopped:
            self.finish("stop")
        elif len(self.tokens) >= self.work.max_tokens:
            self.finish("length")

    def finish(self, reason: str) -> None:
        """Let out what was held back, and end."""
        self.ended = time.perf_counter()
        self.first = self.first or self.ended
        self._say(self._stopper.finish(self._text.decode(b"", final=True)), last=True)
        self.finish_reason = reason

    def fail(self, error: EdgekitError) -> None:
        """End with an error."""
        self.ended = time.perf_counter()
        self.error = error

    def close(self) -> None:
        """Free what belongs to it, and leave its answer to guesses of later ones."""
        self.sampler.close()
        if self.guesser is not None:
            self.guesser.close(self.tokens)

    def _say(self, text: str, *, last: bool = False) -> None:
        if text or (last and self._scores):
            self.pieces.append(Piece(text, tuple(self._scores)))
            self._scores = []
