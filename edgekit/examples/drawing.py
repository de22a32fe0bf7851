"""Rows drawn at random from combinations and wordings, of which evaluation has some that training lacks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

Combination = TypeVar("Combination")
Rows = list[dict[str, object]]
# From one combination and the wordings to choose from: the question and its answer, or None to draw again.
Draw = Callable[[random.Random, Combination, Sequence[str]], tuple[str, str] | None]


def draw_rows(
    draw: Draw[Combination],
    combinations: Sequence[Combination],
    wordings: Sequence[str],
    counts: tuple[int, int],
    seed: int,
    *,
    held_out_share: float,
    unseen_wordings: int,
) -> tuple[Rows, Rows]:
    """Training and evaluation rows: chat messages without a system prompt, and no question twice.

    Args:
        draw: makes one row.
        combinations: what rows are about.
        wordings: frames of questions; training lacks the last ``unseen_wordings``.
        counts: of training and evaluation rows.
        seed: the same gives the same rows.
        held_out_share: of the combinations, for evaluation alone.
        unseen_wordings: for evaluation alone.
    """
    chosen = random.Random(seed)
    shuffled = list(combinations)
    chosen.shuffle(shuffled)
    held_out = int(held_out_share * len(shuffled))
    seen: set[str] = set()

    def rows(count: int, of: Sequence[Combination], frames: Sequence[str]) -> Rows:
        found: Rows = []
        while len(found) < count:
            drawn = draw(chosen, chosen.choice(of), frames)
            if drawn is None or drawn[0] in seen:
                continue
            question, answer = drawn
            seen.add(question)
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            found.append({"messages": messages})
        return found

    train, evaluate = counts
    evaluation = rows(evaluate, shuffled[:held_out], wordings)
    return rows(train, shuffled[held_out:], wordings[: len(wordings) - unseen_wordings]), evaluation


def sentence(text: str) -> str:
    """The text as it begins a sentence."""
    return text[:1].upper() + text[1:]
