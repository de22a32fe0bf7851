"""Which sequence a request gets, and what of the KV cache there it takes over.

KV cache is reused only where it was computed from the same tokens under the same adapters, and only so that the answer
stays the same to the bit.
"""

from __future__ import annotations

from edgekit_runtime.engines import Engine, Stack
from edgekit_runtime.scheduler.chunks import LEAST_CHUNK, chunk_end, longest_chunk
from edgekit_runtime.scheduler.parked import Parked, ParkedChats
from edgekit_runtime.scheduler.prefixes import LEAST_TOKENS, PrefixCache
from edgekit_runtime.scheduler.request import Key, Request
from edgekit_runtime.scheduler.slot import Slot

LEAST_PARKED = 64  # tokens; fewer are read again about as fast


class Places:
    """The engine's sequences, the conversations that wait outside them, and the prefixes that are kept."""

    def __init__(self, engine: Engine, prefixes: PrefixCache, parked: ParkedChats) -> None:
        """All sequences begin empty."""
        self.slots = [Slot(sequence) for sequence in range(engine.sequences)]
        self.prefixes = prefixes
        self.parked = parked
        self._engine = engine
        self._longest = longest_chunk(engine)

    @property
    def free(self) -> list[Slot]:
        """Sequences without a request."""
        return [slot for slot in self.slots if slot.request is None]

    def take(self, request: Request, *, anywhere: bool) -> tuple[Slot, int]:
        """A free sequence for a request, and how many cells of its prompt that holds.

        Args:
            request: as it begins.
            anywhere: its prompt may be cut into any chunks: no bit depends on it, or bits don't matter.
        """
        keys = request.keys(0, len(request.prompt.tokens))
        slot, reused = self._place(request, keys, anywhere)
        if not self._engine.forget(slot.sequence, reused):
            reused = 0
        del slot.held[reused:]
        slot.cuts = [cut for cut in slot.cuts if cut < reused] + [reused] * bool(reused)
        preamble = request.preamble
        if reused < preamble and preamble >= LEAST_TOKENS and not request.work.echo:
            reused = self._restore(slot, request, keys[:preamble], reused)
        return slot, reused

    def keep_prefix(self, slot: Slot, request: Request) -> None:
        """Keep a preamble that has just been read, for others and for later runs."""
        if len(slot.held) == request.preamble >= LEAST_TOKENS:
            self.prefixes.put(slot.held, self._engine.save(slot.sequence))

    def gather(self, slots: list[Slot]) -> tuple[list[Slot], list[Slot]]:
        """Bring requests of one kind next to each other where idle sequences leave room.

        A batch with a gap is decoded as two, which costs as much as half of it in every step; a move costs once what
        copying the used KV cells costs.

        Returns:
            Where the requests are now, and of these sequences those whose KV cache could not be moved.
        """
        count = len(slots)
        if count == 1 or not self._engine.splits_at_gaps:
            return slots, []
        spans = [self.slots[first : first + count] for first in range(len(self.slots) - count + 1)]
        spans = [span for span in spans if all(slot in slots or slot.request is None for slot in span)]
        if not spans:
            return slots, []
        span = min(spans, key=lambda span: sum(slot.request is None for slot in span))
        movers = [slot for slot in slots if slot not in span]
        lost = [idle for idle in span if idle.request is None and not self._move(movers.pop(), idle)]
        return span, lost

    def _place(self, request: Request, keys: list[Key], anywhere: bool) -> tuple[Slot, int]:
        """A free slot, and how many of the prompt's cells it holds: its own, or those of a parked conversation."""

        def good(slot: Slot) -> tuple[tuple[bool, int], int]:
            return self._room(slot.sequence, request.stack), -slot.used

        free = self.free
        held = {slot.sequence: self._reusable(slot, request, keys, anywhere) for slot in free}
        slot = max(free, key=lambda each: (held[each.sequence], good(each)))
        reused = held[slot.sequence]
        parked = {chat: self._reusable(chat, request, keys, anywhere) for chat in self.parked}
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
        sides = [slot.request for slot in self.slots if abs(slot.sequence - sequence) == 1]
        own = any(request is not None and request.stack == stack for request in sides)
        return own, -sum(request is not None for request in sides)

    def _park(self, slot: Slot, reused: int) -> None:
        """Keep what a slot holds, unless little more than the first ``reused`` cells of it go."""
        if len(slot.held) - reused < LEAST_PARKED or not self.parked.takes(len(slot.held)):
            return
        if self._engine.forget(slot.sequence, len(slot.held)):  # what was decoded
            self.parked.put(Parked(list(slot.held), list(slot.cuts), self._engine.save(slot.sequence)))
        else:
            slot.empty()

    def _unpark(self, slot: Slot, chat: Parked) -> bool:
        """Give a slot a parked conversation; False, and the slot is empty, when the engine doesn't take it."""
        self.parked.take(chat)
        self._engine.forget(slot.sequence)
        slot.empty()
        if not self._engine.restore(slot.sequence, chat.state):
            return False
        slot.held, slot.cuts = chat.held, chat.cuts  # nobody else has them now
        return True

    def _reusable(self, slot: Slot | Parked, request: Request, keys: list[Key], anywhere: bool) -> int:
        """How many tokens of the prompt this slot holds, or this parked conversation.

        Where the bits depend on how a prompt is cut, it holds the chunks that this prompt would be cut into as well;
        elsewhere nothing is left that would be decoded as a single token.
        """
        if request.work.echo:
            return 0
        pairs = enumerate(zip(slot.held, keys, strict=False))
        common = next((at for at, (held, key) in pairs if held != key), min(len(slot.held), len(keys)))
        if not anywhere:
            same = 0
            for cut in slot.cuts:
                if cut > common or cut == len(keys) or cut != chunk_end(request, same, self._longest):
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
        slot.empty()
        if not self._engine.restore(slot.sequence, state):
            self.prefixes.forget(keys)
            return 0
        slot.held.extend(keys)
        while (end := slot.cuts[-1] if slot.cuts else 0) < len(keys):
            slot.cuts.append(chunk_end(request, end, self._longest))
        return len(keys)

    def _move(self, slot: Slot, idle: Slot) -> bool:
        """Give a request an idle sequence, and that one's cells its own; False where its KV cache got lost."""
        state, other = self._engine.save(slot.sequence), self._engine.save(idle.sequence) if idle.held else b""
        for each in (slot, idle):
            self._engine.forget(each.sequence)
        slot.held, idle.held = idle.held, slot.held
        slot.cuts, idle.cuts = idle.cuts, slot.cuts
        slot.request, idle.request = None, slot.request
        slot.used, idle.used = idle.used, slot.used
        if not slot.held or not self._engine.restore(slot.sequence, other):
            slot.empty()
        return self._engine.restore(idle.sequence, state)
