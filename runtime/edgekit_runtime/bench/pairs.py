"""Loaded adapters against the bare base, all in turns: ratios that a busy machine moves little."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekit_runtime.engines import BARE, Engine, Part, Stack

PROMPT, STEPS, ROUNDS = 64, 6, 12
UNDISTURBED = 10  # of so many steps the quickest is taken: other processes disturb most


@dataclass(frozen=True)
class AgainstBase:
    """An adapter's speeds.

    Attributes:
        decode: speed of decoding under the adapter as a share of the base's.
        prefill: the same of reading a prompt.
        base_s: seconds that the base takes for a token.
    """

    decode: float
    prefill: float
    base_s: float


def against_base(engine: Engine, stacks: Sequence[Stack], *, rounds: int = ROUNDS) -> list[AgainstBase]:
    """Decode and read a prompt with the bare base and under each of ``stacks``.

    Where the engine has one thread its CPU time counts, which other processes take little from; else wall time.  Of
    all steps of a stack, the tenth that were quickest say how long one takes; of prompts the median does.

    Args:
        engine: with room for a hundred tokens of context.
        stacks: loaded adapters.
        rounds: how often each has its turn.
    """
    clock = time.thread_time if engine.threads == 1 else time.perf_counter
    engine.holder = None
    order = (BARE, *stacks)
    prompts: dict[Stack, list[float]] = {stack: [] for stack in order}
    steps: dict[Stack, list[float]] = {stack: [] for stack in order}
    for number in range(rounds + 1):
        for stack in order:
            prompt, each = _times(engine, stack, clock)
            if number:  # the first round warms up
                prompts[stack].append(prompt)
                steps[stack] += each
    step = {stack: sorted(times)[len(times) // UNDISTURBED] for stack, times in steps.items()}
    base = statistics.median(prompts[BARE])
    return [
        AgainstBase(step[BARE] / step[stack], base / statistics.median(prompts[stack]), step[BARE]) for stack in stacks
    ]


def _times(engine: Engine, stack: Stack, clock: Callable[[], float]) -> tuple[float, list[float]]:
    """Seconds of a prompt, and those of each of a few steps of one token."""
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
    return prefill, steps
