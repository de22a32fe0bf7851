"""Whether the bits that an engine computes depend on who else is decoded, or on how a prompt is cut: tried, on a few
tokens, as it depends on the CPU and on the shapes of matrices.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgekit_runtime.engines.base import Part, Stack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOKENS = 8  # that a sequence holds at most
TIMED = 3  # pairs of steps
MOST_PAIR_COST = 1.4  # times a step of one: where two cost more, guesses have to be right too often
Row = tuple[int, Stack | None]  # a sequence, and its adapters where they are not the selected ones


class Exactness(NamedTuple):
    """What changes no bit of a request's logits: company, the cuts of a prompt."""

    batches: bool
    cuts: bool


class Decoder(Protocol):
    """What is tried."""

    def decode(self, parts: Sequence[Part]) -> None:
        """Decode all parts at once."""

    def row(self, number: int) -> NDArray[np.float32]:
        """A row of logits of the last decode."""

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop a sequence's KV cache from a position on."""


def fill(decoder: Decoder, sequences: int) -> None:
    """Put other tokens into each sequence, one less than they may hold."""
    for sequence in range(sequences):
        decoder.forget(sequence)
        decoder.decode([Part(sequence, 0, [sequence + token for token in range(1, TOKENS)])])


def step(decoder: Decoder, rows: Sequence[Row], position: int) -> list[NDArray[np.float32]]:
    """Logits of one token in each of these sequences, which hold as many as its position, decoded at once."""
    for sequence, _ in rows:
        decoder.forget(sequence, position)
    decoder.decode([Part(sequence, position, [20 + sequence], stack=stack) for sequence, stack in rows])
    return [decoder.row(number).copy() for number in range(len(rows))]


def same(found: Sequence[NDArray[np.float32]], alone: Sequence[NDArray[np.float32]]) -> bool:
    """Whether the first of ``alone`` are these, to the bit."""
    import numpy as np

    return all(map(np.array_equal, found, alone))


def batches_are_exact(decoder: Decoder, sequences: int) -> bool:
    """Whether a token in filled sequences gives the same logits alone and in batches of every size, under the selected
    adapters.
    """
    last = TOKENS - 1
    rows: list[Row] = [(sequence, None) for sequence in range(sequences)]
    alone = [step(decoder, [row], last)[0] for row in rows]
    return all(same(step(decoder, rows[:size], last), alone) for size in range(2, sequences + 1))


def can_look_ahead(decoder: Decoder) -> bool:
    """Whether cells can be dropped one by one, and a step of two tokens takes little more time than one of one, under
    the selected adapters.
    """

    def seconds(count: int) -> float:
        decoder.forget(0, 1)
        began = time.perf_counter()
        decoder.decode([Part(0, 1, range(1, 1 + count), logits_from=0)])
        decoder.row(0)
        return time.perf_counter() - began

    decoder.forget(0)
    decoder.decode([Part(0, 0, [0, 1])])
    if not decoder.forget(0, 1):  # a recurrent state isn't cut back
        return False
    pairs = [(seconds(1), seconds(2)) for _ in range(TIMED)]
    one, two = (min(each) for each in zip(*pairs, strict=True))
    return bool(two <= MOST_PAIR_COST * one)


def cuts_are_exact(decoder: Decoder) -> bool:
    """Whether a prompt gives the same logits in one part and in two of at least two tokens."""

    def prefill(*cuts: int) -> NDArray[np.float32]:
        decoder.forget(0)
        for start, stop in itertools.pairwise((0, *cuts, TOKENS)):
            decoder.decode([Part(0, start, range(start, stop))])
        return decoder.row(0).copy()

    whole = prefill()
    return all(same([prefill(cut)], [whole]) for cut in range(2, TOKENS // 2 + 1))
