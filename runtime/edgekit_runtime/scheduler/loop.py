"""The loop: every step gives each answering request a token (a few where adapters have to be switched), and one waiting
prompt a chunk of prefill.

Requests that use the same adapters are decoded together where that changes no bit of anybody's answer
(:meth:`~edgekit_runtime.engines.Engine.batches_exactly`) or the engine was told that bits don't matter, else one after
another; those with different adapters too where the engine can (:meth:`~edgekit_runtime.engines.Engine.mixes`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from edgekit_runtime.engines import BARE, Engine, Stack, with_virtual_tokens, working_from
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.scheduler.chunks import chunk_end, longest_chunk
from edgekit_runtime.scheduler.decoding import Counts, Decoder
from edgekit_runtime.scheduler.lookahead import Guesser, Lookahead
from edgekit_runtime.scheduler.parked import ParkedChats
from edgekit_runtime.scheduler.places import Places
from edgekit_runtime.scheduler.pool import AdapterPool, Watch, watched
from edgekit_runtime.scheduler.prefixes import PrefixCache
from edgekit_runtime.scheduler.request import Request, Work
from edgekit_runtime.scheduler.scores import scores
from edgekit_runtime.scheduler.slot import Slot

# Tokens that each request gets before the adapters are switched: llama.cpp plans its memory anew after a switch, which
# costs as much as half a token of a small base.
BURST = 4


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
        self.pool = pool
        self.prefixes = prefixes
        self.parked = parked or ParkedChats()
        self.mixing = True  # decode different adapters together where the engine can
        self._engine = engine
        self._places = Places(engine, self.prefixes, self.parked)
        self._decoder = Decoder(engine, pool, lookahead)
        self._longest = longest_chunk(engine)
        self._waiting: deque[Request] = deque()
        self._prefilling: deque[Slot] = deque()

    @property
    def counts(self) -> Counts:
        """What has been done since the beginning."""
        return self._decoder.counts

    @property
    def lookahead(self) -> Lookahead | None:
        """What guesses are drawn from; None where tokens are decoded one by one."""
        return self._decoder.lookahead

    @lookahead.setter
    def lookahead(self, lookahead: Lookahead | None) -> None:
        self._decoder.lookahead = lookahead

    @property
    def watch(self) -> Watch:
        """Is told which adapters are at work in the engine, and when none are any more."""
        return self._decoder.watch

    @watch.setter
    def watch(self, watch: Watch) -> None:
        self._decoder.watch = watch

    @property
    def waiting(self) -> int:
        """Requests without a sequence."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests with one."""
        return sum(slot.request is not None for slot in self._places.slots)

    @property
    def held_tokens(self) -> int:
        """Cells of KV cache that hold something."""
        slots = self._places.slots
        return sum(max(len(slot.held), slot.request.decoded if slot.request else 0) for slot in slots)

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
        for slot in self._places.slots:
            if slot.request is request:
                self._decoder.free(slot)
                return
        self._waiting.remove(request)
        request.close()

    def step(self) -> bool:
        """Go one step; False when there is nothing to do."""
        if self._engine.holder is not self:
            self._take_over()
        self._admit()
        self.pool.expect(self._waiting[0].work.files if self._waiting else {})
        if not self.running:
            return False
        self.counts.steps += 1
        groups: dict[Stack, list[Slot]] = {}
        for slot in self._places.slots:
            if slot.request is not None and slot.request.prefilled:
                groups.setdefault(slot.request.stack_at(slot.request.decoded), []).append(slot)
        if self._mixes(list(groups)):
            self._decoder.decode(BARE, [slot for slots in groups.values() for slot in slots])
            groups = {}
        tokens = BURST if len(groups) > 1 and not self._prefilling else 1
        for stack in sorted(groups, key=lambda stack: stack != self._decoder.selected):
            self._decode(stack, groups[stack], tokens)
        if self._prefilling:
            self._prefill(self._prefilling.popleft())
        return True

    def _take_over(self) -> None:
        """Begin with empty sequences: somebody has used the engine past the loop."""
        for slot in self._places.slots:
            error = EdgekitError("the engine was used for something else in the middle of a request")
            self._decoder.abort(slot, error)
        self.parked.clear()
        self._engine.holder = self

    def _admit(self) -> None:
        """Give sequences to those who wait, in their order."""
        while self._waiting and self._places.free:
            request = self._waiting[0]
            request.picked = time.perf_counter()
            try:
                if not self.pool.hold(request.work.files, wait=not self.running):
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
        slot, reused = self._places.take(request, anywhere=self._cuts_anywhere(request))
        request.decoded = request.reused = reused
        if self.lookahead is not None and self._engine.looks_ahead(stack):
            request.guesser = Guesser(self.lookahead, stack, request.prompt.tokens)
        request.ready = time.perf_counter()
        slot.request, slot.used = request, self.counts.steps
        self.counts.reused_tokens += reused
        self._prefilling.append(slot)

    def _cuts_anywhere(self, request: Request) -> bool:
        """Whether a request's prompt may be cut into any chunks."""
        engine = self._engine
        return not engine.exact or (
            engine.cuts_exactly(request.stack) and (not request.works_from or engine.cuts_exactly(BARE))
        )

    def _mixes(self, stacks: Sequence[Stack]) -> bool:
        if len(stacks) < 2 or not self.mixing:
            return False
        with watched(self.watch, stacks):
            return self._engine.mixes(stacks)

    def _decode(self, stack: Stack, slots: list[Slot], tokens: int) -> None:
        """Decode ``tokens`` times for requests with the same adapters, together where that changes no bit."""
        with watched(self.watch, [stack]):
            together = not self._engine.exact or self._engine.batches_exactly(stack)
        if together:
            slots, lost = self._places.gather(slots)
            for slot in lost:
                self._decoder.abort(slot, EdgekitError("a request's KV cache could not be moved"))
        for _ in range(tokens):
            for part in [slots] if together else [[slot] for slot in slots]:
                self._decoder.decode(stack, [slot for slot in part if slot.request is not None])

    def _prefill(self, slot: Slot) -> None:
        """The next chunk of a prompt; an image is encoded as a step of its own."""
        request = slot.request
        if request is None:  # cancelled
            return
        work, start = request.work, request.decoded
        if self._encodes(request, start):
            self._prefilling.append(slot)
            return
        stop = chunk_end(request, start, self._longest)
        part = request.prompt.part(slot.sequence, start, stop, every=work.echo)
        if not self._decoder.run(request.stack_at(start), [part], [slot]):
            return
        slot.held.extend(request.keys(start, stop))
        slot.cuts.append(stop)
        request.decoded = stop
        self.counts.prompt_tokens += stop - start
        if work.echo:
            self._echo(request, start, stop)
        self._places.keep_prefix(slot, request)
        if not request.prefilled:
            self._prefilling.append(slot)
        elif work.max_tokens:
            self._decoder.sample(slot, request, stop - start - 1 if work.echo else 0)
        else:
            request.finish("length")
            self._decoder.free(slot)

    def _encodes(self, request: Request, start: int) -> bool:
        """Encode the image that is next; False when there is nothing to encode."""
        _, frame = request.prompt.frame_at(start)
        if frame is None or frame.encoded:
            return False
        began = time.perf_counter()
        frame.embeddings()
        request.encoding += time.perf_counter() - began
        self.counts.images += 1
        return True

    def _echo(self, request: Request, start: int, stop: int) -> None:
        """Scores of the prompt's own tokens; virtual ones have none."""
        work, before = request.work, request.virtual
        if start >= before:
            found = scores(self._engine, work.prompt, start - before, stop - before, work.alternatives or 0)
            request.echoed += found
