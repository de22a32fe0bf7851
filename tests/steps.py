"""Single steps of an engine, for tests that compare who is decoded with whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit_runtime.engines import Engine, Part, Stack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def step(engine: Engine, rows: Sequence[int], stacks: Sequence[Stack]) -> list[NDArray[np.float32]]:
    """Logits of one more token in each of these sequences, which :func:`alone` has filled, decoded at once."""
    engine.decode([Part(row, 8 + row, [7], stack=stacks[row]) for row in rows])
    return [engine.row(number).copy() for number in range(len(rows))]


def alone(engine: Engine, stacks: Sequence[Stack]) -> list[NDArray[np.float32]]:
    """Fill a sequence under each stack, all to other lengths; logits of one more token in each, decoded alone."""
    found = []
    for row, stack in enumerate(stacks):
        engine.select(stack)
        engine.decode([Part(row, 0, range(100, 108 + row))])
        engine.decode([Part(row, 8 + row, [7])])
        found.append(engine.row(0).copy())
    return found
