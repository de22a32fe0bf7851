"""Values of a request's body, each checked against its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit_runtime.errors import InputError, shown


class Fields:
    """The fields of a JSON object.  One that is missing, or null, is None."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Take the object."""
        self._document = document

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
            bound = "" if least is None else f" of at least {least:g}"
            bound += "" if most is None else f" and at most {most:g}"
            raise InputError(f"{name} has to be {word}{bound}", "change it, or leave it out")
        try:
            return kind(value)
        except OverflowError:
            raise InputError(f"{name} is too large a number", "send a smaller one") from None

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

    def flag(self, name: str) -> bool | None:
        """True or false.

        Raises:
            InputError: it is something else.
        """
        value = self._document.get(name)
        if value is not None and not isinstance(value, bool):
            raise InputError(f"{name} has to be true or false", "send it without quotes, or leave it out")
        return value

    def text(self, name: str) -> str | None:
        """Text.

        Raises:
            InputError: it is something else.
        """
        value = self._document.get(name)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{name} has to be text", "send it in quotes, or leave it out")
        return value

    def one_of(self, name: str, *words: str) -> str | None:
        """One of some words.

        Raises:
            InputError: it is none of them.
        """
        value = self.text(name)
        if value is not None and value not in words:
            raise InputError(f"{name} {shown(value)} is not available", f"send one of {', '.join(words)}")
        return value

    def object(self, name: str) -> dict[str, Any] | None:
        """An object.

        Raises:
            InputError: it is something else.
        """
        value = self._document.get(name)
        if value is not None and not isinstance(value, dict):
            raise InputError(f"{name} has to be an object", "send {} around its fields, or leave it out")
        return value

    def listed(self, name: str) -> list[Any] | None:
        """A list.

        Raises:
            InputError: it is something else.
        """
        value = self._document.get(name)
        if value is not None and not isinstance(value, list):
            raise InputError(f"{name} has to be a list", "send [] around its parts, or leave it out")
        return value
