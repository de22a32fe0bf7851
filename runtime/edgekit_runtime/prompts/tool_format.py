"""How a model writes calls of functions in its answers, and calls read back from answers.

What a base's chat template makes of calls in a conversation is how its answers have them: one form for training, for
devices and for scores.  :mod:`~edgekit_runtime.prompts.tool_learning` finds the form out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgekit_runtime.prompts.reasoning_tags import reasoning_end
from edgekit_runtime.prompts.tool_syntax import OBJECT, TAGGED, CallSyntax, Tools, loosely, skipped
from edgekit_runtime.prompts.tool_syntax import Call as Call

if TYPE_CHECKING:
    from edgekit_runtime.prompts.template import ChatTemplate


@dataclass(frozen=True)
class ToolFormat:
    """How calls stand in an answer.

    Attributes:
        syntax: how one is written; None where the template writes calls in a way that is not understood.
        opening: what stands before the first call.
        closing: behind the last call, or behind each one in blocks of their own.
        between: what stands between two calls.
        blocks: each call has its own opening and closing.
        gap: what stands between a text and the opening of calls that follow it.
        parallel: an answer may have several calls.
        own: it is the template's, not edgekit's.
        wants_content: the template wants a text beside calls, be it empty.
        short_ids: it wants ids of nine letters and digits.
        why: the template's calls are not taken; nothing where they are.
    """

    syntax: CallSyntax | None
    opening: str = ""
    closing: str = ""
    between: str = ""
    blocks: bool = True
    gap: str = "\n"
    parallel: bool = True
    own: bool = True
    wants_content: bool = False
    short_ids: bool = False
    why: str = ""

    @classmethod
    def of(cls, template: ChatTemplate) -> ToolFormat:
        """The form in which a base calls functions.

        It is edgekit's own (:data:`DEFAULT_FORMAT`) where the template renders no calls, as ``why`` tells.
        """
        from edgekit_runtime.prompts.tool_learning import learnt

        return learnt(template.render)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ToolFormat:
        """From what :meth:`as_json` gave."""
        given = dict(document)
        syntax = given.pop("syntax")
        if syntax is not None:
            parts: dict[str, Any] = {
                key: tuple(each) if isinstance(each, list) else each for key, each in syntax.items()
            }
            syntax = CallSyntax(**parts)
        return cls(syntax, **given)

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return asdict(self)

    @property
    def needle(self) -> str:
        """What tells that calls begin; empty where only the call itself does."""
        return self.opening.strip()

    @property
    def literals(self) -> tuple[str, ...]:
        """All texts around names and arguments, for the control tokens in them."""
        syntax = self.syntax
        inner = () if syntax is None else (syntax.head, syntax.middle, syntax.foot, syntax.rest, *syntax.marks)
        return tuple(dict.fromkeys(each for each in (self.opening, self.between, self.closing, *inner) if each))

    def parse(self, text: str, tools: Tools = (), *, thinking: bool | None = None) -> tuple[str, list[Call]]:
        """An answer's text without its calls, and the calls.

        What only looks like a call stays text.  Nothing is taken for a call in reasoning.  White space alone between
        calls, before or behind them, is no text.

        Args:
            text: an answer, with the control tokens of :attr:`literals` in it.
            tools: descriptions of functions, which tell texts from numbers where calls write both alike.
            thinking: whether the prompt has begun a reasoning that the answer goes on with; None where that isn't
                known, and an end tag alone tells it.
        """
        calls: list[Call] = []
        said, done = "", 0  # what is said beside the calls so far, and up to where
        at = self.begin(text, reasoning_end(text, thinking=thinking))
        while at is not None:
            found = self.calls_at(text, at, tools)
            if found is not None:
                calls += found[0]
                said += _spoken(text[done:at].removesuffix(self.gap))
                done = at = found[1]
            at = self.begin(text, at + (found is None)) if self.needle else None
        return (said + _spoken(text[done:]), calls) if calls else (text, calls)

    def begin(self, text: str, start: int) -> int | None:
        """Where calls may begin, at ``start`` or behind it."""
        if self.syntax is None:
            return None
        if self.needle:
            at = text.find(self.needle, start)
            return at if at >= 0 else None
        return skipped(text, start)

    def calls_at(self, text: str, at: int, tools: Tools = ()) -> tuple[list[Call], int] | None:
        """The calls whose opening is at ``at``, and where the last closing ends; None where there is no whole call."""
        assert self.syntax is not None
        calls: list[Call] = []
        end = at
        start: int | None = at + len(self.needle)
        while start is not None:
            read = self.syntax.read(text, skipped(text, start), tools)
            if read is None or not self.is_whole(text, read[1]):
                break
            calls.append(read[0])
            end, start = self.behind(text, read[1])
        if not calls or (not self.needle and end < len(text.rstrip())):
            return None
        return calls, end

    def is_whole(self, text: str, end: int) -> bool:
        """Whether a call that was read up to ``end`` ends there: where arguments are tags, one more might follow in an
        answer that was cut off, so the first tag that stands behind a call has to be there.
        """
        assert self.syntax is not None
        if self.syntax.kind != TAGGED:
            return True
        behind = [
            first + sign for first, sign, _ in (each.partition(">") for each in (self.closing, self.between)) if sign
        ]
        return not behind or any(loosely(text, end, tag) is not None for tag in behind)

    def behind(self, text: str, at: int) -> tuple[int, int | None]:
        """Where the closing behind the call that ends at ``at`` ends, and where another call begins, if one does."""
        closed = loosely(text, at, self.closing)
        if self.blocks:
            if closed is None:
                return at, None
            again = loosely(text, closed, self.needle) if self.needle else None
            return closed, again
        again = loosely(text, at, self.between)
        return (at, again) if again is not None else (at if closed is None else closed, None)


def _spoken(text: str) -> str:
    return text if text.strip() else ""


# As Hermes models have it, and Qwen's and many others after them.
DEFAULT_FORMAT = ToolFormat(
    CallSyntax(OBJECT, '{"name": "', '", "arguments": ', "}", keys=("name", "arguments")),
    opening="<tool_call>\n",
    closing="\n</tool_call>",
    between="\n</tool_call>\n<tool_call>\n",
    own=False,
)


def default_text(calls: Sequence[Call]) -> str:
    """Calls as :data:`DEFAULT_FORMAT` writes them."""
    form = DEFAULT_FORMAT
    written = (json.dumps({"name": each.name, "arguments": each.arguments}, ensure_ascii=False) for each in calls)
    return f"{form.opening}{form.between.join(written)}{form.closing}"
