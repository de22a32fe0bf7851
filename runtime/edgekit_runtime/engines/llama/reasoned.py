"""Reasoning within a budget: when it is used up, the end tag comes."""

from __future__ import annotations

from edgekit_runtime.engines.base import ThinkingBudget
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary


class Reasoned:
    """Counts the tokens of one answer's reasoning.

    Tags are looked for in the text: the same tag may be one token or several, and share one with what is beside it.
    """

    def __init__(self, budget: ThinkingBudget, vocabulary: LlamaVocabulary) -> None:
        """Stand before the first token."""
        self._budget, self._vocabulary = budget, vocabulary
        self._due: list[int] = []
        self._said = b""
        self._count = 0
        self._thinks: bool | None = budget.open or None  # None: it may begin yet

    def due(self) -> int | None:
        """The token that has to come next, if one has to."""
        if self._thinks and not self._due and self._count >= self._budget.tokens:
            self._due = self._vocabulary.tokenize(self._budget.end, add_special=False)
        return self._due[0] if self._due else None

    def take(self, token: int) -> None:
        """Go on after a token."""
        if self._due:
            self._thinks = len(self._due) > 1
            del self._due[0]
            return
        if self._thinks is False:
            return
        self._said += self._vocabulary.spelt(token)
        if self._thinks:
            self._count += 1
            self._thinks = self._budget.end.encode() not in self._said
            return
        start, text = self._budget.start.encode(), self._said.lstrip()
        if text.startswith(start):
            self._thinks, self._said = True, text[len(start) :]
        elif not start.startswith(text):
            self._thinks = False
