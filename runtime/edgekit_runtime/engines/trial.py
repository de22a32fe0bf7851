"""Trying adapters on an engine: are all logits numbers, and are they other than the base's?

Logits are judged and not what is said: an adapter may rightly have no answer to a question that it wasn't trained for.
Tokens that would end an answer are decoded on like any other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit_runtime.engines.base import Engine, Part, Prompt, Stack, forced_logits, with_virtual_tokens
from edgekit_runtime.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        logits: after each token of the prompt, [prompt, vocabulary].
        tokens: decoded after it.
        first_ms: until the first of them.
        tokens_per_second: from the first to the last.
    """

    logits: NDArray[np.float32]
    tokens: int
    first_ms: float
    tokens_per_second: float

    def differs_from(self, other: Trial) -> bool:
        """Whether any logit after the same prompt is another one, be it in its last bit."""
        import numpy as np

        return not np.array_equal(self.logits, other.logits)


def run_trial(engine: Engine, prompt: Sequence[int] | Prompt, stack: Stack, *, tokens: int, who: str) -> Trial:
    """Read a prompt under loaded adapters and decode greedily, on sequence 0.

    Args:
        engine: with the adapters loaded.
        prompt: for activated LoRAs, with their invocation.
        stack: the adapters.
        tokens: to decode, at least 1.
        who: what is tried, for messages.

    Raises:
        InputError: a logit is NaN or infinite.
    """
    import numpy as np

    start = time.perf_counter()
    logits = forced_logits(engine, prompt, stack)
    check_numbers(logits, who)
    before, _ = with_virtual_tokens(engine, stack, Prompt([]))
    position = len(before.tokens) + len(logits)
    token = int(np.argmax(logits[-1]))
    first = time.perf_counter()
    for offset in range(tokens):
        engine.decode([Part(0, position + offset, [token])])
        row = engine.row(0)
        check_numbers(row, who)
        token = int(np.argmax(row))
    end = time.perf_counter()
    return Trial(logits, tokens, 1e3 * (first - start), tokens / (end - first))


def check_numbers(logits: NDArray[np.float32], who: str) -> None:
    """Refuse what an engine has computed when it is no number.

    Raises:
        InputError: a value is NaN or infinite, or there is none.
    """
    import numpy as np

    if not logits.size or not np.isfinite(logits).all():
        raise InputError(f"{who} computes what is no number", "train or export it again")
