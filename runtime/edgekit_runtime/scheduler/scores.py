"""Log-probabilities of tokens, from logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit_runtime.engines import Engine
from edgekit_runtime.scheduler.request import TokenScore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def score(logits: NDArray[np.float32], token: int, alternatives: int) -> TokenScore:
    """A token's log-probability under a row of logits [vocabulary], and the likeliest ``alternatives``, in order.

    log p(t) = x_t - log Σ exp(x), before temperature and truncation.
    """
    import numpy as np

    highest = logits.max()
    total = float(highest) + float(np.log(np.exp(logits - highest, dtype=np.float64).sum()))
    found = np.argpartition(-logits, min(alternatives, len(logits) - 1))[:alternatives]
    likeliest = sorted(((int(each), float(logits[each]) - total) for each in found), key=lambda pair: -pair[1])
    return TokenScore(token, float(logits[token]) - total, tuple(likeliest))


def scores(engine: Engine, prompt: Sequence[int], start: int, stop: int, alternatives: int) -> list[TokenScore]:
    """Scores of the prompt's tokens that rows of the last decode, of positions ``start`` to ``stop``, foretell."""
    first = [TokenScore(prompt[0], None)] if start == 0 else []
    rows = range(min(stop, len(prompt) - 1) - start)
    return first + [score(engine.row(row), prompt[start + row + 1], alternatives) for row in rows]
