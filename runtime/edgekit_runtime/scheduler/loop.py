"""The loop: every step gives each answering request a token (a few where adapters have to be switched), and one waiting
prompt a chunk of prefill.

Requests that use the same adapters are decoded together where that changes no bit of anybody's answer
(:meth:`~edgekit_runtime.engines.Engine.batches_exactly`), else one after another; those with different adapters
too where the engine can (:meth:`~edgekit_runtime.engines.Engine.mixes`).  KV cache is reused only where it was
computed from the same tokens under the same adapters, and only so that the answer stays the same to the bit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgekit_runtime.engines import BARE, Engine, Part, Stack, with_virtual_tokens, working_from
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.scheduler.lookahead import MOST_GUESSES, Guesser, Lookahead
from edgekit_runtime.scheduler.parked import Parked, ParkedChats
from edgekit_runtime.scheduler.pool import AdapterPool, Watch, nobody, watched
from edgekit_runtime.scheduler.prefixes import LEAST_TOKENS, PrefixCache
from edgekit_runtime.scheduler.request import Key, Request, TokenScore, Work
from edgekit_runtime.scheduler.scores import score, scores

SHARED_CHUNK = 64  # prompt tokens between two tokens of the others
ALONE_CHUNK = 256  # with one sequence: nobody waits but the watchdog, for whom a slow board has to end its steps
# Tokens that each request gets before the adapters are switched: llama.cpp plans its memory anew after a switch, which
# costs as much as half a token of a small base.
BURST = 4
LEAST_PARKED = 64  # tokens; fewer are read again about as fast
LEAST_CHUNK = 2  # a matrix times one column is summed in another order than times several


@dataclass
class Slot:
    """One KV sequence of the engine, what of it can be used again, and who has it.

    ``held`` are cells that were computed in parts of several tokens: decoding one at a time rounds otherwise.  ``cuts``
    are where the chunks of prefilled ones ended.
    """

    sequence: int
    held: list[Key] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    request: Request | None = None
    used: int = 0  # admission that used it last


@dataclass
class Counts:
    """What the loop has done since it began."""

    steps: int = 0
    prompt_tokens: int = 0  # prefilled
    reused_tokens: int = 0  # of prompts, found in the KV cache
    answer_tokens: int = 0
    images: int = 0  # encoded, tiles counted each


class Loop:
    """Requests over one engine.  Not thread-safe: one thread submits, steps and cancels."""

    def __init__(
        self,
        engine: Engine,
        pool: AdapterPool,
        prefixes: PrefixCache,
        parked: ParkedChats | None = None,
        lookahead: Lookahead | None = None,
    ) -> None:
        """Take over an engine's KV sequences; without ``lookahead``, tokens are decoded one by one."""
        self.lookahead = lookahead
        self.pool = pool
        self.prefixes = prefixes
        self.parked = parked or ParkedChats()
        self.counts = Counts()
        self._engine = engine
        self._slots = [Slot(sequence) for sequence in range(engine.sequences)]
        self._chunk = SHARED_CHUNK if engine.sequences > 1 else ALONE_CHUNK
        self._waiting: deque[Request] = deque()
        self._prefilling: deque[Slot] = deque()
        self._selected: Stack = BARE  # adapters of the last decode
        self.watch: Watch = nobody  # is told which adapters are at work in the engine, and when none are any more
        self.mixing = True  # decode different adapters together where the engine can

    @property
    def waiting(self) -> int:
        """Requests without a sequence."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests with one."""
        return sum(slot.request is not None for slot in self._slots)

    @property
    def held_tokens(self) -> int:
        """Cells of KV cache that hold something."""
        return sum(max(len(slot.held), slot.request.decoded if slot.request else 0) for slot in self._slots)

    def request(self, work: Work) -> Request:
        """A request that is not queued yet; any thread may make one.

        Raises:
            UsageError: an empty stop text.
            InputError: the grammar can't be used.
        """
        return Request(work, self._engine.sampler(work.sampling, work.prompt))

    def enqueue(self, request: Request) -> None:
        """Let it take its turn."""
        self._waiting.append(request)

    def cancel(self, request: Request) -> None:
        """End a request; nothing happens to one that has ended."""
        if request.done:
            return
        request.finish("cancelled")
        for slot in self._slots:
            if slot.request is request:
                self._free(slot)
                return
        self._waiting.remove(request)
        request.close()

    def step(self) -> bool:
        """Go one step; False when there is nothing to do."""
        if self._engine.holder is not self:
            self._take_over()
        self._admit()
        if not self.running:
            return False
        self.counts.steps += 1
        groups: dict[Stack, list[Slot]] = {}
        for slot in self._slots:
            if slot.request is not None and slot.request.prefilled:
                groups.setdefault(slot.request.stack_at(slot.request.decoded), []).append(slot)
        if self._mixes(list(groups)):
            self._decode(BARE, [slot for slots in groups.values() for slot in slots])
            groups = {}
        tokens = BURST if len(groups) > 1 and not self._prefilling else 1
        for stack in sorted(groups, key=lambda stack: stack != self._selected):
            with watched(self.watch, [stack]):
                together = self._engine.batches_exactly(stack)
            slots = self._gather(groups[stack]) if together else groups[stack]
            for _ in range(tokens):
                for part in [slots] if together else [[slot] for slot in slots]:
                    self._decode(stack, [slot for slot in part if slot.request is not None])
        if self._prefilling:
            self._prefill(self._prefilling.popleft())
        return True

    def _take_over(self) -> None:
        """Begin with empty sequences: somebody has used the engine past the loop."""
        for slot in self._slots:
            self._abort(slot, EdgekitError("the engine was used for something else in the middle of a request"))
        self.parked.clear()
        self._engine.holder = self

    def _admit(self) -> None:
        """Give sequences to those who wait, in their order."""
        while self._waiting and any(slot.request is None for slot in self._slots):
            request = self._waiting[0]
            request.picked = time.perf_counter()
            try:
                if not self.pool.hold(request.work.files):
                    return
            except EdgekitError as error:
                self._waiting.popleft()
                request.close()
                request.fail(error)
                continue
            self._waiting.popleft()
            try:
                with watched(self.watch, [request.work.stack]):
                    self._start(request)
            except EdgekitError as error:
                request.fail(error)
                request.close()
                self.pool.release(request.work.files)

    def _start(self, request: Request) -> None:
        request.begin_with(*with_virtual_tokens(self._engine, request.work.stack, request.prompt))
        stack, length = request.stack, len(request.prompt.tokens)
        works = working_from(self._engine, stack, request.prompt.tokens)
        request.works_from = length + request.work.max_tokens if works is None else works
        exact = self._engine.cuts_exactly(stack) and (not request.works_from or self._engine.cuts_exactly(BARE))
        keys = request.keys(0, length)
        slot, reused = self._place(request, keys, exact)
        if not self._engine.forget(slot.sequence, reused):
            reused = 0
        del slot.held[reused:]
        slot.cuts = [cut for cut in slot.cuts if cut < reused] + [reused] * bool(reused)
        preamble = request.preamble
        if reused < preamble and preamble >= LEAST_TOKENS and not request.work.echo:
            reused = self._restore(slot, request, keys[:preamble], reused)
        request.decoded = request.reused = reused
        if self.lookahead is not None and self._engine.looks_ahead(stack):
            request.guesser = Guesser(self.lookahead, stack, request.prompt.tokens)
        request.ready = time.perf_counter()
        slot.request, slot.used = request, self.counts.steps
        self.counts.reused_tokens += reused
        self._prefilling.append(slot)

    def _place(self, request: Request, keys: list[Key], exact: bool) -> tuple[Slot, int]:
        """A free slot, and how many of the prompt's cells it holds: its own, or those of a parked conversation."""

        def good(slot: Slot) -> tuple[tuple[bool, int], int]:
            return self._room(slot.sequence, request.stack), -slot.used

        free = [slot for slot in self._slots if slot.request is None]
        held = {slot.sequence: self._reusable(slot, request, keys, exact) for slot in free}
        slot = max(free, key=lambda each: (held[each.sequence], good(each)))
        reused = held[slot.sequence]
        parked = {chat: self._reusable(chat, request, keys, exact) for chat in self.parked}
        best = max(parked, key=lambda each: parked[each], default=None)
        if best is not None and parked[best] - reused >= LEAST_PARKED:
            slot = max(free, key=good)
            self._park(slot, 0)
            return slot, parked[best] if self._unpark(slot, best) else 0
        self._park(slot, reused)
        return slot, min(reused, len(slot.held))

    def _room(self, sequence: int, stack: Stack) -> tuple[bool, int]:
        """How good a place is for decoding together: llama.cpp takes neighbouring sequences in one go.

        Best is next to one's own kind, then where both sides are left to one's own kind.
        """
        sides = [slot.request for slot in self._slots if abs(slot.sequence - sequence) == 1]
        own = any(request is not None and request.stack == stack for request in sides)
        return own, -sum(request is not None for request in sides)

    def _park(self, slot: Slot, reused: int) -> None:
        """Keep what a slot holds, unless little more than the first ``reused`` cells of it go."""
        if len(slot.held) - reused < LEAST_PARKED or not self.parked.takes(len(slot.held)):
            return
        if self._engine.forget(slot.sequence, len(slot.held)):  # what was decoded
            self.parked.put(Parked(list(slot.held), list(slot.cuts), self._engine.save(slot.sequence)))
        else:
            slot.held, slot.cuts = [], []

    def _unpark(self, slot: Slot, chat: Parked) -> bool:
        """Give a slot a parked conversation; False, and the slot is empty, when the engine doesn't take it."""
        self.parked.take(chat)
        self._engine.forget(slot.sequence)
        slot.held, slot.cuts = [], []
        if not self._engine.restore(slot.sequence, chat.state):
            return False
        slot.held, slot.cuts = chat.held, chat.cuts  # nobody else has them now
        return True

    def _reusable(self, slot: Slot | Parked, request: Request, keys: list[Key], exact: bool) -> int:
        """How many tokens of the prompt this slot holds, or this parked conversation.

        Where the bits depend on how a prompt is cut, it holds the chunks that this prompt would be cut into as well;
        elsewhere nothing is left that would be decoded as a single token.
        """
        if request.work.echo:
            return 0
        pairs = enumerate(zip(slot.held, keys, strict=False))
        common = next((at for at, (held, key) in pairs if held != key), min(len(slot.held), len(keys)))
        if not exact:
            same = 0
            for cut in slot.cuts:
                if cut > common or cut == len(keys) or cut != self._chunk_end(request, same):
                    break
                same = cut
            return same
        # Where a part of the prompt has to begin: at adapters' invocation, at both edges of a frame.
        edges = {0, request.works_from, *request.prompt.edges()}
        start = max(edge for edge in edges if edge <= common)
        end = min((edge for edge in edges if edge > common), default=len(keys))
        if common == start:
            return common
        kept = min(common, min(end, len(keys)) - LEAST_CHUNK)
        return kept if kept - start >= LEAST_CHUNK or not request.prompt.frames else start

    def _restore(self, slot: Slot, request: Request, keys: list[Key], reused: int) -> int:
        state = self.prefixes.get(keys)
        if state is None:
            return reused
        self._engine.forget(slot.sequence)
        slot.held.clear()
        slot.cuts.clear()
        if not self._engine.restore(slot.sequence, state):
            self.prefixes.forget(keys)
            return 0
        slot.held.extend(keys)
        while (end := slot.cuts[-1] if slot.cuts else 0) < len(keys):
            slot.cuts.append(self._chunk_end(request, end))
        return len(keys)

    def _gather(self, slots: list[Slot]) -> list[Slot]:
        """Bring requests of one kind next to each other where idle sequences leave room.

        A batch with a gap is decoded as two, which costs as much as half of it in every step; a move costs once what
        copying the used KV cells costs.
        """
        count = len(slots)
        if count == 1 or not self._engine.splits_at_gaps:
            return slots
        spans = [self._slots[first : first + count] for first in range(len(self._slots) - count + 1)]
        spans = [span for span in spans if all(slot in slots or slot.request is None for slot in span)]
        if not spans:
            return slots
        span = min(spans, key=lambda span: sum(slot.request is None for slot in span))
        movers = [slot for slot in slots if slot not in span]
        for idle in [slot for slot in span if slot.request is None]:
            self._move(movers.pop(), idle)
        return [slot for slot in span if slot.request is not None]

    def _move(self, slot: Slot, idle: Slot) -> None:
        """Give a request an idle sequence; what that one holds goes the other way."""
        state, other = self._engine.save(slot.sequence), self._engine.save(idle.sequence) if idle.held else b""
        for each in (slot, idle):
            self._engine.forget(each.sequence)
        slot.held, idle.held = idle.held, slot.held
        slot.cuts, idle.cuts = idle.cuts, slot.cuts
        slot.request, idle.request = None, slot.request
        slot.used, idle.used = idle.used, slot.used
        if not slot.held or not self._engine.restore(slot.sequence, other):
            slot.held, slot.cuts = [], []
        if not self._engine.restore(idle.sequence, state):
            self._abort(idle, EdgekitError("a request's KV cache could not be moved"))

    def _decode(self, stack: Stack, slots: list[Slot]) -> None:
        """One token for each; some may have ended in the meantime."""
        if not slots:
            return
        single: list[tuple[Slot, Request]] = []
        for slot in slots:
            request = slot.request
            if request is None:
                continue
            if request.guesser is not None:
                self._look_ahead(slot, request, request.guesser)
            elif len(request.pending) > 1:
                self._catch_up(slot, request)
            else:
                single.append((slot, request))
        parts = [
            Part(slot.sequence, request.decoded, request.pending, stack=request.stack_at(request.decoded))
            for slot, request in single
        ]
        if not parts or not self._run(stack, parts, [slot for slot, _ in single]):
            return
        for row, (slot, request) in enumerate(single):
            request.decoded += 1
            self._sample(slot, request, row)

    def _catch_up(self, slot: Slot, request: Request) -> bool:
        """Forced tokens go through the model as one part, or several; whether all have, and one more was chosen."""
        pending = request.pending
        end = len(pending) if len(pending) <= self._chunk else self._chunk - LEAST_CHUNK
        if not self._run(
            request.stack_at(request.decoded), [Part(slot.sequence, request.decoded, pending[:end])], [slot]
        ):
            return False
        self._keep(slot, request, pending[:end])
        if end == len(pending):
            self._sample(slot, request, 0)
        return end == len(pending)

    def _look_ahead(self, slot: Slot, request: Request, guesser: Guesser) -> None:
        """Decode guesses behind the tokens that are due, and keep those that the sampler chooses as well."""
        began, pending, known = time.perf_counter(), request.pending, len(request.tokens)
        if len(pending) > self._chunk - MOST_GUESSES:
            self._catch_up(slot, request)
            return
        guesser.follow(request.tokens)
        guesses = guesser.guesses(len(pending), request.work.max_tokens - known)
        tokens = [*pending, *(guess.token for guess in guesses)]
        part = Part(slot.sequence, request.decoded, tokens, logits_from=len(pending) - 1)
        if not self._run(request.stack_at(request.decoded), [part], [slot]):
            return
        right = 0
        while not request.done:
            if len(request.tokens) - known == right:
                self._sample(slot, request, right)
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

    def _keep(self, slot: Slot, request: Request, tokens: Sequence[int]) -> None:
        """Tokens of the answer have gone through the model; those of a request that looks ahead can be used again."""
        if request.guesser is not None:
            stack = request.stack_at(request.decoded)
            slot.held.extend((token, stack) for token in tokens)
        request.decoded += len(tokens)

    def _prefill(self, slot: Slot) -> None:
        """The next chunk of a prompt; it ends where adapters begin to work and where the preamble ends."""
        request = slot.request
        if request is None:  # cancelled
            return
        work, start = request.work, request.decoded
        if self._encodes(request, start):
            self._prefilling.append(slot)
            return
        stop = self._chunk_end(request, start)
        stack = request.stack_at(start)
        part = request.prompt.part(slot.sequence, start, stop, every=work.echo)
        if not self._run(stack, [part], [slot]):
            return
        slot.held.extend(request.keys(start, stop))
        slot.cuts.append(stop)
        request.decoded = stop
        self.counts.prompt_tokens += stop - start
        if work.echo:
            self._echo(request, start, stop)
        if stop == request.preamble and stop >= LEAST_TOKENS:
            self.prefixes.put(slot.held, self._engine.save(slot.sequence))
        if not request.prefilled:
            self._prefilling.append(slot)
        elif work.max_tokens:
            self._sample(slot, request, stop - start - 1 if work.echo else 0)
        else:
            request.finish("length")
            self._free(slot)

    def _echo(self, request: Request, start: int, stop: int) -> None:
        """Scores of the prompt's own tokens; virtual ones have none."""
        work, before = request.work, request.virtual
        if start >= before:
            found = scores(self._engine, work.prompt, start - before, stop - before, work.alternatives or 0)
            request.echoed += found

    def _chunk_end(self, request: Request, start: int) -> int:
        """Where the chunk of a prompt ends that begins at ``start``."""
        preamble = request.preamble if request.preamble - start >= LEAST_CHUNK else 0
        ends = (len(request.prompt.tokens), preamble, request.works_from, *request.prompt.edges())
        end = min(end for end in ends if end > start)
        left = end - start - self._chunk
        return end if left <= 0 else start + self._chunk - max(LEAST_CHUNK - left, 0)

    def _encodes(self, request: Request, start: int) -> bool:
        """Encode the image that is next, as a step of its own; False when there is nothing to encode."""
        _, frame = request.prompt.frame_at(start)
        if frame is None or frame.encoded:
            return False
        began = time.perf_counter()
        frame.embeddings()
        request.encoding += time.perf_counter() - began
        self.counts.images += 1
        return True

    def _run(self, stack: Stack, parts: list[Part], slots: list[Slot]) -> bool:
        """Decode; those whose tokens could not be decoded fail, and nobody else."""
        try:
            with watched(self.watch, [slot.request.work.stack for slot in slots if slot.request is not None]):
                self._engine.select(stack)
                self._selected = stack
                self._engine.decode(parts)
        except EdgekitError as error:
            for slot in slots:
                self._abort(slot, error)
            return False
        return True

    def _mixes(self, stacks: Sequence[Stack]) -> bool:
        if len(stacks) < 2 or not self.mixing:
            return False
        with watched(self.watch, stacks):
            return self._engine.mixes(stacks)

    def _abort(self, slot: Slot, error: EdgekitError) -> None:
        if slot.request is not None:
            slot.request.fail(error)
        self._engine.forget(slot.sequence)
        slot.held.clear()
        slot.cuts.clear()
        self._free(slot)

    def _sample(self, slot: Slot, request: Request, row: int) -> None:
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
            self._free(slot)

    def _force(self, request: Request) -> None:
        for token in () if self.lookahead is None or request.done else request.sampler.forced():
            if request.done:
                return
            self._accept(request, token)
            request.forced += 1

    def _accept(self, request: Request, token: int, scored: TokenScore | None = None) -> None:
        request.accept(token, self._engine.piece(token), ends=self._engine.is_end(token), score=scored)
        self.counts.answer_tokens += 1

    def _free(self, slot: Slot) -> None:
        request, slot.request = slot.request, None
        if request is not None:
            request.close()
            self.pool.release(request.work.files)
