"""Calls of functions in an answer that comes piece by piece."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable
from typing import NamedTuple

from edgekit_runtime.prompts.reasoning_tags import reasoning_end
from edgekit_runtime.prompts.tool_arguments import read_json, read_object
from edgekit_runtime.prompts.tool_format import ToolFormat
from edgekit_runtime.prompts.tool_syntax import ID_SIGNS, OBJECT, TAGGED, Call, Tools, loosely

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
    """Feed pieces of an answer; get back what is said, and calls as they come.

    Where a call's arguments are JSON they come in pieces.  An answer that is cut off in the middle of a call has only
    the beginning of it.

    Attributes:
        calls: the whole ones so far.
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
        self._look = 0  # calls begin here or later
        self._open = 0  # where the calls begin that are being read
        self._item: int | None = None  # where the call begins that is being read
        self._argued: int | None = None  # its arguments have come up to here
        self._ended: int | None = None  # where the last call ended, until it is known what comes behind it
        self._closed = 0  # where its closing ended
        self._none = False  # the answer is no call
        self._count = 0
        self._deltas: list[Delta] = []
        self.calls: list[Call] = []

    def feed(self, piece: str) -> list[Delta]:
        """What is known now."""
        self._text += piece
        return self._known(last=False)

    def finish(self) -> list[Delta]:
        """What was held back."""
        return self._known(last=True)

    def _known(self, *, last: bool) -> list[Delta]:
        while True:
            if self._ended is not None:
                going = self._go_on(self._ended, last)
            elif self._item is not None:
                going = self._read(_skip(self._text, self._item), last)
            else:
                going = self._seek(last) if self._form.needle else self._try(last)
            if not going:
                deltas, self._deltas = self._deltas, []
                return deltas

    def _say(self, end: int) -> None:
        if end > self._said:
            self._deltas.append(Said(self._text[self._said : end]))
            self._said = end

    def _seek(self, last: bool) -> bool:
        """Look for what calls begin with; True when it is there."""
        form, text = self._form, self._text
        start = max(self._look, reasoning_end(text, thinking=self._thinking))
        at = text.find(form.needle, start)
        if at < 0:
            behind = text[max(start, self._said) :]
            held = 0 if last else max(_overlap(behind, each) for each in (form.gap + form.needle, form.needle))
            self._say(len(text) - held)
            return False
        before = text[self._said : at]
        self._say(at - len(form.gap) if before.endswith(form.gap) else at)
        self._open, self._item, self._argued = at, at + len(form.needle), None
        return True

    def _try(self, last: bool) -> bool:
        """Calls that nothing announces are the whole answer; True when it looks like one."""
        at = _skip(self._text, reasoning_end(self._text, thinking=self._thinking))
        if self._none or (last and at == len(self._text)):
            self._say(len(self._text))
            return False
        if at == len(self._text):
            return False
        if self._syntax.kind == OBJECT and not _begins_like(self._text[at:], self._syntax.head):
            self._none = True
            return True
        self._say(at)
        self._open, self._item, self._argued = at, at, None
        return True

    def _read(self, at: int, last: bool) -> bool:
        """A call; True when it is all there, or none."""
        found = self._syntax.read(self._text, at, self._tools)
        if found is not None and (last or self._is_whole(found[1])):
            call, end = found
            self._tell(call, at)
            self.calls.append(call)
            self._item, self._argued, self._ended = None, None, end
            return True
        if not last:
            self._tell_part(at)
            return False
        if self._argued is not None:  # cut off
            self._said = len(self._text)
        self._item = None
        if self._open < self._closed:
            self._said = self._look = self._closed
        else:
            self._look = self._open + 1
        self._none = not self._form.needle
        return self._argued is None

    def _is_whole(self, end: int) -> bool:
        """Tagged arguments may go on where they could end."""
        return self._syntax.kind != TAGGED or loosely(self._text, end, self._form.closing) is not None

    def _tell(self, call: Call, at: int) -> None:
        """A whole call, or what has not come of it yet."""
        if self._argued is None:
            self._deltas.append(Begun(self._count, call.id or self._new_id(), call.name))
            text = json.dumps(call.arguments, ensure_ascii=False)
        else:
            begun = self._begun(at)
            assert begun is not None
            text = self._text[self._argued : read_object(self._text, begun[1])[1]]
        if text:
            self._deltas.append(Argued(self._count, text))
        self._count += 1

    def _tell_part(self, at: int) -> None:
        """What is there of a call whose arguments are JSON; its id has to be known, or of our own."""
        begun = None if len(self._syntax.keys) > 2 else self._begun(at)
        if begun is None:
            return
        name, start = begun
        if self._argued is None:
            self._deltas.append(Begun(self._count, self._new_id(), name))
            self._argued = start
        try:
            end = read_object(self._text, start)[1]
        except (ValueError, RecursionError):
            end = len(self._text)
        if end > self._argued:
            self._deltas.append(Argued(self._count, self._text[self._argued : end]))
            self._argued = end

    def _begun(self, at: int) -> tuple[str, int] | None:
        """The name of a call whose arguments have begun, and where."""
        match = None if self._syntax.json_begun is None else self._syntax.json_begun.match(self._text, at)
        if match is None:
            return None
        try:
            name, _ = read_json(f'"{match[1]}"', 0)
        except ValueError:
            return None
        return str(name), match.end()

    def _go_on(self, end: int, last: bool) -> bool:
        """What comes behind a call: another one, or something else; True when that is known."""
        closed, again = self._form.behind(self._text, end)
        if again is None and not last and self._may_go_on(self._text[end:].lstrip()):
            return False
        self._ended, self._closed = None, closed
        if again is not None:
            self._item = again
        else:
            self._said = self._look = closed
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


def _begins_like(text: str, head: str) -> bool:
    """Whether one of them begins with the other, white space aside."""
    one, other = "".join(text[: 2 * len(head) + 64].split()), "".join(head.split())
    return one.startswith(other) or other.startswith(one)
