"""JSON Lines, a JSON list, or an object that holds the list: records with the lines on which they start."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from edgekit.data.row import Record
from edgekit_runtime.errors import InputError

LIST_KEYS = ("data", "rows", "train")  # of an object around all rows
_MEND = "put one whole JSON object on the line"
_SPACE = re.compile(r"[ \t\r\n]*")


def starts_with_json(text: str) -> bool:
    """Whether a file is JSON whatever its name says: it begins with a whole object on a line, or a list of objects."""
    return re.match(r"\s*\[\s*\{", text) is not None or (text.lstrip()[:1] == "{" and _is_whole(_first_line(text)))


def json_records(text: str, label: str, *, by_line: bool) -> Iterable[Record]:
    """Records of a JSON file.

    Args:
        text: the file.
        label: what errors call it.
        by_line: its name says JSON Lines; what is wrong is told as that.

    Raises:
        InputError: it is no JSON; names file and line.
    """
    if text.lstrip(" \t\r\n")[:1] == "[":
        return _Document(text, label).items()
    first = _first_line(text)
    if _is_whole(first):
        if first == text.strip() and _holds_list(json.loads(first)):
            return _Document(text, label).items()
        return _lines(text, label)
    try:
        found = list(_Document(text, label).items())  # objects written over several lines
    except InputError:
        if by_line or not first.startswith("{"):
            return _lines(text, label)
        raise
    return found


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, a key is there twice, or it is nested too deeply; says so in one line.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {json.dumps(twice)} is there twice")
    return result


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _first_line(text: str) -> str:
    return text.lstrip().partition("\n")[0].strip()


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _holds_list(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(key), list) for key in LIST_KEYS)


def _lines(text: str, label: str) -> Iterator[Record]:
    # Not splitlines(): that would also cut at signs that JSON allows inside text, such as U+2028.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{label}:{number}"
        try:
            yield Record(parse_json(line.strip()), where)
        except ValueError as error:
            raise InputError(f"{where}: it is not JSON ({error})", _MEND) from None


class _Document:
    """JSON that doesn't keep to lines, read value by value so that each is known with its line."""

    def __init__(self, text: str, label: str) -> None:
        self._text, self._label = text, label
        self._at = 0
        self._counted, self._line = 0, 1  # up to where lines are counted

    def items(self) -> Iterator[Record]:
        """Elements of the list, or of the lists in the objects around it; other objects as they are."""
        while self._next():
            if self._next() == "[":
                yield from self._list()
            elif (inside := self._list_inside()) is not None:
                yield from inside
            else:
                where = self._where()
                yield Record(self._value(), where)

    def _list(self) -> Iterator[Record]:
        self._take("[")
        number, last = 0, ""
        while self._next() != "]":
            if number:
                self._take(",")
                self._next()
            number += 1
            line = self._where()
            where = f"{line} (row {number})" if line == last else line
            last = line
            yield Record(self._value(), where)
        self._take("]")

    def _list_inside(self) -> list[Record] | None:
        """Elements of the one list of an object around all rows; None when the object here is none such."""
        start = self._at
        value = self._value()
        if not _holds_list(value):
            self._at = start
            return None
        lists = [key for key in value if isinstance(value[key], list)]
        if len(lists) > 1:
            self._at = start
            self._refuse(
                f"the object has the lists {', '.join(map(json.dumps, lists))}", "keep one, or give the list alone"
            )
        end, self._at = self._at, start
        self._take("{")
        while True:
            self._next()
            key = self._value()
            self._take(":")
            if key in lists:
                self._next()
                found = list(self._list())
                self._at = end
                return found
            self._next()
            self._value()
            self._take(",")

    def _next(self) -> str:
        """The next sign that is no space; nothing at the end."""
        space = _SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at
        return self._text[self._at : self._at + 1]

    def _take(self, sign: str) -> None:
        if self._next() != sign:
            self._refuse(f"it is not JSON (Expecting {sign!r} delimiter)")
        self._at += 1

    def _value(self) -> Any:
        try:
            value, self._at = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            self._at = error.pos
            self._refuse(f"it is not JSON ({error.msg}, column {error.colno})")
        except ValueError as error:
            self._refuse(f"it is not JSON ({error})")
        except RecursionError:
            self._refuse("it is not JSON (it is nested too deeply)")
        return value

    def _where(self) -> str:
        if self._at < self._counted:
            self._counted, self._line = 0, 1
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return f"{self._label}:{self._line}"

    def _refuse(self, problem: str, hint: str = "correct the JSON there") -> NoReturn:
        raise InputError(f"{self._where()}: {problem}", hint) from None
