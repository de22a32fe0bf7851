"""What may stand inside rows: text that can be written, numbers that are some, and not without end."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from edgekit.data.json_file import parse_json
from edgekit_runtime.errors import InputError

_DEEPEST = 64  # templates write values by recursion; no description of a function comes near
_SHOWN = 8
_LONGEST_NAME = 40


def check_value(value: Any, where: str) -> None:
    """Refuse what is no JSON: half characters, NaN and infinity, endless nesting, other types (of Parquet).

    Raises:
        InputError: there is such a value somewhere in ``value``.
    """
    level = [value]
    for _ in range(_DEEPEST):
        for each in level:
            _check_single(each, where)
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise InputError(f"{where}: a value is nested more than {_DEEPEST} deep", "make it flatter, or drop the row")


def names(keys: Iterable[Any]) -> str:
    """Keys as an error can show them: on one line, and not without end."""
    known = list(keys)
    shown = [name(key) for key in known[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")


def name(key: Any) -> str:
    """One key as it is written in YAML: in quotes where it isn't a plain word."""
    text = str(key) if len(str(key)) <= _LONGEST_NAME else f"{str(key)[:_LONGEST_NAME]}…"
    return text if re.fullmatch(r"[A-Za-z_][\w.-]*…?", text, re.ASCII) else json.dumps(text)


def unpacked(value: Any, key: str, where: str) -> Any:
    """A list or an object that may come as JSON text, as cells of tables have to hold it.

    Raises:
        InputError: it is text, and no JSON.
    """
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise InputError(
            f"{where}: {key} is text and no JSON ({error})", "write the list itself, or valid JSON"
        ) from None


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _check_single(value: Any, where: str) -> None:
    if isinstance(value, str):
        check_text(value, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: {value} is no number", "write one, or drop the row")
    elif not (value is None or isinstance(value, (bool, int, float, list, dict))):
        raise InputError(f"{where}: a value of type {type(value).__name__} is no JSON", "write it as text")


def check_text(text: str, where: str) -> None:
    """Refuse half characters, which no tokenizer takes.

    Raises:
        InputError: there is one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        sign = ascii(text[error.start])
        raise InputError(f"{where}: {sign} is half a character", "write the whole one, or drop the row") from None
