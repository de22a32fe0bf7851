"""The next tokens of answers: one by one, several that a grammar forces, or guesses that prove right."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit_runtime.engines import BARE, Engine, Part, Stack
from edgekit_runtime.engines.base import PREFILL_CHUNK
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.scheduler.chunks import LEAST_CHUNK, longest_chunk
from edgekit_runtime.scheduler.lookahead import MOST_GUESSES, Guesser, Lookahead
from edgekit_runtime.scheduler.pool import AdapterPool, Watch, nobody, watched
from edgekit_runtime.scheduler.request import Request, TokenScore
from edgekit_runtime.scheduler.scores import score
from edgekit_runtime.scheduler.slot import Slot


@dataclass
class Counts:
    """What the loop has done since it began."""

    steps: int = 0
    prompt_tokens: int = 0  # prefilled
    reused_tokens: int = 0  # of prompts, found in the KV cache
    answer_tokens: int = 0
    forced_tokens: int = 0  # of them, those that a grammar let follow alone
    drafted_tokens: int = 0  # decoded before they were chosen
    accepted_tokens: int = 0  # and chosen then
    images: int = 0  # encoded, tiles counted each


class Decoder:
    """Runs the engine for requests that have a sequence, and ends those that are done."""

    def __init__(self, engine: Engine, pool: AdapterPool, lookahead: Lookahead | None) -> None:
        """``pool`` gets back the adapters of those that end; without ``lookahead``, tokens are decoded one by one."""
        self.lookahead = lookahead
        self.counts = Counts()
        self.selected: Stack = BARE  # adapters of the last decode
        self.watch: Watch = nobody  # is told which adapters are at work in the engine, and when none are any more
        self._engine = engine
        self._pool = pool
        self._longest = longest_chunk(engine)
        # Forced tokens of one request that others' tokens may stand beside: a part of several is computed otherwise
        # than single tokens are, so where bits matter each has a step of its own.
        self._joined = 1 if engine.exact else max(PREFILL_CHUNK // engine.sequences, 1)

    def decode(self, stack: Stack, slots: list[Slot]) -> None:
        """One more token for each, or several; some may have ended in the meantime."""
        if not slots:
            return
        joined: list[tuple[Slot, Request]] = []
        for slot in slots:
            request = slot.request
            if request is None:
                continue
            if request.guesser is not None:
                self._look_ahead(slot, request, request.guesser)
            elif len(request.pending) > self._joined:
                self._catch_up(slot, request)
            else:
                joined.append((slot, request))
        parts = [
            Part(slot.sequence, request.decoded, request.pending, stack=request.stack_at(request.decoded))
            for slot, request in joined
        ]
        if not parts or not self.run(stack, parts, [slot for slot, _ in joined]):
            return
        for row, (slot, request) in enumerate(joined):
            self._keep(slot, request, request.pending)
            self.sample(slot, request, row)

    def _catch_up(self, slot: Slot, request: Request) -> None:
        """Forced tokens go through the model as one part; as much of them as a chunk of prefill."""
        pending = request.pending
        end = len(pending) if len(pending) <= self._longest else self._longest - LEAST_CHUNK
        part = Part(slot.sequence, request.decoded, pending[:end])
        if self.run(request.stack_at(request.decoded), [part], [slot]):
            self._keep(slot, request, pending[:end])
            if end == len(pending):
                self.sample(slot, request, 0)

    def _look_ahead(self, slot: Slot, request: Request, guesser: Guesser) -> None:
        """Decode guesses behind the tokens that are due, and keep those that the sampler chooses as well."""
        began, pending, known = time.perf_counter(), request.pending, len(request.tokens)
        if len(pending) > self._longest - MOST_GUESSES:
            self._catch_up(slot, request)
            return
        guesser.follow(request.tokens)
        guesses = guesser.guesses(len(pending), request.work.max_tokens - known)
        tokens = [*pending, *(guess.token for guess in guesses)]
        part = Part(slot.sequence, request.decoded, tokens, logits_from=len(pending) - 1)
        if not self.run(request.stack_at(request.decoded), [part], [slot]):
            return
        right = 0
        while not request.done:
            if len(request.tokens) - known == right:
                self.sample(slot, request, right)
            elif right < len(guesses) and request.tokens[known + right] == guesses[right].token:
                right += 1
            else:
                break
        self._keep(slot, request, tokens[: len(pending) + right])
        if right < len(guesses):
            self._engine.forget(slot.sequence, request.decoded)
        guesser.learn(guesses, right, time.perf_counter() - began)
        request.guessed += len(guesses)
        request.accepted += right
        self.counts.drafted_tokens += len(guesses)
        self.counts.accepted_tokens += right

    def _keep(self, slot: Slot, request: Request, tokens: Sequence[int]) -> None:
        """Tokens of the answer have gone through the model; those of a request that looks ahead can be used again, and
        where bits don't matter all of them.
        """
        if request.guesser is not None or not self._engine.exact:
            stack = request.stack_at(request.decoded)
            slot.held.extend((token, stack) for token in tokens)
        request.decoded += len(tokens)

    def run(self, stack: Stack, parts: list[Part], slots: list[Slot]) -> bool:
        """Decode; those whose tokens could not be decoded fail, and nobody else."""
        try:
            with watched(self.watch, [slot.request.work.stack for slot in slots if slot.request is not None]):
                self._engine.select(stack)
                self.selected = stack
                self._engine.decode(parts)
        except EdgekitError as error:
            for slot in slots:
                self.abort(slot, error)
            return False
        return True

    def sample(self, slot: Slot, request: Request, row: int) -> None:
        """The next token, and those that the grammar lets follow alone; where log-probabilities are wanted, each of
        them is chosen from its own.
        """
        alternatives = request.work.alternatives
        try:
            token = request.sampler.sample(row)
            scored = None if alternatives is None else score(self._engine.row(row), token, alternatives)
            self._accept(request, token, scored)
            if alternatives is None:
                self._force(request)
        except EdgekitError as error:  # of its grammar
            request.fail(error)
        if request.done:
            self.free(slot)

    def _force(self, request: Request) -> None:
        for token in () if self.lookahead is None or request.done else request.sampler.forced():
            if request.done:
                return
            self._accept(request, token)
            request.forced += 1
            self.counts.forced_tokens += 1

    def _accept(self, request: Request, token: int, scored: TokenScore | None = None) -> None:
        request.accept(token, self._engine.piece(token), ends=self._engine.is_end(token), score=scored)
        self.counts.answer_tokens += 1

    def abort(self, slot: Slot, error: EdgekitError) -> None:
        """End a sequence's request with an error, where it has one; nothing of its KV cache can be used again."""
        if slot.request is not None:
            slot.request.fail(error)
        self._engine.forget(slot.sequence)
        slot.empty()
        self.free(slot)

    def free(self, slot: Slot) -> None:
        """Take a request from its sequence; what the sequence holds stays for others."""
        request, slot.request = slot.request, None
        if request is not None:
            request.close()
            self._pool.release(request.work.files)
