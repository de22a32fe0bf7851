"""A loaded adapter against the bare base, in turns: ratios that a busy machine moves little."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgekit_runtime.engines import BARE, Engine, Part, Stack

PROMPT, STEPS, PAIRS = 64, 12, 15


@dataclass(frozen=True)
class AgainstBase:
    """Medians over pairs.

    Attributes:
        decode: speed of decoding under the adapter as a share of the base's.
        prefill: the same of reading a prompt.
        base_s: seconds that the base takes for a token.
    """

    decode: float
    prefill: float
    base_s: float


def against_base(engine: Engine, stack: Stack, *, pairs: int = PAIRS) -> AgainstBase:
    """Decode and read a prompt with and without loaded adapters.

    Where the engine has one thread its CPU time counts, which other processes take nothing from; else wall time.

    Args:
        engine: with room for a hundred tokens of context.
        stack: the adapters.
        pairs: how often both are measured.
    """
    clock = time.thread_time if engine.threads == 1 else time.perf_counter
    engine.holder = None
    found = []
    for number in range(pairs + 1):
        order = (BARE, stack) if number % 2 else (stack, BARE)
        times = {each: _times(engine, each, clock) for each in order}
        if number:  # the first pair warms up
            found.append((times[BARE], times[stack]))
    return AgainstBase(
        decode=statistics.median(base[1] / ours[1] for base, ours in found),
        prefill=statistics.median(base[0] / ours[0] for base, ours in found),
        base_s=statistics.median(base[1] for base, _ in found),
    )


def _times(engine: Engine, stack: Stack, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds of a prompt, and of the quickest step of one token: others may be disturbed."""
    prompt = [2 + 7 * number for number in range(PROMPT)]
    engine.select(stack)
    engine.forget(0)
    for start, stop in ((0, 2), (2, 3)):  # llama.cpp plans its memory anew after a switch
        engine.decode([Part(0, start, prompt[start:stop])])
    engine.forget(0)
    begun = clock()
    engine.decode([Part(0, 0, prompt)])
    prefill = clock() - begun
    steps = []
    for step in range(STEPS):
        begun = clock()
        engine.decode([Part(0, PROMPT + step, [prompt[step]])])
        steps.append(clock() - begun)
    return prefill, min(steps)
