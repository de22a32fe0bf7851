"""From what pydantic finds wrong with a project file to the one line that says where, what, and how to mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from edgekit.project.fields import REFUSED, UNKNOWN_KEY
from edgekit.project.schema import keys_at
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.hints import did_you_mean

_OF_A_KEY = "[key]"  # how pydantic ends the place of an error in a key itself
_UNKNOWN = (UNKNOWN_KEY, "invalid_key")
_MISSING = "missing"
_NO_RECORD = "dataclass_type"
_NO_MAPPING = ("dict_type", "mapping_type")
_KINDS = {
    "string_type": ("{} is not text", "put it in quotes"),
    "int_type": ("{} is not a whole number", "write one without quotes, 8 say"),
    "float_type": ("{} is not a number", "write one without quotes, 0.5 say"),
    "bool_type": ("{} is not true or false", "write true or false"),
    "finite_number": ("{} is no number to compare with", "write one, 0.5 say"),
    "string_pattern_mismatch": ("{} is not possible", "use up to 64 letters, digits, . _ and -"),
}
_BOUNDS = {
    "greater_than_equal": ("ge", "use at least"),
    "greater_than": ("gt", "use more than"),
    "less_than_equal": ("le", "use at most"),
}
_EXAMPLES = {"adapters": "{inspection: {rank: 16}}", "columns": "{prompt: question}"}
_PATTERNS = "{down_proj: …}"


def first_mistake(file: Path, document: Any, error: ValidationError) -> InputError:
    """The mistake to tell of a project file, of those that were found.

    Unknown keys go first, because a mistyped key is often missing too; missing ones go last.  Among others it is the
    one that stands first in the file.

    Args:
        file: the project file.
        document: what ruamel.yaml has read, with the position of each key.
        error: what is wrong with it.
    """
    found = [(each, *_found(document, _place(each))) for each in error.errors(include_url=False)]
    first, place, position = min(found, key=lambda each: (_rank(each[0]["type"]), each[2]))
    problem, hint = _words(first, place, place)
    return InputError(f"{file}:{position[0] + 1}: {'.'.join(map(str, place)) or 'it'}{problem}", hint)


def setting_mistake(adapter: str, error: ValidationError) -> UsageError:
    """The mistake to tell of settings of an adapter that stand in no file, in the same words.

    Args:
        adapter: its name.
        error: what is wrong with the adapter, settings included.
    """
    first = min(error.errors(include_url=False), key=lambda each: _rank(each["type"]))
    place = _place(first)
    problem, hint = _words(first, place, ("adapters", adapter, *place))
    return UsageError(f"{'.'.join(map(str, place)) or 'it'}{problem}", hint)


def _place(error: ErrorDetails) -> tuple[int | str, ...]:
    place = error["loc"]
    return place[:-1] if place[-1:] == (_OF_A_KEY,) else place


def _rank(kind: str) -> int:
    return 0 if kind in _UNKNOWN else 2 if kind == _MISSING else 1


def _words(error: ErrorDetails, place: tuple[Any, ...], full_place: tuple[Any, ...]) -> tuple[str, str]:
    """What is wrong, to stand right behind the place, and how to mend it; ``full_place`` begins at the project."""
    kind, value, more = error["type"], error["input"], error.get("ctx", {})
    if kind == REFUSED:
        return f": {more['problem']}", more["hint"]
    if kind in _UNKNOWN:
        return ": unknown key", did_you_mean(place[-1], keys_at(full_place[:-1]), "the keys here are")
    if kind == _MISSING:
        return " is missing", "add it"
    if kind == _NO_RECORD:
        return " has to be a mapping of keys to values", "see docs/formats.md"
    if kind in _NO_MAPPING:
        return ": it has to be a mapping", f"{place[-1]}: {_EXAMPLES.get(str(place[-1]), _PATTERNS)}"
    if kind == "too_short":
        return ": there is none", "describe at least one adapter"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        bound = more[name]
        return f": {value!r} is not possible", f"{words} {int(bound) if bound == int(bound) else bound}"
    problem, hint = _KINDS.get(kind, ("{} is not possible", "see docs/formats.md"))
    return f": {problem.format(repr(value))}", hint


def _found(document: Any, place: tuple[int | str, ...]) -> tuple[tuple[Any, ...], tuple[int, int]]:
    """``place`` in the file's own keys, and line and column (from 0) of the last one.

    What has no position, because it is missing or comes from another mapping (``<<``), has that of the key around it.
    """
    keys: list[Any] = []
    position = (0, 0)
    for item in place:
        keys.append(_key(document, item))
        try:
            position = document.lc.key(keys[-1]) or position
            document = document[keys[-1]]
        except (AttributeError, KeyError, IndexError, TypeError):
            document = None
    return tuple(keys), position


def _key(document: Any, item: int | str) -> Any:
    """The key that pydantic calls ``item``: it writes true as 1, and what is no text or number as text."""
    keys = document if isinstance(document, dict) else ()
    return next((key for key in keys if key == item or str(item) in (str(key), repr(key))), item)
