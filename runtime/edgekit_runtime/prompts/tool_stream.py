"""Calls of functions in an answer that comes piece by piece."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable
from typing import NamedTuple

from edgekit_runtime.prompts.reasoning_tags import reasoning_end
from edgekit_runtime.prompts.tool_format import ToolFormat
from edgekit_runtime.prompts.tool_syntax import ID_SIGNS, TAGGED, Call, Tools

_ALPHABET = string.ascii_letters + string.digits


class Said(NamedTuple):
    """Some text beside the calls."""

    text: str


class Begun(NamedTuple):
    """A call begins: its number, id and name."""

    number: int
    id: str
    name: str


class Argued(NamedTuple):
    """Some of the JSON text of a call's arguments."""

    number: int
    text: str


Delta = Said | Begun | Argued


def new_id() -> str:
    """An id for a call, which every chat template takes."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(ID_SIGNS))


class CallReader:
    """Feed pieces of an answer; get back what is said, and calls when they are whole.

    A call comes in one piece: clients run what looks like one, and half of its arguments may look like all of them.
    White space beside calls is not said.

    Attributes:
        calls: those so far.
    """

    def __init__(
        self, form: ToolFormat, tools: Tools = (), *, thinking: bool = False, new_id: Callable[[], str] = new_id
    ) -> None:
        """Read calls of a form; see :meth:`~edgekit_runtime.prompts.tool_format.ToolFormat.parse`."""
        assert form.syntax is not None
        self._form, self._syntax = form, form.syntax
        self._tools, self._thinking, self._new_id = tools, thinking, new_id
        self._text = ""
        self._said = 0  # up to here
        self._spoken = False  # something else than white space since the last call
        self._look = 0  # calls begin here or later
        self._open = 0  # where the calls begin that are being read
        self._item: int | None = None  # where the call begins that is being read
        self._ended: int | None = None  # where the last call ended, until it is known what comes behind it
        self._closed = 0  # where its closing ended
        self._none = False  # the answer is no call
        self._deltas: list[Delta] = []
        self.calls: list[Call] = []

    def feed(self, piece: str) -> list[Delta]:
        """What is known now."""
        self._text += piece
        return self._known(last=False)

    def finish(self, *, cut: bool = False) -> list[Delta]:
        """What was held back; where the answer was ``cut`` off, without the signs of a call that has begun."""
        return self._known(last=True, cut=cut)

    def _known(self, *, last: bool, cut: bool = False) -> list[Delta]:
        while True:
            if self._ended is not None:
                going = self._go_on(self._ended, last, cut)
            elif self._item is not None:
                going = self._read(_skip(self._text, self._item), last, cut)
            else:
                going = self._seek(last, cut) if self._form.needle else self._try(last)
            if not going:
                deltas, self._deltas = self._deltas, []
                return deltas

    def _say(self, end: int, *, last: bool = False) -> None:
        """Say the text up to ``end``; white space waits for what follows it, and is said if nothing was ``last``."""
        text = self._text[self._said : end]
        if not text or not (self._spoken or text.strip() or (last and not self.calls)):
            return
        self._deltas.append(Said(text))
        self._said, self._spoken = end, True

    def _seek(self, last: bool, cut: bool) -> bool:
        """Look for what calls begin with; True when it is there."""
        form, text = self._form, self._text
        start = max(self._look, reasoning_end(text, thinking=self._thinking))
        at = text.find(form.needle, start)
        if at < 0:
            behind = text[max(start, self._said) :]
            opening, needle = (_overlap(behind, each) for each in (form.gap + form.needle, form.needle))
            begun = opening if opening > len(form.gap) else needle
            held = max(opening, needle) if not last else begun if cut else 0
            self._say(len(text) - held, last=last)
            return False
        before = text[self._said : at]
        self._say(at - len(form.gap) if before.endswith(form.gap) else at)
        self._open, self._item = at, at + len(form.needle)
        return True

    def _try(self, last: bool) -> bool:
        """Calls that nothing announces are the whole answer; True when it looks like one."""
        at = _skip(self._text, reasoning_end(self._text, thinking=self._thinking))
        if self._none or (last and at == len(self._text)):
            self._say(len(self._text), last=last)
            return False
        if at == len(self._text):
            return False
        if not self._syntax.begins_like(self._text, at):
            self._none = True
            return True
        self._say(at)
        self._open, self._item = at, at
        return True

    def _read(self, at: int, last: bool, cut: bool) -> bool:
        """A call; True when it is all there, or none."""
        found = self._syntax.read(self._text, at, self._tools)
        alone = found is None or bool(self._form.needle) or _skip(self._text, found[1]) == len(self._text)
        if found is not None and self._is_whole(found[1], last) and alone:
            call, end = found
            self._tell(call)
            self._item, self._ended = None, end
            return True
        if not last:
            return False
        self._item = None
        if cut and alone and self._syntax.may_go_on(self._text, at):
            self._said = self._look = len(self._text)
        elif self._open < self._closed:
            self._said = self._look = self._closed
        else:
            self._look = self._open + 1
        self._none = not self._form.needle
        return True

    def _is_whole(self, end: int, last: bool) -> bool:
        """Tagged arguments may go on where they could end, and what nothing announces is a call if nothing follows."""
        if self._syntax.kind == TAGGED:
            return self._form.is_whole(self._text, end)
        return last or bool(self._form.needle)

    def _tell(self, call: Call) -> None:
        number = len(self.calls)
        self._deltas.append(Begun(number, call.id or self._new_id(), call.name))
        self._deltas.append(Argued(number, json.dumps(call.arguments, ensure_ascii=False)))
        self.calls.append(call)
        self._spoken = False

    def _go_on(self, end: int, last: bool, cut: bool) -> bool:
        """What comes behind a call: another one, or something else; True when that is known."""
        closed, again = self._form.behind(self._text, end)
        may_go_on = again is None and self._may_go_on(self._text[end:].lstrip())
        if may_go_on and not last:
            return False
        self._ended, self._closed = None, closed
        if again is not None:
            self._item = again
        else:
            self._said = self._look = len(self._text) if may_go_on and cut else closed
            self._none = not self._form.needle
        return True

    def _may_go_on(self, rest: str) -> bool:
        """Whether what stands behind a call may be the beginning of its closing, or of another call."""
        form = self._form
        closing = form.closing.strip()
        if closing.startswith(rest) and rest != closing:
            return True
        if form.blocks:
            return rest.startswith(closing) and form.needle.startswith(rest[len(closing) :].lstrip())
        return form.between.strip().startswith(rest)


def _skip(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip())


def _overlap(text: str, sign: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``sign``."""
    return next(n for n in range(min(len(text), len(sign)), -1, -1) if text.endswith(sign[:n]))
