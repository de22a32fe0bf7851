"""Reading a profile's TOML so that each error names file, line and key."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import MISSING, dataclass, fields
from typing import Any

from edgekit_devices.errors import BadProfileError

_TABLE = re.compile(r"^\s*\[\s*([\w-]+)\s*\]")
_KEY = re.compile(r"""^\s*["']?([\w-]+)["']?\s*=""")
# Annotation of a dataclass field -> what TOML may hold there, and how to say it.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "tuple[str, ...]": ((list,), "a list of texts"),
    "Speed | None": ((dict,), "a table"),
}


@dataclass
class ProfileFile:
    """The values of a file, and the line of each key."""

    where: str
    values: dict[str, Any]
    lines: dict[tuple[str, str], int]

    def error(self, key: str, problem: str, hint: str, table: str = "") -> BadProfileError:
        """An error about ``key``, with the line that it is on."""
        line = self.lines.get((table, key)) or self.lines.get((table, ""))
        return BadProfileError(f"{self.where}{f', line {line}' if line else ''}: {problem}", hint)

    def check(self, values: dict[str, Any], schema: type, *, table: str = "", required: bool = True) -> None:
        """Check ``values`` against a dataclass: known keys, kinds, sizes, and with ``required`` that none is missing.

        Raises:
            BadProfileError: the first thing that is wrong.
        """
        known = {field.name: field for field in fields(schema) if field.name != "name"}
        for key, value in values.items():
            if key not in known:
                close = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
                raise self.error(key, f"unknown key {key}", hint, table)
            types, kind = _KINDS[str(known[key].type)]
            if type(value) not in types or (types == (list,) and not all(isinstance(item, str) for item in value)):
                raise self.error(key, f"{key} has to be {kind}", "change its value", table)
            if type(value) in (int, float) and value < 0:
                raise self.error(key, f"{key} is below 0", "use 0 or more", table)
        missing = [name for name, each in known.items() if each.default is MISSING and name not in values]
        if missing and required:
            raise self.error("", f"{', '.join(missing)} missing", 'add it, or say extends = "PROFILE"', table)


def read_profile(text: str, where: str) -> ProfileFile:
    """Parse a file.

    Raises:
        BadProfileError: it is not TOML.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadProfileError(f"{where} is not TOML ({error})", "correct that line") from None
    return ProfileFile(where, values, _lines(text))


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Line of each ``(table, key)``, and of each table's heading under ``(table, "")``; tomllib doesn't tell."""
    lines: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if heading := _TABLE.match(line):
            table = heading[1]
            lines.setdefault((table, ""), number)
            lines.setdefault(("", table), number)
        elif key := _KEY.match(line):
            lines.setdefault((table, key[1]), number)
    return lines
