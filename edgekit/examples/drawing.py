"""Rows drawn at random from combinations and wordings, of which evaluation has some that training lacks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Combination = TypeVar("Combination")
Rows = list[dict[str, object]]
Answer = str | dict[str, Any]  # a text, or a message that calls tools
# From one combination and the wordings to choose from: the question and its answer, or None to draw again.
Draw = Callable[[random.Random, Combination, Sequence[str]], tuple[str, Answer] | None]


@dataclass(frozen=True)
class Recipe(Generic[Combination]):
    """How the rows of an example are drawn.

    Attributes:
        draw: makes one row.
        combinations: what rows are about.
        wordings: frames of questions; training lacks the last ``unseen_wordings``.
        held_out_share: of the combinations, for evaluation alone.
        unseen_wordings: for evaluation alone.
        tools: that each row names, as OpenAI's clients describe them.
    """

    draw: Draw[Combination]
    combinations: Iterable[Combination]
    wordings: Sequence[str]
    held_out_share: float
    unseen_wordings: int
    tools: Sequence[Mapping[str, Any]] = ()

    def generate(self, train: int, evaluate: int, seed: int) -> tuple[Rows, Rows]:
        """So many training and evaluation rows: chat messages without a system prompt, and no question twice.

        The same seed gives the same rows.
        """
        chosen = random.Random(seed)
        shuffled = list(self.combinations)
        chosen.shuffle(shuffled)
        held_out = int(self.held_out_share * len(shuffled))
        seen: set[str] = set()

        def rows(count: int, of: Sequence[Combination], frames: Sequence[str]) -> Rows:
            found: Rows = []
            while len(found) < count:
                drawn = self.draw(chosen, chosen.choice(of), frames)
                if drawn is None or drawn[0] in seen:
                    continue
                question, answer = drawn
                seen.add(question)
                reply = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
                row: dict[str, object] = {"messages": [{"role": "user", "content": question}, reply]}
                found.append(row | {"tools": list(self.tools)} if self.tools else row)
            return found

        evaluation = rows(evaluate, shuffled[:held_out], self.wordings)
        known = self.wordings[: len(self.wordings) - self.unseen_wordings]
        return rows(train, shuffled[held_out:], known), evaluation


def sentence(text: str) -> str:
    """The text as it begins a sentence."""
    return text[:1].upper() + text[1:]
