"""What may come next in one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit_runtime.constraints.library import llguidance
from edgekit_runtime.constraints.tokens import Tokens
from edgekit_runtime.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SILENT = 0
DEAD_END = "nothing that fits can follow"


class Matcher:
    """Follows an answer token by token.  An answer that is computed again needs a new one, fed the same tokens."""

    def __init__(self, tokens: Tokens, grammar: str, what: str = "schema or grammar") -> None:
        """Stand before the first token of what ``grammar`` (see :func:`compiled`) allows; errors name it ``what``.

        Raises:
            InputError: llguidance refuses it.
        """
        self._tokens, self._what = tokens, what
        self._matcher: Any = llguidance().LLMatcher(tokens.tokenizer, grammar, log_level=SILENT)
        self._check()

    def allowed(self) -> NDArray[np.intp]:
        """The ids of all tokens that may come next, at least one, ascending; those that end the answer among them.

        Raises:
            InputError: nothing may, or llguidance's limits of work for one token are passed.
        """
        import numpy as np

        mask = self._matcher.compute_bitmask()
        self._check()
        found = np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little"))
        # Where nothing fits, llguidance ends the answer.
        stuck = self._tokens.ends.issuperset(found[: len(self._tokens.ends) + 1].tolist())
        if stuck and not self._matcher.is_accepting():
            raise self._refusal(DEAD_END)
        return found

    def forced(self) -> list[int]:
        """The tokens that spell what has to come next, and none of what may; taken already.

        Raises:
            InputError: llguidance's limits of work are passed.
        """
        tokens: list[int] = self._matcher.compute_ff_tokens()
        self._check()
        end = next((at for at, token in enumerate(tokens) if token in self._tokens.ends), len(tokens))
        for token in tokens[:end]:
            self.take(token)
        return tokens[:end]

    def take(self, token: int) -> None:
        """Go on after ``token``.

        Raises:
            InputError: it was not allowed.
        """
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise self._refusal(summary(self._matcher.get_error()))

    def _refusal(self, why: str) -> InputError:
        return InputError(f"the {self._what} can't be held ({why})", "change it, or ask without one")


def summary(error: str) -> str:
    """An error of llguidance's in a line, without the state of its parser and advice on options."""
    told = error.partition("<state>")[0].partition("\n   1 |")[0].partition(" Enable '")[0]
    return DEAD_END if told.startswith("NoExtension") else " ".join(told.split())[:300]
