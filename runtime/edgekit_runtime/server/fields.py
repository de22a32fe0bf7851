"""Values of a request's body, each checked against its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.prompts.bounds import check_stops

T = TypeVar("T")


class Fields:
    """The fields of a JSON object.  One that is missing, or null, is None."""

    def __init__(self, document: dict[str, Any], within: str = "") -> None:
        """Take the object; ``within`` is the name of the field that it stands in."""
        self._document = document
        self._prefix = f"{within}." if within else ""

    def number(self, name: str, kind: Callable[..., Any], least: float | None = None, most: float | None = None) -> Any:
        """A number of ``kind`` (int or float) within bounds.

        Raises:
            InputError: it is something else.
        """
        value = self._document.get(name)
        if value is None:
            return None
        good = isinstance(value, int) or (kind is float and isinstance(value, float))
        in_bounds = good and (least is None or value >= least) and (most is None or value <= most)
        if not in_bounds or isinstance(value, bool):
            word = "a whole number" if kind is int else "a number"
            bound = "" if least is None else f" of at least {least:.15g}"
            bound += "" if most is None else f" and at most {most:.15g}"
            raise InputError(f"{self._prefix}{name} has to be {word}{bound}", "change it, or leave it out")
        try:
            return kind(value)
        except OverflowError:
            raise InputError(f"{self._prefix}{name} is too large a number", "send a smaller one") from None

    def count(self, name: str, *, or_else: int, least: int = 0, most: int = 2**31 - 1) -> int | None:
        """A whole number, where -1 stands for ``or_else``.

        Raises:
            InputError: it is something else.
        """
        value = self._document.get(name)
        if type(value) is int and value == -1:
            return or_else
        found: int | None = self.number(name, int, least, most)
        return found

    def either(self, one: str, other: str, read: Callable[[str], Any]) -> Any:
        """The value of a field that has two names.

        Raises:
            InputError: they have two values.
        """
        found = {value for name in (one, other) if (value := read(name)) is not None}
        if len(found) > 1:
            raise InputError(f"{self._prefix}{one} and {other} are the same, with two values", "send one of them")
        return next(iter(found), None)

    def flag(self, name: str) -> bool | None:
        """True or false.

        Raises:
            InputError: it is something else.
        """
        return self._of(bool, name, "true or false", "send it without quotes")

    def text(self, name: str) -> str | None:
        """Text.

        Raises:
            InputError: it is something else.
        """
        return self._of(str, name, "text", "send it in quotes")

    def one_of(self, name: str, *words: str) -> str | None:
        """One of some words.

        Raises:
            InputError: it is none of them.
        """
        value = self.text(name)
        if value is not None and value not in words:
            raise InputError(f"{self._prefix}{name} {shown(value)} is not available", f"send one of {', '.join(words)}")
        return value

    def object(self, name: str) -> dict[str, Any] | None:
        """An object.

        Raises:
            InputError: it is something else.
        """
        return self._of(dict, name, "an object", "send {} around its fields")

    def listed(self, name: str) -> list[Any] | None:
        """A list.

        Raises:
            InputError: it is something else.
        """
        return self._of(list, name, "a list", "send [] around its parts")

    def stops(self, name: str, *, bare: bool = True) -> list[str]:
        """Texts that end an answer; ``bare``: one of them may stand without a list.

        Raises:
            InputError: it is something else, one is empty, or there are too many.
        """
        value = self._document.get(name)
        stops = [] if value is None else [value] if bare and isinstance(value, str) else value
        what = f"{self._prefix}{name} has to be {'text or ' if bare else ''}a list of texts"
        if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
            raise InputError(what, 'send ["\\n\\n"], say, or leave it out')
        if not all(stops):
            raise InputError(
                f"{what}, and one of them is empty", "leave it out, as it would end each answer before it begins"
            )
        check_stops(stops)
        return stops

    def _of(self, kind: type[T], name: str, what: str, hint: str) -> T | None:
        value = self._document.get(name)
        if value is not None and not isinstance(value, kind):
            raise InputError(f"{self._prefix}{name} has to be {what}", f"{hint}, or leave it out")
        return value
