"""Answers that call tools: which calls are right, by the values of their arguments and not by their text."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekit.data import Row
from edgekit.encoding.completions import TOOL_CALLS, reply_of
from edgekit.evaluation.answers import same, token_f1
from edgekit_runtime.prompts.reasoning import answer_part
from edgekit_runtime.prompts.tool_format import ToolFormat
from edgekit_runtime.prompts.tool_syntax import Call, Tools

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Said:
    """An answer as it is understood.

    Attributes:
        text: what it says beside its calls.
        calls: in their order.
        parsable: whether it is a text or calls that can be read; False for nothing, and for half a call.
    """

    text: str
    calls: Sequence[Call]
    parsable: bool


ReadCalls = Callable[[str, Tools], Said]


@dataclass(frozen=True)
class CallShares:
    """Shares of rows, each between 0 and 1; None where no row is of that kind.

    Attributes:
        whole: of the rows that shall call: those whose calls are right in name, arguments, number and order.
        names: of these: those whose names are right in number and order.
        arguments: of these: those whose arguments are equal by value, call by call.
        parsable: of all rows: those whose answer can be read.
        false_calls: of the rows that shall not call: those that do.
        text: mean token F1 of the rows that shall not call; nothing where they do.
    """

    whole: float | None
    names: float | None
    arguments: float | None
    parsable: float
    false_calls: float | None
    text: float | None


SHARES = {
    "whole": "calls right",
    "names": "names right",
    "arguments": "arguments right",
    "parsable": "parsable",
    "false_calls": "false calls",
    "text": "text F1",
}


@dataclass(frozen=True)
class CallMarks:
    """How right one answer is.  ``value`` is what it counts: 1 or 0 for calls, its token F1 for a text."""

    due: bool
    parsable: bool
    names: bool
    arguments: bool
    called: bool
    value: float
    exact: bool


def call_reader(form: ToolFormat) -> ReadCalls:
    """What understands answers in which calls have this form."""

    def read(text: str, tools: Tools) -> Said:
        said, calls = form.parse(text, tools)
        return Said(said, calls, parsable=bool(text.strip()) and not _begins_call(form, said, alone=not calls))

    return read


def call_reader_for(rows: Sequence[Row], form: ToolFormat) -> ReadCalls | None:
    """What understands answers to rows, where one of them calls tools.

    None where none does, and (which is said) where the text that the template makes of a row's calls doesn't tell them.

    Args:
        rows: with answers as the template writes them.
        form: of calls, in the base's answers.
    """
    calling = [row for row in rows if reply_of(row).get(TOOL_CALLS)]
    if not calling:
        return None
    read = call_reader(form)
    lost = next((row for row in calling if not _says_calls(read(answer_part(row.answer), row.tools), row)), None)
    if lost is None:
        return read
    why = form.why or "it writes them so that they can't be read back"
    log.warning("%s: its calls are scored as text, because of the base's chat template (%s)", lost.where, why)
    return None


def _says_calls(said: Said, row: Row) -> bool:
    """Whether these are the calls of a row."""
    wanted = [call["function"] for call in reply_of(row).get(TOOL_CALLS) or ()]
    pairs = zip(wanted, said.calls, strict=False)
    return len(wanted) == len(said.calls) and all(
        want["name"] == got.name and same(want["arguments"], got.arguments) for want, got in pairs
    )


def _begins_call(form: ToolFormat, text: str, *, alone: bool) -> bool:
    """Whether there is half a call in a text that has none; ``alone``: there is nothing beside the text."""
    if form.needle:
        return form.begin(text, 0) is not None
    head = "" if form.syntax is None else form.syntax.head.lstrip()[:1]
    return alone and bool(head) and text.lstrip().startswith(head)


def mark_calls(reference: Said, answer: Said) -> CallMarks:
    """Compare an answer with its reference; nothing in one that can't be read is right."""
    due, called = bool(reference.calls), bool(answer.calls)
    if due:
        count = answer.parsable and len(reference.calls) == len(answer.calls)
        pairs = list(zip(reference.calls, answer.calls, strict=False))
        names = count and all(want.name == got.name for want, got in pairs)
        arguments = count and all(same(want.arguments, got.arguments) for want, got in pairs)
        whole = names and arguments
        return CallMarks(due, answer.parsable, names, arguments, called, float(whole), whole)
    said = answer.parsable and not called
    value = token_f1(reference.text, answer.text) if said else 0.0
    exact = said and reference.text.strip() == answer.text.strip()
    return CallMarks(due, answer.parsable, False, False, called, value, exact)


def call_shares(marks: Sequence[CallMarks]) -> CallShares:
    """The shares of all rows."""
    due = [each for each in marks if each.due]
    others = [each for each in marks if not each.due]
    return CallShares(
        whole=_share([each.exact for each in due]),
        names=_share([each.names for each in due]),
        arguments=_share([each.arguments for each in due]),
        parsable=statistics.fmean(each.parsable for each in marks),
        false_calls=_share([each.called for each in others]),
        text=_share([each.value for each in others]),
    )


def _share(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
